"""``common.negotiation``: the rules on their own. How they look on the wire is in ``test_session``."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.negotiation import (
    BELIEF_LASTS,
    PROMPT_REPAIRS,
    REPAIR_PERIOD,
    GuestNegotiation,
    HostNegotiation,
    Offer,
)
from common.versions import Version

PERIOD = 5.0


class Deployed:
    """A guest that does not say what it uses, heard by a host; the host writes every push at once."""

    def __init__(self, *, host: Version = Version.V3, advertised: int = 3) -> None:
        self.host = HostNegotiation(host)
        self.host.connected()
        self.advertised = advertised
        self.now = 0.0

    def heartbeat(self) -> bool:
        """One heartbeat later. Whether it is answered with a push."""
        self.now += PERIOD
        self.host.heartbeat(True, self.advertised, None, self.now)
        return self._push()

    def sends(self, since: int) -> bool:
        """A message that came with version *since*. Whether it is answered with a push."""
        self.host.heard(since, self.now)
        return self._push()

    def heartbeats(self, seconds: float) -> int:
        """Heartbeats for so long. How many are answered with a push."""
        return sum(self.heartbeat() for _ in range(int(seconds / PERIOD)))

    def _push(self) -> bool:
        due = self.host.push_due
        if due:
            self.host.pushed(self.now)
        return due


def _host(supported: Optional[Version] = Version.V3) -> HostNegotiation:
    host = HostNegotiation(supported)
    host.connected()
    return host


# ---- The host: agreeing ----


def test_a_host_begins_at_0_and_knows_nothing_of_the_guest() -> None:
    host = _host()
    assert (host.agreed, host.met, host.in_use, host.push_due) == (0, False, None, False)


@pytest.mark.parametrize("supported", list(Version))
@pytest.mark.parametrize("advertised", [0, 1, 2, 3, 4, 2**70])
def test_a_heartbeat_makes_agreed_the_lower_maximum(supported: Version, advertised: int) -> None:
    host = _host(supported)
    host.heartbeat(True, advertised, 0, 0.0)
    assert host.agreed == min(supported, advertised)


@pytest.mark.parametrize("present", [True, False])
def test_a_heartbeat_without_a_valid_version_makes_agreed_0(present: bool) -> None:
    host = _host()
    host.heartbeat(True, 3, 0, 0.0)
    host.heartbeat(present, None, None, 1.0)
    assert host.agreed == 0


@pytest.mark.parametrize("advertised", [0, 3, None])
def test_a_host_that_knows_no_versions_agrees_on_nothing_and_never_pushes(advertised: Optional[int]) -> None:
    host = _host(None)
    host.heartbeat(True, advertised, 2, 0.0)
    host.heard(3, 0.0)
    assert (host.agreed, host.push_due) == (0, False)


def test_connecting_forgets_everything_that_was_known_of_the_guest() -> None:
    host = _host()
    host.heartbeat(True, 3, 1, 0.0)
    host.heard(3, 0.0)
    host.connected()
    assert vars(host) == vars(HostNegotiation(Version.V3))


# ---- The host: pushing ----


def test_a_change_is_pushed() -> None:
    host = _host()
    host.heartbeat(True, 2, None, 0.0)
    assert host.push_due


def test_a_fall_to_0_is_pushed_too() -> None:
    guest = Deployed()
    guest.heartbeat()
    guest.advertised = 0
    assert guest.heartbeat()


def test_a_fall_to_0_for_an_invalid_version_is_pushed() -> None:
    host = _host()
    host.heartbeat(True, 3, None, 0.0)
    host.pushed(0.0)
    host.heartbeat(True, None, None, 1.0)
    assert host.push_due


def test_a_guest_that_sends_no_version_is_never_pushed_to() -> None:
    host = _host()
    for in_use in (None, 3):
        host.heartbeat(False, None, in_use, 0.0)
        host.heard(3, 0.0)
        assert not host.push_due


def test_a_guest_that_stops_sending_its_version_is_no_longer_owed_a_push() -> None:
    host = _host()
    host.heartbeat(True, 3, None, 0.0)
    host.heartbeat(False, None, None, 1.0)
    assert not host.push_due


def test_a_push_that_is_still_owed_is_not_made_to_a_guest_that_no_longer_sends_its_version() -> None:
    host = _host()
    host.heartbeat(True, 0, 3, 0.0)
    assert host.push_due
    host.heartbeat(False, None, None, 1.0)
    assert not host.push_due


def test_a_push_is_owed_until_it_was_written() -> None:
    host = _host()
    host.heartbeat(True, 3, 0, 0.0)
    host.heartbeat(True, 3, 3, 1.0)
    assert host.push_due
    host.pushed(1.0)
    assert not host.push_due


# ---- The host: a guest that says what it uses ----


@pytest.mark.parametrize("in_use", [0, 1, 2, 4, 2**70])
@pytest.mark.parametrize("period", [PERIOD, 0.95 * PERIOD], ids=["on time", "a little early"])
def test_a_guest_that_says_it_uses_something_else_is_pushed_to_at_every_heartbeat(in_use: int, period: float) -> None:
    host = _host()
    for count in range(50):
        host.heartbeat(True, 3, in_use, count * period)
        assert host.push_due
        host.pushed(count * period)


def test_a_guest_that_answers_every_push_at_once_and_never_follows_does_not_keep_both_sides_busy() -> None:
    host = _host()
    pushes = 0
    for count in range(1000):
        now = count * 0.01
        host.heartbeat(True, 3, 1, now)
        if host.push_due:
            host.pushed(now)
            pushes += 1
    assert pushes < 40


def test_a_guest_that_says_it_uses_what_is_agreed_is_left_alone() -> None:
    host = _host()
    host.heartbeat(True, 3, 0, 0.0)
    host.pushed(0.0)
    for now in range(1, 1000):
        host.heartbeat(True, 3, 3, now * PERIOD)
        assert not host.push_due


def test_the_word_of_a_guest_that_says_what_it_uses_counts_more_than_what_it_sends() -> None:
    host = _host(Version.V1)
    host.heartbeat(True, 3, 0, 0.0)
    host.pushed(0.0)
    host.heard(3, 0.1)
    assert not host.push_due
    host.heartbeat(True, 3, 1, 1.0)
    assert not host.push_due


# ---- The host: a guest that does not say (a deployed one) ----


def test_a_message_newer_than_agreed_is_answered_with_a_push() -> None:
    guest = Deployed(host=Version.V1)
    guest.heartbeat()
    assert guest.sends(2)


def test_a_message_that_agreed_allows_is_not_answered_with_a_push() -> None:
    guest = Deployed()
    guest.heartbeat()
    assert not guest.sends(3)


def test_messages_newer_than_agreed_are_answered_at_once_at_most_once_per_heartbeat() -> None:
    guest = Deployed(host=Version.V1)
    guest.heartbeat()
    assert [guest.sends(3) for _ in range(4)] == [True, False, False, False]
    guest.heartbeat()
    assert [guest.sends(3) for _ in range(4)] == [True, False, False, False]


def test_a_newer_message_after_the_push_shows_at_the_heartbeat_that_the_push_was_lost() -> None:
    guest = Deployed(host=Version.V1)
    guest.heartbeat()
    guest.sends(3)
    guest.sends(3)
    assert guest.heartbeat()


def test_after_a_push_that_was_followed_the_heartbeat_is_quiet() -> None:
    guest = Deployed(host=Version.V1)
    guest.heartbeat()
    guest.sends(3)
    guest.sends(1)
    assert not guest.heartbeat()


def test_a_newer_message_is_answered_when_nothing_but_0_is_agreed() -> None:
    guest = Deployed(host=Version.V0)
    assert not guest.heartbeat()
    assert guest.sends(1)


def test_a_newer_message_before_the_first_heartbeat_is_repaired_at_it() -> None:
    guest = Deployed(host=Version.V0)
    assert not guest.sends(3)
    assert guest.heartbeat()


def test_a_guest_that_is_not_believed_is_pushed_to_at_two_heartbeats_and_then_once_a_minute() -> None:
    guest = Deployed()
    assert guest.heartbeat()
    assert [guest.heartbeat() for _ in range(PROMPT_REPAIRS + 1)] == [True, True, False]
    assert guest.heartbeats(10 * REPAIR_PERIOD) == 10


@pytest.mark.parametrize("since", [1, 2, 3])
def test_a_guest_that_sent_something_newer_than_0_is_believed_for_a_while(since: int) -> None:
    guest = Deployed()
    guest.heartbeat()
    guest.sends(since)
    assert guest.heartbeats(BELIEF_LASTS) == 0
    assert guest.heartbeat()


@pytest.mark.parametrize("agreed", [1, 2, 3])
def test_a_guest_that_follows_the_push_and_reports_as_deployed_ones_do_is_never_pushed_to_again(agreed: int) -> None:
    guest = Deployed(advertised=agreed)
    assert guest.heartbeat()
    for version in range(1, agreed + 1):
        guest.sends(version)
    for minute in range(30):
        guest.sends(1)
        if agreed == 3 and minute % 2:
            guest.sends(3)
        assert guest.heartbeats(60.0) == 0


def test_a_guest_that_only_ever_shows_a_lower_version_is_told_again_once_and_then_trusted() -> None:
    guest = Deployed()
    guest.heartbeat()
    pushes = []
    for _ in range(60):
        guest.sends(1)
        pushes.append(guest.heartbeats(60.0))
    assert sum(pushes) == PROMPT_REPAIRS
    assert sum(pushes[:4]) == PROMPT_REPAIRS


def test_when_belief_has_run_out_the_first_two_heartbeats_repair_again() -> None:
    guest = Deployed()
    guest.heartbeat()
    guest.sends(1)
    guest.heartbeats(BELIEF_LASTS)
    assert [guest.heartbeat() for _ in range(PROMPT_REPAIRS + 1)] == [True, True, False]


@pytest.mark.parametrize("since", [0, 2])
def test_what_shows_another_version_than_the_agreed_one_is_no_reason_to_believe(since: int) -> None:
    guest = Deployed(host=Version.V1)
    guest.heartbeat()
    guest.sends(since)
    assert [guest.heartbeat() for _ in range(PROMPT_REPAIRS)] == [True, True]


def test_a_guest_agreed_at_0_needs_not_be_believed() -> None:
    guest = Deployed(advertised=0)
    assert guest.heartbeats(600.0) == 0


def test_belief_in_an_older_agreement_is_none_in_a_new_one() -> None:
    guest = Deployed()
    guest.heartbeat()
    guest.sends(3)
    guest.advertised = 2
    assert guest.heartbeat()
    assert guest.heartbeat()


def test_while_nothing_can_be_written_doubt_owes_one_push_only() -> None:
    host = _host()
    for now in range(5):
        host.heartbeat(True, 3, None, now * PERIOD)
        assert host.push_due
    host.pushed(30.0)
    host.heartbeat(True, 3, None, 31.0)
    assert not host.push_due


# ---- The host: what it believes the guest uses ----


def test_a_guest_is_believed_to_use_what_it_says() -> None:
    host = _host()
    host.heartbeat(True, 3, 1, 0.0)
    assert host.in_use == 1


def test_a_deployed_guest_is_believed_at_agreed_once_it_sent_something_newer_than_0() -> None:
    guest = Deployed()
    guest.heartbeat()
    assert guest.host.in_use is None
    guest.sends(1)
    assert guest.host.in_use == 3


def test_a_deployed_guest_is_no_longer_believed_when_it_sent_nothing_of_the_kind_for_too_long() -> None:
    guest = Deployed()
    guest.heartbeat()
    guest.sends(1)
    guest.heartbeats(BELIEF_LASTS + 2 * PERIOD)
    assert guest.host.in_use is None


def test_a_deployed_guest_agreed_at_0_is_believed_there_unless_it_sends_something_newer() -> None:
    guest = Deployed(advertised=0)
    guest.heartbeat()
    assert guest.host.in_use == 0
    guest.host.heard(1, guest.now)
    assert guest.host.in_use is None


# ---- The guest ----


def _guest(supported: Optional[Version] = Version.V3) -> GuestNegotiation:
    return GuestNegotiation(supported)


def test_a_guest_begins_at_0_and_has_seen_no_offer() -> None:
    guest = _guest()
    assert (guest.in_use, guest.offer) == (0, Offer.UNSEEN)


@pytest.mark.parametrize("supported", list(Version))
@pytest.mark.parametrize("pushed", [0, 1, 2, 3, 4, 2**70])
def test_a_push_puts_the_lower_one_of_it_and_the_own_maximum_in_use(supported: Version, pushed: int) -> None:
    guest = _guest(supported)
    guest.pushed(pushed)
    assert guest.in_use == min(supported, pushed)


def test_a_push_is_followed_downwards_too() -> None:
    guest = _guest()
    guest.pushed(3)
    guest.pushed(1)
    assert guest.in_use == 1


@pytest.mark.parametrize("offered", [None, 0, 3, 2**70])
def test_a_refresh_puts_0_in_use_whatever_it_offers(offered: Optional[int]) -> None:
    guest = _guest()
    guest.pushed(3)
    guest.refreshed(offered, host_repairs=True)
    assert guest.in_use == 0


def test_a_changed_channel_puts_0_in_use_and_forgets_the_host() -> None:
    guest = _guest()
    guest.refreshed(3, host_repairs=True)
    guest.pushed(3)
    guest.channel_changed()
    assert vars(guest) == vars(_guest())


def test_a_host_that_does_not_repair_is_provoked_until_it_pushes() -> None:
    guest = _guest()
    guest.refreshed(3, host_repairs=False)
    assert guest.must_provoke
    guest.pushed(3)
    assert not guest.must_provoke


def test_a_push_of_0_is_an_answer_too() -> None:
    guest = _guest()
    guest.refreshed(3, host_repairs=False)
    guest.pushed(0)
    assert not guest.must_provoke


def test_a_host_that_repairs_is_never_provoked() -> None:
    guest = _guest()
    guest.refreshed(3, host_repairs=True)
    assert not guest.must_provoke


def test_a_host_that_knows_no_versions_is_not_provoked() -> None:
    guest = _guest()
    guest.refreshed(None, host_repairs=False)
    assert not guest.must_provoke


def test_while_no_refresh_has_been_seen_the_host_is_provoked() -> None:
    assert _guest().must_provoke


@pytest.mark.parametrize("supported", [None, Version.V0])
def test_a_guest_that_has_nothing_to_gain_provokes_nobody(supported: Optional[Version]) -> None:
    assert not _guest(supported).must_provoke


# ---- Whatever happens ----

_VERSIONS = st.none() | st.integers(0, 5) | st.just(2**70)
_STEPS = st.one_of(
    st.tuples(st.just("heartbeat"), st.booleans(), _VERSIONS, _VERSIONS),
    st.tuples(st.just("heard"), st.integers(0, 5)),
    st.tuples(st.just("pushed")),
    st.tuples(st.just("connected")),
)


@given(st.sampled_from([None, *Version]), st.lists(_STEPS, max_size=20), st.floats(0, 200))
def test_whatever_happens_agreed_is_never_above_either_maximum(
    supported: Optional[Version], steps: list[tuple[object, ...]], pace: float
) -> None:
    host = _host(supported)
    for count, (step, *values) in enumerate(steps):
        now = count * pace
        if step == "heartbeat":
            present, advertised, in_use = values
            host.heartbeat(bool(present), advertised if present else None, in_use, now)  # type: ignore[arg-type]
        elif step == "heard":
            host.heard(values[0], now)  # type: ignore[arg-type]
        elif step == "pushed" and host.push_due:
            host.pushed(now)
        elif step == "connected":
            host.connected()
        assert host.agreed <= min(supported or 0, host.advertised or 0)
        assert host.takes_pushes or not host.push_due
