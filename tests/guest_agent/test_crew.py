"""The workers under way: real ones, on a clock of the test's own."""

from __future__ import annotations

import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from guest_agent.crew import GRACE, LOOK_AGAIN, Crew, Task
from guest_agent.worker import Job, Report

from .parts import GIVE_UP, Clock, Gate, wait_until

PATIENCE = 30.0

STOPPING = "was ended because the agent is stopping"


class Bench:
    """A crew, and what it told of its workers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.selector = selectors.DefaultSelector()
        self.crew = Crew(self.selector)
        self.reported: list[Any] = []
        self.ends: list[Optional[str]] = []

    def start(self, job: Job, patience: float = PATIENCE) -> Task:
        return self.crew.start(
            job, patience=patience, now=self.clock(), reported=self.reported.append, ended=self.ends.append
        )

    def until(self, condition: Callable[[], Any]) -> None:
        wait_until(condition, self.turn)

    def turn(self) -> None:
        self.selector.select(0.1)
        self.advance()

    def advance(self) -> None:
        self.crew.advance(self.clock())

    @property
    def watched(self) -> int:
        return len(self.selector.get_map())


@pytest.fixture
def bench(clock: Clock) -> Iterator[Bench]:
    made = Bench(clock)
    yield made
    made.crew.close(0.0, time.monotonic)
    made.selector.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def hang() -> None:
    """Take signals whenever they come: pause() would miss one that comes just before."""
    while True:
        time.sleep(0.01)


def hanging(report: Report) -> None:
    report("working")
    hang()


def stubborn(report: Report) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report(os.getpid())
    hang()


def refusing(report: Report) -> None:
    signal.signal(signal.SIGTERM, lambda *_: report("no"))
    report(os.getpid())
    hang()


def lives(pid: int) -> bool:
    """Whether *pid* runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# ---- What is told ----


def test_what_a_worker_reports_is_handed_over_and_its_end_is_told_once(bench: Bench) -> None:
    def job(report: Report) -> None:
        report("one")
        report(2)

    descriptors = len(os.listdir("/proc/self/fd"))
    task = bench.start(job)
    assert bench.watched == 1
    bench.until(lambda: bench.ends)
    assert bench.reported == ["one", 2]
    assert bench.ends == [None]
    assert task.gone
    assert bench.watched == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors
    bench.advance()
    assert bench.ends == [None]


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (lambda _: sys.exit(3), "failed with status 3"),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "was ended by signal 9"),
        (lambda _: os.kill(os.getpid(), signal.SIGRTMIN + 1), f"was ended by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_a_worker_that_fails_is_told_as_a_problem(bench: Bench, job: Job, problem: str) -> None:
    bench.start(job)
    bench.until(lambda: bench.ends)
    assert bench.ends == [problem]


def test_workers_side_by_side_are_told_apart(bench: Bench, gate: Gate) -> None:
    ended: list[str] = []

    def start(name: str, job: Job) -> None:
        bench.crew.start(
            job, patience=PATIENCE, now=bench.clock(), reported=bench.reported.append, ended=lambda _: ended.append(name)
        )

    def waiting(report: Report) -> None:
        gate.wait()
        report("late")

    start("waits", waiting)
    start("ends", lambda report: report("at once"))
    bench.until(lambda: ended)
    assert (ended, bench.reported) == (["ends"], ["at once"])
    gate.open()
    bench.until(lambda: len(ended) == 2)
    assert (ended, bench.reported) == (["ends", "waits"], ["at once", "late"])


def test_whoever_is_told_of_an_end_may_start_the_next(bench: Bench) -> None:
    def start_next(_: object) -> None:
        bench.start(lambda report: report("second"))

    bench.crew.start(lambda _: None, patience=PATIENCE, now=bench.clock(), reported=bench.reported.append, ended=start_next)
    bench.until(lambda: bench.ends)
    assert bench.reported == ["second"]


def test_a_worker_that_can_not_be_started_is_an_error_and_not_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_room)
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        bench.start(hanging)
    assert bench.watched == 0
    assert bench.crew.next_deadline() == math.inf


# ---- Patience ----


def test_a_worker_that_takes_too_long_is_told_and_asked_to_leave(bench: Bench, tmp_path: Path) -> None:
    def job(report: Report) -> None:
        try:
            hanging(report)
        finally:
            (tmp_path / "cleaned up").touch()
            report("too late")

    bench.start(job)
    bench.until(lambda: bench.reported)
    bench.clock.advance(PATIENCE)
    bench.advance()
    assert bench.ends == ["did not finish within 30 s"]
    bench.until(lambda: not bench.watched)
    assert bench.ends == ["did not finish within 30 s"]
    assert bench.reported == ["working"]
    assert (tmp_path / "cleaned up").exists()


def test_patience_begins_anew_with_each_report(bench: Bench, gate: Gate) -> None:
    def job(report: Report) -> None:
        report("working")
        gate.wait()
        report("still working")
        hang()

    task = bench.start(job)
    bench.until(lambda: bench.reported)
    bench.clock.advance(PATIENCE - 1)
    gate.open()
    bench.until(lambda: len(bench.reported) == 2)
    assert bench.crew.next_deadline() == task.deadline == bench.clock() + PATIENCE
    bench.clock.advance(PATIENCE - 1)
    bench.advance()
    assert bench.ends == []
    bench.clock.advance(1)
    bench.advance()
    assert bench.ends == ["did not finish within 30 s"]


def test_a_worker_that_ended_in_time_has_done_so_however_late_somebody_looks(bench: Bench) -> None:
    bench.start(lambda report: report("done"))
    assert bench.selector.select(GIVE_UP)
    (pid,) = (key.fileobj._worker.pid for key in bench.selector.get_map().values())  # type: ignore[union-attr]
    wait_until(lambda: not lives(pid), lambda: None)
    bench.clock.advance(10 * PATIENCE)
    bench.advance()
    assert (bench.reported, bench.ends) == (["done"], [None])


def test_a_worker_that_does_not_leave_is_killed_after_a_while(bench: Bench) -> None:
    task = bench.start(refusing)
    bench.until(lambda: bench.reported)
    (pid,) = bench.reported
    bench.clock.advance(PATIENCE)
    bench.advance()
    assert bench.crew.next_deadline() == bench.clock() + GRACE
    bench.clock.advance(GRACE / 2)
    assert bench.selector.select(GIVE_UP), "it was not asked"
    bench.advance()
    assert lives(pid)
    bench.clock.advance(GRACE / 2)
    bench.advance()
    assert bench.crew.next_deadline() == math.inf
    bench.until(lambda: task.gone)
    assert not lives(pid)
    assert bench.reported == [pid]
    assert bench.ends == ["did not finish within 30 s"]


def held(report: Report) -> None:
    """Close the pipe and live on, as a process that the kernel holds at its end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report(os.getpid())
    os.closerange(3, 100)
    hang()


def test_a_worker_that_is_held_at_its_end_is_looked_after_now_and_then_and_does_not_keep_the_loop_busy(bench: Bench) -> None:
    task = bench.start(held)
    bench.until(lambda: task.silent)
    assert bench.watched == 0
    assert bench.crew.next_deadline() == bench.clock() + LOOK_AGAIN
    bench.clock.advance(LOOK_AGAIN)
    bench.advance()
    assert bench.ends == []
    assert bench.crew.next_deadline() == bench.clock() + LOOK_AGAIN
    os.kill(bench.reported[0], signal.SIGKILL)
    bench.until(lambda: task.gone)
    assert bench.ends == ["was ended by signal 9"]
    assert bench.crew.next_deadline() == math.inf


def test_at_the_end_a_worker_that_is_held_is_not_waited_for_in_a_busy_loop(bench: Bench) -> None:
    task = bench.start(held)
    bench.until(lambda: task.silent)
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return time.monotonic()

    bench.crew.close(0.1, clock)
    assert looks < 10
    assert bench.ends == [STOPPING]


def test_the_next_deadline_is_that_of_the_least_patience(bench: Bench) -> None:
    assert bench.crew.next_deadline() == math.inf
    for patience in (20.0, 10.0, 30.0):
        bench.start(hanging, patience)
    assert bench.crew.next_deadline() == bench.clock() + 10.0


# ---- The end of them all ----


def test_at_the_end_all_are_asked_to_leave_and_have_the_time_to_clean_up(bench: Bench, tmp_path: Path) -> None:
    def job(report: Report) -> None:
        try:
            hanging(report)
        finally:
            (tmp_path / str(os.getpid())).touch()

    for _ in range(3):
        bench.start(job)
    bench.until(lambda: len(bench.reported) == 3)
    bench.crew.close(GIVE_UP, time.monotonic)
    assert bench.ends == [STOPPING] * 3
    assert len(list(tmp_path.iterdir())) == 3
    assert bench.watched == 0


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_at_the_end_what_does_not_leave_is_killed(bench: Bench, seconds: float) -> None:
    bench.start(stubborn)
    bench.start(hanging)
    bench.until(lambda: len(bench.reported) == 2)
    (pid,) = (value for value in bench.reported if isinstance(value, int))
    bench.crew.close(seconds, time.monotonic)
    assert bench.ends == [STOPPING] * 2
    wait_until(lambda: not lives(pid), lambda: None)
    assert bench.watched == 0


def test_a_worker_whose_patience_is_over_is_told_of_once_also_at_the_end(bench: Bench) -> None:
    bench.start(stubborn)
    bench.until(lambda: bench.reported)
    bench.clock.advance(PATIENCE)
    bench.advance()
    bench.crew.close(0.0, time.monotonic)
    assert bench.ends == ["did not finish within 30 s"]


def test_at_the_end_nothing_but_the_workers_is_waited_for(bench: Bench) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"readable all the time")
    bench.selector.register(read_end, selectors.EVENT_READ)
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return time.monotonic()

    bench.start(stubborn)
    bench.until(lambda: bench.reported)
    bench.crew.close(0.1, clock)
    bench.selector.unregister(read_end)
    os.close(read_end)
    os.close(write_end)
    assert looks < 20
