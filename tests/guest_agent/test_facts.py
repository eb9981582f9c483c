"""Facts: when they are collected, by whom, and what becomes of collectors that fail or hang. Workers are real."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

import pytest

from common import messages
from common.messages import Message
from guest_agent import facts as facts_module
from guest_agent import worker
from guest_agent.collectors import Quick, Slow, Sources
from guest_agent.crew import GRACE, Crew
from guest_agent.facts import LOOK_PERIOD, PATIENCE, Facts
from guest_agent.schedule import NEVER
from guest_agent.sessions import UserSession

from .parts import Clock, Gate, ListLog, Tally, hang, hang_stubbornly, wait_until

PERIOD = 120.0
PERIODS = dict.fromkeys(
    ("host-name", "active-user", "network-interfaces", "applications", "containers", "disks-usage"), PERIOD
)

APPLICATIONS = messages.Applications(applications=("kernel-6.1",))
CONTAINERS = messages.Containers(containers=({"id": "c", "names": ["n"], "image": "i", "command": "", "status": "Up"},))
DISKS = messages.DisksUsage(
    disks=({"path": "/", "fs": "ext4", "total": 2, "used": 1},), mapping={"serial": {"name": "/dev/vda"}}
)
INTERFACES = messages.NetworkInterfaces(interfaces=({"name": "eth0", "hw": "0", "inet": ["192.0.2.1"], "inet6": []},))


class Bench:
    """Facts with a crew of real workers, and what they delivered."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.log = ListLog()
        self.quick: dict[str, Quick] = {}
        self.slow: dict[str, Slow] = {}
        self.prints: dict[str, Callable[[], object]] = {}
        self.delivered: list[tuple[str, Message]] = []
        self.allowed: Callable[[str], bool] = lambda _: True
        self.selector = selectors.DefaultSelector()
        self.crew = Crew(self.selector)
        self.facts = Facts(Sources(self.quick, self.slow, self.prints), PERIODS, self.crew, self.log, clock(), self._deliver)

    @property
    def workers(self) -> int:
        return len(self.selector.get_map())

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.delivered]

    def turn(self) -> None:
        self.selector.select(0.02)
        self.crew.advance(self.clock())
        self.facts.gather(self.clock(), self.allowed)

    def until(self, condition: Callable[[], Any]) -> None:
        wait_until(condition, self.turn)

    def settle(self) -> None:
        """Take turns until no worker is left."""
        self.turn()
        self.until(lambda: not self.workers)

    def after(self, seconds: float) -> list[Message]:
        """What is delivered when so many seconds have passed."""
        self.clock.advance(seconds)
        self.delivered.clear()
        self.settle()
        return self.messages

    def _deliver(self, name: str, message: Message) -> None:
        self.delivered.append((name, message))
        self.facts.works(name)


@pytest.fixture
def bench(clock: Clock) -> Iterator[Bench]:
    made = Bench(clock)
    yield made
    made.facts.close()
    made.crew.close(0.0, time.monotonic)
    made.selector.close()


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def counting(tally: Tally, value: Any) -> Slow:
    """Collects *value*, and counts how often."""

    def collect() -> Any:
        tally.add()
        return value

    return collect


def waiting(gate: Gate, value: Any) -> Slow:
    """Collects *value* once the gate is open."""

    def collect() -> Any:
        gate.wait()
        return value

    return collect


def own_pid() -> Message:
    return messages.HostName(name=str(os.getpid()))


# ---- When, and by whom ----


def test_a_quick_fact_is_collected_in_this_process_when_it_is_due(bench: Bench) -> None:
    bench.quick["host-name"] = own_pid
    assert bench.after(PERIOD - 1) == []
    assert bench.after(1) == [messages.HostName(name=str(os.getpid()))]
    assert bench.after(PERIOD - 1) == []
    assert bench.after(1) == [messages.HostName(name=str(os.getpid()))]


def test_what_is_wanted_is_collected_at_once(bench: Bench) -> None:
    bench.quick["host-name"] = own_pid
    bench.slow["disks-usage"] = lambda: DISKS
    bench.facts.want("host-name", "disks-usage")
    assert bench.facts.next_deadline(bench.clock(), bench.allowed) == bench.clock()
    bench.settle()
    assert {name for name, _ in bench.delivered} == {"host-name", "disks-usage"}
    assert bench.facts.next_deadline(bench.clock(), bench.allowed) > bench.clock()


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("applications", APPLICATIONS),
        ("containers", CONTAINERS),
        ("disks-usage", DISKS),
        ("disks-usage", messages.DisksUsage(disks=())),
        ("network-interfaces", INTERFACES),
    ],
)
def test_a_slow_fact_arrives_as_a_worker_collected_it(bench: Bench, name: str, fact: Message) -> None:
    bench.slow[name] = lambda: fact
    bench.facts.want(name)
    bench.settle()
    assert bench.delivered == [(name, fact)]


def test_each_slow_fact_has_a_worker_of_its_own(bench: Bench, gate: Gate) -> None:
    bench.slow.update({"applications": waiting(gate, APPLICATIONS), "containers": waiting(gate, CONTAINERS)})
    bench.facts.want(*bench.slow)
    bench.turn()
    assert bench.workers == 2
    gate.open()
    bench.settle()
    assert sorted(name for name, _ in bench.delivered) == ["applications", "containers"]


def test_a_fact_that_may_not_be_sent_is_not_collected(bench: Bench, tally: Tally) -> None:
    bench.slow["containers"] = counting(tally, CONTAINERS)
    bench.quick["host-name"] = own_pid
    bench.allowed = lambda name: name != "containers"
    bench.facts.want("containers", "host-name")
    bench.settle()
    assert [name for name, _ in bench.delivered] == ["host-name"]
    assert tally.count == 0
    bench.allowed = lambda _: True
    bench.settle()
    assert [name for name, _ in bench.delivered] == ["host-name", "containers"]


def test_what_waits_for_a_worker_and_may_not_be_sent_any_more_is_not_collected(
    bench: Bench, gate: Gate, tally: Tally
) -> None:
    def collect() -> Message:
        tally.add()
        gate.wait()
        return CONTAINERS

    bench.slow["containers"] = collect
    for _ in range(2):
        bench.facts.want("containers")
        bench.turn()
    bench.allowed = lambda _: False
    gate.open()
    bench.settle()
    assert tally.count == 1
    bench.allowed = lambda _: True
    bench.turn()
    bench.settle()
    assert tally.count == 2


def test_a_source_is_not_looked_at_while_its_fact_may_not_be_sent(bench: Bench) -> None:
    looks: list[str] = []
    bench.slow["containers"] = lambda: CONTAINERS
    bench.prints["containers"] = lambda: looks.append("look") or len(looks)  # type: ignore[func-returns-value]
    bench.facts.want("containers")
    bench.settle()
    looks.clear()
    bench.allowed = lambda _: False
    bench.after(LOOK_PERIOD)
    assert looks == []
    bench.allowed = lambda _: True
    bench.after(LOOK_PERIOD)
    assert looks != []


def test_a_fact_whose_period_is_never_is_not_collected_whoever_asks(bench: Bench) -> None:
    bench.quick["host-name"] = own_pid
    bench.facts.configure(Sources(bench.quick, {}, {}), {"host-name": NEVER}, bench.clock())
    bench.facts.want("host-name")
    bench.settle()
    assert bench.after(1_000_000.0) == []


def test_a_fact_that_nobody_collects_is_not_reported(bench: Bench) -> None:
    bench.facts.want("containers")
    bench.settle()
    assert bench.delivered == []
    assert bench.log.lines == []


def test_what_is_wanted_while_it_is_collected_is_collected_once_more(bench: Bench, gate: Gate, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        gate.wait()
        return DISKS

    bench.slow["disks-usage"] = collect
    for _ in range(5):
        bench.facts.want("disks-usage")
        bench.turn()
    bench.until(lambda: tally.count)
    assert bench.workers == 1
    gate.open()
    bench.settle()
    assert bench.messages == [DISKS, DISKS]
    assert tally.count == 2


# ---- Facts that have not changed ----


def counted(bench: Bench, tally: Tally) -> Callable[[str], None]:
    """Lets the bench collect applications, whose print is what is set here."""
    print_now = ["first"]
    bench.slow["applications"] = counting(tally, APPLICATIONS)
    bench.prints["applications"] = lambda: print_now[0]

    def change(text: str) -> None:
        print_now[0] = text

    return change


def test_an_unchanged_fact_is_reported_at_its_period_and_when_wanted_without_another_worker(
    bench: Bench, tally: Tally
) -> None:
    counted(bench, tally)
    bench.facts.want("applications")
    bench.settle()
    assert bench.messages == [APPLICATIONS]
    assert bench.after(PERIOD - 1) == []
    assert bench.after(1) == [APPLICATIONS]
    assert bench.after(PERIOD / 2) == []
    bench.facts.want("applications")
    assert bench.after(0) == [APPLICATIONS]
    assert bench.after(PERIOD - 1) == []
    assert tally.count == 1


def test_a_changed_fact_is_collected_again(bench: Bench, tally: Tally) -> None:
    change = counted(bench, tally)
    bench.facts.want("applications")
    bench.settle()
    change("second")
    assert bench.after(PERIOD) == [APPLICATIONS]
    assert tally.count == 2
    bench.after(PERIOD)
    assert tally.count == 2


def test_a_changed_fact_is_reported_soon_whatever_its_period(bench: Bench, tally: Tally) -> None:
    change = counted(bench, tally)
    bench.facts.want("applications")
    bench.settle()
    assert bench.after(LOOK_PERIOD) == []
    change("second")
    assert bench.after(LOOK_PERIOD - 1) == []
    assert bench.after(1) == [APPLICATIONS]
    assert tally.count == 2
    assert bench.after(PERIOD - 1) == []
    assert bench.after(1) == [APPLICATIONS]


def test_a_fact_of_which_nothing_shows_a_change_is_collected_at_its_period_only(bench: Bench, tally: Tally) -> None:
    bench.slow["containers"] = counting(tally, CONTAINERS)
    bench.prints["containers"] = lambda: None
    bench.facts.want("containers")
    bench.settle()
    assert bench.after(PERIOD - 1) == []
    assert bench.after(1) == [CONTAINERS]
    assert tally.count == 2


def test_a_changed_fact_that_fails_is_tried_again_in_its_period_only(bench: Bench, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        if tally.count > 1:
            raise OSError(errno.EIO, "broken")
        return APPLICATIONS

    change = counted(bench, tally)
    bench.slow["applications"] = collect
    bench.facts.want("applications")
    bench.settle()
    change("second")
    for _ in range(5):
        bench.after(LOOK_PERIOD)
    assert tally.count == 2
    bench.after(PERIOD)
    assert tally.count == 3


def test_a_change_while_a_fact_is_collected_is_not_missed(bench: Bench, tally: Tally) -> None:
    change = counted(bench, tally)
    bench.facts.want("applications")
    bench.turn()
    change("second")
    bench.settle()
    bench.after(PERIOD)
    assert tally.count == 2


def test_a_fact_without_a_print_is_collected_each_time(bench: Bench, tally: Tally) -> None:
    bench.slow["disks-usage"] = counting(tally, DISKS)
    bench.after(PERIOD)
    bench.after(PERIOD)
    assert tally.count == 2


def test_a_fact_that_failed_is_not_taken_for_unchanged(bench: Bench, tally: Tally) -> None:
    def collect() -> Message:
        tally.add()
        if tally.count == 1:
            raise OSError(errno.EIO, "broken")
        return APPLICATIONS

    counted(bench, tally)
    bench.slow["applications"] = collect
    assert bench.after(PERIOD) == []
    assert bench.after(PERIOD) == [APPLICATIONS]


# ---- Users ----


def test_changes_of_the_sessions_are_told_with_the_active_user(bench: Bench, tmp_path: Path) -> None:
    looks = Tally(tmp_path / "looks")
    alice = UserSession("1", "alice", 1.0)

    def look() -> list[UserSession]:
        looks.add()
        return {1: [], 2: [alice], 3: [alice._replace(locked=True)]}.get(looks.count, [])

    bench.slow["active-user"] = look
    assert bench.after(PERIOD) == [messages.ActiveUser(name="None")]
    assert bench.after(PERIOD) == [messages.SessionLogon(), messages.ActiveUser(name="alice")]
    assert bench.after(PERIOD) == [messages.SessionLock(), messages.ActiveUser(name="alice")]
    assert bench.after(PERIOD) == [messages.SessionLogoff(), messages.ActiveUser(name="None")]
    assert {name for name, _ in bench.delivered} == {"active-user"}


def test_users_that_have_not_changed_are_told_without_any_change(bench: Bench, tally: Tally) -> None:
    bench.slow["active-user"] = counting(tally, [UserSession("1", "alice", 1.0)])
    bench.prints["active-user"] = lambda: 0
    bench.after(PERIOD)
    assert bench.after(PERIOD) == [messages.ActiveUser(name="alice")]
    assert tally.count == 1


# ---- Collectors that fail ----


@pytest.mark.parametrize("kind", ["quick", "slow"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("odd"), KeyError("strange")])
def test_a_collector_that_fails_is_said_once_until_it_works_again(
    bench: Bench, kind: str, error: Exception, tmp_path: Path
) -> None:
    repaired = Gate(tmp_path / "repaired")

    def collect() -> Message:
        if not (tmp_path / "repaired").exists():
            raise error
        return APPLICATIONS

    getattr(bench, kind)["applications"] = collect
    for _ in range(3):
        assert bench.after(PERIOD) == []
    repaired.open()
    for _ in range(3):
        assert bench.after(PERIOD) == [APPLICATIONS]
    assert bench.log.messages == [
        f"applications: can't be collected, the host is told the rest: {type(error).__name__}: {error}",
        "applications: can be collected again",
    ]


@pytest.mark.parametrize("kind", ["quick", "slow"])
def test_a_collector_that_fails_costs_its_own_fact_only(bench: Bench, kind: str) -> None:
    def fail() -> Message:
        raise LookupError("strange")

    getattr(bench, kind).update({"applications": fail, "containers": lambda: CONTAINERS})
    assert bench.after(PERIOD) == [CONTAINERS]


@pytest.mark.parametrize(
    ("die", "how"),
    [
        (lambda: os._exit(7), "failed with status 7"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was ended by signal 9"),
        (lambda: os._exit(0), "gave nothing"),
    ],
    ids=["with a status", "by a signal", "in silence"],
)
def test_a_collector_that_takes_its_worker_with_it_costs_its_own_fact_only(
    bench: Bench, die: Callable[[], Any], how: str
) -> None:
    bench.slow.update({"applications": lambda: APPLICATIONS, "containers": die, "disks-usage": lambda: DISKS})
    bench.after(PERIOD)
    assert sorted(name for name, _ in bench.delivered) == ["applications", "disks-usage"]
    assert bench.log.messages == [f"containers: can't be collected, the host is told the rest: collecting it {how}"]
    bench.after(PERIOD)
    assert sorted(name for name, _ in bench.delivered) == ["applications", "disks-usage"]
    assert len(bench.log.lines) == 1


def test_a_fact_that_is_too_large_to_report_costs_itself_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "VALUE_LIMIT", 1000)
    bench.slow.update(
        {
            "applications": lambda: messages.Applications(applications=("x" * 1000,)),
            "disks-usage": lambda: DISKS,
        }
    )
    assert bench.after(PERIOD) == [DISKS]
    assert [line.split(":")[0] for line in bench.log.messages] == ["applications"]
    assert "xxx" not in capfd.readouterr().err


def test_a_machine_without_room_for_a_worker_is_said_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    bench.slow.update({"applications": lambda: APPLICATIONS, "disks-usage": lambda: DISKS})
    with monkeypatch.context() as full:
        full.setattr(os, "fork", refuse)
        assert bench.after(PERIOD) == []
    assert sorted(line.split(":")[0] for line in bench.log.messages) == ["applications", "disks-usage"]
    assert len(bench.after(PERIOD)) == 2


# ---- Collectors that hang ----


def hanging_at_containers(bench: Bench, tally: Tally, how: Callable[[], object] = hang_stubbornly) -> None:
    """Let the second of three collectors hang."""

    def collect() -> Message:
        tally.add()
        how()
        return CONTAINERS

    bench.slow["applications"] = lambda: APPLICATIONS
    bench.slow["containers"] = collect
    bench.slow["disks-usage"] = lambda: DISKS
    bench.facts.want(*bench.slow)
    bench.turn()
    bench.until(lambda: tally.count == 1)


def test_a_collector_that_hangs_holds_up_no_other_fact(bench: Bench, tally: Tally) -> None:
    bench.quick["host-name"] = own_pid
    hanging_at_containers(bench, tally)
    for _ in range(3):
        bench.delivered.clear()
        bench.facts.want("applications", "disks-usage", "host-name")
        bench.until(lambda: {name for name, _ in bench.delivered} == {"applications", "disks-usage", "host-name"})
    assert bench.log.lines == []


def test_a_collector_whose_patience_is_over_is_given_up(bench: Bench, tally: Tally) -> None:
    hanging_at_containers(bench, tally)
    bench.until(lambda: bench.workers == 1)
    bench.clock.advance(PATIENCE)
    bench.until(lambda: bench.log.lines)
    assert bench.log.messages == [
        "containers: can't be collected, the host is told the rest: collecting it did not finish within 30 s"
    ]


def test_a_collector_is_not_tried_again_while_it_hangs(bench: Bench, tally: Tally) -> None:
    hanging_at_containers(bench, tally)
    bench.until(lambda: bench.workers == 1)
    bench.clock.advance(PATIENCE)
    for _ in range(3):
        bench.delivered.clear()
        bench.facts.want(*bench.slow)
        bench.until(lambda: "disks-usage" in dict(bench.delivered))
        bench.until(lambda: bench.workers == 1)
    assert tally.count == 1
    assert len(bench.log.lines) == 1


def test_a_collector_that_hung_is_tried_again_once_it_has_gone_and_said_when_it_works(
    bench: Bench, tally: Tally, gate: Gate, tmp_path: Path
) -> None:
    def hang_at_first() -> None:
        if not (tmp_path / "gate").exists():
            hang_stubbornly()

    hanging_at_containers(bench, tally, hang_at_first)
    bench.until(lambda: bench.workers == 1)
    bench.clock.advance(PATIENCE)
    bench.until(lambda: bench.log.lines)
    bench.clock.advance(GRACE)
    bench.until(lambda: not bench.workers)
    gate.open()
    bench.facts.want("containers")
    bench.settle()
    assert tally.count == 2
    assert bench.log.messages[1:] == ["containers: can be collected again"]


def test_a_collector_that_leaves_when_it_is_told_to_is_tried_again_at_its_next_time(bench: Bench, tally: Tally) -> None:
    hanging_at_containers(bench, tally, hang)
    bench.until(lambda: bench.workers == 1)
    bench.clock.advance(PATIENCE)
    bench.settle()
    assert tally.count == 1
    bench.facts.want("containers")
    bench.turn()
    bench.until(lambda: tally.count == 2)


def test_the_end_of_everything_is_no_failure(bench: Bench, tally: Tally) -> None:
    hanging_at_containers(bench, tally)
    bench.facts.close()
    bench.crew.close(0.0, time.monotonic)
    assert bench.log.lines == []


# ---- Another configuration ----


def configure(bench: Bench, slow: Mapping[str, Slow], periods: Mapping[str, float] = PERIODS) -> None:
    bench.facts.configure(Sources(bench.quick, slow, bench.prints), periods, bench.clock())


def test_with_another_configuration_everything_is_collected_anew(bench: Bench, tally: Tally) -> None:
    counted(bench, tally)
    bench.quick["host-name"] = own_pid
    bench.after(PERIOD)
    configure(bench, {"applications": lambda: messages.Applications(applications=("other",))})
    assert bench.after(0) == [
        messages.HostName(name=str(os.getpid())),
        messages.Applications(applications=("other",)),
    ]


def test_other_periods_take_effect(bench: Bench) -> None:
    bench.quick["host-name"] = own_pid
    configure(bench, {}, {"host-name": 7.0})
    bench.settle()
    assert bench.after(6) == []
    assert len(bench.after(1)) == 1


def test_what_was_collected_in_the_old_way_is_not_taken_for_unchanged(bench: Bench, tally: Tally, gate: Gate) -> None:
    def collect() -> Message:
        tally.add()
        gate.wait()
        return APPLICATIONS

    bench.slow["applications"] = collect
    bench.prints["applications"] = lambda: "print"
    bench.facts.want("applications")
    bench.turn()
    bench.until(lambda: tally.count)
    bench.allowed = lambda _: False
    configure(bench, {"applications": lambda: messages.Applications(applications=("other",))})
    gate.open()
    bench.until(lambda: not bench.workers)
    bench.allowed = lambda _: True
    bench.facts.want("applications")
    bench.settle()
    assert bench.messages[-1] == messages.Applications(applications=("other",))


def test_what_waited_and_is_no_longer_reported_is_not_collected(bench: Bench, tally: Tally, gate: Gate) -> None:
    def collect() -> Message:
        tally.add()
        gate.wait()
        return APPLICATIONS

    bench.slow["applications"] = collect
    for _ in range(2):
        bench.facts.want("applications")
        bench.turn()
    bench.until(lambda: tally.count)
    configure(bench, bench.slow, {})
    gate.open()
    bench.settle()
    assert tally.count == 1


def test_what_goes_wrong_is_shown_in_a_sentence() -> None:
    assert facts_module.describe(ValueError("odd")) == "ValueError: odd"
