"""``common.session``: what the rules of the negotiation look like on the wire, and what else a shell relies on.

Hostile lines have a file of their own, ``test_hostile``.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Optional, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import codec, errors, events, messages, session, versions
from common.catalogue import CATALOGUE, Direction, Row
from common.errors import EVIDENCE_LIMIT
from common.framing import LINE_LIMIT
from common.session import COMPLAINT_PERIOD, HEARTBEAT_PERIOD, SILENCE_LIMIT, GuestSession, HostSession, Session
from common.versions import Version

from .pair import Cut, Pair, message_to_host, read_lines
from .samples import arguments_for

E = TypeVar("E")

CUTS = pytest.mark.parametrize("cut", list(Cut), ids=lambda cut: cut.value)

#: Values of ``apiVersion`` that are none.
INVALID = [None, True, False, 3.0, 0.5, -1, -(2**70), "3", " 3 ", "3_0", "", [], [3], {}, {"v": 3}]
INVALID_VERSIONS = pytest.mark.parametrize("invalid", INVALID, ids=repr)

Line = tuple[str, dict[str, Any]]


def _feed(peer: Session, name: str, arguments: Optional[Mapping[str, Any]] = None, *, now: float = 1.0) -> list[Line]:
    """Give *peer* one line; what it writes then."""
    peer.receive_data(codec.encode(name, arguments or {}), now)
    return read_lines(peer.data_to_send())


#: Messages that a session sends by its own rules.
NEGOTIATING = (messages.Refresh, messages.ApiVersion, messages.Heartbeat)

#: What operators send, and those commands of it that a guest must have said it carries out.
COMMANDS = [row for row in CATALOGUE.rows if row.is_command]
ALL_COMMANDS = {row.name: True for row in COMMANDS}


def _heartbeat(host: HostSession, *, now: float = 1.0, **arguments: Any) -> list[Line]:
    """A heartbeat with these arguments comes to *host*; what it writes then."""
    return _feed(host, "heartbeat", arguments, now=now)


def _of(kind: type[E], happened: Iterable[object]) -> list[E]:
    return [event for event in happened if isinstance(event, kind)]


def _push(version: int) -> list[Line]:
    return [("api-version", {"apiVersion": version})]


def _host(
    supported: Optional[Version] = Version.V3,
    *,
    advertised: Optional[int] = None,
    capable: Optional[Mapping[str, bool]] = None,
) -> HostSession:
    """A connected host that has written its greeting, and has agreed with a guest that *advertised* a version.

    :param capable: what that guest has said of its commands.
    """
    host = HostSession(supported, "host-1")
    host.connected(0.0)
    if advertised is not None:
        _heartbeat(host, now=0.0, apiVersion=advertised)
    if capable is not None:
        _say_capabilities(host, capable)
    host.data_to_send()
    host.events()
    return host


def _say_capabilities(host: HostSession, commands: Mapping[str, Any], *, now: float = 0.0) -> None:
    _feed(host, "capabilities", {"commands": dict(commands), "features": []}, now=now)


def _newest_host(capable: Optional[Mapping[str, bool]] = None) -> HostSession:
    """A host that agreed with its guest on the newest version."""
    return _host(versions.newest(), advertised=versions.newest(), capable=capable)


def _command(row: Row) -> messages.Message:
    """A valid command of that row."""
    command, _ = row.message_class.from_arguments(arguments_for(row))
    return command


def _guest(supported: Optional[Version] = Version.V3, *, pushed: Optional[int] = None) -> GuestSession:
    """A guest with an open port that has said hello, and has been *pushed* a version."""
    guest = GuestSession(supported, "agent-1")
    guest.opened(0.0)
    if pushed is not None:
        _feed(guest, "api-version", {"apiVersion": pushed}, now=0.0)
    guest.data_to_send()
    guest.events()
    return guest


def _written_heartbeats(guest: GuestSession) -> list[dict[str, Any]]:
    """What the guest writes when it is asked for a heartbeat now."""
    guest.send_heartbeat("512", {"mem_free": 1})
    lines = read_lines(guest.data_to_send())
    assert {name for name, _ in lines} == {"heartbeat"}
    return [arguments for _, arguments in lines]


# ---- Host 1: on every (re)connect ----


@pytest.mark.parametrize("supported", list(Version))
def test_on_every_connect_the_host_sends_a_bare_newline_and_then_a_refresh_with_its_version_and_id(
    supported: Version,
) -> None:
    host = HostSession(supported, "host-1")
    for _ in range(2):
        host.connected(0.0)
        first, *lines = host.data_to_send().split(b"\n")
        assert first == b""
        assert [codec.decode(line) for line in lines if line] == [
            ("refresh", {"apiVersion": int(supported), "hostId": "host-1"})
        ]
        host.disconnected()


def test_a_host_that_knows_no_versions_sends_a_refresh_without_any() -> None:
    host = HostSession(None, "host-1")
    host.connected(0.0)
    assert host.data_to_send() == b'\n{"__name__":"refresh"}\n'


def test_the_bare_newline_ends_what_an_earlier_host_left_in_the_guests_buffer() -> None:
    guest = _guest()
    guest.receive_data(b'{"__name__": "shutdo', 0.0)
    host = HostSession(Version.V3, "host-1")
    host.connected(1.0)
    guest.receive_data(host.data_to_send(), 1.0)
    assert guest.counters.dropped == {"malformed": 1}
    assert _of(events.HeartbeatWanted, guest.events())


def test_on_every_reconnect_agreed_is_0_whatever_was_agreed_before() -> None:
    host = _host(advertised=3)
    assert host.negotiation.agreed == 3
    host.disconnected()
    host.connected(1.0)
    assert host.negotiation.agreed == 0
    with pytest.raises(errors.VersionTooLow):
        host.send(messages.SetNumberOfCpus(count=2))


def test_a_reconnect_without_a_disconnect_starts_from_nothing_too() -> None:
    host = _host(advertised=3)
    host.pause_writing()
    host.receive_data(b'{"__name__": "hea', 1.0)
    host.connected(2.0)
    assert read_lines(host.data_to_send()) == [("refresh", {"apiVersion": 3, "hostId": "host-1"})]
    assert _heartbeat(host, apiVersion=2) == _push(2)


def test_what_was_queued_for_an_old_channel_is_not_written_to_a_new_one() -> None:
    host = _host(advertised=3)
    host.send(messages.LockScreen())
    host.disconnected()
    assert host.data_to_send() == b""
    host.connected(1.0)
    assert [name for name, _ in read_lines(host.data_to_send())] == ["refresh"]


# ---- Host 2: the heartbeat ----


@pytest.mark.parametrize("supported", list(Version))
@pytest.mark.parametrize("advertised", [*range(len(Version) + 1), 2**70])
def test_agreed_is_the_lower_one_of_supported_and_advertised(supported: Version, advertised: int) -> None:
    host = _host(supported)
    _heartbeat(host, apiVersion=advertised)
    assert host.negotiation.agreed == min(supported, advertised)


@INVALID_VERSIONS
def test_an_advertised_version_that_is_no_integer_from_0_on_counts_as_0(invalid: Any) -> None:
    host = _host(advertised=3)
    assert _heartbeat(host, apiVersion=invalid) == _push(0)
    assert host.negotiation.agreed == 0
    assert host.counters.invalid_versions == 1


def test_a_missing_version_counts_as_0() -> None:
    host = _host(advertised=3)
    _heartbeat(host)
    assert host.negotiation.agreed == 0
    assert host.counters.invalid_versions == 0


def test_an_invalid_version_is_said_once_and_not_once_per_heartbeat() -> None:
    host = _host()
    said = []
    for heartbeat in range(200):
        _heartbeat(host, now=5.0 * heartbeat, apiVersion="3")
        said += _of(events.Complaint, host.events())
    assert host.counters.invalid_versions == 200
    assert len(said) == 1
    assert "apiVersion" in said[0].text
    assert "3" in said[0].text


def test_an_invalid_version_is_said_again_on_a_new_connection() -> None:
    host = _host()
    _heartbeat(host, apiVersion=None)
    host.events()
    host.connected(100.0)
    _heartbeat(host, now=101.0, apiVersion=None)
    assert len(_of(events.Complaint, host.events())) == 1


def test_a_heartbeat_with_a_bad_figure_still_negotiates() -> None:
    host = _host()
    assert _feed(host, "heartbeat", {"apiVersion": 2, "memory-stat": "much", "free-ram": [], "agentId": 7}) == _push(2)
    assert host.counters.mistyped == 1
    assert len(_of(events.MessageReceived, host.events())) == 1


# ---- Host 3: the push ----


def test_agreed_is_pushed_whenever_it_changed_also_when_it_fell_to_0() -> None:
    host = _host()
    assert [_heartbeat(host, apiVersion=version) for version in (3, 1, 2, 0, 3)] == [
        _push(3),
        _push(1),
        _push(2),
        _push(0),
        _push(3),
    ]
    assert host.counters.pushes == 5


def test_a_guest_that_sends_no_version_is_never_pushed_to() -> None:
    host = _host(advertised=3)
    for heartbeat in range(100):
        assert _heartbeat(host, now=5.0 * heartbeat) == []
        assert _feed(host, "containers", {"list": []}, now=5.0 * heartbeat + 1) == []


def test_a_host_that_knows_no_versions_never_pushes() -> None:
    host = _host(None)
    for heartbeat in range(100):
        assert _heartbeat(host, now=5.0 * heartbeat, apiVersion=3, apiVersionInUse=3) == []


# ---- Host 4: repair ----


@pytest.mark.parametrize("in_use", [0, 1, 3])
def test_a_heartbeat_that_says_another_version_in_use_than_agreed_is_answered_with_a_push(in_use: int) -> None:
    host = _host(Version.V2, advertised=3)
    for now in range(3):
        assert _heartbeat(host, now=5.0 * now, apiVersion=3, apiVersionInUse=in_use) == _push(2)
    assert _heartbeat(host, now=20.0, apiVersion=3, apiVersionInUse=2) == []


def test_a_guest_that_sends_something_newer_is_pushed_to_again_at_once_at_most_once_per_heartbeat() -> None:
    host = _host(Version.V1, advertised=3)
    facts = [_feed(host, "containers", {"list": []}, now=1.0 + count) for count in range(3)]
    assert facts == [_push(1), [], []]


def test_something_newer_than_supported_is_answered_with_a_push_like_anything_newer_than_agreed() -> None:
    host = _host(Version.V1, advertised=1)
    assert _feed(host, "os-info", arguments_for(_row_to_host("os-info"))) == _push(1)


def test_a_silent_guest_is_pushed_to_at_the_first_two_heartbeats_and_then_once_a_minute() -> None:
    host = _host(advertised=3)
    answered = [now for now in range(5, 200, 5) if _heartbeat(host, now=float(now), apiVersion=3)]
    assert answered == [5, 10, 70, 130, 190]


def test_a_guest_that_shows_it_uses_what_is_agreed_is_left_alone() -> None:
    host = _host(advertised=3)
    for now in range(5, 2000, 5):
        if now % 60 == 5:
            _feed(host, "containers", {"list": []}, now=float(now))
        assert _heartbeat(host, now=float(now), apiVersion=3) == []


def test_a_push_that_could_not_be_written_is_due_again() -> None:
    host = _host()
    host.pause_writing()
    assert _heartbeat(host, apiVersion=3) == []
    assert host.counters.pushes == 0
    host.resume_writing(2.0)
    assert read_lines(host.data_to_send()) == _push(3)
    assert host.counters.pushes == 1


def test_a_push_that_could_not_be_written_to_a_guest_that_then_sends_no_version_is_never_made() -> None:
    host = _host()
    host.pause_writing()
    _heartbeat(host, apiVersion=0, apiVersionInUse=3)
    _heartbeat(host)
    host.resume_writing(2.0)
    assert host.data_to_send() == b""


def test_of_many_pushes_that_could_not_be_written_only_the_last_agreement_is_pushed() -> None:
    host = _host()
    host.pause_writing()
    for version in (3, 0, 2, 1):
        _heartbeat(host, apiVersion=version)
    host.resume_writing(2.0)
    assert read_lines(host.data_to_send()) == _push(1)


# ---- Host 5: inbound ----


def _row_to_host(name: str) -> Any:
    return CATALOGUE.find(Direction.TO_HOST, name)


@pytest.mark.parametrize(
    ("name", "why"), [("no-such-message", "unknown"), ("shutdown", "wrong-direction"), ("timezone", "newer-than-supported")]
)
def test_what_is_unknown_or_goes_the_other_way_or_is_newer_than_supported_is_dropped_and_counted_by_name(
    name: str, why: str
) -> None:
    host = _host(Version.V1, advertised=1)
    for _ in range(3):
        _feed(host, name, {"zone": "Etc/UTC", "offset": 0})
    assert host.counters.dropped == {why: 3}
    assert host.counters.dropped_names == {name: 3}
    assert _of(events.MessageReceived, host.events()) == []


def test_a_bounded_number_of_names_is_counted_apart() -> None:
    host = _host()
    for count in range(1000):
        _feed(host, f"name-{count}" + "x" * 100)
    names = host.counters.dropped_names
    assert sum(names.values()) == 1000
    assert len(names) == session.DROPPED_NAMES_LIMIT + 1
    assert names[session.OTHER_NAMES] == 1000 - session.DROPPED_NAMES_LIMIT
    assert max(map(len, names)) == session.DROPPED_NAME_LENGTH


def test_there_is_never_more_than_one_log_line_a_minute() -> None:
    host = _host()
    said = []
    for second in range(600):
        for _ in range(5):
            _feed(host, "no-such-message", now=float(second))
        said += [(second, event.text) for event in _of(events.Complaint, host.events())]
    assert [second for second, _ in said] == list(range(0, 600, int(COMPLAINT_PERIOD)))
    assert said[0][1] == "dropped: a message that the table does not have: 'no-such-message'"
    assert said[1][1] == f"{said[0][1]} (299 more like this since the last line)"


def test_what_is_newer_than_agreed_but_supported_is_accepted_and_counted() -> None:
    host = _host(advertised=1)
    _feed(host, "containers", {"list": []})
    assert [event.name for event in _of(events.MessageReceived, host.events())] == ["containers"]
    assert host.counters.newer_than_agreed == 1
    assert host.counters.dropped == {}


def test_unknown_arguments_are_ignored_and_missing_optional_ones_take_their_defaults() -> None:
    host = _host()
    _heartbeat(host, of_the_future=[1])
    assert [event.message for event in _of(events.MessageReceived, host.events())] == [messages.Heartbeat()]
    assert host.counters.mistyped == 0


def test_a_line_that_reaches_the_limit_is_dropped_and_shown_by_how_it_began() -> None:
    host = _host()
    host.receive_data(b"x" * LINE_LIMIT, 1.0)
    assert host.counters.dropped == {"overlong": 1}
    assert [event.text for event in _of(events.Complaint, host.events())] == [
        f"dropped: a line reached {LINE_LIMIT} bytes: {'x' * EVIDENCE_LIMIT!r}"
    ]


@pytest.mark.parametrize("arguments", [{}, {"count": "4"}, {"count": True}, {"count": None}])
def test_a_missing_or_mistyped_required_argument_drops_that_message_only(arguments: dict[str, Any]) -> None:
    host = _host(advertised=3)
    _feed(host, "number-of-cpus", arguments)
    assert host.counters.dropped == {"invalid-arguments": 1}
    assert [event.text.split(":")[:3] for event in _of(events.Complaint, host.events())] == [
        ["dropped", " number-of-cpus", " count"]
    ]
    _feed(host, "number-of-cpus", {"count": 4})
    assert [event.message for event in _of(events.MessageReceived, host.events())] == [messages.NumberOfCpus(count=4)]


# ---- Host 6: outbound ----


@pytest.mark.parametrize(
    ("supported", "advertised", "remedy"),
    [
        (Version.V3, None, ""),
        (Version.V3, 2, ": upgrade the guest"),
        (Version.V2, 3, ": upgrade the host"),
        (Version.V1, 2, ": upgrade both sides"),
        (None, 3, ": upgrade the host"),
        (None, 0, ": upgrade both sides"),
    ],
)
def test_a_command_newer_than_agreed_is_refused_and_the_error_says_who_must_be_upgraded(
    supported: Optional[Version], advertised: Optional[int], remedy: str
) -> None:
    host = _host(supported, advertised=advertised)
    agreed = min(supported or 0, advertised or 0)
    with pytest.raises(errors.VersionTooLow) as caught:
        host.send(messages.LifecycleEvent(type="before_migration"))
    assert str(caught.value) == f"lifecycle-event needs API 3, spoken is API {agreed}{remedy}"
    assert host.data_to_send() == b""


def test_before_the_first_heartbeat_only_a_host_that_is_too_old_itself_is_to_be_upgraded() -> None:
    with pytest.raises(errors.VersionTooLow) as caught:
        _host(Version.V2).send(messages.LifecycleEvent(type="before_migration"))
    assert caught.value.upgrade == "host"


def test_what_negotiates_is_sent_by_the_session_and_by_nobody_else() -> None:
    for peer, message in (
        (_host(advertised=3), messages.Refresh()),
        (_host(advertised=3), messages.ApiVersion(api_version=0)),
        (_guest(pushed=3), messages.Heartbeat()),
    ):
        with pytest.raises(errors.NotForCallers, match=r"the session sends it by its own rules$"):
            peer.send(message)
        assert peer.data_to_send() == b""


def test_what_comes_from_a_channel_that_is_gone_is_ignored() -> None:
    host = _host(advertised=3)
    host.disconnected()
    host.events()
    before = host.counters.as_mapping()
    _heartbeat(host, now=1.0)
    assert (host.events(), host.responsive, host.counters.as_mapping()) == ([], False, before)
    guest = _guest(pushed=3)
    guest.host_gone()
    guest.events()
    guest.receive_data(b'{"__name__": "refresh"}\n', 1.0)
    assert guest.events() == []


def test_a_mistyped_agent_id_is_no_restart() -> None:
    host = _host()
    for agent_id in ("a", 7, "a"):
        _heartbeat(host, agentId=agent_id)
    assert _of(events.AgentRestarted, host.events()) == []


@pytest.mark.parametrize("agreed", list(Version))
def test_a_command_is_written_exactly_when_agreed_allows_it(agreed: Version) -> None:
    for row in COMMANDS:
        host = _host(versions.newest(), advertised=int(agreed), capable=ALL_COMMANDS)
        if row.since <= agreed:
            host.send(_command(row))
            assert read_lines(host.data_to_send()) == [(row.name, arguments_for(row))]
        else:
            with pytest.raises(errors.VersionTooLow):
                host.send(_command(row))
            assert host.data_to_send() == b""


def test_a_message_that_only_the_guest_sends_is_refused() -> None:
    with pytest.raises(errors.NotInCatalogue, match=r"^Fqdn is no message host → guest$"):
        _host(advertised=3).send(messages.Fqdn(fqdn="x"))


def test_without_a_channel_a_command_is_refused() -> None:
    host = HostSession(Version.V3, "host-1")
    with pytest.raises(errors.NotConnected, match=r"^lock-screen: there is no channel to the peer$"):
        host.send(messages.LockScreen())


def test_to_a_guest_that_does_not_read_a_command_is_refused() -> None:
    host = _host(advertised=3)
    host.pause_writing()
    with pytest.raises(errors.Congested, match=r"^lock-screen: the peer does not read$"):
        host.send(messages.LockScreen())
    host.resume_writing(1.0)
    host.send(messages.LockScreen())
    assert read_lines(host.data_to_send()) == [("lock-screen", {})]


def test_a_command_that_cannot_be_put_on_a_line_leaves_nothing_behind() -> None:
    host = _host(advertised=3)
    with pytest.raises(errors.EncodingError):
        host.send(messages.Echo(more={"a": float("nan")}))
    assert host.data_to_send() == b""


# ---- The host: what else a shell relies on ----


def _changes(host: HostSession) -> list[tuple[int, int, events.Reason]]:
    return [(event.old, event.new, event.reason) for event in _of(events.VersionChanged, host.events())]


def test_two_heartbeats_in_one_go_that_provoke_a_push_are_one_agreement() -> None:
    host = _host()
    pair = [codec.encode("heartbeat", {"apiVersion": version, "agentId": "a"}) for version in (0, 3)]
    host.receive_data(b"".join(pair), 1.0)
    assert _changes(host) == [(0, 3, events.Reason.FIRST_AGREEMENT)]


@pytest.mark.parametrize(
    ("supported", "arguments", "reason", "why"),
    [
        (Version.V3, {}, events.Reason.GUEST_WITHOUT_VERSION, "it supports no versions, this host up to API 3"),
        (Version.V3, {"apiVersion": "3"}, events.Reason.GUEST_INVALID_VERSION, "it supports an unknown version, this host"),
        (None, {"apiVersion": 3}, events.Reason.FIRST_AGREEMENT, "it supports up to API 3, this host no versions"),
    ],
)
def test_a_first_agreement_is_reported_also_when_it_is_0(
    supported: Optional[Version], arguments: dict[str, Any], reason: events.Reason, why: str
) -> None:
    host = _host(supported)
    _heartbeat(host, **arguments)
    (event,) = _of(events.VersionChanged, host.events())
    assert (event.old, event.new, event.reason) == (0, 0, reason)
    assert why in event.why
    _heartbeat(host, **arguments)
    assert _changes(host) == []


def test_a_connection_that_is_opened_anew_ends_what_was_agreed() -> None:
    host = _host(advertised=3)
    host.disconnected()
    host.connected(1.0)
    assert _changes(host) == [(3, 0, events.Reason.CHANNEL)]
    host.connected(2.0)
    assert _changes(host) == []


def test_an_agent_that_was_restarted_is_no_upgrade() -> None:
    host = _host()
    _heartbeat(host, apiVersion=1, agentId="a")
    assert _changes(host) == [(0, 1, events.Reason.FIRST_AGREEMENT)]
    host.receive_data(b"".join(codec.encode("heartbeat", {"apiVersion": n, "agentId": "b"}) for n in (0, 1)), 1.0)
    assert _changes(host) == []
    host.receive_data(b"".join(codec.encode("heartbeat", {"apiVersion": n, "agentId": "c"}) for n in (0, 3)), 1.0)
    assert _changes(host) == [(1, 3, events.Reason.AGENT_RESTARTED)]


def test_heartbeats_without_a_version_are_counted() -> None:
    host = _host()
    for arguments in ({}, {"apiVersion": 3}, {"apiVersion": None}, {}):
        _heartbeat(host, **arguments)
    assert (host.counters.without_version, host.counters.invalid_versions) == (2, 1)


def test_the_name_of_a_message_shows_what_a_guest_uses_whatever_its_arguments_are() -> None:
    host = _host(advertised=3)
    assert host.negotiation.in_use is None
    _feed(host, "containers", {"list": "none"})
    assert host.negotiation.in_use == 3


def test_a_version_that_changed_is_reported_with_its_reason() -> None:
    host = _host(Version.V2)
    reported = []
    for arguments in ({"apiVersion": 1}, {"apiVersion": 3}, {"apiVersion": 1}, {}, {"apiVersion": 2}, {"apiVersion": None}):
        host.receive_data(codec.encode("heartbeat", arguments), 1.0)
        reported += _of(events.VersionChanged, host.events())
    assert [(int(event.old), int(event.new), event.reason) for event in reported] == [
        (0, 1, events.Reason.FIRST_AGREEMENT),
        (1, 2, events.Reason.GUEST_UPGRADED),
        (2, 1, events.Reason.GUEST_DOWNGRADED),
        (1, 0, events.Reason.GUEST_WITHOUT_VERSION),
        (0, 2, events.Reason.GUEST_UPGRADED),
        (2, 0, events.Reason.GUEST_INVALID_VERSION),
    ]
    assert reported[0].why == "first agreement of this connection: it supports up to API 1, this host up to API 2"
    assert reported[3].why == "the guest sends no version: it supports no versions, this host up to API 2"


def test_the_reason_is_one_short_clause_however_long_the_number_that_the_guest_sends() -> None:
    host = _host()
    _heartbeat(host, apiVersion=10**4000)
    (changed,) = _of(events.VersionChanged, host.events())
    assert changed.new == 3
    assert len(changed.why) < 200


def test_a_guest_that_is_heard_is_responsive_until_it_was_silent_for_too_long() -> None:
    host = _host()
    assert host.next_deadline() is None
    _heartbeat(host, now=1.0)
    assert _of(events.Responsive, host.events()) == [events.Responsive()]
    _heartbeat(host, now=5.0)
    assert _of(events.Responsive, host.events()) == []
    assert host.next_deadline() == 5.0 + SILENCE_LIMIT
    host.tick(5.0 + SILENCE_LIMIT - 0.1)
    assert host.events() == []
    host.tick(5.0 + SILENCE_LIMIT)
    assert host.events() == [events.Unresponsive(SILENCE_LIMIT)]
    assert host.next_deadline() is None
    host.tick(100.0)
    assert host.events() == []
    _heartbeat(host, now=101.0)
    assert _of(events.Responsive, host.events()) == [events.Responsive()]


def test_the_silence_that_is_allowed_can_be_set() -> None:
    host = HostSession(Version.V3, "host-1", silence_limit=60.0)
    host.connected(0.0)
    _heartbeat(host, now=1.0)
    assert host.next_deadline() == 61.0


def test_after_a_disconnect_silence_is_no_news() -> None:
    host = _host(advertised=3)
    host.disconnected()
    assert host.next_deadline() is None
    host.tick(1000.0)
    assert host.events() == []


def test_a_message_that_the_host_drops_as_too_new_is_a_sign_of_life() -> None:
    host = _host(Version.V1)
    _feed(host, "timezone", {"zone": "", "offset": 0})
    assert host.responsive


def test_another_run_of_the_agent_on_the_same_channel_is_reported() -> None:
    host = _host()
    for agent, restarted in [("a", False), ("a", False), ("b", True), ("b", False)]:
        _heartbeat(host, agentId=agent)
        assert bool(_of(events.AgentRestarted, host.events())) is restarted


def test_the_first_agent_on_a_new_channel_is_no_restarted_one() -> None:
    host = _host()
    _heartbeat(host, agentId="a")
    host.connected(1.0)
    host.events()
    _heartbeat(host, agentId="b")
    assert _of(events.AgentRestarted, host.events()) == []


def test_an_operator_may_ask_for_everything_again() -> None:
    host = _host(advertised=3)
    host.refresh(1.0)
    assert read_lines(host.data_to_send()) == [("refresh", {"apiVersion": 3, "hostId": "host-1"})]


# ---- The host: the lines of facts, and what is counted ----


def test_a_message_is_reported_with_the_line_that_it_came_in() -> None:
    host = _host()
    lines = [
        b'{"__name__":"fqdn","fqdn":"a"}',
        b' {"fqdn": "b", "__name__": "fqdn", "of the future": [1]}\r',
        b'{"__name__":"echo"}',
    ]
    host.receive_data(b"\n".join(lines) + b"\n", 1.0)
    received = _of(events.MessageReceived, host.events())
    assert [event.line for event in received] == lines
    assert [event.message for event in received] == [messages.Fqdn("a"), messages.Fqdn("b"), messages.Echo({})]
    assert [event.name for event in received] == ["fqdn", "fqdn", "echo"]
    assert received[0] == events.MessageReceived("fqdn", messages.Fqdn("a"), lines[0])


def test_a_guest_keeps_no_line_of_its_host() -> None:
    guest = _guest(pushed=3)
    _feed(guest, "login", {"username": "alice", "password": "hunter2"})
    (received,) = _of(events.MessageReceived, guest.events())
    assert received.line == b""


def test_what_a_host_writes_is_counted_by_name_also_for_many_sessions_together() -> None:
    sent: collections.Counter[str] = collections.Counter()
    for _ in range(2):
        host = HostSession(Version.V3, "host-1", sent=sent)
        host.connected(0.0)
        _heartbeat(host, apiVersion=3)
        host.send(messages.LockScreen())
        with pytest.raises(errors.NotInCatalogue):
            host.send(messages.Fqdn("x"))
        host.disconnected()
        with pytest.raises(errors.NotConnected):
            host.send(messages.LockScreen())
    assert sent == {"refresh": 2, "api-version": 2, "lock-screen": 2}


def test_what_hosts_write_in_the_same_words_is_that_of_each_one_all_the_same() -> None:
    greetings = []
    for supported, host_id in [(Version.V3, "a"), (Version.V3, "b"), (Version.V1, "a"), (None, "a"), (Version.V3, "a")]:
        host = HostSession(supported, host_id)
        host.connected(0.0)
        greetings += [arguments for _, arguments in read_lines(host.data_to_send())]
    assert greetings == [
        {"apiVersion": 3, "hostId": "a"},
        {"apiVersion": 3, "hostId": "b"},
        {"apiVersion": 1, "hostId": "a"},
        {},
        {"apiVersion": 3, "hostId": "a"},
    ]


# ---- The host: whether something may be sent ----


@pytest.mark.parametrize("agreed", list(Version))
@pytest.mark.parametrize("state", ["open", "paused", "closed"])
@pytest.mark.parametrize("capable", [None, ALL_COMMANDS], ids=["unsaid", "capable"])
def test_what_may_be_sent_can_be_asked_without_sending_it(
    agreed: Version, state: str, capable: Optional[Mapping[str, bool]]
) -> None:
    for row in COMMANDS:
        host = _host(versions.newest(), advertised=int(agreed), capable=capable)
        if state == "paused":
            host.pause_writing()
        elif state == "closed":
            host.disconnected()
        refusal = _refusal(host.require, row.name)
        assert host.data_to_send() == b""
        assert refusal == _refusal(host.send, _command(row))
        possible = state == "open" and row.since <= agreed
        assert (refusal is None) == (possible and (capable is not None or not row.needs_capability))


def _refusal(ask: Callable[[Any], None], what: Any) -> Optional[str]:
    try:
        ask(what)
    except errors.SendRefused as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("name", ["fqdn", "no-such-message"])
def test_what_no_host_sends_may_not_be_sent(name: str) -> None:
    with pytest.raises(errors.NotInCatalogue, match=rf"^{name} is no message host → guest$"):
        _host(advertised=3).require(name)


def test_of_capabilities_no_more_is_kept_than_means_something_to_the_host() -> None:
    host = _newest_host()
    commands = {f"of-the-future-{number}": True for number in range(5000)} | {"exec": True, "load": False, "heartbeat": True}
    features = ["x" * 101, *(f"feature-{number}" for number in range(5000))]
    _feed(host, "capabilities", {"commands": commands, "features": features})
    assert host.capabilities is not None
    assert host.capabilities.commands == {"exec": True, "load": False}
    assert host.capabilities.features == tuple(features[1:50])


# ---- The host: another highest version ----


@pytest.mark.parametrize("before", [None, *Version])
@pytest.mark.parametrize("after", [None, *Version])
def test_a_host_that_supports_another_version_agrees_on_it_afresh(
    before: Optional[Version], after: Optional[Version]
) -> None:
    host = _host(before, advertised=2)
    host.support(after, 5.0)
    asked = {} if after is None else {"apiVersion": int(after), "hostId": "host-1"}
    assert read_lines(host.data_to_send()) == [("refresh", asked)]
    assert host.negotiation.agreed == 0
    assert host.supported is host.negotiation.supported is after
    _heartbeat(host, apiVersion=2, now=6.0)
    assert host.negotiation.agreed == min(after or 0, 2)


def test_a_change_of_what_a_host_supports_ends_an_agreement_and_begins_another() -> None:
    host = _host(advertised=3)
    host.support(Version.V1, 5.0)
    _heartbeat(host, apiVersion=3, now=6.0)
    assert _changes(host) == [(3, 0, events.Reason.HOST_RECONFIGURED), (0, 1, events.Reason.FIRST_AGREEMENT)]


def test_without_a_channel_another_version_counts_from_the_next_one() -> None:
    host = _host(advertised=3)
    host.disconnected()
    host.support(Version.V1, 5.0)
    assert host.data_to_send() == b""
    assert host.events() == []
    host.connected(6.0)
    assert read_lines(host.data_to_send()) == [("refresh", {"apiVersion": 1, "hostId": "host-1"})]


def test_on_a_new_channel_a_guest_was_not_heard_yet() -> None:
    host = _host(advertised=3)
    host.connected(1.0)
    assert not host.responsive
    assert host.next_deadline() is None
    host.events()
    _heartbeat(host, now=2.0)
    assert _of(events.Responsive, host.events()) == [events.Responsive()]


def test_to_a_guest_that_does_not_read_the_host_says_later_that_it_supports_another_version() -> None:
    host = _host(advertised=3)
    host.pause_writing()
    host.support(Version.V2, 5.0)
    host.support(Version.V1, 6.0)
    assert host.data_to_send() == b""
    host.resume_writing(7.0)
    assert read_lines(host.data_to_send()) == [("refresh", {"apiVersion": 1, "hostId": "host-1"})]
    host.resume_writing(8.0)
    assert host.data_to_send() == b""


def test_a_question_that_was_refused_meanwhile_is_not_asked_twice() -> None:
    host = _host(advertised=3)
    host.pause_writing()
    host.support(Version.V1, 5.0)
    with pytest.raises(errors.Congested):
        host.refresh(6.0)
    host.resume_writing(7.0)
    assert len(read_lines(host.data_to_send())) == 1


def test_another_version_is_no_sign_of_life_and_none_of_silence() -> None:
    host = _host(advertised=3)
    host.support(Version.V1, 5.0)
    assert host.responsive
    assert host.next_deadline() == SILENCE_LIMIT
    host.tick(SILENCE_LIMIT)
    assert _of(events.Unresponsive, host.events()) == [events.Unresponsive(SILENCE_LIMIT)]
    host.support(Version.V2, 20.0)
    assert not host.responsive


def test_the_silence_that_is_allowed_can_change_at_any_time() -> None:
    host = _host(advertised=3)
    host.silence_limit = 60.0
    assert host.next_deadline() == 60.0
    host.tick(59.0)
    assert host.responsive


# ---- Guest 1: the port was opened, the host is gone ----


def test_the_first_line_after_opening_the_port_is_session_startup() -> None:
    guest = GuestSession(Version.V3, "agent-1")
    guest.opened(0.0)
    assert guest.data_to_send() == b'{"__name__":"session-startup"}\n'


def test_nothing_depends_on_the_first_line_after_opening_the_port() -> None:
    pair = Pair()
    pair.host.connected(0.0)
    pair.host.receive_data(b'{"__name__": "heartbeat", "mem', 0.0)
    pair.guest.opened(0.0)
    pair.exchange()
    assert pair.versions == (versions.newest(), versions.newest())


def test_after_opening_the_port_a_heartbeat_and_the_facts_of_version_0_are_wanted() -> None:
    guest = GuestSession(Version.V3, "agent-1")
    guest.opened(0.0)
    happened = guest.events()
    assert _of(events.HeartbeatWanted, happened) == [events.HeartbeatWanted()]
    assert _of(events.FactsWanted, happened) == [events.FactsWanted(CATALOGUE.facts(up_to=0))]


@pytest.mark.parametrize("change", ["opened", "host gone", "refresh", "refresh of a host that knows no versions"])
def test_when_the_port_was_opened_or_the_host_is_gone_or_a_refresh_was_seen_0_is_in_use(change: str) -> None:
    guest = _guest(pushed=3)
    assert guest.negotiation.in_use == 3
    if change == "opened":
        guest.opened(1.0)
    elif change == "host gone":
        guest.host_gone()
    else:
        _feed(guest, "refresh", {"apiVersion": 3, "hostId": "host-1"} if change == "refresh" else {})
    assert guest.negotiation.in_use == 0
    assert [(event.old, event.new) for event in _of(events.VersionChanged, guest.events())] == [(Version.V3, Version.V0)]


def test_without_a_host_the_guest_is_silent() -> None:
    guest = _guest(pushed=3)
    guest.host_gone()
    guest.events()
    assert guest.next_deadline() is None
    guest.tick(1000.0)
    assert guest.events() == []
    assert guest.data_to_send() == b""
    with pytest.raises(errors.NotConnected):
        guest.send(message_to_host("fqdn"))


def test_when_a_host_came_it_speaks_first_and_should_that_be_lost_the_next_heartbeat_asks_it() -> None:
    guest = _guest(pushed=3)
    guest.host_gone()
    guest.events()
    guest.host_came(10.0)
    assert guest.events() == []
    assert guest.data_to_send() == b""
    assert guest.next_deadline() == 10.0 + HEARTBEAT_PERIOD
    guest.tick(10.0 + HEARTBEAT_PERIOD)
    assert _of(events.HeartbeatWanted, guest.events())
    assert [heartbeat["apiVersion"] for heartbeat in _written_heartbeats(guest)] == [0, 3]


def test_half_a_line_of_a_host_that_is_gone_does_not_spoil_the_first_line_of_the_next() -> None:
    guest = _guest()
    guest.receive_data(b'{"__name__": "lo', 0.0)
    guest.host_gone()
    guest.host_came(1.0)
    _feed(guest, "lock-screen")
    assert guest.counters.dropped == {}


def test_what_was_wanted_for_a_host_that_is_gone_is_not_wanted_for_the_next() -> None:
    guest = GuestSession(Version.V3, "agent-1")
    guest.opened(0.0)
    guest.events()
    guest.pause_writing()
    _feed(guest, "refresh", {"apiVersion": 3})
    guest.host_gone()
    guest.host_came(1.0)
    assert guest.events() == []


# ---- Guest 2: refresh ----


@INVALID_VERSIONS
def test_a_refresh_without_a_valid_version_puts_0_in_use_and_there_it_stays(invalid: Any) -> None:
    guest = _guest(pushed=3)
    _feed(guest, "refresh", {"apiVersion": invalid, "hostId": "host-1"})
    assert guest.negotiation.in_use == 0
    assert [heartbeat["apiVersion"] for heartbeat in _written_heartbeats(guest)] == [3]


def test_a_refresh_with_a_version_is_answered_at_once_with_the_facts_of_0_and_the_heartbeat() -> None:
    guest = _guest(pushed=3)
    _feed(guest, "refresh", {"apiVersion": 3, "hostId": "host-1"})
    happened = guest.events()
    assert _of(events.FactsWanted, happened) == [events.FactsWanted(CATALOGUE.facts(up_to=0))]
    assert _of(events.HeartbeatWanted, happened) == [events.HeartbeatWanted()]


def test_a_host_without_an_id_is_sent_two_heartbeats_the_first_with_version_0() -> None:
    guest = _guest()
    _feed(guest, "refresh", {"apiVersion": 3})
    first, second = _written_heartbeats(guest)
    assert (first["apiVersion"], second["apiVersion"]) == (0, 3)
    assert {**first, "apiVersion": 3} == second


def test_a_host_with_an_id_is_sent_plain_heartbeats() -> None:
    guest = _guest()
    _feed(guest, "refresh", {"apiVersion": 3, "hostId": "host-1"})
    for _ in range(3):
        assert [heartbeat["apiVersion"] for heartbeat in _written_heartbeats(guest)] == [3]


@pytest.mark.parametrize("seen", [True, False], ids=["refresh seen", "none seen"])
def test_an_offer_without_an_answer_is_made_again_with_every_heartbeat_until_a_push_comes(seen: bool) -> None:
    guest = _guest()
    if seen:
        _feed(guest, "refresh", {"apiVersion": 3})
    for _ in range(5):
        assert [heartbeat["apiVersion"] for heartbeat in _written_heartbeats(guest)] == [0, 3]
    _feed(guest, "api-version", {"apiVersion": 1})
    assert [heartbeat["apiVersion"] for heartbeat in _written_heartbeats(guest)] == [3]


def test_a_host_that_knows_no_versions_is_sent_plain_heartbeats() -> None:
    guest = _guest()
    _feed(guest, "refresh")
    assert [heartbeat["apiVersion"] for heartbeat in _written_heartbeats(guest)] == [3]


# ---- Guest 3: api-version ----


@pytest.mark.parametrize("supported", list(Version))
@pytest.mark.parametrize("pushed", [*range(len(Version) + 1), 2**70])
def test_in_use_is_the_lower_one_of_what_was_pushed_and_what_is_supported(supported: Version, pushed: int) -> None:
    assert _guest(supported, pushed=pushed).negotiation.in_use == min(supported, pushed)


@INVALID_VERSIONS
def test_a_push_that_is_no_integer_from_0_on_is_ignored_and_counted(invalid: Any) -> None:
    guest = _guest(pushed=2)
    assert _feed(guest, "api-version", {"apiVersion": invalid}) == []
    assert guest.negotiation.in_use == 2
    assert guest.counters.dropped == {"invalid-arguments": 1}
    assert [type(event) for event in guest.events()] == [events.Complaint]


def test_a_push_without_its_version_is_ignored_and_counted() -> None:
    guest = _guest(pushed=2)
    _feed(guest, "api-version")
    assert guest.negotiation.in_use == 2
    assert guest.counters.dropped == {"invalid-arguments": 1}


@pytest.mark.parametrize(("before", "after"), [(0, 1), (0, 3), (1, 3), (2, 3), (3, 4), (0, 5)])
def test_when_the_version_has_risen_the_facts_that_became_allowed_are_wanted(before: int, after: int) -> None:
    guest = _guest(versions.newest(), pushed=before)
    _feed(guest, "api-version", {"apiVersion": after})
    assert _of(events.FactsWanted, guest.events()) == [events.FactsWanted(CATALOGUE.facts(above=before, up_to=after))]


@pytest.mark.parametrize(("before", "after"), [(3, 3), (3, 1), (1, 0), (0, 0)])
def test_when_the_version_has_not_risen_no_facts_are_wanted(before: int, after: int) -> None:
    guest = _guest(pushed=before)
    _feed(guest, "api-version", {"apiVersion": after})
    assert _of(events.FactsWanted, guest.events()) == []


@pytest.mark.parametrize("pushed", [0, 1, 2, 3])
def test_every_push_is_acknowledged_by_a_heartbeat_at_once(pushed: int) -> None:
    guest = _guest(pushed=2)
    _feed(guest, "api-version", {"apiVersion": pushed})
    assert _of(events.HeartbeatWanted, guest.events()) == [events.HeartbeatWanted()]
    assert [heartbeat["apiVersionInUse"] for heartbeat in _written_heartbeats(guest)] == [pushed]


def test_a_rise_wants_the_facts_first_and_then_the_heartbeat() -> None:
    guest = _guest()
    _feed(guest, "api-version", {"apiVersion": 3})
    wanted = [type(event) for event in guest.events() if not isinstance(event, events.VersionChanged)]
    assert wanted == [events.FactsWanted, events.HeartbeatWanted]


def test_facts_that_are_no_longer_allowed_when_they_can_be_written_are_not_wanted() -> None:
    guest = _guest()
    guest.pause_writing()
    _feed(guest, "api-version", {"apiVersion": 3})
    _feed(guest, "api-version", {"apiVersion": 1})
    guest.resume_writing(2.0)
    assert _of(events.FactsWanted, guest.events()) == [events.FactsWanted(frozenset({"number-of-cpus"}))]


def test_a_guest_that_knows_no_versions_stays_at_0_whatever_is_pushed() -> None:
    assert _guest(None, pushed=3).negotiation.in_use == 0


# ---- Guest 4: the heartbeat ----


def test_a_heartbeat_is_wanted_every_five_seconds() -> None:
    guest = _guest(pushed=3)
    wanted = []
    while (deadline := guest.next_deadline()) is not None and deadline <= 60.0:
        guest.tick(deadline)
        wanted += [deadline for _ in _of(events.HeartbeatWanted, guest.events())]
    assert wanted == [5.0 * count for count in range(1, 13)]


def test_before_its_time_no_heartbeat_is_wanted() -> None:
    guest = _guest()
    guest.tick(HEARTBEAT_PERIOD - 0.1)
    assert guest.events() == []


def test_the_period_of_the_heartbeat_can_be_set() -> None:
    guest = GuestSession(Version.V3, "agent-1", heartbeat_period=30.0)
    guest.opened(0.0)
    assert guest.next_deadline() == 30.0


def test_a_guest_that_was_held_up_makes_up_for_missed_heartbeats_with_one() -> None:
    guest = _guest()
    guest.tick(100.0)
    assert _of(events.HeartbeatWanted, guest.events()) == [events.HeartbeatWanted()]
    deadline = guest.next_deadline()
    assert deadline is not None
    assert 100.0 < deadline <= 100.0 + HEARTBEAT_PERIOD


def test_a_heartbeat_carries_what_is_supported_and_in_use_the_agent_id_and_the_figures() -> None:
    guest = _guest(Version.V2, pushed=1)
    assert _written_heartbeats(guest) == [
        {"apiVersion": 2, "apiVersionInUse": 1, "agentId": "agent-1", "free-ram": "512", "memory-stat": {"mem_free": 1}}
    ]


def test_a_heartbeat_of_an_agent_that_knows_no_versions_says_none() -> None:
    assert _written_heartbeats(_guest(None)) == [{"free-ram": "512", "memory-stat": {"mem_free": 1}}]


def test_a_heartbeat_without_figures_negotiates_all_the_same() -> None:
    guest = _guest(pushed=3)
    guest.send_heartbeat(None, None)
    assert read_lines(guest.data_to_send()) == [("heartbeat", {"apiVersion": 3, "apiVersionInUse": 3, "agentId": "agent-1"})]


# ---- Guest 5: outbound and inbound ----


@pytest.mark.parametrize("in_use", list(Version))
def test_a_message_is_written_exactly_when_the_version_in_use_allows_it(in_use: Version) -> None:
    for row in CATALOGUE.rows:
        if row.direction is not Direction.TO_HOST or row.message_class in NEGOTIATING:
            continue
        guest = _guest(versions.newest(), pushed=int(in_use))
        assert guest.allows(row.name) is (row.since <= in_use)
        if row.since <= in_use:
            guest.send(message_to_host(row.name))
            assert read_lines(guest.data_to_send()) == [(row.name, _arguments_up_to(in_use, row))]
        else:
            with pytest.raises(errors.VersionTooLow, match=rf"^{row.name} needs API {row.since}, spoken is API {in_use}$"):
                guest.send(message_to_host(row.name))
            assert guest.data_to_send() == b""


def _arguments_up_to(version: int, row: Row) -> dict[str, Any]:
    """The arguments of the sample that may be written at *version*."""
    return {wire: value for wire, value in arguments_for(row).items() if row.later.get(wire, row.since) <= version}


def test_a_name_that_the_guest_never_sends_is_not_allowed() -> None:
    guest = _guest(pushed=3)
    assert not guest.allows("no-such-message")
    assert not guest.allows("shutdown")


def test_a_command_comes_in_as_its_message() -> None:
    guest = _guest(pushed=3)
    _feed(guest, "set-number-of-cpus", {"count": 4})
    assert guest.events() == [events.MessageReceived("set-number-of-cpus", messages.SetNumberOfCpus(count=4))]


def test_an_unknown_command_costs_one_log_line_a_minute() -> None:
    guest = _guest(pushed=3)
    said = []
    for second in range(120):
        _feed(guest, "no-such-command", now=float(second))
        said += _of(events.Complaint, guest.events())
    assert guest.counters.dropped == {"unknown": 120}
    assert len(said) == 2


def test_a_command_newer_than_supported_is_dropped() -> None:
    guest = _guest(Version.V0, pushed=3)
    _feed(guest, "lifecycle-event", {"type": "before_migration"})
    assert guest.counters.dropped == {"newer-than-supported": 1}
    assert [event.text for event in _of(events.Complaint, guest.events())] == [
        "dropped: lifecycle-event needs API 3, this side supports API 0"
    ]


def test_a_guest_that_knows_no_versions_says_so_when_it_drops_a_command() -> None:
    guest = _guest(None)
    _feed(guest, "set-number-of-cpus", {"count": 1})
    assert [event.text for event in _of(events.Complaint, guest.events())] == [
        "dropped: set-number-of-cpus needs API 1, this side supports no versions"
    ]


# ---- Both: a peer that does not read ----


def test_a_guest_whose_host_does_not_read_queues_nothing_and_remembers_what_is_due() -> None:
    guest = GuestSession(Version.V3, "agent-1")
    guest.opened(0.0)
    guest.data_to_send()
    guest.events()
    guest.pause_writing()
    for second in range(1, 1000):
        _feed(guest, "refresh", {"apiVersion": 3}, now=float(second))
        _feed(guest, "api-version", {"apiVersion": 3}, now=float(second))
        guest.tick(float(second))
    assert guest.data_to_send() == b""
    assert not _of(events.HeartbeatWanted, guest.events())
    with pytest.raises(errors.Congested):
        guest.send_heartbeat(None, None)
    guest.resume_writing(1000.0)
    assert sorted(type(event).__name__ for event in guest.events()) == ["FactsWanted", "HeartbeatWanted"]


def test_a_guest_that_cannot_write_when_it_opens_the_port_says_session_startup_first_when_it_can() -> None:
    guest = GuestSession(Version.V3, "agent-1")
    guest.opened(0.0)
    guest.host_gone()
    assert guest.data_to_send() == b""
    guest.opened(1.0)
    assert read_lines(guest.data_to_send()) == [("session-startup", {})]


def test_a_pause_does_not_outlive_its_channel() -> None:
    host, guest = _host(), _guest()
    for paused in (host, guest):
        paused.pause_writing()
    host.connected(1.0)
    guest.opened(1.0)
    assert host.data_to_send()
    assert guest.data_to_send()


# ---- Both: counters ----


def test_counters_are_handed_out_by_name_as_plain_values() -> None:
    host = _host(Version.V1, advertised=3)
    lines = b'\n \nno json\n{"__name__": "a"}\n'
    host.receive_data(lines, 1.0)
    mapping = host.counters.as_mapping()
    assert mapping == {
        "lines": 3,
        "bytes": len(codec.encode("heartbeat", {"apiVersion": 3}) + lines),
        "pushes": 1,
        "invalid_versions": 0,
        "without_version": 0,
        "newer_than_agreed": 0,
        "mistyped": 0,
        "dropped": {"malformed": 1, "unknown": 1},
        "dropped_names": {"a": 1},
    }
    assert type(mapping["dropped"]) is type(mapping["dropped_names"]) is dict


# ---- Two real sessions ----


@CUTS
@pytest.mark.parametrize("host", [None, *Version])
@pytest.mark.parametrize("guest", [None, *Version])
def test_any_two_sides_agree_within_one_exchange_however_the_bytes_are_cut(
    host: Optional[Version], guest: Optional[Version], cut: Cut
) -> None:
    pair = Pair(host, guest, cut=cut)
    pair.connect()
    lower = min(host or 0, guest or 0)
    assert pair.versions == (lower, lower)
    assert pair.facts() == CATALOGUE.facts(up_to=lower)
    assert pair.host.counters.dropped == pair.guest.counters.dropped == {}


@pytest.mark.parametrize("host", list(Version))
@pytest.mark.parametrize("guest", list(Version))
def test_two_sides_that_agree_are_quiet_for_as_long_as_they_live(host: Version, guest: Version) -> None:
    pair = Pair(host, guest)
    pair.connect()
    pair.forget()
    pair.wait(300.0)
    assert pair.host_lines == []
    assert len(pair.guest_lines) == 300 / HEARTBEAT_PERIOD
    assert {type(event) for event in pair.host_events} == {events.MessageReceived}


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
@pytest.mark.parametrize("before", list(Version))
@pytest.mark.parametrize("after", [None, *Version])
def test_after_a_migration_both_sides_agree_anew_within_one_exchange(
    before: Version, after: Optional[Version], noticed: bool
) -> None:
    pair = Pair(before)
    pair.connect()
    pair.replace_host(after, noticed=noticed)
    assert pair.versions == (after or 0, after or 0)


@CUTS
@pytest.mark.parametrize("after", [None, *Version])
def test_after_a_restart_of_the_agent_both_sides_agree_anew_within_one_exchange(after: Optional[Version], cut: Cut) -> None:
    pair = Pair(cut=cut)
    pair.connect()
    pair.forget()
    pair.restart_agent(after)
    assert pair.versions == (after or 0, after or 0)
    assert _of(events.AgentRestarted, pair.host_events)


def test_after_everything_that_the_host_wrote_was_lost_one_heartbeat_is_enough() -> None:
    pair = Pair()
    pair.guest_is_deaf = True
    pair.connect()
    pair.wait(60.0)
    assert pair.guest.negotiation.in_use == 0
    pair.guest_is_deaf = False
    pair.wait(HEARTBEAT_PERIOD)
    assert pair.versions == (versions.newest(), versions.newest())


def test_a_host_that_comes_unnoticed_and_whose_refresh_is_lost_puts_the_guest_right_with_one_heartbeat() -> None:
    pair = Pair()
    pair.connect()
    pair.guest_is_deaf = True
    pair.replace_host(Version.V1, noticed=False)
    pair.guest_is_deaf = False
    pair.wait(HEARTBEAT_PERIOD)
    assert pair.versions == (1, 1)


# ---- Whatever happens ----

_ANY_VERSION = st.none() | st.integers(-1, 7) | st.just(2**70) | st.sampled_from([True, 1.5, "3"])
_LINES = st.one_of(
    st.builds(
        lambda name, offered, in_use: codec.encode(name, {"apiVersion": offered, "apiVersionInUse": in_use}),
        st.sampled_from(["heartbeat", "refresh", "api-version"]),
        _ANY_VERSION,
        _ANY_VERSION,
    ),
    st.sampled_from([codec.encode(row.name, arguments_for(row)) for row in CATALOGUE.rows]),
    st.sampled_from([codec.encode(row.name, {**arguments_for(row), "reply_id": "r1"}) for row in CATALOGUE.rows]),
    st.dictionaries(st.sampled_from([*CATALOGUE.names(Direction.TO_GUEST), "of-the-future"]), st.booleans()).map(
        lambda commands: codec.encode("capabilities", {"commands": commands, "features": []})
    ),
    st.binary(max_size=20).map(lambda data: data + b"\n"),
    st.binary(max_size=20),
    st.just(b'{"__name__": "half'),
)
_CALLS = st.sampled_from(["connect", "come", "disconnect", "pause", "resume", "tick", "heartbeat", "look", "change"])
_SUPPORTED = st.sampled_from([None, *Version])
_REPLY_IDS = st.sampled_from([None, "r1"])


def _tolerating_refusal(send: Any, *arguments: Any) -> None:
    with contextlib.suppress(errors.SendRefused):
        send(*arguments)


def _call_host(host: HostSession, call: str, now: float) -> None:
    calls: dict[str, Any] = {
        "connect": lambda: host.connected(now),
        "come": lambda: host.connected(now),
        "disconnect": host.disconnected,
        "pause": host.pause_writing,
        "resume": lambda: host.resume_writing(now),
        "tick": lambda: host.tick(now),
        "heartbeat": lambda: _tolerating_refusal(host.refresh, now),
        "look": lambda: (host.next_deadline(), host.counters.as_mapping(), host.negotiation.in_use),
        "change": lambda: host.support(Version.V2 if host.supported is None else None, now),
    }
    calls[call]()


def _call_guest(guest: GuestSession, call: str, now: float) -> None:
    calls: dict[str, Any] = {
        "connect": lambda: guest.opened(now),
        "come": lambda: guest.host_came(now),
        "disconnect": guest.host_gone,
        "pause": guest.pause_writing,
        "resume": lambda: guest.resume_writing(now),
        "tick": lambda: guest.tick(now),
        "heartbeat": lambda: _tolerating_refusal(guest.send_heartbeat, "1", None),
        "look": lambda: (guest.next_deadline(), guest.counters.as_mapping(), guest.allows("containers")),
        "change": lambda: guest.beat_every(now + 1.0, now),
    }
    calls[call]()


def _sends(direction: Direction) -> st.SearchStrategy[tuple[messages.Message, Optional[str]]]:
    """Any message, with a reply id and without."""
    rows = CATALOGUE.names(direction).values()
    sent = [row.message_class.from_arguments(arguments_for(row))[0] for row in rows]
    return st.tuples(st.sampled_from(sent), _REPLY_IDS)


def _assert_allowed(direction: Direction, lines: Iterable[Line], spoken: int) -> None:
    for name, arguments in lines:
        row = CATALOGUE.find(direction, name)
        assert row is not None
        assert row.since <= spoken
        assert all(since <= spoken for wire, since in row.later.items() if wire in arguments)
        assert "reply_id" not in arguments or name == "completion" or (row.answered or spoken + 1) <= spoken


def _assert_capable(lines: Iterable[Line], capabilities: Optional[messages.Capabilities]) -> None:
    """A guest that has said what it carries out is sent nothing else; and nothing that it must have said."""
    said = {} if capabilities is None else capabilities.commands
    for name, _ in lines:
        row = CATALOGUE.find(Direction.TO_GUEST, name)
        assert row is not None
        assert not row.is_command or said.get(name, not row.needs_capability)


@given(_SUPPORTED, st.lists(_LINES | _CALLS | _sends(Direction.TO_GUEST), max_size=20), st.floats(0, 100))
def test_whatever_comes_and_is_called_the_host_stays_within_what_both_sides_know(
    supported: Optional[Version], steps: list[Any], pace: float
) -> None:
    host = HostSession(supported, "host-1")
    for count, step in enumerate(steps):
        if isinstance(step, bytes):
            host.receive_data(step, count * pace)
        elif isinstance(step, tuple):
            _tolerating_refusal(host.send, *step)
        else:
            _call_host(host, step, count * pace)
        agreed = host.negotiation.agreed
        assert agreed <= min(host.supported or 0, host.negotiation.advertised or 0)
        assert host.capabilities is None or agreed >= 4
        lines = read_lines(host.data_to_send())
        _assert_allowed(Direction.TO_GUEST, lines, agreed)
        _assert_capable(lines, host.capabilities)
        assert len(_of(events.Complaint, host.events())) <= 1


@given(_SUPPORTED, st.lists(_LINES | _CALLS | _sends(Direction.TO_HOST), max_size=20), st.floats(0, 100))
def test_whatever_comes_and_is_called_the_guest_stays_within_what_both_sides_know(
    supported: Optional[Version], steps: list[Any], pace: float
) -> None:
    guest = GuestSession(supported, "agent-1")
    for count, step in enumerate(steps):
        if isinstance(step, bytes):
            guest.receive_data(step, count * pace)
        elif isinstance(step, tuple):
            _tolerating_refusal(guest.send, *step)
        else:
            _call_guest(guest, step, count * pace)
        in_use = guest.negotiation.in_use
        assert in_use <= (supported or 0)
        _assert_allowed(Direction.TO_HOST, read_lines(guest.data_to_send()), in_use)
        assert len(_of(events.Complaint, guest.events())) <= 1


@given(st.lists(st.binary(max_size=30) | _LINES, max_size=10), st.lists(st.integers(1, 40), max_size=10))
def test_however_arbitrary_bytes_are_cut_a_session_ends_up_the_same(chunks: list[bytes], sizes: list[int]) -> None:
    data = b"".join(chunks)
    sessions: list[tuple[Session, Session]] = [(_host(), _host()), (_guest(), _guest())]
    for whole, cut in sessions:
        whole.receive_data(data, 1.0)
        position = 0
        for size in [*sizes, len(data)]:
            cut.receive_data(data[position : position + size], 1.0)
            position += size
        assert _outcome(whole) == _outcome(cut)


def _outcome(peer: Session) -> tuple[Any, ...]:
    """What is left of the lines that came; not how many pushes they were answered with, for that a chunk may decide."""
    counted = peer.counters.as_mapping()
    del counted["pushes"]
    if isinstance(peer, HostSession):
        state = peer.negotiation
        return counted, state.agreed, state.met, state.advertised, state.reported_in_use
    assert isinstance(peer, GuestSession)
    return counted, vars(peer.negotiation)


# ---- Another rhythm ----


def test_another_rhythm_of_heartbeats_counts_from_now() -> None:
    session = GuestSession(Version.V3, "agent", heartbeat_period=5.0)
    session.opened(0.0)
    session.beat_every(20.0, 1.0)
    assert session.next_deadline() == 21.0
    session.tick(21.0)
    assert session.next_deadline() == 41.0


def test_the_same_rhythm_changes_nothing() -> None:
    session = GuestSession(Version.V3, "agent", heartbeat_period=5.0)
    session.opened(0.0)
    session.beat_every(5.0, 1.0)
    assert session.next_deadline() == 5.0


def test_another_rhythm_begins_no_heartbeats_without_a_host() -> None:
    session = GuestSession(Version.V3, "agent", heartbeat_period=5.0)
    session.beat_every(20.0, 1.0)
    assert session.next_deadline() is None
