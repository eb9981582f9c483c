"""The loop, in this process: over FIFOs or a socket pair, on a clock of the test's own, with real workers."""

from __future__ import annotations

import errno
import math
import os
import re
import select
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from common import codec, messages, versions
from common.catalogue import CATALOGUE
from common.errors import SendRefused
from common.messages import Message
from common.session import HostSession
from common.versions import Version
from guest_agent import agent as agents
from guest_agent import executor, quiet
from guest_agent.agent import RELOAD_PATIENCE, Agent
from guest_agent.answers import OUTBOX_LIMIT, OUTBOX_WEIGHT, Outcome
from guest_agent.collectors import Quick, Slow, Sources
from guest_agent.collectors.memory import Meter
from guest_agent.commands import COMMANDS, CommandFailed, Machine
from guest_agent.config import Configuration
from guest_agent.crew import Crew, Task
from guest_agent.facts import PATIENCE
from guest_agent.freezer import Freezer
from guest_agent.logind import Logind, LogindGone, Notice
from guest_agent.notify import Notifier
from guest_agent.port import Port, PortBusy, PortMissing
from guest_agent.quiet import QuietLog
from guest_agent.schedule import NEVER, PERIODS
from guest_agent.sessions import UserSession
from guest_agent.surroundings import Surroundings
from guest_agent.worker import Report

from .parts import (
    Clock,
    FakeCommand,
    FakeFreezer,
    FifoHost,
    Gate,
    LeapingSelector,
    ListLog,
    Tally,
    configuration,
    hang,
    hang_stubbornly,
    lines_of,
    wait_until,
)

REFRESH = codec.encode("refresh", {"apiVersion": 5, "hostId": "h"})
MEMORY = {"mem_total": 1}
SECRET = "open-sesame"

QUICK: Mapping[str, Message] = {
    "host-name": messages.HostName(name="vm"),
    "fqdn": messages.Fqdn(fqdn="vm.example"),
    "os-version": messages.OsVersion(version="6.1"),
    "os-info": messages.OsInfo(version="12", distribution="D", codename="b", arch="x", type="linux", kernel="6.1"),
    "number-of-cpus": messages.NumberOfCpus(count=2),
    "timezone": messages.Timezone(zone="UTC", offset=0),
    "capabilities": messages.Capabilities(commands={"echo": True}, features=("f",)),
    "memory-stats": messages.MemoryStats(memory=MEMORY),
}

SLOW: Mapping[str, Any] = {
    "active-user": (),
    "network-interfaces": messages.NetworkInterfaces(interfaces=()),
    "applications": messages.Applications(applications=("kernel-6.1",)),
    "containers": messages.Containers(containers=()),
    "disks-usage": messages.DisksUsage(disks=(), mapping={}),
}


def push(version: int) -> bytes:
    return codec.encode("api-version", {"apiVersion": version})


def event(reply_id: str = "r1") -> bytes:
    return command("lifecycle-event", reply_id, type="before_migration")


def command(name: str, reply_id: Optional[str] = "r1", **arguments: Any) -> bytes:
    return codec.encode(name, arguments if reply_id is None else {**arguments, "reply_id": reply_id})


class FakeLogind(Logind):
    """A logind that tells what a test wants it to."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._untold: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        self._untold.append(notice)
        self._theirs.send(b"!")

    def vanish(self) -> None:
        self._theirs.close()

    def fileno(self) -> int:
        return self._ours.fileno()

    def receive(self) -> list[Notice]:
        try:
            if not self._ours.recv(100):
                raise LogindGone("the bus closed the connection")
        except BlockingIOError:
            return []
        notices, self._untold = self._untold, []
        return notices

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class Bench:
    """An agent over FIFOs and what the host has heard of it."""

    def __init__(self, directory: Path, clock: Clock, selector: Optional[selectors.BaseSelector] = None) -> None:
        self.host = FifoHost(directory)
        self.clock = clock
        self.log = ListLog("info")
        self.root = directory
        self.configuration = configuration()
        self.quick: dict[str, Quick] = {name: (lambda fact=fact: fact) for name, fact in QUICK.items()}  # type: ignore[misc]
        self.slow: dict[str, Slow] = {name: (lambda value=value: value) for name, value in SLOW.items()}  # type: ignore[misc]
        self.prints: dict[str, Callable[[], object]] = {}
        self.logind: Optional[FakeLogind] = None
        self.freezer = FakeFreezer()
        self.make_freezer: Callable[[Crew, QuietLog, Machine], Freezer] = self.freezer.made
        self.ports: list[Port] = []
        self.why_no_port: Optional[Exception] = None
        self.notifier = Notifier({})
        self.reload_job: Callable[[Report], None] = lambda report: report((None, self.configuration.plain()))
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.selector = selector or selectors.DefaultSelector()
        #: When a bench on whose clock time leaps has had enough.
        self.stop_at = math.inf
        self._received = b""
        self._agent: Optional[Agent] = None

    @property
    def agent(self) -> Agent:
        if self._agent is None:
            self._agent = self.another()
        return self._agent

    def another(self) -> Agent:
        """One more run of the agent."""
        return Agent(
            self.configuration,
            self.log,
            Surroundings(
                open_port=self._open_port,
                sources=self._sources,
                machine=self._machine,
                freezer=lambda *given: self.make_freezer(*given),
                meter=Meter(str(self.root), self.clock),
                connect_to_logind=lambda: self.logind,
            ),
            reload=lambda report: self.reload_job(report),
            clock=self.clock,
            notifier=self.notifier,
            selector=self.selector,
        )

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]

    @property
    def working(self) -> bool:
        """Whether a worker is under way."""
        return any(isinstance(key.fileobj, Task) for key in self.selector.get_map().values())

    def turn(self) -> None:
        self.agent.turn(0.02)
        self.listen()

    def turn_alone(self) -> None:
        self.agent.turn(0)

    def listen(self) -> None:
        """Hear what was said since."""
        complete, newline, self._received = (self._received + self.host.read()).rpartition(b"\n")
        self.heard += lines_of(complete + newline)

    def until(self, condition: Callable[[], Any]) -> Any:
        return wait_until(condition, self.turn)

    def until_alone(self, condition: Callable[[], Any]) -> Any:
        """The same, with a host that does not read."""
        return wait_until(condition, lambda: self.agent.turn(0.02))

    def drain(self) -> None:
        """Take turns until nothing more comes of itself."""
        self.until(lambda: not self.selector.select(0) and self.agent._patience() > 0)

    def settle(self) -> None:
        """Take turns until no worker is left."""
        self.turn()
        self.until(lambda: not self.working)
        self.turn()

    def after(self, seconds: float) -> list[str]:
        """The names of what the host hears when so many seconds have passed."""
        self.clock.advance(seconds)
        self.heard.clear()
        self.settle()
        return self.names

    def connect(self) -> None:
        self.turn_alone()
        self.host.connect()
        self.turn()

    def disconnect(self) -> None:
        self.host.disconnect()
        self._received = b""
        self.turn_alone()

    def last(self, name: str) -> dict[str, Any]:
        return next(arguments for heard, arguments in reversed(self.heard) if heard == name)

    def completions(self) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.heard if name == "completion"]

    def reload(self, **changes: Any) -> None:
        """Have the agent go on with another configuration."""
        self.configuration = self.configuration._replace(**changes)
        self.agent.reload()
        said = len(self.log.lines)
        self.until_alone(lambda: any("onfigur" in line for line in self.log.lines[said:]))

    def _open_port(self, _: Configuration) -> Port:
        if self.why_no_port is not None:
            raise self.why_no_port
        self.ports.append(self.host.port())
        return self.ports[-1]

    def _machine(self, configured: Configuration) -> Machine:
        return Machine(
            login_helper=None,
            hooks_directory="/nonexistent",
            hooks_deadline=1.0,
            deadline=configured.commands_deadline,
            root=str(self.root),
            state_directory=str(self.root),
        )

    def _sources(self, configured: Configuration, mark: Callable[[], object]) -> Sources:
        """Applications are those that were configured; logind's mark is the print of active-user."""
        slow = self.slow
        if configured.application != configuration().application:
            chosen = messages.Applications(applications=tuple(configured.application))
            slow = {**slow, "applications": lambda: chosen}
        return Sources(self.quick, slow, {"active-user": mark, **self.prints})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4096 kB\nMemFree: 2048 kB\n", encoding="utf-8")
    (tmp_path / "proc/vmstat").write_text("pgfault 0\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeCommand]:
    """The table of commands: none does anything."""
    made = {name: FakeCommand() for name in COMMANDS}
    monkeypatch.setattr(executor, "COMMANDS", made)
    return made


@pytest.fixture
def bench(root: Path, clock: Clock, commands: dict[str, FakeCommand], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(root, clock)
    yield made
    # What still hangs is killed: on this clock no time would pass.
    monkeypatch.setattr(agents, "FAREWELL", 0.0)
    made.agent.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


def negotiate(bench: Bench, version: int = 3) -> None:
    bench.connect()
    bench.host.write(REFRESH + push(version))
    bench.settle()


def counting_and_waiting(tally: Tally, gate: Gate, result: Any) -> Callable[..., Any]:
    """What says that it has begun, and goes on once the gate is open."""

    def work(*_: object) -> Any:
        tally.add()
        gate.wait()
        return result

    return work


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


def test_each_run_of_the_agent_has_an_identity_of_its_own(bench: Bench) -> None:
    bench.connect()
    first = bench.last("heartbeat")["agentId"]
    bench.host.disconnect()
    bench.agent.close()
    bench.selector = selectors.DefaultSelector()
    bench._agent = bench.another()
    bench.connect()
    assert bench.last("heartbeat")["agentId"] != first


def test_a_push_is_answered_with_a_heartbeat_and_the_facts_that_became_allowed(bench: Bench) -> None:
    bench.connect()
    bench.settle()
    bench.host.write(REFRESH)
    bench.settle()
    bench.heard.clear()
    bench.host.write(push(2))
    bench.settle()
    assert bench.names[0] == "heartbeat"
    assert bench.last("heartbeat")["apiVersionInUse"] == 2
    assert set(bench.names[1:]) == {"number-of-cpus", "os-info", "timezone"}


def test_facts_arrive_as_they_were_collected(bench: Bench) -> None:
    negotiate(bench, 4)
    for name, fact in {**QUICK, **SLOW, "active-user": messages.ActiveUser(name="None")}.items():
        assert codec.encode(name, bench.last(name)) == codec.encode(name, fact.to_arguments())


def test_heartbeats_come_in_their_period(bench: Bench) -> None:
    negotiate(bench)
    for _ in range(10):
        assert bench.after(5.0).count("heartbeat") == 1


def test_facts_come_in_their_periods(bench: Bench) -> None:
    negotiate(bench)
    assert set(bench.after(10.0)) == {"heartbeat", "active-user"}
    assert set(bench.after(50.0)) == {"heartbeat", "active-user", "number-of-cpus"}


def test_capabilities_come_at_version_4_and_then_each_minute(bench: Bench) -> None:
    negotiate(bench)
    assert "capabilities" not in bench.names
    bench.host.write(push(4))
    bench.settle()
    assert bench.names.count("capabilities") == 1
    assert bench.last("capabilities") == {"commands": {"echo": True}, "features": ["f"]}
    assert "capabilities" not in bench.after(59.0)
    assert "capabilities" in bench.after(1.0)


def test_an_unchanged_fact_comes_without_a_worker_and_at_once_when_the_host_refreshes(bench: Bench, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        return messages.Applications(applications=())

    bench.slow["applications"] = collect
    bench.prints["applications"] = lambda: "unchanged"
    bench.connect()
    bench.settle()
    bench.host.write(REFRESH + push(3))
    bench.settle()
    assert "applications" not in bench.after(PERIODS["applications"] - 1)
    assert "applications" in bench.after(1)
    bench.host.write(REFRESH)
    assert "applications" in bench.after(0)
    assert tally.count == 1


def test_facts_newer_than_the_version_in_use_are_not_even_collected(bench: Bench, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        return messages.Containers(containers=())

    bench.slow["containers"] = collect
    negotiate(bench, 1)
    assert "number-of-cpus" in bench.after(1000.0)
    assert tally.count == 0


def test_a_fact_that_was_collected_while_the_version_fell_is_not_sent(bench: Bench, gate: Gate, tally: Tally) -> None:
    bench.slow["containers"] = counting_and_waiting(tally, gate, SLOW["containers"])
    bench.connect()
    bench.host.write(REFRESH + push(3))
    bench.until(lambda: tally.count)
    bench.host.write(push(1))
    bench.turn()
    gate.open()
    bench.settle()
    assert "containers" not in bench.names
    assert "disks-usage" in bench.names


def test_facts_that_were_collected_for_a_host_that_went_are_due_for_the_next_one(
    bench: Bench, gate: Gate, tally: Tally
) -> None:
    bench.slow = {"disks-usage": counting_and_waiting(tally, gate, SLOW["disks-usage"])}
    bench.connect()
    bench.until(lambda: tally.count)
    bench.disconnect()
    gate.open()
    bench.until_alone(lambda: not bench.working)
    bench.host.connect()
    bench.settle()
    assert "disks-usage" in bench.names


def test_a_logon_is_noticed_along_with_the_active_user(bench: Bench, tmp_path: Path) -> None:
    alice = tmp_path / "alice"
    bench.slow["active-user"] = lambda: [UserSession("1", "alice", 1.0)] if alice.exists() else []
    bench.prints["active-user"] = alice.exists
    negotiate(bench, 0)
    alice.touch()
    bench.after(10.0)
    assert [each for each in bench.heard if each[0] != "heartbeat"] == [
        ("session-logon", {}),
        ("active-user", {"name": "alice"}),
    ]


# ---- What logind tells ----


def test_users_who_come_and_go_are_told_at_once(bench: Bench) -> None:
    bench.logind = FakeLogind()
    negotiate(bench)
    bench.heard.clear()
    bench.logind.tell(Notice.SESSIONS_CHANGED)
    bench.until(lambda: bench.names)
    assert bench.names == ["active-user"]


def test_a_machine_that_shuts_down_says_so(bench: Bench) -> None:
    bench.logind = FakeLogind()
    negotiate(bench)
    bench.heard.clear()
    bench.logind.tell(Notice.SHUTTING_DOWN)
    bench.until(lambda: bench.names)
    assert bench.names == ["session-shutdown"]


def test_a_logind_that_tells_something_without_a_host_is_no_trouble(bench: Bench) -> None:
    bench.logind = FakeLogind()
    bench.turn_alone()
    bench.logind.tell(Notice.SHUTTING_DOWN)
    bench.logind.tell(Notice.SESSIONS_CHANGED)
    bench.turn_alone()
    negotiate(bench)
    assert "session-shutdown" not in bench.names
    assert "active-user" in bench.names


def test_a_logind_that_vanishes_is_no_trouble(bench: Bench) -> None:
    bench.logind = FakeLogind()
    negotiate(bench)
    bench.logind.vanish()
    bench.until(lambda: any("the bus closed the connection" in line for line in bench.log.lines))
    bench.logind = None
    assert "active-user" in bench.after(10.0)


# ---- Commands ----


def test_an_echo_comes_back_unchanged(bench: Bench) -> None:
    negotiate(bench)
    arguments = {"n": 1, "deep": {"list": [1, "two", None]}, "text": "ü"}
    bench.host.write(codec.encode("echo", arguments))
    bench.turn()
    assert bench.last("echo") == arguments


def test_an_echo_that_is_forbidden_does_not_come_back(bench: Bench) -> None:
    bench.configuration = configuration(commands_block=("echo",))
    negotiate(bench)
    bench.host.write(codec.encode("echo", {"n": 1}))
    bench.settle()
    assert "echo" not in bench.names
    assert bench.log.messages[-1].startswith("echo: not carried out: the configuration of this agent forbids it; ")


def test_an_echo_for_a_host_that_does_not_read_is_lost(bench: Bench) -> None:
    negotiate(bench)
    jam(bench)
    bench.host.write(codec.encode("echo", {"n": 1}))
    bench.turn_alone()
    assert bench.log.messages[-1] == "echo: not answered: echo: the peer does not read"


def test_a_lifecycle_event_is_carried_out_and_completed(bench: Bench, commands: dict[str, FakeCommand]) -> None:
    commands["lifecycle-event"] = FakeCommand(lambda _, message: {"worker": os.getpid(), "what": str(message)})
    negotiate(bench)
    bench.host.write(event())
    bench.settle()
    (completion,) = bench.completions()
    assert completion.pop("worker") != os.getpid()
    assert "before_migration" in completion.pop("what")
    assert completion == {"reply_id": "r1", "done": True}


def test_a_lifecycle_event_without_a_reply_id_is_not_answered(bench: Bench) -> None:
    negotiate(bench)
    bench.host.write(codec.encode("lifecycle-event", {"type": "after_migration"}))
    bench.settle()
    assert bench.completions() == []
    assert bench.log.messages[-1] == "lifecycle-event: carried out"


def test_an_answer_that_can_not_be_put_on_a_line_is_said(bench: Bench, commands: dict[str, FakeCommand]) -> None:
    commands["lifecycle-event"] = FakeCommand(lambda *_: {"much": "x" * 2_000_000})
    negotiate(bench)
    bench.host.write(event())
    bench.settle()
    assert bench.completions() == []
    assert bench.log.messages[-1].startswith("lifecycle-event: not answered: completion: ")


def test_a_password_never_shows(bench: Bench, commands: dict[str, FakeCommand], capfd: pytest.CaptureFixture[str]) -> None:
    def run(_: Machine, message: Message) -> Mapping[str, Any]:
        raise RuntimeError(f"unforeseen, and it quotes: {message.to_arguments()}")

    commands["login"] = FakeCommand(run)
    bench.log.level = "debug"
    negotiate(bench)
    bench.host.write(codec.encode("login", {"username": "alice@example", "password": SECRET}))
    bench.host.write(codec.encode("login", {"username": "alice@example", "password": [SECRET]}))
    bench.host.write(codec.encode("open", {"username": "alice@example", "password": SECRET}))
    bench.host.write(b'{"__name__": "login", "username": "alice@example", "password": "open-sesame"\n')
    bench.settle()
    said = "\n".join([*bench.log.lines, *capfd.readouterr()])
    assert "login: failed: its worker failed with status 1" in said
    assert "a worker failed, please report it: RuntimeError at" in said
    assert "alice" not in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "outcome", ["carried out", "failed: no", "not carried out: the configuration of this agent forbids it; "]
)
def test_a_number_of_cpus_to_set_is_answered_with_the_number_of_cpus_each_time(
    bench: Bench, commands: dict[str, FakeCommand], outcome: str
) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        if outcome == "failed: no":
            raise CommandFailed("no")
        return {}

    commands["set-number-of-cpus"] = FakeCommand(run)
    if outcome.startswith("not"):
        bench.configuration = configuration(commands_block=("set-number-of-cpus",))
    negotiate(bench)
    for _ in range(2):
        bench.heard.clear()
        bench.host.write(codec.encode("set-number-of-cpus", {"count": 4}))
        bench.settle()
        assert bench.heard == [("number-of-cpus", {"count": 2})]
        assert bench.log.messages[-1].startswith(f"set-number-of-cpus: {outcome}")


def test_a_command_that_takes_too_long_is_completed_and_delays_no_heartbeat(
    bench: Bench, commands: dict[str, FakeCommand], tally: Tally
) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        hang()

    commands["lifecycle-event"] = FakeCommand(run)
    bench.configuration = configuration(commands_deadline=60.0)
    negotiate(bench)
    bench.host.write(event())
    bench.until(lambda: tally.count)
    for _ in range(11):
        bench.heard.clear()
        bench.clock.advance(5.0)
        bench.turn()
        assert "heartbeat" in bench.names
    bench.clock.advance(5.0)
    bench.until(bench.completions)
    assert bench.completions() == [{"reply_id": "r1", "done": False, "reason": "its worker did not finish within 60 s"}]


def test_a_flood_of_commands_is_no_flood_of_log_lines_nor_of_workers(bench: Bench, tally: Tally) -> None:
    negotiate(bench)
    said = len(bench.log.lines)
    flood = b"".join(
        codec.encode("lock-screen", {}) + push(number % 4) + b"garbage\n" + codec.encode("log-off", {})
        for number in range(200)
    )
    bench.host.write(flood)
    for _ in range(10):
        bench.turn()
        assert sum(isinstance(key.fileobj, Task) for key in bench.selector.get_map().values()) <= executor.PARALLEL + 1
    assert 3 <= len(bench.log.lines) - said <= 30


def test_after_a_burst_of_changes_the_log_ends_with_the_version_in_use(bench: Bench) -> None:
    negotiate(bench)
    bench.host.write(b"".join(push(version) for version in (1, 2, 1, 2, 1, 2, 1, 3)))
    bench.turn()
    assert bench.log.messages[-1] == "API 1 → 2 in use: the host says so"
    bench.after(quiet.PERIOD)
    assert bench.log.messages[-1] == "API 1 → 3 in use: the host says so (lines held back: 4; this is the last)"


def test_the_loop_wakes_for_lines_held_back(bench: Bench) -> None:
    bench.turn_alone()
    for _ in range(quiet.BURST + 1):
        bench.agent._quiet.info("topic", "again")
    bench.clock.advance(quiet.PERIOD)
    assert bench.agent._quiet.next_deadline() == bench.clock()
    assert bench.agent._patience() == 0
    bench.turn_alone()
    assert bench.agent._quiet.next_deadline() is None


def test_a_change_of_version_is_one_line(bench: Bench) -> None:
    negotiate(bench)
    assert "API 0 → 3 in use: the host says so" in bench.log.messages


# ---- Answers that can't be sent at once ----


def test_a_completion_waits_until_the_version_in_use_has_it(bench: Bench) -> None:
    negotiate(bench, 2)
    bench.host.write(event())
    bench.settle()
    assert bench.completions() == []
    bench.host.write(push(3))
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}]
    bench.after(100.0)
    assert bench.completions() == []


def test_a_completion_waits_for_the_next_host(
    bench: Bench, commands: dict[str, FakeCommand], gate: Gate, tally: Tally
) -> None:
    commands["lifecycle-event"] = FakeCommand(counting_and_waiting(tally, gate, {}))
    negotiate(bench)
    bench.host.write(event())
    bench.until(lambda: tally.count)
    bench.disconnect()
    gate.open()
    bench.until_alone(lambda: not bench.working)
    bench.heard.clear()
    negotiate(bench)
    assert bench.completions() == [{"reply_id": "r1", "done": True}]


def jam(bench: Bench) -> None:
    """Let the host read nothing until the agent notices."""
    bench.quick["memory-stats"] = lambda: messages.MemoryStats(memory={"x" * 30_000: 1})
    while not bench.agent._link.congested:
        bench.agent._facts.want("memory-stats")
        bench.turn_alone()
    del bench.quick["memory-stats"]


def test_a_completion_waits_until_the_host_reads(bench: Bench) -> None:
    negotiate(bench)
    jam(bench)
    bench.host.write(event())
    bench.turn_alone()
    bench.until_alone(lambda: not bench.working)
    bench.until(bench.completions)
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}]


def test_a_completion_that_the_host_did_not_read_before_it_went_is_for_the_next_one(bench: Bench) -> None:
    negotiate(bench)
    fill(bench)
    for reply_id in ("r1", "r2"):
        bench.host.write(event(reply_id))
        bench.turn_alone()
        bench.until_alone(lambda: not bench.working)
    assert bench.completions() == []
    bench.disconnect()
    bench.heard.clear()
    bench.host.connect()
    bench.turn()
    bench.host.write(REFRESH + push(3))
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}, {"reply_id": "r2", "done": True}]
    bench.after(100.0)
    assert bench.completions() == []


def fill(bench: Bench) -> None:
    """Let the host read nothing until a line waits, but far from as much as the agent would call a jam."""
    bench.quick["memory-stats"] = lambda: messages.MemoryStats(memory={"x" * 3_000: 1})
    while bench.agent._link.drained:
        bench.agent._facts.want("memory-stats")
        bench.turn_alone()
    del bench.quick["memory-stats"]
    assert not bench.agent._link.congested


def test_completions_that_wait_are_bounded_and_keep_no_other_command_from_being_carried_out(bench: Bench) -> None:
    bench.configuration = configuration(commands_block=("lifecycle-event",))
    negotiate(bench, 2)
    for number in range(OUTBOX_LIMIT + 10):
        bench.host.write(event(str(number)))
        bench.turn()
    assert f"lifecycle-event: not carried out: {OUTBOX_LIMIT} answers wait for a host of API 3" in bench.log.messages
    bench.host.write(codec.encode("lock-screen", {}))
    bench.settle()
    assert bench.log.messages[-1] == "lock-screen: carried out"
    bench.host.write(push(3))
    bench.settle()
    assert [each["reply_id"] for each in bench.completions()] == [str(number) for number in range(OUTBOX_LIMIT)]


# ---- From version 4 on ----


def codes(bench: Bench) -> dict[str, Optional[str]]:
    """By reply id, why it failed; None: it did not. Each has been answered once."""
    told = {each["reply_id"]: None if each["done"] else each["error"]["code"] for each in bench.completions()}
    assert len(told) == len(bench.completions())
    return told


def test_a_completion_says_what_came_of_it_in_members_of_its_own(bench: Bench, commands: dict[str, FakeCommand]) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        raise CommandFailed("no such thing", {"half": 1}, ["a note"])

    commands["lifecycle-event"] = FakeCommand(lambda *_: {"load": [1, 2]})
    commands["lock-screen"] = FakeCommand(run)
    negotiate(bench, 4)
    bench.host.write(event() + command("lock-screen", "r2"))
    bench.settle()
    assert sorted(bench.completions(), key=str) == [
        {"reply_id": "r1", "done": True, "result": {"load": [1, 2]}},
        {
            "reply_id": "r2",
            "done": False,
            "result": {"half": 1},
            "error": {"code": "failed", "message": "no such thing"},
        },
    ]


def test_every_command_is_answered_once_whatever_becomes_of_it(bench: Bench, commands: dict[str, FakeCommand]) -> None:
    bench.configuration = configuration(commands_allow=tuple(COMMANDS), commands_block=("log-off",))
    commands["lock-screen"] = FakeCommand(lambda *_: os._exit(7))
    negotiate(bench, 5)
    given = {
        "done": command("load", "done"),
        "echo": command("echo", "echo", n=1),
        "frozen?": command("filesystem-status", "frozen?"),
        "dies": command("lock-screen", "dies"),
        "blocked": command("log-off", "blocked"),
        "unknown": command("open-sesame", "unknown"),
        "wrong": command("shutdown", "wrong", timeout="soon"),
    }
    bench.host.write(b"".join(given.values()))
    bench.settle()
    assert codes(bench) == {
        **dict.fromkeys(("done", "echo", "frozen?")),
        "dies": "failed",
        "blocked": "disabled",
        "unknown": "unsupported",
        "wrong": "invalid-arguments",
    }
    assert "unsupported" not in bench.names


def test_a_command_newer_than_supported_is_answered_though_it_is_not_known(bench: Bench) -> None:
    bench.configuration = configuration(max_api_version=Version.V4)
    negotiate(bench, 4)
    bench.host.write(command("load", "r1"))
    bench.settle()
    assert codes(bench) == {"r1": "unsupported"}


@pytest.mark.parametrize("version", [4, 5])
def test_a_command_without_a_reply_id_that_is_not_for_this_guest_is_unsupported(bench: Bench, version: int) -> None:
    bench.configuration = configuration(commands_block=("log-off",))
    negotiate(bench, version)
    bench.heard.clear()
    for name in ("log-off", "open-sesame", "shutdown"):
        bench.host.write(command(name, None))
    bench.settle()
    assert [(name, said["name"], said["apiVersion"]) for name, said in bench.heard] == [
        ("unsupported", "log-off", versions.newest()),
        ("unsupported", "open-sesame", versions.newest()),
        ("unsupported", "shutdown", versions.newest()),
    ]
    assert bench.heard[0][1]["reason"].startswith("the configuration of this agent forbids it; ")


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_before_version_4_a_host_hears_nothing_that_it_does_not_know(bench: Bench, version: int) -> None:
    bench.configuration = configuration(commands_block=("log-off",))
    negotiate(bench, version)
    bench.heard.clear()
    for name in ("log-off", "lock-screen", "open-sesame", "load", "exec", "shutdown"):
        for reply_id in ("r1", "r1", None):
            bench.host.write(command(name, reply_id))
    bench.settle()
    assert bench.heard == []


@pytest.mark.parametrize("version", [3, 4])
def test_a_command_that_is_given_again_is_carried_out_again_before_version_4_only(
    bench: Bench, commands: dict[str, FakeCommand], version: int, tally: Tally
) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        return {}

    commands["lifecycle-event"] = FakeCommand(run)
    negotiate(bench, version)
    for _ in range(2):
        bench.host.write(event())
        bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}] * 2
    assert tally.count == (1 if version == 4 else 2)


def test_a_command_of_version_4_that_is_given_again_is_not_carried_out_again_while_less_is_in_use(
    bench: Bench, commands: dict[str, FakeCommand], tally: Tally
) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        return {}

    commands["shutdown"] = FakeCommand(run)
    negotiate(bench, 4)
    order = command("shutdown", "r1", timeout=0, message="", reboot="False")
    bench.host.write(order)
    bench.settle()
    bench.host.write(REFRESH + order)
    bench.settle()
    assert tally.count == 1
    bench.host.write(push(4))
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}] * 2


def test_a_command_that_is_given_again_on_another_channel_is_carried_out_and_answered_there_once(
    bench: Bench, commands: dict[str, FakeCommand], gate: Gate, tally: Tally
) -> None:
    commands["exec"] = FakeCommand(counting_and_waiting(tally, gate, {"output": "x"}), parallel=4)
    bench.configuration = configuration(commands_enable=("exec",))
    negotiate(bench, 5)
    order = command("exec", "r1", argv=["true"], timeout=5)
    bench.host.write(order)
    bench.until(lambda: tally.count)
    bench.disconnect()
    bench.host.connect()
    bench.turn()
    bench.host.write(REFRESH + push(5) + order)
    bench.turn()
    gate.open()
    bench.settle()
    assert tally.count == 1
    assert bench.completions() == [{"reply_id": "r1", "done": True, "result": {"output": "x"}}]


def test_an_answer_that_still_waits_is_not_given_twice_because_the_command_is(bench: Bench) -> None:
    negotiate(bench, 4)
    fill(bench)
    bench.host.write(event())
    bench.turn_alone()
    bench.until_alone(lambda: not bench.working)
    bench.host.write(event() * 5)
    bench.turn_alone()
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}]
    bench.host.write(event())
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}] * 2


def test_an_echo_comes_back_before_it_is_completed(bench: Bench) -> None:
    negotiate(bench, 4)
    bench.heard.clear()
    bench.host.write(command("echo", "r1", n=1))
    bench.settle()
    assert bench.heard == [("echo", {"n": 1, "reply_id": "r1"}), ("completion", {"reply_id": "r1", "done": True})]


def test_an_echo_for_a_host_that_does_not_read_is_lost_but_not_its_completion(bench: Bench) -> None:
    negotiate(bench, 4)
    jam(bench)
    bench.host.write(command("echo", "r1", n=1))
    bench.turn_alone()
    bench.until(bench.completions)
    assert codes(bench) == {"r1": "failed"}


def test_an_answer_that_can_not_be_put_on_a_line_says_that(bench: Bench, commands: dict[str, FakeCommand]) -> None:
    commands["lifecycle-event"] = FakeCommand(lambda *_: {"much": "x" * 2_000_000})
    negotiate(bench, 4)
    bench.host.write(event())
    bench.settle()
    (completion,) = bench.completions()
    assert completion["done"]
    assert completion["result"]["lost"].startswith("what came of it can't be told: completion: ")


@pytest.mark.parametrize("version", [3, 4])
def test_a_command_whose_very_reply_id_can_not_be_told_ends_nothing(bench: Bench, version: int) -> None:
    negotiate(bench, version)
    unread = event("?").replace(b"?", "ü".encode() * 200_000) + event()  # written back, each takes six bytes
    while unread:
        unread = unread[bench.host.write_some(unread) :]
        bench.turn()
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}]


def test_a_host_that_stops_reading_before_what_is_left_of_an_answer_gets_it_later(
    bench: Bench, commands: dict[str, FakeCommand], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands["lifecycle-event"] = FakeCommand(lambda *_: {"much": "x" * 2_000_000})
    negotiate(bench, 4)
    send = bench.agent._session.send

    def refuse(message: Message, reply_id: Optional[str] = None) -> None:
        if isinstance(message, messages.Completion) and "lost" in (message.result or {}):
            raise SendRefused("not now")
        send(message, reply_id)

    with monkeypatch.context() as patched:
        patched.setattr(bench.agent._session, "send", refuse)
        bench.host.write(event())
        bench.settle()
    assert bench.completions() == []
    bench.settle()
    assert [each["reply_id"] for each in bench.completions()] == ["r1"]


def test_what_can_not_be_told_at_the_version_in_use_holds_up_no_other_answer_and_no_reading(bench: Bench) -> None:
    bench.configuration = configuration(commands_block=("log-off",))
    negotiate(bench, 3)
    for number in range(OUTBOX_LIMIT + 10):
        bench.host.write(command("log-off", str(number)))
        bench.turn()
    bench.host.write(event("event") + command("lock-screen", "locked"))
    bench.settle()
    assert bench.completions() == [{"reply_id": "event", "done": True}]
    assert "lock-screen: carried out" in bench.log.messages
    bench.host.write(push(4))
    bench.settle()
    assert list(codes(bench)) == ["event", *map(str, range(OUTBOX_LIMIT))]


def test_large_answers_that_the_host_does_not_read_keep_more_of_them_from_being_made(
    bench: Bench, commands: dict[str, FakeCommand], tally: Tally
) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        return {"output": "x" * (OUTBOX_WEIGHT // 3)}

    commands["lifecycle-event"] = FakeCommand(run)
    negotiate(bench, 4)
    fill(bench)
    for number in range(10):
        bench.host.write(event(str(number)))
    bench.until_alone(lambda: tally.count == 3)
    bench.until_alone(lambda: not bench.working)
    bench.turn_alone()
    assert tally.count == 3
    assert not bench.working
    bench.until(lambda: len(bench.completions()) == 10)
    assert set(codes(bench).values()) == {None}
    assert all(len(each["result"]["output"]) == OUTBOX_WEIGHT // 3 for each in bench.completions())


def flood(bench: Bench, lines: Callable[[int], bytes], seconds: int = 30) -> int:
    """Give the agent more than it can read, for so many seconds of its clock; how many heartbeats that had."""
    heartbeats = 0
    unread = b""
    for second in range(seconds):
        unread = unread or lines(second)
        unread = unread[bench.host.write_some(unread) :]
        bench.clock.advance(1.0)
        bench.heard.clear()
        bench.turn()
        heartbeats += bench.names.count("heartbeat")
        assert len(bench.agent._outbox) < 2000
        assert bench.names.count("unsupported") <= 2 * agents.REJECTIONS_PER_TURN
    return heartbeats


@pytest.mark.parametrize("reply_id", [None, "r"])
def test_a_flood_of_unknown_commands_starves_no_heartbeat_and_takes_no_memory(bench: Bench, reply_id: Optional[str]) -> None:
    negotiate(bench, 5)
    said = len(bench.log.lines)
    assert flood(bench, lambda second: command("open-sesame", reply_id and f"{reply_id}{second}") * 2000) >= 5
    assert len(bench.log.lines) - said < 30


def test_a_flood_of_echos_with_reply_ids_starves_no_heartbeat_and_takes_no_memory(bench: Bench) -> None:
    negotiate(bench, 5)
    assert flood(bench, lambda second: b"".join(command("echo", f"{second}-{each}") for each in range(2000))) >= 5


def test_an_end_in_the_middle_answers_what_the_freezer_had_yet_to_do(bench: Bench) -> None:
    negotiate(bench, 5)
    bench.heard.clear()
    bench.host.write(command("filesystem-freeze", "freeze", thaw_after=5) + command("filesystem-thaw", "thaw"))
    bench.turn()
    end(bench)
    assert codes(bench) == {"freeze": None, "thaw": None}
    assert bench.freezer.told == ["recover", "freeze", "thaw", "close"]


# ---- While file systems are frozen ----


def test_what_an_earlier_run_left_frozen_is_thawed_at_the_start(bench: Bench) -> None:
    bench.turn_alone()
    assert bench.freezer.told == ["recover"]


def test_the_freezer_is_looked_after(bench: Bench) -> None:
    negotiate(bench)
    assert bench.freezer.advanced_at == bench.clock()
    bench.drain()
    bench.freezer.deadline = bench.clock() + 0.25
    assert bench.agent._patience() == 0.25


def test_while_frozen_only_what_belongs_to_that_is_answered(bench: Bench) -> None:
    negotiate(bench, 5)
    bench.host.write(command("filesystem-freeze", "freeze", thaw_after=5))
    bench.turn()
    bench.host.write(
        b"".join(command(name, name) for name in ("lock-screen", "load", "filesystem-status", "echo", "filesystem-thaw"))
    )
    bench.settle()
    assert codes(bench) == {"lock-screen": "frozen", "load": "frozen", "filesystem-status": None, "echo": None}
    bench.freezer.frozen = False
    for answer in bench.freezer.answers:
        answer(Outcome())
    bench.host.write(command("load", "later"))
    bench.settle()
    assert {"freeze": None, "filesystem-thaw": None, "later": None}.items() <= codes(bench).items()


def test_while_frozen_heartbeats_come_and_no_fact_is_collected_but_afterwards_all_are(bench: Bench, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        return messages.HostName(name="vm")

    bench.quick["host-name"] = collect
    negotiate(bench, versions.newest())
    collected = tally.count
    bench.freezer.frozen = True
    for _ in range(20):
        bench.heard.clear()
        bench.clock.advance(5.0)
        bench.turn()
        assert set(bench.names) <= {"heartbeat", "capabilities"}
        assert bench.agent._patience() > 0
    bench.host.write(REFRESH + push(versions.newest()))
    bench.settle()
    assert set(bench.names) == {"heartbeat", "capabilities"}
    assert tally.count == collected
    bench.freezer.frozen = False
    bench.heard.clear()
    bench.settle()
    assert set(bench.names) == {*bench.quick, *bench.slow} - {"capabilities"}


def test_a_freeze_that_fails_is_answered_and_then_all_goes_on(bench: Bench) -> None:
    bench.make_freezer = Freezer
    negotiate(bench, 5)
    said = len(bench.log.lines)
    bench.host.write(command("filesystem-freeze", "r1", thaw_after=5))
    bench.settle()
    assert codes(bench) == {"r1": "failed"}
    assert any(line.startswith("WARNING filesystem-freeze: failed: ") for line in bench.log.lines[said:])
    bench.host.write(command("load", "r2") + command("filesystem-status", "r3"))
    bench.settle()
    assert codes(bench) == {"r1": "failed", "r2": None, "r3": None}
    assert "host-name" in bench.after(PERIODS["host-name"])


def test_a_host_that_comes_while_frozen_hears_what_it_may_do_about_that(bench: Bench) -> None:
    bench.freezer.frozen = True
    negotiate(bench, 5)
    assert set(bench.names) == {"session-startup", "heartbeat", "capabilities"}
    for _ in range(3):  # however often that gets lost on its way
        assert "capabilities" in bench.after(PERIODS["capabilities"])


def test_while_frozen_no_configuration_is_read_but_afterwards_it_is(bench: Bench) -> None:
    negotiate(bench)
    bench.freezer.frozen = True
    bench.agent.reload()
    bench.turn()
    assert not bench.working
    bench.freezer.frozen = False
    bench.until(lambda: "configuration reloaded" in bench.log.messages)


def test_a_configuration_that_is_being_read_as_freezing_begins_is_read_again_afterwards(bench: Bench, gate: Gate) -> None:
    def read(report: Report) -> None:
        gate.wait()
        report((None, bench.configuration.plain()))

    bench.reload_job = read
    negotiate(bench)
    bench.agent.reload()
    bench.turn()
    bench.freezer.frozen = True
    gate.open()
    bench.settle()
    bench.configuration = configuration(commands_deadline=7.0)
    bench.freezer.frozen = False
    bench.until(lambda: bench.freezer.machine is not None and bench.freezer.machine.deadline == 7.0)
    assert bench.log.messages.count("configuration reloaded") == 1


def test_while_frozen_log_lines_are_held_back_and_afterwards_said(bench: Bench) -> None:
    negotiate(bench, 5)
    said = len(bench.log.lines)
    bench.freezer.frozen = True
    bench.host.write(command("lock-screen"))
    bench.settle()
    assert len(bench.log.lines) == said
    bench.freezer.frozen = False
    bench.turn()
    (line,) = bench.log.lines[said:]
    assert line.startswith("WARNING lock-screen: not carried out: file systems are frozen; ")


def test_lines_that_were_held_back_are_said_at_the_end(bench: Bench) -> None:
    negotiate(bench, 5)
    bench.freezer.frozen = True
    bench.host.write(command("lock-screen"))
    bench.settle()
    end(bench)
    assert bench.log.messages[-1].startswith("lock-screen: not carried out: file systems are frozen; ")


# ---- Collectors that fail or hang ----


def test_a_collector_that_hangs_delays_no_heartbeat_and_no_other_fact(bench: Bench, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        hang_stubbornly()

    bench.slow["containers"] = collect
    bench.connect()
    bench.host.write(REFRESH + push(3))
    bench.until(lambda: tally.count)
    bench.drain()
    for _ in range(int(PATIENCE / 5)):
        bench.heard.clear()
        bench.clock.advance(5.0)
        bench.turn()
        assert bench.names.count("heartbeat") == 1
    bench.until(lambda: any(message.startswith("containers: can't be collected") for message in bench.log.messages))
    assert "containers" not in bench.names
    bench.clock.advance(5.0)
    bench.settle()


def test_a_failing_collector_is_said_once_until_it_works_again(bench: Bench, tmp_path: Path) -> None:
    def collect() -> list[UserSession]:
        if not (tmp_path / "repaired").exists():
            raise LookupError("strange")
        return []

    bench.slow["active-user"] = collect
    negotiate(bench)
    for _ in range(3):
        bench.after(10.0)
    (tmp_path / "repaired").touch()
    assert "active-user" in bench.after(10.0)
    assert [message for message in bench.log.messages if message.startswith("active-user")] == [
        "active-user: can't be collected, the host is told the rest: LookupError: strange",
        "active-user: can be collected again",
    ]


def test_a_fact_that_does_not_fit_on_a_line_is_said_and_ends_nothing(bench: Bench) -> None:
    bench.quick["host-name"] = lambda: messages.HostName(name="x" * 2_000_000)
    negotiate(bench)
    assert "host-name" not in bench.names
    assert any(message.startswith("host-name: can't be collected") for message in bench.log.messages)


def test_without_memory_figures_the_heartbeat_still_beats(bench: Bench, root: Path) -> None:
    (root / "proc/meminfo").unlink()
    bench.connect()
    bench.settle()
    assert bench.last("heartbeat").keys() == {"apiVersion", "apiVersionInUse", "agentId"}
    assert sum(message.startswith("heartbeat: can't") for message in bench.log.messages) == 1


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
    bench.quick["host-name"] = lambda: messages.HostName(name="x" * 5000)
    for _ in range(200):
        bench.clock.advance(120.0)
        bench.turn_alone()
    assert bench.agent._link.congested
    bench.until_alone(lambda: not bench.working)
    bench.heard.clear()
    bench.until(lambda: not bench.agent._link.congested)
    bench.settle()
    assert set(bench.names) >= {"heartbeat", "host-name", "active-user"}


# ---- Calm ----


HOUR = 3600.0

Leaping = Callable[[Callable[[int], None]], Bench]


@pytest.fixture
def leaping(root: Path, clock: Clock, commands: dict[str, FakeCommand]) -> Iterator[Leaping]:
    """Makes a bench on whose clock time leaps to where something is due."""
    made: list[Bench] = []

    def make(on_turn: Callable[[int], None]) -> Bench:
        made.append(Bench(root, clock, LeapingSelector(clock, on_turn)))
        return made[-1]

    yield make
    for each in made:
        each.agent.close()


def turns_in(seconds: float, bench: Bench) -> int:
    """How many turns the loop takes in so many seconds of the bench's clock."""
    bench.stop_at = bench.clock() + seconds
    bench.agent.run()
    assert isinstance(bench.selector, LeapingSelector)
    return bench.selector.turns


def stop_in_time(bench: Bench) -> None:
    if bench.clock() >= bench.stop_at:
        bench.agent.stop()


def with_a_host(leaping: Leaping, *, reads: bool = True) -> Bench:
    """A bench whose host negotiates at the third turn."""

    def on_turn(turns: int) -> None:
        if turns == 3:
            calm.host.connect()
            calm.host.write(REFRESH + push(3))
        if turns > 3 and reads:
            calm.listen()
        stop_in_time(calm)

    calm = leaping(on_turn)
    return calm


def test_without_a_host_the_loop_turns_once_in_a_heartbeat(leaping: Leaping) -> None:
    calm = leaping(lambda _: stop_in_time(calm))
    assert turns_in(HOUR, calm) <= HOUR / 5 + 10


def test_after_a_host_has_gone_the_loop_turns_once_in_a_heartbeat(leaping: Leaping) -> None:
    def on_turn(turns: int) -> None:
        if turns == 3:
            calm.host.connect()
        if turns == 6:
            calm.host.disconnect()
        stop_in_time(calm)

    calm = leaping(on_turn)
    assert turns_in(HOUR, calm) <= HOUR / 5 + 30


@pytest.mark.parametrize("error", [PortMissing("unplugged"), PortBusy("held")])
def test_without_a_port_the_loop_turns_once_a_second(leaping: Leaping, error: Exception) -> None:
    def on_turn(turns: int) -> None:
        if turns == 3:
            calm.why_no_port = error
            calm.agent._link.change_port(calm.clock())
        stop_in_time(calm)

    calm = leaping(on_turn)
    assert turns_in(HOUR, calm) <= HOUR + 10
    assert not calm.agent._link.open


def test_with_a_host_the_loop_turns_for_heartbeats_only(leaping: Leaping) -> None:
    calm = with_a_host(leaping)
    calm.configuration = configuration(periods=dict.fromkeys(PERIODS, NEVER))
    turns = turns_in(HOUR, calm)
    heartbeats = calm.names.count("heartbeat")
    assert 718 <= heartbeats <= 724
    assert turns <= heartbeats + 10
    assert set(calm.names) == {"heartbeat", "session-startup"}


def test_at_default_periods_the_loop_turns_at_most_fifteen_times_a_minute(leaping: Leaping) -> None:
    calm = with_a_host(leaping)
    calm.prints = {name: lambda: "unchanged" for name in ("applications", "containers")}
    minutes = 10
    turns = turns_in(minutes * 60, calm)
    assert turns <= minutes * 15
    expected = {name: minutes * 60 / period for name, period in PERIODS.items() if name in CATALOGUE.facts(up_to=3)}
    for name, times in {**expected, "heartbeat": minutes * 60 / 5}.items():
        assert times <= calm.names.count(name) <= times + 4, name


def test_with_a_host_that_does_not_read_the_loop_turns_for_heartbeats_only(leaping: Leaping) -> None:
    calm = with_a_host(leaping, reads=False)
    calm.quick["number-of-cpus"] = lambda: messages.HostName(name="x" * 50_000)
    assert turns_in(HOUR, calm) <= HOUR / 5 + 60
    assert calm.agent._link.congested


def test_while_a_command_or_a_collector_hangs_the_loop_turns_for_heartbeats_only(
    bench: Bench, commands: dict[str, FakeCommand], tally: Tally
) -> None:
    def work(*_: object) -> Any:
        tally.add()
        hang()

    commands["lifecycle-event"] = FakeCommand(work)
    bench.slow["disks-usage"] = work
    bench.connect()
    bench.host.write(REFRESH + push(3) + event())
    bench.until(lambda: tally.count == 2)
    bench.drain()
    assert bench.agent._patience() == 5.0


def test_the_loop_wakes_for_a_worker_whose_time_is_over(bench: Bench, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        hang()

    bench.configuration = configuration(heartbeat=3600.0, periods={"containers": 120.0})
    bench.slow["containers"] = collect
    bench.connect()
    bench.host.write(REFRESH + push(3))
    bench.until(lambda: tally.count)
    bench.drain()
    assert bench.agent._patience() == PATIENCE


# ---- Another configuration ----


def test_other_periods_take_effect(bench: Bench) -> None:
    negotiate(bench)
    bench.reload(periods={**PERIODS, "host-name": 25.0, "active-user": NEVER})
    bench.settle()
    assert set(bench.after(20.0)) == {"heartbeat"}
    assert set(bench.after(5.0)) == {"heartbeat", "host-name"}
    bench.host.write(REFRESH + push(3))
    assert "active-user" not in bench.after(1000.0)


def test_other_patterns_take_effect_though_nothing_else_has_changed(bench: Bench) -> None:
    bench.prints["applications"] = lambda: "unchanged"
    negotiate(bench)
    bench.heard.clear()
    bench.reload(application=("kernel", "qemu-*"))
    bench.settle()
    assert bench.last("applications") == {"applications": ["kernel", "qemu-*"]}
    assert "session-startup" not in bench.names


def test_other_permissions_take_effect(bench: Bench) -> None:
    negotiate(bench)
    bench.reload(commands_block=("echo", "lifecycle-event"))
    bench.heard.clear()
    bench.host.write(codec.encode("echo", {}) + event())
    bench.settle()
    assert "echo" not in bench.names
    (completion,) = bench.completions()
    assert completion["reason"].startswith("the configuration of this agent forbids it; ")


def test_another_log_level_takes_effect(bench: Bench) -> None:
    negotiate(bench)
    bench.configuration = bench.configuration._replace(log_level="error")
    bench.agent.reload()
    bench.settle()
    said = len(bench.log.lines)
    bench.host.write(event())
    bench.settle()
    assert bench.log.lines[said:] == []


def agree(bench: Bench, host: HostSession) -> None:
    """Play the host until it and the guest have nothing more to say."""
    bench.heard.clear()
    quiet_turns = 0
    while quiet_turns < 3 or bench.working:
        bench.agent.turn(0.02)
        received = bench.host.read()
        host.receive_data(received, bench.clock())
        bench.heard += lines_of(received)
        answer = host.data_to_send()
        if answer:
            bench.host.write(answer)
        quiet_turns = 0 if received or answer else quiet_turns + 1


def test_another_version_is_agreed_on_again_over_the_same_port(bench: Bench) -> None:
    host = HostSession(Version.V3, "host")
    bench.turn_alone()
    bench.host.connect()
    host.connected(bench.clock())
    agree(bench, host)
    assert host.negotiation.agreed == Version.V3
    identity = bench.last("heartbeat")["agentId"]
    for version in (Version.V1, None, Version.V2, Version.V3):
        bench.reload(max_api_version=version)
        agree(bench, host)
        assert host.negotiation.agreed == (version or 0)
        assert bench.agent._session.negotiation.in_use == (version or 0)
        assert bench.names[0] == "session-startup"
        assert bench.last("heartbeat").get("agentId") == (None if version is None else identity)
    assert len(bench.ports) == 1


def test_other_heartbeats_take_effect_in_the_session_that_is(bench: Bench) -> None:
    negotiate(bench)
    bench.heard.clear()
    bench.reload(heartbeat=20.0)
    bench.settle()
    assert "session-startup" not in bench.names
    assert "heartbeat" not in bench.names
    assert "heartbeat" not in bench.after(19.0)
    assert "heartbeat" in bench.after(1.0)
    assert len(bench.ports) == 1


def test_other_heartbeats_are_also_how_often_a_host_is_looked_for(bench: Bench) -> None:
    bench.turn_alone()
    bench.reload(heartbeat=20.0)
    bench.until_alone(lambda: not bench.working)
    bench.clock.advance(5.0)
    bench.turn_alone()
    assert bench.agent._patience() == 20.0


def test_the_same_configuration_begins_no_session(bench: Bench) -> None:
    negotiate(bench)
    bench.heard.clear()
    bench.reload()
    bench.settle()
    assert "session-startup" not in bench.names
    assert "heartbeat" not in bench.names
    assert bench.log.messages[-1] == "configuration reloaded"


def test_other_ports_are_opened_at_once(bench: Bench) -> None:
    negotiate(bench)
    bench.heard.clear()
    bench.reload(port=("/elsewhere",))
    bench.until(lambda: len(bench.ports) == 2)
    bench.settle()
    assert bench.names[0] == "session-startup"
    assert len(bench.ports) == 2


def test_a_configuration_that_can_not_be_used_is_said_and_changes_nothing(bench: Bench) -> None:
    negotiate(bench)
    bench.heard.clear()
    bench.reload_job = lambda report: report(("guest.conf: [guest] heartbeat: 'often' is not allowed", None))
    bench.reload(heartbeat=20.0)
    bench.settle()
    assert bench.log.lines[-1] == (
        "ERROR guest.conf: [guest] heartbeat: 'often' is not allowed; the agent goes on as it was configured before"
    )
    assert bench.names == []
    assert "heartbeat" in bench.after(5.0)


@pytest.mark.parametrize(
    ("job", "patience", "why"),
    [
        (lambda _: os._exit(7), 0.0, "failed with status 7"),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), 0.0, "was ended by signal 9"),
        (lambda _: hang(), RELOAD_PATIENCE, f"did not finish within {RELOAD_PATIENCE:g} s"),
    ],
    ids=["failing", "killed", "hanging"],
)
def test_a_configuration_that_can_not_be_read_is_said_and_changes_nothing(
    bench: Bench, job: Callable[[Report], None], patience: float, why: str
) -> None:
    negotiate(bench)
    bench.reload_job = job
    bench.agent.reload()
    bench.turn()
    bench.clock.advance(patience)
    bench.until(lambda: "onfigur" in bench.log.lines[-1])
    assert bench.log.lines[-1] == f"ERROR reading the configuration {why}; the agent goes on as it was configured before"
    assert "heartbeat" in bench.after(5.0)


def test_a_machine_without_room_to_read_the_configuration_is_said_and_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    negotiate(bench)
    bench.agent.reload()
    with monkeypatch.context() as full:
        full.setattr(os, "fork", refuse)
        bench.turn()
    why = f"could not be started: {os.strerror(errno.EAGAIN)}"
    assert bench.log.lines[-1] == f"ERROR reading the configuration {why}; the agent goes on as it was configured before"
    assert "heartbeat" in bench.after(5.0)


def test_what_runs_goes_on_while_the_configuration_changes(
    bench: Bench, commands: dict[str, FakeCommand], gate: Gate, tmp_path: Path
) -> None:
    command, collector = Tally(tmp_path / "command"), Tally(tmp_path / "collector")
    commands["lifecycle-event"] = FakeCommand(counting_and_waiting(command, gate, {}))
    negotiate(bench)
    bench.slow["disks-usage"] = counting_and_waiting(collector, gate, SLOW["disks-usage"])
    bench.host.write(event() + REFRESH + push(3))
    bench.until(lambda: command.count and collector.count)
    bench.heard.clear()
    bench.reload(max_api_version=Version.V3, heartbeat=6.0, commands_block=("lifecycle-event",))
    bench.host.write(REFRESH + push(3))
    gate.open()
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}]
    assert "disks-usage" in bench.names
    assert command.count == 1


def test_what_the_host_said_as_the_configuration_came_is_obeyed(bench: Bench, gate: Gate) -> None:
    new = bench.configuration._replace(max_api_version=Version.V2)

    def read(report: Report) -> None:
        gate.wait()
        report((None, new.plain()))

    negotiate(bench)
    bench.reload_job = read
    bench.agent.reload()
    bench.turn()
    (task,) = (key.fileobj for key in bench.selector.get_map().values() if isinstance(key.fileobj, Task))
    gate.open()
    wait_until(lambda: select.select([task], [], [], 0.1)[0], lambda: None)
    bench.host.write(codec.encode("lock-screen", {}))
    bench.heard.clear()
    bench.turn()
    assert bench.names[0] == "session-startup"
    bench.settle()
    assert "lock-screen: carried out" in bench.log.messages


def test_a_completion_that_the_host_had_not_read_survives_new_sessions(bench: Bench) -> None:
    negotiate(bench)
    fill(bench)
    bench.host.write(event())
    bench.turn_alone()
    bench.until_alone(lambda: not bench.working)
    bench.agent.reload()
    bench.configuration = bench.configuration._replace(max_api_version=Version.V2)
    bench.until_alone(lambda: "configuration reloaded" in bench.log.messages)
    bench.until(lambda: "session-startup" in bench.names)
    bench.host.write(REFRESH + push(2))
    bench.settle()
    assert bench.completions() == []
    bench.reload(max_api_version=Version.V3)
    bench.host.write(REFRESH + push(3))
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}]


def test_one_reload_after_the_other_is_carried_out_and_the_last_configuration_counts(bench: Bench, gate: Gate) -> None:
    negotiate(bench)
    configurations = [bench.configuration._replace(heartbeat=seconds) for seconds in (6.0, 7.0)]

    def read(report: Report) -> None:
        gate.wait()
        report((None, configurations[0].plain()))

    bench.reload_job = read
    bench.agent.reload()
    bench.turn()
    bench.reload_job = lambda report: report((None, configurations[1].plain()))
    bench.agent.reload()
    bench.turn()
    assert sum(isinstance(key.fileobj, Task) for key in bench.selector.get_map().values()) == 1
    gate.open()
    bench.settle()
    assert bench.log.messages.count("configuration reloaded") == 2
    assert "heartbeat" not in bench.after(6.5)
    assert "heartbeat" in bench.after(0.5)


def test_a_reload_that_waited_for_the_one_before_begins_as_that_ends(bench: Bench, gate: Gate) -> None:
    def read(report: Report) -> None:
        gate.wait()
        report((None, bench.configuration.plain()))

    bench.reload_job = read
    bench.turn_alone()
    for _ in range(2):
        bench.agent.reload()
        bench.turn_alone()
    gate.open()
    bench.until_alone(lambda: not bench.working)
    assert bench.log.messages.count("configuration reloaded") == 2


# ---- Answers, one by one ----


def test_a_flood_of_commands_is_answered_completely(bench: Bench) -> None:
    negotiate(bench)
    bench.host.write(b"".join(event(str(number)) for number in range(700)))
    bench.until(lambda: len(bench.completions()) >= 700)
    bench.settle()
    assert sorted(int(each["reply_id"]) for each in bench.completions()) == list(range(700))


def test_what_waited_for_room_for_its_answer_begins_as_soon_as_there_is_room(bench: Bench) -> None:
    negotiate(bench)
    bench.drain()
    bench.host.write(b"".join(event(str(number)) for number in range(OUTBOX_LIMIT + executor.QUEUE_LIMIT)))
    bench.turn_alone()
    assert not bench.working
    assert len(bench.agent._outbox) < OUTBOX_LIMIT
    assert any(key.fileobj is bench.agent._wakeup for key, _ in bench.selector.select(0))
    bench.turn_alone()
    assert bench.working


def test_answers_that_were_read_are_not_sent_again_and_those_that_were_not_are(bench: Bench) -> None:
    negotiate(bench)
    fill(bench)
    for number in range(5):
        bench.host.write(event(str(number)))
    bench.turn_alone()
    bench.until_alone(lambda: not bench.working)
    bench.host.write(REFRESH)
    bench.turn_alone()
    read = [each["reply_id"] for name, each in lines_of(bench.host.disconnect()) if name == "completion"]
    bench.turn_alone()
    bench.host.connect()
    bench.turn()
    bench.host.write(REFRESH + push(3))
    bench.settle()
    assert read + [each["reply_id"] for each in bench.completions()] == ["0", "1", "2", "3", "4"]


def take_nothing(*_: object) -> int:
    """What a port does that is full."""
    raise BlockingIOError


@pytest.mark.parametrize("how", ["host", "session", "port"])
def test_an_answer_of_which_the_port_took_nothing_is_sent_again(
    bench: Bench, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    negotiate(bench)
    with monkeypatch.context() as full:
        full.setattr(bench.ports[0], "_write", take_nothing)
        bench.host.write(event())
        bench.turn_alone()
        bench.until_alone(lambda: not bench.working)
        bench.turn_alone()
        assert not bench.agent._link.drained
        if how == "host":
            bench.disconnect()
        elif how == "port":
            bench.agent._link.change_port(bench.clock())
            bench.turn_alone()
        else:
            bench.reload(max_api_version=Version.V2)
            bench.reload(max_api_version=Version.V3)
    if how == "host":
        bench.host.connect()
    bench.turn()
    bench.host.write(REFRESH + push(3))
    bench.settle()
    assert bench.completions() == [{"reply_id": "r1", "done": True}]
    bench.after(100.0)
    assert bench.completions() == []


def test_commands_that_were_not_read_for_want_of_room_are_read_as_soon_as_there_is_room(bench: Bench) -> None:
    bench.configuration = configuration(commands_block=("lifecycle-event",))
    negotiate(bench)
    room = OUTBOX_LIMIT
    fill(bench)
    bench.host.write(b"".join(event(str(number)) for number in range(room)))
    bench.until_alone(lambda: len(bench.agent._outbox) >= room)
    bench.host.write(event("last"))
    bench.turn_alone()
    assert len(bench.agent._outbox) == room
    bench.listen()
    bench.turn()
    bench.drain()
    assert [each["reply_id"] for each in bench.completions()] == [*map(str, range(room)), "last"]


def test_what_happened_while_the_host_did_not_read_is_told_when_it_does(bench: Bench) -> None:
    bench.logind = FakeLogind()
    negotiate(bench)
    bench.agent._session.pause_writing()
    bench.logind.tell(Notice.SHUTTING_DOWN)
    bench.turn_alone()
    bench.agent._session.resume_writing(bench.clock())
    bench.settle()
    assert "session-shutdown" in bench.names


# ---- The service manager ----


@pytest.fixture
def manager(bench: Bench, tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """What the service manager has been told since it was last asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ears:
        ears.bind(str(tmp_path / "notify"))
        bench.notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})

        def told() -> list[str]:
            lines = []
            while select.select([ears], [], [], 0)[0]:
                lines.append(ears.recv(4096).decode().splitlines()[0])
            return lines

        yield told


def test_the_service_manager_is_told_how_the_agent_is(bench: Bench, manager: Callable[[], list[str]]) -> None:
    bench.turn_alone()
    assert manager() == ["STATUS=waiting for a host"]
    negotiate(bench)
    assert manager()[-1] == "STATUS=API 3 in use"
    bench.disconnect()
    bench.why_no_port = PortMissing("unplugged")
    bench.agent._link.change_port(bench.clock())
    bench.turn_alone()
    assert manager() == ["STATUS=waiting for a host", "STATUS=waiting for a port"]


def test_the_service_manager_is_told_when_the_agent_works_and_when_it_ends(
    bench: Bench, manager: Callable[[], list[str]]
) -> None:
    bench.agent.stop()
    bench.agent.run()
    assert manager() == ["STATUS=waiting for a host", "READY=1"]
    agent, bench._agent = bench.agent, None
    agent.close()
    assert manager() == ["STOPPING=1"]
    bench.selector = selectors.DefaultSelector()


@pytest.mark.parametrize("usable", [True, False])
def test_the_service_manager_is_told_of_a_reload(bench: Bench, manager: Callable[[], list[str]], usable: bool) -> None:
    if not usable:
        bench.reload_job = lambda report: report(("no configuration", None))
    bench.turn_alone()
    manager()
    bench.agent.reload()
    bench.turn_alone()
    bench.until_alone(lambda: not bench.working)
    assert manager() == ["RELOADING=1", "READY=1"]


def test_an_end_in_the_middle_of_a_reload_is_an_end(bench: Bench, manager: Callable[[], list[str]]) -> None:
    bench.reload_job = lambda _: hang()
    bench.turn_alone()
    bench.agent.reload()
    bench.turn_alone()
    manager()
    agent, bench._agent = bench.agent, None
    agent.close()
    assert manager() == ["STOPPING=1"]
    assert not any("configuration" in line for line in bench.log.lines)
    bench.selector = selectors.DefaultSelector()


# ---- The end ----


def test_at_the_end_the_host_hears_what_was_left_to_say(bench: Bench) -> None:
    negotiate(bench)
    bench.heard.clear()
    bench.host.write(codec.encode("echo", {"n": 1}))
    bench.agent._link.advance(bench.clock())
    bench.agent._follow_events(bench.clock())
    end(bench)
    assert bench.heard == [("echo", {"n": 1})]


def end(bench: Bench) -> None:
    """The agent ends, and the host hears the rest."""
    agent, bench._agent = bench.agent, None
    agent.close()
    bench.listen()
    bench.host.disconnect()
    bench.selector = selectors.DefaultSelector()
    bench.logind = None


def test_at_the_end_lines_held_back_are_said(bench: Bench) -> None:
    negotiate(bench)
    bench.host.write(b"".join(push(version) for version in (1, 2, 1, 2, 1, 3)))
    bench.turn()
    assert "API 1 → 3" not in bench.log.messages[-1]
    end(bench)
    assert bench.log.messages[-1].startswith("API 1 → 3 in use: the host says so (lines held back: ")


def test_an_end_with_the_end_of_the_machine_says_so(bench: Bench) -> None:
    bench.logind = FakeLogind()
    negotiate(bench)
    bench.heard.clear()
    bench.logind.tell(Notice.SHUTTING_DOWN)
    end(bench)
    assert bench.names == ["session-shutdown"]


def test_an_end_in_the_middle_of_commands_completes_all_of_them(
    bench: Bench, commands: dict[str, FakeCommand], tally: Tally
) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        hang()

    commands["lifecycle-event"] = FakeCommand(run)
    negotiate(bench)
    bench.heard.clear()
    for reply_id in ("running", "waiting", "waiting too"):
        bench.host.write(event(reply_id))
    bench.until(lambda: tally.count)
    end(bench)
    assert {each["reply_id"]: (each["done"], each["reason"]) for each in bench.completions()} == {
        "running": (False, "its worker was ended because the agent is stopping"),
        "waiting": (False, "the agent is stopping"),
        "waiting too": (False, "the agent is stopping"),
    }
    assert tally.count == 1


def test_a_stop_ends_the_loop_before_it_waits(bench: Bench) -> None:
    bench.agent.stop()
    bench.agent.run()


def test_a_stop_in_the_middle_ends_the_loop(leaping: Leaping) -> None:
    calm = leaping(lambda turns: calm.agent.stop() if turns == 5 else None)
    assert turns_in(HOUR, calm) == 5


def test_a_stop_or_a_signal_wakes_the_loop_once(bench: Bench) -> None:
    bench.turn_alone()
    bench.turn_alone()
    for wake in (bench.agent.stop, lambda: os.write(bench.agent.wakeup_descriptor, b"\0")):
        assert not bench.selector.select(0)
        wake()
        assert bench.selector.select(0)
        bench.turn_alone()


def test_the_end_waits_for_no_collector_that_hangs(root: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    def collect() -> Message:
        tally.add()
        hang_stubbornly()

    monkeypatch.setattr(agents, "FAREWELL", 0.01)
    bench = Bench(root, time.monotonic)  # type: ignore[arg-type]
    bench.slow["applications"] = collect
    bench.connect()
    bench.until(lambda: tally.count)
    before = set(os.listdir("/proc/self/fd"))
    end(bench)
    assert len(os.listdir("/proc/self/fd")) < len(before)
    assert not any("applications" in line for line in bench.log.lines)
    bench.selector.close()


def test_a_port_that_never_appears_ends_the_loop(bench: Bench) -> None:
    bench.why_no_port = PortMissing("no port")
    bench.turn_alone()
    bench.clock.advance(bench.configuration.port_timeout)
    with pytest.raises(PortMissing):
        bench.agent.run()
