from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from common import codec
from common.versions import Version
from host_agent.guest import Fact, Guest, State

from .parts import make_guest


def hear(guest: Guest, now: float, *lines: tuple[str, dict[str, Any]]) -> None:
    """Let *guest* say these messages."""
    guest.session.receive_data(b"".join(codec.encode(name, arguments) for name, arguments in lines), now)
    guest.absorb(guest.session.events(), now)


def heartbeat(version: object = 3, **more: Any) -> tuple[str, dict[str, Any]]:
    return "heartbeat", {"apiVersion": version, **more}


def open_guest(now: float = 0.0, supported: Any = Version.V3) -> Guest:
    guest = make_guest(supported=supported, now=now)
    guest.found("/ports/web-1", now)
    guest.connected(now)
    return guest


def test_a_new_guest_is_absent_and_nothing_is_known_of_it() -> None:
    described = make_guest(now=10.0).describe(12.5)
    counters = described.pop("counters")
    assert described == {
        "name": "web-1",
        "channel": {"path": None, "state": "absent", "since_s": 2.5},
        "api": {
            "agreed": None,
            "supported": 3,
            "advertised": None,
            "in_use": None,
            "changes": 0,
            "last_reason": None,
            "last_change_s": None,
        },
        "heard_s": None,
        "facts": {},
    }
    assert counters["lines"] == 0


def test_a_guest_that_agreed_is_described_whole_and_as_json() -> None:
    guest = open_guest(100.0)
    hear(guest, 101.0, heartbeat(apiVersionInUse=0, agentId="a"), ("timezone", {"zone": "CET", "offset": 60}))
    hear(guest, 103.0, heartbeat(apiVersionInUse=3, agentId="a"))
    described = json.loads(json.dumps(guest.describe(104.0)))
    assert described["channel"] == {"path": "/ports/web-1", "state": "responsive", "since_s": 3.0}
    assert described["api"] == {
        "agreed": 3,
        "supported": 3,
        "advertised": 3,
        "in_use": 3,
        "changes": 1,
        "last_reason": "first agreement of this connection: it supports up to API 3, this host up to API 3",
        "last_change_s": 3.0,
    }
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


def test_every_fact_is_told_of() -> None:
    told: list[tuple[str, str, Fact]] = []
    guest = Guest("web", make_guest().session, 0, lambda *fact: told.append(fact))
    guest.found("/p", 0)
    guest.connected(0)
    hear(guest, 1, ("host-name", {"name": "ü"}))
    assert told == [("web", "host-name", Fact('{"name":"ü"}', 1))]


def test_a_restored_guest_has_facts_and_no_agreement() -> None:
    guest = make_guest(now=0.0)
    guest.restore({"host-name": Fact('{"name":"web"}', -50.0), "fqdn": Fact('{"fqdn":"w"}', -30.0)})
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
