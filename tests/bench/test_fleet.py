from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from common import codec, events, messages, versions
from common.session import HostSession
from host_agent.discovery import PORTS
from host_agent.discovery.directory import guest_name
from tests.bench import fleet as fleets
from tests.bench import speech
from tests.bench.fleet import Fleet

pytestmark = pytest.mark.once

#: How often a fleet and a host take turns until something has happened; it takes a few.
TURNS = 2000


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Host:
    """A real session on a connection to a guest."""

    def __init__(self, place: Path, number: int = 0, supported: versions.Version = versions.Version.V3) -> None:
        self.session = HostSession(supported, "a host")
        self.received = b""
        self.messages: list[str] = []
        self.ended = False
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.connect(str(place / f"domain-1-{fleets.name_of(number)}" / fleets.PORT_NAME))
        except OSError:
            self._connection.close()
            raise
        self._connection.setblocking(False)
        self.session.connected(0.0)

    def play(self) -> None:
        """Write and read what there is."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._connection.send(self.session.data_to_send())
        with contextlib.suppress(BlockingIOError, ConnectionError):
            data = self._connection.recv(65536)
            self.ended = not data
            self.received += data
            self.session.receive_data(data, 0.0)
        happened = self.session.events()
        self.messages += [event.name for event in happened if isinstance(event, events.MessageReceived)]

    def send(self, data: bytes) -> int:
        """Write past the session."""
        return self._connection.send(data)

    def leave(self) -> None:
        self._connection.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> Iterator[Fleet]:
    fleet = Fleet(str(tmp_path), clock)
    yield fleet
    fleet.close()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    with contextlib.ExitStack() as hosts:

        def connect(*arguments: Any) -> Host:
            host = Host(tmp_path, *arguments)
            hosts.callback(host.leave)
            return host

        yield connect


def until(fleet: Fleet, condition: Callable[[], object], *hosts: Host) -> None:
    """Let them all take turns until *condition* holds."""
    for _ in range(TURNS):
        if condition():
            return
        fleet.turn(0)
        for host in hosts:
            host.play()
    pytest.fail("what was waited for did not come")


def settle(fleet: Fleet, *hosts: Host) -> None:
    """Let them take turns until all that has been said is heard."""
    for _ in range(20):
        fleet.turn(0)
        for host in hosts:
            host.play()


def agree(fleet: Fleet, host: Host) -> None:
    until(fleet, lambda: host.session.negotiation.agreed == host.session.negotiation.in_use == 3, host)


def test_ports_lie_as_libvirt_lays_them_out(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add(41, 2)
    assert sorted(guest_name(str(tmp_path), each) or "" for each in os.listdir(tmp_path)) == ["g00041", "g00042"]
    assert os.listdir(tmp_path / "domain-1-g00042") == [fleets.PORT_NAME]
    assert fleets.PORT_NAME in PORTS


def test_a_guest_agrees_and_says_all_it_knows_without_an_error(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1)
    host = connect()
    agree(fleet, host)
    settle(fleet, host)
    assert {"host-name", "number-of-cpus", "os-info", "containers", "heartbeat"} <= set(host.messages)
    counters = host.session.counters
    assert not counters.dropped
    assert not counters.mistyped
    assert not counters.newer_than_agreed
    assert counters.pushes == 1


@pytest.mark.parametrize("supported", [version for version in versions.Version if version <= speech.NEWEST])
def test_a_guest_says_nothing_newer_than_its_host_knows(
    supported: versions.Version, fleet: Fleet, connect: Callable[..., Host]
) -> None:
    fleet.add(0, 1)
    host = connect(0, supported)
    until(fleet, lambda: "heartbeat" in host.messages, host)
    settle(fleet, host)
    assert host.session.negotiation.agreed == supported
    assert not host.session.counters.dropped


def test_a_guest_without_facts_sends_heartbeats_only(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False)
    host = connect()
    agree(fleet, host)
    settle(fleet, host)
    assert set(host.messages) == {"heartbeat"}
    fleet.behave(0, 1, facts=True)
    host.session.refresh(0.0)
    until(fleet, lambda: "containers" in host.messages, host)


def test_heartbeats_are_spread_evenly_over_the_guests(fleet: Fleet, clock: Clock, connect: Callable[..., Host]) -> None:
    fleet.add(0, 2, facts=False)
    hosts = [connect(0), connect(1)]
    for host in hosts:
        agree(fleet, host)
    settle(fleet, *hosts)
    fleet.rate(4)
    before = [len(host.messages) for host in hosts]
    for _ in range(8):
        settle(fleet, *hosts)
        clock.now += 0.25
    settle(fleet, *hosts)
    assert [len(host.messages) - count for host, count in zip(hosts, before)] in ([4, 5], [5, 4])


def test_heartbeats_may_go_out_in_bunches(fleet: Fleet, clock: Clock, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False)
    host = connect()
    agree(fleet, host)
    settle(fleet, host)
    fleet.rate(10, at_once=5)
    fleet.report(reset=True)
    settle(fleet, host)
    assert fleet.report()["heartbeats"] == 5
    clock.now += 0.4
    settle(fleet, host)
    assert fleet.report()["heartbeats"] == 5
    clock.now += 0.1
    settle(fleet, host)
    assert fleet.report()["heartbeats"] == 10


def test_a_fleet_that_falls_behind_says_so_and_does_not_catch_up(fleet: Fleet, clock: Clock) -> None:
    fleet.add(0, 1)
    fleet.rate(10)
    fleet.turn(0)
    clock.now += 100
    fleet.turn(0)
    assert fleet.report()["behind"] == pytest.approx(1000, abs=2)


def test_a_fleet_waits_no_longer_than_until_the_next_heartbeat(tmp_path: Path) -> None:
    fleet = Fleet(str(tmp_path))
    fleet.add(0, 1, facts=False)
    fleet.rate(1000)
    host = Host(tmp_path)
    until(fleet, lambda: host.session.negotiation.agreed == 3, host)
    fleet.report(reset=True)
    while fleet.report()["heartbeats"] < 5:
        fleet.turn(60.0)
        host.play()
    host.leave()
    fleet.close()


def test_the_wait_for_what_was_agreed_is_measured(fleet: Fleet, clock: Clock, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False)
    host = connect()
    host.play()
    until(fleet, lambda: fleet.report()["heartbeats"])
    clock.now += 0.5
    assert fleet.latencies() == [0.5]
    clock.now += 0.5
    agree(fleet, host)
    assert fleet.latencies() == [1.0]
    assert fleet.latencies() == []
    assert fleet.report()["all_agreed"] == clock.now


def test_a_guest_turns_to_another_version_and_back(fleet: Fleet, clock: Clock, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False, turns_to=2, turns_every=3)
    host = connect()
    agree(fleet, host)
    settle(fleet, host)
    fleet.rate(1)
    agreed = []
    for _ in range(9):
        clock.now += 1
        settle(fleet, host)
        agreed.append(int(host.session.negotiation.agreed))
    assert agreed == [3, 2, 2, 2, 3, 3, 3, 2, 2]
    assert len(fleet.latencies()) == host.session.counters.pushes
    assert not host.session.counters.dropped


def test_a_command_is_completed(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False)
    host = connect()
    agree(fleet, host)
    host.session.send(messages.LifecycleEvent(type="before_migration"), reply_id="r")
    until(fleet, lambda: "completion" in host.messages, host)
    assert b'"reply_id":"r"' in host.received
    assert fleet.report()["commands"] == 1


def test_a_guest_may_leave_commands_unanswered(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False, answers=False)
    host = connect()
    agree(fleet, host)
    host.session.send(messages.LifecycleEvent(type="before_migration"), reply_id="r")
    until(fleet, lambda: fleet.report()["commands"], host)
    settle(fleet, host)
    assert "completion" not in host.messages


def test_an_echo_comes_back(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False)
    host = connect()
    host.send(b'{"__name__":"echo","word":"hello"}\n')
    until(fleet, lambda: b'"hello"' in host.received, host)


def test_a_silent_guest_says_nothing_whatever_it_is_asked(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, silent=True)
    fleet.rate(100)
    host = connect()
    settle(fleet, host)
    assert host.received == b""
    fleet.behave(0, 1, silent=False)
    host.session.refresh(0.0)
    agree(fleet, host)


def test_a_deaf_guest_does_not_read(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, deaf=True)
    host = connect()
    settle(fleet, host)
    with contextlib.suppress(BlockingIOError):
        for _ in range(TURNS):
            host.send(b"\n" * 65536)
            fleet.turn(0)
        pytest.fail("it read")
    fleet.behave(0, 1, deaf=False)
    agree(fleet, host)


def test_garbage_costs_no_heartbeat(fleet: Fleet, clock: Clock, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1, facts=False, garbage=True)
    host = connect()
    agree(fleet, host)
    settle(fleet, host)
    fleet.rate(1)
    before = host.messages.count("heartbeat")
    for _ in speech.GARBAGE:
        settle(fleet, host)
        clock.now += 1
    assert host.messages.count("heartbeat") - before >= len(speech.GARBAGE)
    assert sum(host.session.counters.dropped.values()) > 5


@pytest.mark.parametrize("flood", speech.FLOODS)
def test_a_flood_goes_on_as_long_as_it_is_read_and_costs_no_other_guest_anything(
    flood: str, fleet: Fleet, clock: Clock, connect: Callable[..., Host]
) -> None:
    fleet.add(0, 2, facts=False)
    other = connect(1)
    agree(fleet, other)
    fleet.behave(0, 1, flood=flood)
    flooded = connect(0)
    until(fleet, lambda: fleet.report()["flooded"] > 2 * len(speech.FLOODS[flood]), flooded, other)
    assert speech.FLOODS[flood][:1000] in flooded.received
    fleet.rate(2)
    before = len(other.messages)
    settle(fleet, other)
    clock.now += 1
    settle(fleet, other)
    assert len(other.messages) > before
    fleet.behave(0, 1, flood=None)
    flooded.play()
    written = fleet.report()["flooded"]
    settle(fleet, flooded, other)
    assert fleet.report()["flooded"] == written


def test_what_does_not_fit_is_written_later_and_never_torn(fleet: Fleet, clock: Clock, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1)
    host = connect()
    agree(fleet, host)
    settle(fleet, host)
    fleet.rate(1000)
    fleet.report(reset=True)
    for _ in range(TURNS):
        clock.now += 0.001
        fleet.turn(0)
    assert fleet.report()["heartbeats"] < TURNS / 2
    settle(fleet, host)
    fleet.rate(0)
    settle(fleet, host)
    assert host.messages.count("heartbeat") >= fleet.report()["heartbeats"]
    assert not host.session.counters.dropped


def test_a_restarted_agent_agrees_anew_on_the_same_connection(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1)
    host = connect()
    agree(fleet, host)
    settle(fleet, host)
    fleet.restart(0, 1)
    assert fleet.report()["agreed"] == 0
    until(fleet, lambda: fleet.report()["agreed"], host)
    settle(fleet, host)
    identities = {codec.decode(line)[1].get("agentId") for line in host.received.splitlines() if b"agentId" in line}
    assert len(identities) == 2


def test_a_guest_has_one_host_at_a_time_and_takes_the_next_when_it_is_gone(
    fleet: Fleet, connect: Callable[..., Host]
) -> None:
    fleet.add(0, 1)
    first = connect()
    agree(fleet, first)
    second = connect()
    settle(fleet, first, second)
    assert second.received == b""
    first.leave()
    agree(fleet, second)
    assert fleet.report()["connections"] == 2
    assert fleet.report()["connected"] == 1


def test_a_guest_hangs_up_and_takes_the_next_connection(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 1)
    host = connect()
    agree(fleet, host)
    fleet.hang_up(0, 1)
    fleet.hang_up(0, 1)
    until(fleet, lambda: host.ended, host)
    assert fleet.report()["agreed"] == 0
    agree(fleet, connect())


def test_a_guest_vanishes_with_its_port(fleet: Fleet, tmp_path: Path, connect: Callable[..., Host]) -> None:
    fleet.add(0, 2)
    host = connect()
    agree(fleet, host)
    fleet.remove(0, 1)
    until(fleet, lambda: host.ended, host)
    assert os.listdir(tmp_path) == ["domain-1-g00001"]
    assert fleet.report()["guests"] == 1
    assert [state["name"] for state in fleet.states()] == ["g00001"]


def test_states_say_what_each_guest_uses(fleet: Fleet, connect: Callable[..., Host]) -> None:
    fleet.add(0, 2)
    fleet.behave(1, 1, version=None)
    agree(fleet, connect())
    assert fleet.states() == [
        {"name": "g00000", "connected": True, "announced": 3, "in_use": 3},
        {"name": "g00001", "connected": False, "announced": None, "in_use": 0},
    ]


def test_with_few_descriptors_guests_do_without_listeners_while_connected(
    fleet: Fleet, tmp_path: Path, connect: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.add(0, 1)
    agree(fleet, connect(0))
    allowed = fleets.SPARE + 3
    monkeypatch.setattr("resource.getrlimit", lambda _: (allowed, allowed))
    fleet.add(1, 1)
    first = connect(1)
    agree(fleet, first)
    for number in (0, 1):
        with pytest.raises(ConnectionRefusedError):
            Host(tmp_path, number)
    first.leave()
    until(fleet, lambda: fleet.report()["connected"] == 1)
    agree(fleet, connect(1))


def test_more_guests_than_descriptors_are_refused_in_a_sentence(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 100))
    with pytest.raises(SystemExit, match="raise the hard limit"):
        fleet.add(0, 100)


def test_a_place_that_is_too_long_for_sockets_is_refused_in_a_sentence(tmp_path: Path) -> None:
    fleet = Fleet(str(tmp_path / ("x" * 100)))
    with pytest.raises(SystemExit, match="name a shorter place"):
        fleet.add(0, 1)


def test_a_fleet_obeys_commands_until_whoever_gives_them_is_gone(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    fleet = Fleet(str(tmp_path))
    thread = threading.Thread(target=fleet.run, args=[theirs])
    thread.start()
    with ours, ours.makefile("rb") as answers:
        ours.sendall(b'{"do":"add","first":0,"count":2}\n{"do":"report"}\n')
        assert answers.readline() == b"null\n"
        assert b'"guests": 2' in answers.readline()
    thread.join()
    theirs.close()
    fleet.close()
    assert os.listdir(tmp_path) == []
