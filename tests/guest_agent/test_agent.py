"""The loop, in this process: over FIFOs or a socket pair, on a clock of the test's own."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from common import codec, messages, versions
from common.catalogue import CATALOGUE
from common.messages import Message
from common.versions import Version
from guest_agent import quiet
from guest_agent.agent import Agent
from guest_agent.collectors import Collector
from guest_agent.collectors.memory import Meter
from guest_agent.port import Port

from .parts import GIVE_UP, Clock, FifoHost, LeapingSelector, configuration, lines_of, wait_until

REFRESH = codec.encode("refresh", {"apiVersion": 3, "hostId": "h"})
MEMORY = {"mem_total": 1}

FACTS: dict[str, Message] = {
    "host-name": messages.HostName(name="vm"),
    "fqdn": messages.Fqdn(fqdn="vm.example"),
    "os-version": messages.OsVersion(version="6.1"),
    "os-info": messages.OsInfo(version="12", distribution="D", codename="b", arch="x", type="linux", kernel="6.1"),
    "number-of-cpus": messages.NumberOfCpus(count=2),
    "timezone": messages.Timezone(zone="UTC", offset=0),
    "memory-stats": messages.MemoryStats(memory=MEMORY),
    "active-user": messages.ActiveUser(name="None"),
    "network-interfaces": messages.NetworkInterfaces(interfaces=()),
    "applications": messages.Applications(applications=()),
    "containers": messages.Containers(containers=()),
    "disks-usage": messages.DisksUsage(disks=(), mapping={}),
}


def push(version: int) -> bytes:
    return codec.encode("api-version", {"apiVersion": version})


class Bench:
    """An agent over FIFOs and what the host has heard of it."""

    def __init__(self, host: FifoHost, clock: Clock, root: Path, selector: Optional[LeapingSelector] = None) -> None:
        self.host = host
        self.clock = clock
        self.collectors: dict[str, Collector] = {
            name: (lambda fact=fact: fact)  # type: ignore[misc]
            for name, fact in FACTS.items()
        }
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._received = b""
        self._root = root
        self._selector = selector
        self._agent: Optional[Agent] = None

    @property
    def agent(self) -> Agent:
        if self._agent is None:
            self._agent = Agent(
                configuration(),
                self.host.port,
                self.collectors,
                Meter(str(self._root), self.clock),
                self.clock,
                self._selector,
            )
        return self._agent

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]

    def turn(self) -> None:
        self.agent.turn(0.02)
        self.listen()

    def listen(self) -> None:
        """Hear what was said since."""
        complete, newline, self._received = (self._received + self.host.read()).rpartition(b"\n")
        self.heard += lines_of(complete + newline)

    def until(self, condition: Callable[[], Any]) -> Any:
        return wait_until(condition, self.turn)

    def settle(self) -> None:
        """Take turns until the worker has nothing left to do."""
        self.turn()
        self.until(lambda: not self.agent._gatherer._under_way)
        self.turn()

    def connect(self) -> None:
        self.turn_alone()
        self.host.connect()
        self.turn()

    def turn_alone(self) -> None:
        self.agent.turn(0)

    def last(self, name: str) -> dict[str, Any]:
        return next(arguments for heard, arguments in reversed(self.heard) if heard == name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4096 kB\nMemFree: 2048 kB\n", encoding="utf-8")
    (tmp_path / "proc/vmstat").write_text("pgfault 0\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def bench(tmp_path: Path, root: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    caplog.set_level(logging.INFO)
    made = Bench(FifoHost(tmp_path), clock, root)
    yield made
    made.agent.close()


def negotiate(bench: Bench, version: int = 3) -> None:
    bench.connect()
    bench.host.write(REFRESH + push(version))
    bench.settle()


# ---- What the host hears ----


def test_a_host_hears_the_startup_then_a_heartbeat_and_every_fact_of_version_0(bench: Bench) -> None:
    bench.connect()
    bench.settle()
    assert bench.names[:3] == ["session-startup", "heartbeat", "heartbeat"]
    assert set(bench.names[3:]) == CATALOGUE.facts(up_to=Version.V0)


def test_a_heartbeat_says_what_it_must(bench: Bench) -> None:
    bench.connect()
    heartbeat = bench.last("heartbeat")
    assert heartbeat.keys() == {"apiVersion", "apiVersionInUse", "agentId", "free-ram", "memory-stat"}
    assert heartbeat["apiVersion"] == versions.newest()
    assert heartbeat["free-ram"] == "2"
    assert re.fullmatch("[0-9a-f]{32}", heartbeat["agentId"])


def test_each_run_of_the_agent_has_an_identity_of_its_own(bench: Bench, clock: Clock) -> None:
    other = Bench(bench.host, clock, bench._root)
    bench.connect()
    first = bench.last("heartbeat")["agentId"]
    bench.host.disconnect()
    bench.agent.close()
    other.connect()
    assert other.last("heartbeat")["agentId"] != first
    other.agent.close()
    bench._agent = None
    bench.host.disconnect()


def test_a_push_is_answered_with_a_heartbeat_and_the_facts_that_became_allowed(bench: Bench) -> None:
    bench.connect()
    bench.settle()
    bench.heard.clear()
    bench.host.write(REFRESH)
    bench.settle()
    bench.heard.clear()
    bench.host.write(push(2))
    bench.settle()
    assert bench.names[0] == "heartbeat"
    assert bench.last("heartbeat")["apiVersionInUse"] == 2
    assert set(bench.names[1:]) == {"number-of-cpus", "os-info", "timezone"}


def test_a_fact_arrives_as_it_was_collected(bench: Bench) -> None:
    negotiate(bench)
    assert bench.last("os-info") == FACTS["os-info"].to_arguments()
    assert bench.last("timezone") == {"zone": "UTC", "offset": 0}


def test_heartbeats_come_in_their_period(bench: Bench) -> None:
    negotiate(bench)
    for _ in range(10):
        bench.heard.clear()
        bench.clock.advance(5.0)
        bench.turn()
        assert bench.names.count("heartbeat") == 1


def test_facts_come_in_their_periods(bench: Bench) -> None:
    negotiate(bench)
    bench.heard.clear()
    bench.clock.advance(10.0)
    bench.settle()
    assert set(bench.names) == {"heartbeat", "active-user"}
    bench.heard.clear()
    bench.clock.advance(50.0)
    bench.settle()
    assert set(bench.names) == {"heartbeat", "active-user", "number-of-cpus"}


def test_facts_newer_than_the_version_in_use_are_not_even_collected(bench: Bench) -> None:
    collected: list[None] = []

    def collect() -> Message:
        collected.append(None)
        return FACTS["os-info"]

    bench.collectors["os-info"] = collect
    negotiate(bench, 1)
    bench.clock.advance(1000.0)
    bench.settle()
    assert "number-of-cpus" in bench.names
    assert collected == []


def test_a_fact_that_was_gathered_while_the_version_fell_is_not_sent(bench: Bench) -> None:
    release, begun = threading.Event(), threading.Event()

    def collect() -> Message:
        begun.set()
        release.wait(GIVE_UP)
        return FACTS["os-info"]

    bench.collectors["os-info"] = collect
    bench.connect()
    bench.host.write(REFRESH + push(3))
    bench.until(begun.is_set)
    bench.host.write(push(1))
    bench.turn()
    release.set()
    bench.settle()
    assert "os-info" not in bench.names


def test_facts_that_were_gathered_for_a_host_that_went_are_due_for_the_next_one(bench: Bench) -> None:
    release, begun = threading.Event(), threading.Event()

    def collect() -> Message:
        begun.set()
        release.wait(GIVE_UP)
        return FACTS["host-name"]

    bench.collectors["host-name"] = collect
    bench.connect()
    bench.until(begun.is_set)
    bench.host.disconnect()
    bench.turn_alone()
    release.set()
    wait_until(lambda: not bench.agent._gatherer._under_way, bench.turn_alone)
    bench.host.connect()
    bench.settle()
    assert "host-name" in bench.names


def test_a_logon_is_noticed_along_with_the_active_user(bench: Bench) -> None:
    reports: list[list[Message]] = [
        [messages.SessionLogon(), messages.ActiveUser(name="alice")],
        [messages.ActiveUser(name="None")],
    ]
    bench.collectors["active-user"] = lambda: reports.pop() if len(reports) > 1 else reports[0]
    negotiate(bench, 0)
    bench.heard.clear()
    bench.clock.advance(10.0)
    bench.settle()
    assert [each for each in bench.heard if each[0] != "heartbeat"] == [
        ("session-logon", {}),
        ("active-user", {"name": "alice"}),
    ]


# ---- Commands ----


def test_an_echo_comes_back_unchanged(bench: Bench) -> None:
    negotiate(bench)
    arguments = {"n": 1, "deep": {"list": [1, "two", None]}, "text": "ü"}
    bench.host.write(codec.encode("echo", arguments))
    bench.turn()
    assert bench.last("echo") == arguments


def test_a_lifecycle_event_with_a_reply_id_is_completed(bench: Bench) -> None:
    negotiate(bench)
    bench.host.write(codec.encode("lifecycle-event", {"type": "before_migration", "reply_id": "r1"}))
    bench.turn()
    assert bench.last("completion") == {"reply_id": "r1", "done": True}


def test_a_lifecycle_event_without_a_reply_id_is_not_answered(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    negotiate(bench)
    caplog.clear()
    bench.host.write(codec.encode("lifecycle-event", {"type": "after_migration"}))
    bench.turn()
    assert "completion" not in bench.names
    assert caplog.messages == []


def test_a_completion_that_the_version_in_use_does_not_have_is_not_sent(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    negotiate(bench, 2)
    bench.host.write(codec.encode("lifecycle-event", {"type": "before_migration", "reply_id": "r1"}))
    bench.turn()
    assert "completion" not in bench.names
    assert caplog.messages[-1] == "lifecycle-event: not answered: completion needs API 3, spoken is API 2"


def test_a_command_that_is_not_carried_out_is_named_without_its_arguments(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    negotiate(bench)
    bench.host.write(codec.encode("login", {"username": "alice@example", "password": "open-sesame"}))
    bench.host.write(codec.encode("login", {"username": "alice@example", "password": ["open-sesame"]}))
    bench.host.write(b'{"__name__": "login", "password": "open-sesame"\n')
    bench.turn()
    assert "login: not carried out, this agent does not know how" in caplog.messages
    assert "alice" not in caplog.text
    assert "sesame" not in caplog.text


def test_a_number_of_cpus_to_set_is_answered_with_the_number_of_cpus_each_time(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    negotiate(bench)
    for _ in range(2):
        bench.heard.clear()
        bench.host.write(codec.encode("set-number-of-cpus", {"count": 4}))
        bench.settle()
        assert bench.heard == [("number-of-cpus", {"count": 2})]
    assert "set-number-of-cpus: not carried out, this agent does not know how" in caplog.messages


def test_a_flood_of_commands_is_no_flood_of_log_lines(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    negotiate(bench)
    caplog.clear()
    flood = b"".join(
        codec.encode("lock-screen", {}) + push(number % 4) + b"garbage\n" + codec.encode("log-off", {})
        for number in range(200)
    )
    bench.host.write(flood)
    for _ in range(10):
        bench.turn()
    assert 3 <= len(caplog.messages) <= 20


def test_after_a_burst_of_changes_the_log_ends_with_the_version_in_use(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    negotiate(bench)
    bench.host.write(b"".join(push(version) for version in (1, 2, 1, 2, 1, 2, 1, 3)))
    bench.turn()
    assert caplog.messages[-1] == "API 1 → 2 in use: the host says so"
    bench.clock.advance(quiet.PERIOD)
    bench.turn()
    assert caplog.messages[-1] == "API 1 → 3 in use: the host says so (lines held back: 4; this is the last)"


def test_the_loop_wakes_for_lines_held_back(bench: Bench) -> None:
    bench.turn_alone()
    for _ in range(quiet.BURST + 1):
        bench.agent._quiet.info("topic", "again")
    bench.clock.advance(quiet.PERIOD)
    assert bench.agent._quiet.next_deadline() == bench.clock()
    assert bench.agent._patience() == 0
    bench.turn_alone()
    assert bench.agent._quiet.next_deadline() is None


def test_a_change_of_version_is_one_line(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    negotiate(bench)
    assert "API 0 → 3 in use: the host says so" in caplog.messages


# ---- Collectors that fail or hang ----


def test_a_collector_that_hangs_delays_no_heartbeat(bench: Bench) -> None:
    release = threading.Event()

    def hang() -> Message:
        release.wait(GIVE_UP)
        return FACTS["disks-usage"]

    bench.collectors["disks-usage"] = hang
    bench.connect()
    bench.until(lambda: "network-interfaces" in bench.names)
    for _ in range(100):
        bench.heard.clear()
        bench.clock.advance(5.0)
        bench.turn()
        assert bench.names.count("heartbeat") == 2
        assert "disks-usage" not in bench.names
    release.set()
    bench.settle()
    assert "disks-usage" in bench.names


def test_a_failing_collector_is_said_once_until_it_works_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    broken = True

    def collect() -> Message:
        if broken:
            raise LookupError("strange")
        return FACTS["active-user"]

    bench.collectors["active-user"] = collect
    negotiate(bench)
    for _ in range(3):
        bench.clock.advance(10.0)
        bench.settle()
    broken = False
    bench.clock.advance(10.0)
    bench.settle()
    said = [message for message in caplog.messages if message.startswith("active-user")]
    assert said == [
        "active-user: can't be collected, the host is told the rest: LookupError: strange",
        "active-user: can be collected again",
    ]
    assert "active-user" in bench.names


def test_a_fact_that_does_not_fit_on_a_line_is_said_and_ends_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.collectors["host-name"] = lambda: messages.HostName(name="x" * 2_000_000)
    negotiate(bench)
    assert "host-name" not in bench.names
    assert any(message.startswith("host-name: can't be collected") for message in caplog.messages)


def test_without_memory_figures_the_heartbeat_still_beats(
    bench: Bench, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "proc/meminfo").unlink()
    bench.connect()
    bench.settle()
    assert bench.last("heartbeat").keys() == {"apiVersion", "apiVersionInUse", "agentId"}
    assert sum(message.startswith("heartbeat: can't") for message in caplog.messages) == 1


def test_a_heartbeat_for_a_host_that_has_just_gone_is_not_sent(bench: Bench) -> None:
    bench.connect()
    bench.settle()
    bench.heard.clear()
    bench.host.write(REFRESH)
    bench.host.disconnect()
    bench.turn_alone()
    bench.host.connect()
    bench.turn()
    assert bench.names.count("heartbeat") == 0


# ---- A host that does not read ----


def test_a_host_that_does_not_read_is_no_burden_and_then_hears_everything(bench: Bench) -> None:
    negotiate(bench)
    bench.collectors["active-user"] = lambda: messages.ActiveUser(name="x" * 5000)
    agent = bench.agent
    for _ in range(200):
        bench.clock.advance(10.0)
        agent.turn(0.001)
    assert agent._link.congested
    wait_until(lambda: not agent._gatherer._under_way, lambda: agent.turn(0.001))
    bench.heard.clear()
    bench.until(lambda: not agent._link.congested)
    bench.settle()
    assert set(bench.names) >= {"heartbeat", "active-user"}


# ---- Calm ----


@pytest.fixture
def leaping(tmp_path: Path, root: Path, clock: Clock) -> Iterator[Callable[[Callable[[int], None]], Bench]]:
    made: list[Bench] = []

    def make(on_turn: Callable[[int], None]) -> Bench:
        made.append(Bench(FifoHost(tmp_path), clock, root, LeapingSelector(clock, on_turn)))
        return made[-1]

    yield make
    for each in made:
        each.agent.close()


HOUR = 3600.0


def run_for_an_hour(bench: Bench) -> int:
    """How many turns the loop takes in an hour of the bench's clock."""
    bench.agent.run()
    assert bench._selector is not None
    return bench._selector.turns


def test_without_a_host_the_loop_turns_once_in_a_heartbeat(
    leaping: Callable[[Callable[[int], None]], Bench], clock: Clock
) -> None:
    end = clock() + HOUR
    calm = leaping(lambda _: calm.agent.stop() if clock() >= end else None)
    assert run_for_an_hour(calm) <= HOUR / 5 + 10


def test_after_a_host_has_gone_the_loop_turns_once_in_a_heartbeat(
    leaping: Callable[[Callable[[int], None]], Bench], clock: Clock
) -> None:
    end = clock() + HOUR

    def on_turn(turns: int) -> None:
        if turns == 3:
            calm.host.connect()
        if turns == 6:
            calm.host.disconnect()
        if clock() >= end:
            calm.agent.stop()

    calm = leaping(on_turn)
    assert run_for_an_hour(calm) <= HOUR / 5 + 30


def test_with_a_host_the_loop_turns_for_heartbeats_and_facts_only(
    leaping: Callable[[Callable[[int], None]], Bench], clock: Clock
) -> None:
    end = clock() + HOUR

    def on_turn(turns: int) -> None:
        if turns == 3:
            calm.host.connect()
            calm.host.write(REFRESH + push(3))
        if turns > 3:
            calm.listen()
        if clock() >= end:
            calm.agent.stop()

    calm = leaping(on_turn)
    turns = run_for_an_hour(calm)
    heartbeats, facts = calm.names.count("heartbeat"), len(calm.names) - calm.names.count("heartbeat")
    assert 700 <= heartbeats <= 730
    assert turns <= 2 * (heartbeats + facts) + 30


def test_with_a_host_that_does_not_read_the_loop_turns_for_heartbeats_only(
    leaping: Callable[[Callable[[int], None]], Bench], clock: Clock
) -> None:
    end = clock() + HOUR

    def on_turn(turns: int) -> None:
        if turns == 3:
            calm.host.connect()
            calm.host.write(REFRESH + push(3))
        if clock() >= end:
            calm.agent.stop()

    calm = leaping(on_turn)
    calm.collectors["active-user"] = lambda: messages.ActiveUser(name="x" * 50_000)
    assert run_for_an_hour(calm) <= 3 * HOUR / 5
    assert calm.agent._link.congested


# ---- The end ----


def test_at_the_end_the_host_hears_what_was_left_to_say(root: Path, clock: Clock) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    agent = Agent(configuration(), lambda: Port(ours.detach(), "pair"), {}, Meter(str(root), clock), clock, selector=None)
    with theirs:
        agent.turn(0)
        theirs.recv(65536)
        theirs.send(codec.encode("echo", {"n": 1}))
        agent._link.advance(clock())
        agent._follow_events(clock())
        agent.close()
        assert lines_of(theirs.recv(65536)) == [("echo", {"n": 1})]


def test_a_stop_ends_the_loop_before_it_waits(bench: Bench) -> None:
    bench.agent.stop()
    bench.agent.run()


def test_the_end_waits_for_no_collector_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang() -> Message:
        release.wait(GIVE_UP)
        return FACTS["host-name"]

    bench.collectors["host-name"] = hang
    monkeypatch.setattr("guest_agent.agent.FAREWELL", 0.01)
    bench.connect()
    agent, bench._agent = bench.agent, None
    agent.close()
    release.set()
    assert agent._gatherer.close(GIVE_UP)
    agent._wakeup.close()
    bench.host.disconnect()
