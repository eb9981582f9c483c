from __future__ import annotations

import json
import logging
from typing import Any, Optional

import pytest

from common import codec, errors, messages
from common.handoff.spec2 import Capabilities, Spec2
from common.session import SILENCE_LIMIT
from common.versions import Version
from host_agent import guest as guest_module
from host_agent.budget import RESERVE, Limits
from host_agent.feed import KINDS
from host_agent.guest import HISTORY, TELLING_RATE, Guest, Shared, State
from host_agent.known import UNKNOWN_TIME, Departure, Fact, Frozen, InFlight, VersionChange
from host_agent.meter import Standing

from .guests import CAPABILITIES
from .parts import NEWEST, make_guest, make_shared


def hear(guest: Guest, now: float, *lines: tuple[str, dict[str, Any]]) -> None:
    """Let *guest* say these messages."""
    guest.session.receive_data(b"".join(codec.encode(name, arguments) for name, arguments in lines), now)
    guest.absorb(guest.session.events(), now)


def heartbeat(version: object = 3, **more: Any) -> tuple[str, dict[str, Any]]:
    return "heartbeat", {"apiVersion": version, **more}


def open_guest(now: float = 0.0, supported: Any = Version.V3, shared: Optional[Shared] = None) -> Guest:
    guest = make_guest(supported=supported, now=now, shared=shared)
    guest.found("/ports/web-1", now)
    guest.connected(now)
    return guest


def wait(guest: Guest, now: float) -> None:
    """Let time pass."""
    guest.session.tick(now)
    guest.absorb(guest.session.events(), now)


def told(shared: Shared, *kinds: str) -> list[tuple[Any, ...]]:
    """What was told of these kinds: the kind and its details' values."""
    happened = shared.feed.since(0)[1]
    assert {each.kind for each in happened} <= KINDS.keys()
    return [(each.kind, *each.details.values()) for each in happened if each.kind in kinds]


def test_a_new_guest_is_absent_and_nothing_is_known_of_it() -> None:
    described = make_guest(now=10.0).describe(12.5)
    counters = described.pop("counters")
    assert described == {
        "name": "web-1",
        "uuid": None,
        "channel": {"path": None, "state": "absent", "since_s": 2.5, "throttled": False},
        "api": {
            "agreed": None,
            "supported": NEWEST,
            "advertised": None,
            "in_use": None,
            "changes": 0,
            "last_reason": None,
            "last_change_s": None,
        },
        "heard_s": None,
        "handoff": {"state": "here", "peer": None},
        "frozen": None,
        "commands": [],
        "history": [],
        "facts": {},
        "capabilities": None,
    }
    assert counters["lines"] == 0


def test_a_guest_that_agreed_is_described_whole_and_as_json() -> None:
    guest = open_guest(100.0)
    hear(guest, 101.0, heartbeat(apiVersionInUse=0, agentId="a"), ("timezone", {"zone": "CET", "offset": 60}))
    hear(guest, 103.0, heartbeat(apiVersionInUse=3, agentId="a"))
    described = json.loads(json.dumps(guest.describe(104.0)))
    assert described["channel"] == {
        "path": "/ports/web-1",
        "state": "responsive",
        "since_s": 3.0,
        "throttled": False,
    }
    assert described["api"] == {
        "agreed": 3,
        "supported": 3,
        "advertised": 3,
        "in_use": 3,
        "changes": 1,
        "last_reason": "first agreement of this connection: it supports up to API 3, this host up to API 3",
        "last_change_s": 3.0,
    }
    why = described["api"]["last_reason"]
    assert described["history"] == [{"old": 0, "new": 3, "reason": why, "ago_s": 3.0}]
    assert described["heard_s"] == 1.0
    assert described["facts"] == {
        "heartbeat": {"age_s": 1.0, "value": {"apiVersion": 3, "apiVersionInUse": 3, "agentId": "a"}},
        "timezone": {"age_s": 3.0, "value": {"zone": "CET", "offset": 60}},
    }
    assert described["counters"]["lines"] == 3


def test_a_guest_without_versions_is_told_of_and_has_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guest = open_guest()
    hear(guest, 1, ("heartbeat", {}))
    hear(guest, 2, ("heartbeat", {}))
    api = guest.describe(3)["api"]
    assert (api["agreed"], api["changes"], api["last_change_s"]) == (0, 0, 2.0)
    assert api["last_reason"].startswith("the guest sends no version: ")
    assert caplog.messages[1:] == [f"web-1: agreed 0 → 0: {api['last_reason']}"]


def test_an_agreement_that_ends_with_its_channel_is_a_change() -> None:
    guest = open_guest()
    hear(guest, 1, heartbeat())
    guest.disconnected("closed", 2)
    guest.connected(3)
    guest.absorb(guest.session.events(), 3)
    assert guest.describe(3)["api"]["changes"] == 2
    hear(guest, 4, ("heartbeat", {}))
    assert guest.describe(4)["api"]["changes"] == 2


def test_a_channel_goes_through_its_states() -> None:
    guest = make_guest()
    states = [guest.state]
    guest.found("/p", 1)
    states.append(guest.state)
    guest.connected(2)
    states.append(guest.state)
    hear(guest, 3, heartbeat())
    states.append(guest.state)
    guest.session.tick(18)
    guest.absorb(guest.session.events(), 18)
    states.append(guest.state)
    guest.disconnected("x", 19)
    states.append(guest.state)
    guest.vanished(20)
    states.append(guest.state)
    assert states == [
        State.ABSENT,
        State.CONNECTING,
        State.CONNECTED,
        State.RESPONSIVE,
        State.UNRESPONSIVE,
        State.CONNECTING,
        State.ABSENT,
    ]


def test_facts_and_counters_outlive_the_channel_and_the_agreement_does_not() -> None:
    guest = open_guest()
    hear(guest, 1, heartbeat(), ("host-name", {"name": "web"}))
    guest.disconnected("gone", 2)
    described = guest.describe(3)
    assert described["facts"]["host-name"] == {"age_s": 2.0, "value": {"name": "web"}}
    assert described["counters"]["lines"] == 2
    assert described["api"]["agreed"] is described["api"]["advertised"] is described["api"]["in_use"] is None
    assert described["api"]["changes"] == 1
    guest.connected(4)
    assert guest.describe(4)["api"]["agreed"] == 0
    assert guest.describe(4)["api"]["advertised"] is None


def test_a_message_that_is_no_fact_is_none() -> None:
    guest = open_guest()
    hear(guest, 1, ("session-logon", {}), ("echo", {"x": 1}))
    assert guest.describe(1)["facts"] == {}


def test_a_restored_guest_has_facts_and_no_agreement() -> None:
    guest = make_guest(now=0.0)
    guest.restore({"host-name": Fact.of("host-name", {"name": "web"}, -50.0), "fqdn": Fact.of("fqdn", {"fqdn": "w"}, -30.0)})
    described = guest.describe(10.0)
    assert described["heard_s"] == 40.0
    assert described["facts"]["host-name"] == {"age_s": 60.0, "value": {"name": "web"}}
    assert described["api"]["agreed"] is None
    assert described["channel"]["state"] == "absent"


def test_a_version_of_a_thousand_digits_does_not_fill_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guest = open_guest()
    hear(guest, 1, heartbeat(10**2000))
    described = guest.describe(1)
    assert described["api"]["advertised"] == 10**2000
    assert len(described["api"]["last_reason"]) < 200
    assert max(map(len, caplog.messages)) < 200


# ---- What is said ----


def test_the_life_of_a_channel_is_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guest = open_guest()
    hear(guest, 1, heartbeat(agentId="a"))
    hear(guest, 2, heartbeat(agentId="a"), ("host-name", {"name": "x"}))
    guest.session.tick(17)
    guest.absorb(guest.session.events(), 17)
    hear(guest, 18, heartbeat(1, agentId="a"))
    hear(guest, 19, heartbeat(1, agentId="b"))
    guest.disconnected("the other side closed the channel", 21)
    assert caplog.messages == [
        "web-1: connected: /ports/web-1",
        "web-1: agreed 0 → 3: first agreement of this connection: it supports up to API 3, this host up to API 3",
        "web-1: unresponsive: nothing heard for 15 s",
        "web-1: responsive again",
        "web-1: agreed 3 → 1: the guest supports less than before: it supports up to API 1, this host up to API 3",
        "web-1: its agent was restarted",
        "web-1: disconnected: the other side closed the channel",
    ]


def test_a_guest_that_changes_its_mind_all_the_time_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guest = open_guest()
    for step in range(1000):
        hear(guest, 1 + step * 0.001, heartbeat(step % 4, agentId=str(step)), (f"x{step}", {}))
    assert guest.describe(3)["api"]["changes"] > 900
    assert len(caplog.messages) < 40


def test_a_channel_that_never_carries_a_message_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guest = open_guest()
    guest.disconnected("closed", 1)
    for now in range(2, 100):
        guest.connected(now)
        guest.disconnected("closed", now)
    assert caplog.messages == ["web-1: connected: /ports/web-1", "web-1: disconnected: closed"]
    guest.connected(100)
    hear(guest, 101, ("session-startup", {}))
    assert caplog.messages[2:] == ["web-1: connected: /ports/web-1"]
    guest.disconnected("closed", 102)
    assert caplog.messages[3:] == ["web-1: disconnected: closed"]


def test_a_port_that_is_found_again_is_a_new_story(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guest = open_guest()
    guest.disconnected("closed", 1)
    guest.vanished(2)
    guest.found("/ports/other", 3)
    guest.unreachable("Connection refused", 3)
    guest.connected(4)
    assert caplog.messages[2:] == [
        "web-1: can't connect to /ports/other: Connection refused; trying again",
        "web-1: connected: /ports/other",
    ]


# ---- What becomes of it ----


def test_where_its_port_is_found_is_told_when_it_changes_and_its_uuid_is_kept() -> None:
    shared = make_shared()
    guest = make_guest(shared=shared)
    guest.found("/a", 1, "uuid-1")
    guest.found("/a", 2)
    guest.found("/b", 3)
    assert told(shared, "guest-found") == [("guest-found", "/a"), ("guest-found", "/b")]
    assert guest.describe(4)["uuid"] == "uuid-1"
    guest.vanished(5)
    assert guest.path is None
    guest.found("/b", 6, "uuid-2")
    assert told(shared, "guest-found", "guest-gone")[2:] == [("guest-gone",), ("guest-found", "/b")]
    assert guest.uuid == "uuid-2"


def test_a_guest_that_is_renamed_says_so_and_goes_on_under_its_new_name(caplog: pytest.LogCaptureFixture) -> None:
    shared = make_shared()
    guest = open_guest(shared=shared)
    guest.renamed("shop")
    hear(guest, 1, heartbeat())
    wait(guest, 100)
    (renamed,) = (each for each in shared.feed.since(0)[1] if each.kind == "guest-renamed")
    assert (renamed.guest, renamed.details) == ("shop", {"old": "web-1"})
    assert shared.feed.since(shared.feed.last - 1)[1][0].guest == "shop"
    assert guest.describe(2)["name"] == "shop"
    assert caplog.messages == ["shop: unresponsive: nothing heard for 99 s"]


def test_a_guest_that_is_forgotten_leaves_what_it_came_to() -> None:
    shared = make_shared()
    guest = open_guest(shared=shared)
    hear(guest, 1, ("no-such-message", {}))
    guest.disconnected("gone", 2)
    guest.vanished(3)
    guest.forgotten()
    assert told(shared, "guest-forgotten") == [("guest-forgotten",)]
    assert shared.meter.drops(()) == {"unknown": 1}
    assert shared.meter.guests == {}


def test_how_guests_stand_is_always_counted() -> None:
    shared = make_shared()
    guest = make_guest(shared=shared)
    make_guest("another", shared=shared)
    standings = [Standing("absent", None)]

    def note() -> None:
        (now,) = shared.meter.guests.keys() - {Standing("absent", None)} or {Standing("absent", None)}
        assert sum(shared.meter.guests.values()) == 2
        standings.append(now)

    guest.found("/p", 1)
    note()
    guest.connected(2)
    note()
    hear(guest, 3, heartbeat(3))
    note()
    hear(guest, 4, heartbeat(1))
    note()
    wait(guest, 100)
    note()
    guest.disconnected("x", 101)
    note()
    guest.vanished(102)
    note()
    assert standings == [
        ("absent", None),
        ("connecting", None),
        ("connected", 0),
        ("responsive", 3),
        ("responsive", 1),
        ("unresponsive", 1),
        ("connecting", None),
        ("absent", None),
    ]
    assert shared.meter.changes == {"first agreement of this connection": 1, "the guest supports less than before": 1}


def test_what_is_throttled_is_counted_and_told_once_and_ends_with_the_channel() -> None:
    shared = make_shared()
    guest = open_guest(shared=shared)
    for throttled in (True, True, False, False, True):
        guest.throttle(throttled)
    assert guest.describe(1)["channel"]["throttled"] is True
    guest.disconnected("gone", 2)
    assert guest.describe(3)["channel"]["throttled"] is False
    assert told(shared, "throttled", "unthrottled") == [("throttled",), ("unthrottled",)] * 2
    assert shared.meter.throttlings == 2


# ---- What it is told ----


def test_without_a_channel_it_can_be_told_nothing() -> None:
    guest = make_guest()
    with pytest.raises(errors.NotConnected):
        guest.send(messages.LockScreen())
    with pytest.raises(errors.NotConnected):
        guest.refresh(1)
    guest.support(Version.V1, 1)
    assert guest.describe(1)["api"]["supported"] == 1


def test_what_it_is_told_is_written_at_once_and_what_is_refused_is_not() -> None:
    guest = make_guest()
    guest.found("/p", 0)
    written: list[list[str]] = []
    guest.connected(0, lambda: written.append([codec.decode(each)[0] for each in guest.session.data_to_send().split()]))
    guest.session.data_to_send()
    guest.send(messages.LockScreen())
    guest.refresh(1)
    with pytest.raises(errors.VersionTooLow):
        guest.send(messages.SetNumberOfCpus(2))
    guest.support(Version.V1, 2)
    assert written == [["lock-screen"], ["refresh"], ["refresh"]]
    guest.disconnected("gone", 3)
    guest.support(Version.V2, 4)
    assert len(written) == 3


def test_a_guest_that_falls_silent_after_a_change_of_what_the_host_supports_is_unresponsive_like_any_other() -> None:
    guest = open_guest()
    hear(guest, 1, heartbeat())
    guest.support(Version.V1, 2)
    assert guest.state is State.RESPONSIVE
    assert guest.session.next_deadline() == 1 + SILENCE_LIMIT
    wait(guest, 1 + SILENCE_LIMIT)
    assert guest.describe(20)["channel"]["state"] == "unresponsive"


def test_another_version_that_the_host_supports_is_agreed_on_afresh() -> None:
    guest = open_guest()
    hear(guest, 1, heartbeat())
    guest.support(Version.V1, 2)
    hear(guest, 3, heartbeat())
    described = guest.describe(4)
    assert described["api"]["agreed"] == 1
    assert [(each["old"], each["new"]) for each in described["history"]] == [(0, 1), (3, 0), (0, 3)]
    assert described["channel"]["since_s"] == 3.0


# ---- What it says ----


def test_what_a_guest_says_is_counted_by_name() -> None:
    shared = make_shared()
    guest = open_guest(shared=shared)
    hear(guest, 1, heartbeat(), ("host-name", {"name": "a"}), ("host-name", {"name": "b"}), ("nonsense", {}))
    assert shared.meter.received == {"heartbeat": 1, "host-name": 2}


def test_what_happens_is_told_and_what_a_fact_says_is_not() -> None:
    shared = make_shared()
    guest = open_guest(shared=shared)
    hear(guest, 1, heartbeat(agentId="a"), ("host-name", {"name": "web"}), ("timezone", {"zone": "CET", "offset": 60}))
    hear(guest, 2, heartbeat(agentId="b"), ("host-name", {"name": "shop"}), ("timezone", {"zone": "CET", "offset": 60}))
    hear(guest, 3, ("session-logon", {}), ("nonsense", {}))
    wait(guest, 100)
    guest.disconnected("gone", 101)
    why = "first agreement of this connection: it supports up to API 3, this host up to API 3"
    assert told(shared, *KINDS) == [
        ("guest-found", "/ports/web-1"),
        ("state", "connecting", None),
        ("state", "connected", None),
        ("state", "responsive", None),
        ("version", 0, 3, why),
        ("agent-restarted",),
        ("fact", "host-name"),
        ("notice", "session-logon"),
        ("complaint", "dropped: a message that the table does not have: 'nonsense'"),
        ("state", "unresponsive", "nothing heard for 97 s"),
        ("state", "connecting", "gone"),
    ]
    assert {each.guest for each in shared.feed.since(0)[1]} == {"web-1"}


def test_a_channel_that_never_carries_a_message_is_not_told_of_again_and_again() -> None:
    shared = make_shared()
    guest = open_guest(shared=shared)
    for now in range(1, 1000, 10):
        guest.disconnected("closed", now)
        guest.connected(now + 5)
    assert told(shared, "state") == [
        ("state", "connecting", None),
        ("state", "connected", None),
        ("state", "connecting", "closed"),
    ]
    hear(guest, 2000, heartbeat())
    assert told(shared, "state")[3:] == [("state", "responsive", None)]


def test_what_a_guest_causes_is_told_at_a_bounded_rate_and_what_becomes_of_its_port_always() -> None:
    shared = make_shared()
    guest = open_guest(shared=shared)
    for step in range(6000):
        hear(guest, 1 + step * 0.01, ("session-logon", {}), heartbeat(step % 4))
    limit = (61 + RESERVE) * TELLING_RATE
    assert limit * 0.9 < len(told(shared, "notice", "version", "state")) <= limit + 1
    guest.vanished(61)
    assert told(shared, "guest-gone") == [("guest-gone",)]
    hear(guest, 200, ("session-logoff", {}))
    assert told(shared, "notice")[-1] == ("notice", "session-logoff")


def test_a_completion_goes_to_whom_it_concerns() -> None:
    completed: list[tuple[Guest, messages.Completion, float]] = []
    shared = make_shared(completed=lambda *completion: completed.append(completion))
    guest = open_guest(shared=shared)
    answer = ("completion", {"reply_id": "r", "done": True, "output": "0"})
    hear(guest, 1, heartbeat(), answer)
    assert completed == [(guest, messages.Completion("r", True, more={"output": "0"}), 1)]
    assert told(shared, "notice") == []
    hear(open_guest(), 1, heartbeat(), answer)


# ---- What it can do ----

OFFER = ("capabilities", CAPABILITIES.to_arguments())


def test_what_a_guest_lets_the_host_do_is_described_while_its_channel_is_open() -> None:
    guest = open_guest(supported=NEWEST)
    hear(guest, 1, heartbeat(NEWEST))
    assert guest.describe(1)["capabilities"] is None
    hear(guest, 2, OFFER)
    described = json.loads(json.dumps(guest.describe(2)))
    capabilities = {"commands": dict(CAPABILITIES.commands), "features": list(CAPABILITIES.features)}
    assert described["capabilities"] == described["facts"]["capabilities"]["value"] == capabilities
    guest.disconnected("gone", 3)
    assert guest.describe(3)["capabilities"] is None
    assert "capabilities" in guest.describe(3)["facts"]
    guest.connected(4)
    hear(guest, 4, heartbeat(NEWEST))
    assert guest.describe(4)["capabilities"] is None


def test_guests_that_let_the_host_do_the_same_share_one_object() -> None:
    guests = [open_guest(supported=NEWEST) for _ in range(2)]
    for guest in guests:
        hear(guest, 1, heartbeat(NEWEST), OFFER)
    first, second = (guest.session.capabilities for guest in guests)
    assert first == CAPABILITIES
    assert first is second


def test_whoever_wants_to_know_is_told_what_a_guest_lets_the_host_do_on_each_channel() -> None:
    offered: list[tuple[Guest, int]] = []
    guest = open_guest(supported=NEWEST, shared=make_shared(offered=lambda who: offered.append((who, who.channel))))
    hear(guest, 1, heartbeat(NEWEST), OFFER, OFFER)
    guest.disconnected("gone", 2)
    guest.connected(3)
    hear(guest, 3, OFFER)  # a tail of what was agreed on the channel before
    hear(guest, 4, heartbeat(NEWEST), OFFER)
    assert offered == [(guest, 1), (guest, 1), (guest, 2)]


def test_a_command_that_a_guest_does_not_carry_out_is_told_and_what_it_says_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shared = make_shared()
    guest = open_guest(supported=NEWEST, shared=shared)
    said = {"name": "x" * 10_000, "apiVersion": 4, "reason": "\u202e" + "y" * 10_000}
    hear(guest, 1, heartbeat(NEWEST), ("unsupported", {"name": "exec", "apiVersion": 4, "reason": "it is blocked"}))
    hear(guest, 2, ("unsupported", said))
    assert told(shared, "unsupported") == [
        ("unsupported", "exec", "it is blocked"),
        ("unsupported", "(unknown)", "\u202e" + "y" * 199),
    ]
    assert "web-1: does not carry out exec: it is blocked" in caplog.text
    assert "\u202e" not in caplog.text
    assert told(shared, "notice") == []
    for _ in range(1000):
        hear(guest, 3, ("unsupported", said))
    assert len(told(shared, "unsupported")) < 50


# ---- What is kept ----


class Kept:
    """What was handed over to be remembered."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, str, Fact]] = []
        self.changes: list[tuple[str, VersionChange]] = []
        self.uuids: dict[str, Optional[str]] = {}
        self.forgotten: list[str] = []

    def put_fact(self, guest: str, name: str, fact: Fact) -> None:
        self.facts.append((guest, name, fact))

    def put_change(self, guest: str, change: VersionChange) -> None:
        self.changes.append((guest, change))

    def put_guest(self, guest: str, uuid: Optional[str]) -> None:
        self.uuids[guest] = uuid

    def forget(self, guest: str) -> None:
        self.forgotten.append(guest)


def test_every_fact_and_every_change_of_the_version_is_handed_over_to_be_remembered() -> None:
    kept = Kept()
    guest = open_guest(shared=make_shared(memory=kept))
    hear(guest, 1, heartbeat(), ("host-name", {"name": "ü"}), ("session-logon", {}))
    assert [(who, name) for who, name, _ in kept.facts] == [("web-1", "heartbeat"), ("web-1", "host-name")]
    assert kept.facts[1][2] == Fact(codec.encode("host-name", {"name": "ü"}).rstrip(), 1)
    ((who, change),) = kept.changes
    assert (who, change.at, change.old, change.new) == ("web-1", 1, 0, 3)
    assert change.reason.startswith("first agreement")


def test_of_each_fact_the_newest_is_kept() -> None:
    guest = open_guest()
    for second in range(1, 5):
        hear(guest, second, ("host-name", {"name": f"web-{second}"}))
    assert guest.describe(5)["facts"] == {"host-name": {"age_s": 1.0, "value": {"name": "web-4"}}}


def _line(name: str, size: int) -> tuple[str, dict[str, Any]]:
    """A fact whose line has *size* bytes."""
    argument = {"host-name": "name", "fqdn": "fqdn"}[name]
    room = size - len(codec.encode(name, {argument: ""}).rstrip())
    return name, {argument: "x" * room}


def _sizes(guest: Guest) -> dict[str, int]:
    return {name: len(fact.line) for name, fact in guest.facts.items()}


def test_what_all_facts_of_a_guest_take_together_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    shared, kept = make_shared(limits=Limits(facts_size=1000)), Kept()
    guest = open_guest(shared=shared._replace(memory=kept))
    hear(guest, 1, _line("host-name", 600), _line("fqdn", 400))
    assert _sizes(guest) == {"host-name": 600, "fqdn": 400}
    hear(guest, 2, _line("fqdn", 401))
    assert _sizes(guest) == {"host-name": 600, "fqdn": 400}
    assert guest.facts["fqdn"].heard_at == 1
    assert guest.describe(2)["counters"]["dropped"] == {"facts-too-large": 1}
    assert caplog.messages == ["web-1: fqdn is not kept: its facts would exceed 1000 bytes; raise facts-size if they may"]
    hear(guest, 3, _line("host-name", 100), _line("fqdn", 900))
    assert _sizes(guest) == {"host-name": 100, "fqdn": 900}
    assert [len(fact.line) for _, _, fact in kept.facts] == [600, 400, 100, 900]


def test_a_fact_that_is_too_large_on_its_own_is_never_kept() -> None:
    guest = open_guest(shared=make_shared(limits=Limits(facts_size=1000)))
    hear(guest, 1, _line("host-name", 1001))
    assert _sizes(guest) == {}
    hear(guest, 2, _line("host-name", 1000))
    assert _sizes(guest) == {"host-name": 1000}


def test_facts_that_were_restored_count() -> None:
    guest = open_guest(shared=make_shared(limits=Limits(facts_size=1000)))
    guest.restore({"host-name": Fact.of(*_line("host-name", 600), 0)})
    hear(guest, 1, _line("fqdn", 401))
    assert _sizes(guest) == {"host-name": 600}
    hear(guest, 1, _line("fqdn", 400))
    assert _sizes(guest) == {"host-name": 600, "fqdn": 400}


def test_under_a_limit_that_was_lowered_facts_that_do_not_grow_stay_up_to_date() -> None:
    limits = Limits(facts_size=1000)
    guest = open_guest(shared=make_shared(limits=limits))
    hear(guest, 1, _line("host-name", 600), _line("fqdn", 400))
    limits.facts_size = 500
    hear(guest, 2, _line("host-name", 600), _line("fqdn", 399))
    assert {name: fact.heard_at for name, fact in guest.facts.items()} == {"host-name": 2, "fqdn": 2}
    hear(guest, 3, _line("fqdn", 400))
    assert guest.facts["fqdn"].heard_at == 2


def test_the_latest_changes_of_the_version_are_remembered_newest_first() -> None:
    guest = open_guest()
    guest.restore({}, [VersionChange(-100.0 + number, 0, 3, f"old {number}") for number in range(30)])
    history = guest.describe(0)["history"]
    assert [each["reason"] for each in history] == [f"old {number}" for number in range(29, 29 - HISTORY, -1)]
    assert history[0]["ago_s"] == 71.0
    for step in range(HISTORY - 1):
        hear(guest, step + 1, heartbeat(step % 2 + 1))
    history = guest.describe(100)["history"]
    assert len(history) == HISTORY
    assert [each["ago_s"] for each in history[:-1]] == [100.0 - step for step in range(HISTORY - 1, 0, -1)]
    assert history[-1]["reason"] == "old 29"


def test_commands_in_flight_are_described_with_the_time_that_is_left() -> None:
    guest = open_guest()
    guest.restore({}, (), [InFlight("id-1", "lifecycle-event", 5.0, 35.0)])
    assert guest.describe(10.0)["commands"] == [
        {"reply_id": "id-1", "name": "lifecycle-event", "sent_s": 5.0, "left_s": 25.0}
    ]
    assert guest.describe(40.0)["commands"][0]["left_s"] == 0.0


def test_a_guest_that_nothing_is_remembered_of_was_never_heard() -> None:
    guest = make_guest()
    guest.restore({})
    assert guest.describe(1.0)["heard_s"] is None


def test_facts_and_counters_can_be_left_out() -> None:
    guest = open_guest()
    hear(guest, 1, heartbeat())
    whole, part = guest.describe(2), guest.describe(2, with_facts=False)
    assert whole.keys() - part.keys() == {"facts", "capabilities", "counters"}
    assert all(whole[key] == value for key, value in part.items())


def test_the_limits_are_the_promised_ones() -> None:
    assert (guest_module.HISTORY, guest_module.TELLING_RATE) == (20, 3.0)


def test_another_patience_counts_at_once_for_a_guest_that_is_silent_already() -> None:
    guest = make_guest()
    followed: list[float] = []
    guest.connected(0.0, lambda: followed.append(guest.session.silence_limit))
    guest.be_patient(3.0)
    assert followed == [3.0]


# ---- From host to host ----

TRANSFER = "0" * 32


def named(name: str, heard_at: float) -> Fact:
    return Fact.of("host-name", {"name": name}, heard_at)


def test_how_it_stands_with_a_hand_off_is_described() -> None:
    guest = make_guest()
    guest.moving = True
    assert guest.describe(0.0)["handoff"] == {"state": "moving", "peer": None}
    guest.moving_to = "host-b"
    assert guest.describe(0.0)["handoff"] == {"state": "moving", "peer": "host-b"}
    guest.departure = Departure(TRANSFER, "web-1", None, "host-c", 0.0)
    assert guest.describe(0.0)["handoff"] == {"state": "in-doubt", "peer": "host-c"}
    guest.move("host-c")
    assert guest.describe(0.0)["handoff"] == {"state": "moved", "peer": "host-c"}
    assert not guest.moving
    guest.stay()
    assert guest.describe(0.0)["handoff"] == {"state": "here", "peer": None}


def test_a_guest_in_doubt_can_be_renamed() -> None:
    guest = make_guest()
    guest.departure = Departure(TRANSFER, "web-1", None, "host-b", 0.0)
    guest.renamed("shop")
    assert guest.departure == Departure(TRANSFER, "shop", None, "host-b", 0.0)


def test_of_a_guest_that_moved_nothing_is_known_any_more() -> None:
    kept = Kept()
    guest = open_guest(shared=make_shared(memory=kept, limits=Limits(facts_size=100)))
    hear(guest, 1, heartbeat(), _line("fqdn", 50))
    guest.frozen, guest.carried = Frozen((), 99.0), Spec2(advertised=3)
    guest.move("host-b")
    known: tuple[Any, ...] = (guest.facts, guest.history, guest.frozen, guest.carried)
    assert known == ({}, (), None, None)
    assert kept.forgotten == ["web-1"]
    hear(guest, 2, _line("fqdn", 100))
    assert _sizes(guest) == {"fqdn": 100}


def test_one_that_moved_is_back_as_soon_as_it_has_another_port() -> None:
    guest = open_guest()
    guest.move("host-b")
    guest.found("/ports/web-1", 1.0)
    assert guest.moved_to == "host-b"
    guest.found("/ports/web-2", 3.0)
    assert guest.moved_to is None


def test_one_that_had_moved_before_the_daemon_was_restarted_has_its_port_here_still() -> None:
    guest = make_guest()
    guest.move("host-b")
    guest.found("/ports/web-1", 1.0)
    assert guest.moved_to == "host-b"


def test_what_another_host_knew_counts_where_nothing_newer_is_known() -> None:
    kept = Kept()
    guest = open_guest(50.0, shared=make_shared(memory=kept))
    hear(guest, 60.0, ("fqdn", {"fqdn": "here"}))
    kept.facts.clear()
    there = {
        "fqdn": Fact.of("fqdn", {"fqdn": "there"}, 59.0),
        "host-name": named("there", 40.0),
        "timezone": Fact.of("timezone", {"zone": "CET", "offset": 60}, UNKNOWN_TIME),
    }
    guest.take_over("u-1", there)
    assert guest.facts == {**there, "fqdn": Fact.of("fqdn", {"fqdn": "here"}, 60.0)}
    assert [(name, fact) for _, name, fact in kept.facts] == [(name, there[name]) for name in ("host-name", "timezone")]
    assert (guest.uuid, kept.uuids) == ("u-1", {"web-1": "u-1"})
    described = guest.describe(70.0)
    assert {name: each["age_s"] for name, each in described["facts"].items()} == {
        "fqdn": 10.0,
        "host-name": 30.0,
        "timezone": None,
    }
    assert described["heard_s"] == 10.0


@pytest.mark.parametrize(("heard_at", "heard_s"), [(0.0, 5.0), (UNKNOWN_TIME, None)])
def test_a_guest_that_comes_was_heard_when_its_last_host_heard_it(heard_at: float, heard_s: Optional[float]) -> None:
    guest = make_guest()
    guest.take_over(None, {"host-name": named("web", heard_at)})
    assert guest.describe(5.0)["heard_s"] == heard_s


def test_a_guest_that_comes_is_the_vm_that_it_was_and_this_hosts() -> None:
    guest = make_guest()
    guest.uuid, guest.moving, guest.departure = "u-1", True, Departure(TRANSFER, "web-1", None, "host-b", 0.0)
    guest.take_over("u-2", {})
    assert guest.uuid == "u-1"
    assert guest.describe(0.0)["handoff"] == {"state": "here", "peer": None}


def test_what_another_host_carries_is_bounded_as_what_a_guest_says() -> None:
    guest = make_guest(shared=make_shared(limits=Limits(facts_size=100)))
    guest.take_over(None, {"host-name": Fact.of(*_line("host-name", 100), 0.0), "fqdn": Fact.of(*_line("fqdn", 50), 0.0)})
    assert _sizes(guest) == {"host-name": 100}


def test_the_histories_of_two_hosts_are_one() -> None:
    kept = Kept()
    guest = make_guest(shared=make_shared(memory=kept))
    both = [VersionChange(10.0, 0, 3, "first"), VersionChange(30.0, 3, 0, "end")]
    guest.restore({}, [both[0], VersionChange(90.0, 0, 5, "here")])
    there = [both[0]._replace(at=10.9), both[1]]
    guest.take_over(None, {}, there)
    assert guest.history == (both[0], both[1], VersionChange(90.0, 0, 5, "here"))
    assert [change for _, change in kept.changes] == [both[1]]
    many = [VersionChange(200.0 + number, 0, 3, "more") for number in range(2 * HISTORY)]
    guest.take_over(None, {}, many)
    assert guest.history == tuple(many[-HISTORY:])


def test_what_it_let_another_host_do_is_shown_until_it_has_agreed_here() -> None:
    carried = Spec2(advertised=5, agent_id="a", capabilities=Capabilities({"exec": True}, ("f",)), counters={"lines": 7})
    guest = make_guest(supported=NEWEST)
    guest.take_over(None, {}, carried=carried)
    assert guest.carried_capabilities == carried.capabilities
    assert guest.describe(0.0)["capabilities"] == {"commands": {"exec": True}, "features": ["f"]}
    assert guest.session.capabilities is None
    guest.found("/ports/web-1", 0.0)
    guest.connected(0.0)
    hear(guest, 1.0, ("host-name", {"name": "web"}))
    assert guest.carried is carried
    hear(guest, 2.0, heartbeat(3))
    assert guest.describe(2.0)["capabilities"] is None
    assert guest.carried == Spec2(counters={"lines": 7})
    guest.take_over(None, {}, carried=carried)
    assert guest.carried == Spec2(counters={"lines": 7})


def test_what_it_says_itself_is_shown_instead() -> None:
    guest = open_guest(supported=NEWEST)
    hear(guest, 1.0, heartbeat(5), ("capabilities", CAPABILITIES.to_arguments()))
    guest.take_over(None, {}, carried=Spec2(capabilities=Capabilities({"exec": True}, ())))
    assert guest.describe(2.0)["capabilities"]["commands"] == CAPABILITIES.commands


def test_what_is_frozen_is_shown_until_it_has_thawed_by_itself() -> None:
    guest = make_guest()
    guest.frozen = Frozen(("/", "/srv"), 30.0)
    assert guest.describe(20.0)["frozen"] == {"mountpoints": ["/", "/srv"], "thaws_in_s": 10.0}
    assert guest.frozen_at(29.9) is guest.frozen
    assert guest.frozen_at(30.0) is guest.describe(30.0)["frozen"] is None
