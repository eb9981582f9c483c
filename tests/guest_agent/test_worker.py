"""Workers: real forks, pipes and signals."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import marshal
import os
import resource
import select
import signal
import subprocess
import sys
import termios
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from guest_agent import processes, worker
from guest_agent.worker import Job, Report, Worker

from .conftest import CommandGuard
from .parts import GIVE_UP, Gate, wait_until

Start = Callable[[Job], Worker]

UNEXPECTED = 1

#: Asks for the size of a pipe; Python names it from 3.10 on.
F_GETPIPE_SZ = 1032


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts workers; those that live on at the end are killed."""
    started: list[Worker] = []

    def begin(job: Job) -> Worker:
        started.append(Worker(job))
        return started[-1]

    yield begin
    for each in started:
        with contextlib.suppress(OSError):
            each.kill()
            each.close()
            os.waitpid(each.pid, 0)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def hang() -> None:
    """Take signals whenever they come: pause() would miss one that comes just before."""
    while True:
        time.sleep(0.01)


def next_reports(of: Worker) -> list[Any]:
    """Wait until *of* reports, or has ended."""
    assert select.select([of], [], [], GIVE_UP)[0], "waited in vain"
    return of.reports()


def finish(one: Worker) -> list[Any]:
    """What is reported until the end."""
    reported: list[Any] = []
    while one.status is None:
        reported += next_reports(one)
    return reported


def descriptors() -> list[int]:
    """Those that are open in this process; not the one that is needed to look."""
    return [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]


def said(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


# ---- Reports ----


@pytest.mark.parametrize(
    "value",
    [None, True, -1, 2**70, 1.5, float("inf"), "zürich →", b"\0\xff", (), ("a", [1, {"b": None}]), {"k": (1, 2)}],
)
def test_a_plain_value_arrives_as_it_was_reported(start: Start, value: Any) -> None:
    (arrived,) = finish(start(lambda report: report(value)))
    assert arrived == value
    assert type(arrived) is type(value)


def test_values_arrive_in_their_order_however_many_they_are(start: Start) -> None:
    def job(report: Report) -> None:
        for number in range(20_000):
            report(number)

    assert finish(start(job)) == list(range(20_000))


def test_a_value_that_is_larger_than_the_pipe_arrives(start: Start) -> None:
    large = bytes(range(256)) * 12_000
    assert finish(start(lambda report: report(large))) == [large]


def test_a_value_is_there_before_the_worker_has_ended(start: Start, gate: Gate) -> None:
    def job(report: Report) -> None:
        report("first")
        gate.wait()
        report("second")

    one = start(job)
    assert next_reports(one) == ["first"]
    assert one.reports() == []
    assert one.status is None
    gate.open()
    assert finish(one) == ["second"]
    assert one.status == 0


def test_a_worker_that_reports_without_end_does_not_keep_the_reader(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "READ_LIMIT", 65536)
    line = "x" * 1000

    def job(report: Report) -> None:
        while True:
            report(line)

    one = start(job)
    for _ in range(20):
        assert 0 < len(next_reports(one)) <= 66
    assert one.status is None


def test_a_value_of_the_largest_size_arrives_and_a_larger_one_is_refused(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    largest = b"x" * (worker.VALUE_LIMIT - len(marshal.dumps(b"")))
    assert finish(start(lambda report: report(largest))) == [largest]
    one = start(lambda report: report(largest + b"x"))
    assert finish(one) == []
    assert one.status == UNEXPECTED
    assert said(capfd).startswith("a worker failed, please report it: ValueError at worker.py:")


def test_a_value_that_is_not_plain_is_refused(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    one = start(lambda report: report(object()))
    assert finish(one) == []
    assert one.status == UNEXPECTED
    assert "ValueError" in said(capfd)


def test_a_value_that_a_signal_tears_arrives_whole(start: Start) -> None:
    large = bytes(range(256)) * 4096
    one = start(lambda report: report(large))
    wait_until(lambda: waits(one) and unread(one) == fcntl.fcntl(one, F_GETPIPE_SZ), lambda: None)
    os.kill(one.pid, signal.SIGINT)
    assert finish(one) == [large]


def unread(one: Worker) -> int:
    return int.from_bytes(fcntl.ioctl(one, termios.FIONREAD, bytes(4)), sys.byteorder)


def waits(one: Worker) -> bool:
    return Path(f"/proc/{one.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "S"


# ---- The end ----


def test_a_worker_that_has_done_its_job_ends_with_status_0_and_has_nothing_more_to_say(start: Start) -> None:
    one = start(lambda _: None)
    assert finish(one) == []
    assert one.status == 0
    assert one.reports() == []


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (3, 3), ("open-sesame", UNEXPECTED)])
def test_a_worker_may_leave_with_a_status_and_nothing_is_said_of_it(
    start: Start, code: Any, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(report: Report) -> None:
        report("before")
        sys.exit(code)

    one = start(job)
    assert finish(one) == ["before"]
    assert one.status == status
    assert said(capfd) == ""


def test_an_error_is_said_in_one_line_with_the_way_to_it_and_no_secret(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(_: Report) -> None:
        raise LookupError("open-sesame")

    one = start(job)
    finish(one)
    assert one.status == UNEXPECTED
    (line,) = said(capfd).splitlines()
    assert line.startswith("a worker failed, please report it: LookupError at worker.py:")
    assert ", test_worker.py:" in line
    assert "sesame" not in line


def test_a_worker_that_is_killed_is_known_by_the_signal_and_what_it_reported_counts(start: Start) -> None:
    def job(report: Report) -> None:
        report("before")
        os.kill(os.getpid(), signal.SIGKILL)

    one = start(job)
    assert finish(one) == ["before"]
    assert one.status == -signal.SIGKILL


def test_half_a_value_is_none(start: Start) -> None:
    def job(report: Report) -> None:
        report("whole")
        content = marshal.dumps("half")
        os.write(max(descriptors()), (len(content).to_bytes(4, "big") + content)[:-1])

    one = start(job)
    assert finish(one) == ["whole"]
    assert one.status == 0


def test_a_worker_whose_parent_does_not_listen_any_more_ends_without_a_word(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(report: Report) -> None:
        while True:
            report("still there?")

    one = start(job)
    next_reports(one)
    one.close()
    _, status = os.waitpid(one.pid, 0)
    assert os.waitstatus_to_exitcode(status) == UNEXPECTED
    assert said(capfd) == ""


def test_a_worker_that_has_closed_its_pipe_and_has_not_gone_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    released = tmp_path / "gate"

    def job(report: Report) -> None:
        report("last")
        os.close(max(descriptors()))
        give_up_at = time.monotonic() + GIVE_UP
        while not released.exists() and time.monotonic() < give_up_at:
            time.sleep(0.005)

    one = start(job)
    reported: list[Any] = []
    while not one.silent:
        reported += next_reports(one)
    assert (reported, one.status) == (["last"], None)
    assert one.reports() == []
    assert one.status is None
    released.touch()
    wait_until(lambda: one.reports() or one.status is not None, lambda: None)
    assert one.status == 0


def test_nobody_is_signalled_in_place_of_a_worker_that_has_gone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one = start(lambda _: None)
    finish(one)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled a stranger"))
    one.end()
    one.kill()


# ---- Asked to leave ----


def test_a_worker_that_is_asked_to_leave_cleans_up_first(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    def job(report: Report) -> None:
        try:
            report("working")
            hang()
        finally:
            report("cleaned up")

    one = start(job)
    assert next_reports(one) == ["working"]
    one.end()
    assert finish(one) == ["cleaned up"]
    assert one.status == UNEXPECTED
    assert said(capfd) == ""


class Fleeting:
    """Goes away."""


def test_a_worker_that_is_asked_where_nothing_can_be_raised_leaves_behind_that(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(report: Report) -> None:
        fleeting = Fleeting()
        watched = weakref.ref(fleeting, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        try:
            del fleeting
            report(watched() is None)
            hang()
        finally:
            report("cleaned up")

    one = start(job)
    assert finish(one) == [True, "cleaned up"]
    assert one.status == UNEXPECTED
    assert said(capfd) == ""


def test_a_worker_says_what_else_was_dropped(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    def job(_: Report) -> None:
        fleeting = Fleeting()
        watched = weakref.ref(fleeting, lambda _: 1 / 0)
        del fleeting
        assert watched() is None

    assert finish(start(job)) == []
    assert "ZeroDivisionError" in said(capfd)


def test_a_worker_that_is_asked_twice_is_not_disturbed_in_cleaning_up(start: Start, gate: Gate) -> None:
    def job(report: Report) -> None:
        try:
            report("working")
            hang()
        finally:
            report("cleaning up")
            gate.wait()
            report("cleaned up")

    one = start(job)
    assert next_reports(one) == ["working"]
    one.end()
    assert next_reports(one) == ["cleaning up"]
    one.end()
    gate.open()
    assert finish(one) == ["cleaned up"]


def test_a_worker_that_is_asked_before_it_has_begun_leaves_and_does_nothing_in_the_name_of_its_parent(
    start: Start, tmp_path: Path
) -> None:
    def note(*_: object) -> None:
        (tmp_path / "taken for the parent").touch()

    before = signal.signal(signal.SIGTERM, note)
    try:
        for _ in range(30):
            one = start(lambda _: hang())
            one.end()
            assert finish(one) == []
            assert one.status == UNEXPECTED
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_does_not_leave_is_killed(start: Start) -> None:
    def job(report: Report) -> None:
        signal.signal(signal.SIGTERM, lambda *_: report("no"))
        report("working")
        hang()

    one = start(job)
    assert next_reports(one) == ["working"]
    one.end()
    assert next_reports(one) == ["no"]
    one.kill()
    assert finish(one) == []
    assert one.status == -signal.SIGKILL


def test_signals_for_the_agent_do_not_end_a_worker(start: Start, gate: Gate, capfd: pytest.CaptureFixture[str]) -> None:
    def job(report: Report) -> None:
        report("working")
        gate.wait()
        report("done")

    one = start(job)
    assert next_reports(one) == ["working"]
    os.kill(one.pid, signal.SIGINT)
    os.kill(one.pid, signal.SIGHUP)
    gate.open()
    assert finish(one) == ["done"]
    assert one.status == 0
    assert said(capfd) == ""


def test_a_signal_to_a_worker_does_not_write_into_what_has_taken_the_place_of_the_agent_s_wake_up(
    start: Start, tmp_path: Path
) -> None:
    read_end, woken = os.pipe()
    os.set_blocking(woken, False)
    before = signal.set_wakeup_fd(woken)
    try:

        def job(report: Report) -> None:
            while os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT) < woken:
                pass
            os.kill(os.getpid(), signal.SIGINT)
            report("signalled")

        assert finish(start(job)) == ["signalled"]
    finally:
        signal.set_wakeup_fd(before)
        os.close(read_end)
        os.close(woken)
    assert (tmp_path / "file").read_bytes() == b""


# ---- Programs ----


PRINT_SIGNALS = "for line in open('/proc/self/status'): print(line.split()[1]) if line[:6] in ('SigIgn', 'SigBlk') else 0"


def test_a_program_that_a_worker_starts_begins_with_no_signal_held_back(start: Start, command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)

    def job(report: Report) -> None:
        printed = subprocess.run([sys.executable, "-Ic", PRINT_SIGNALS], stdout=subprocess.PIPE, check=True).stdout
        report([int(line, 16) for line in printed.split()])

    ((blocked, ignored),) = finish(start(job))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert not (blocked | ignored) >> (number - 1) & 1, number


HOLD_FIFO_AND_HANG = """
import signal, sys
with open(sys.argv[1], "wb", buffering=0) as fifo:
    fifo.write(b"running")
    while True:
        signal.pause()
"""


def test_a_program_that_a_worker_started_is_ended_with_it(start: Start, command_guard: CommandGuard, tmp_path: Path) -> None:
    command_guard.allowed.add(sys.executable)
    os.mkfifo(tmp_path / "fifo")
    argv = [sys.executable, "-Ic", HOLD_FIFO_AND_HANG, str(tmp_path / "fifo")]

    def job(_: Report) -> None:
        processes.run(argv, deadline=GIVE_UP)

    one = start(job)
    with (tmp_path / "fifo").open("rb", buffering=0) as fifo:
        assert fifo.read(100) == b"running"
        one.end()
        finish(one)
        assert select.select([fifo], [], [], GIVE_UP)[0], "the program still runs"
        assert fifo.read(100) == b""


# ---- What a worker has of its parent ----


def test_a_worker_has_no_descriptor_but_its_own(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb"), contextlib.ExitStack() as pipes:
        for end in (*os.pipe(), *os.pipe()):
            pipes.callback(os.close, end)
        assert len(descriptors()) >= 3 + 5
        ((first, second, third, *others),) = finish(start(lambda report: report(sorted(descriptors()))))
    assert [first, second, third] == [0, 1, 2]
    assert len(others) == 1


class Owner:
    """Closes its descriptor at its end, which only the garbage collector can find."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._self = self

    def __del__(self) -> None:
        os.close(self._descriptor)


def test_what_the_parent_forgot_closes_nothing_of_the_worker_s(start: Start) -> None:
    gc.collect()
    gc.disable()
    try:
        read_end, write_end = os.pipe()
        Owner(read_end)

        def job(report: Report) -> None:
            while os.open(os.devnull, os.O_RDONLY) < read_end:
                pass
            gc.collect()
            report(read_end in descriptors())

        one = start(job)
        os.close(write_end)
    finally:
        gc.enable()
        gc.collect()
    assert finish(one) == [True]


def test_starting_a_worker_changes_no_signal_of_the_parent(start: Start) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    mask, actions = signal.pthread_sigmask(signal.SIG_BLOCK, ()), [signal.getsignal(number) for number in numbers]
    finish(start(lambda _: None))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert mask.isdisjoint(numbers)
    assert [signal.getsignal(number) for number in numbers] == actions


def test_a_worker_prints_what_it_prints_and_nothing_that_its_parent_had_still_to_print(
    start: Start, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        print("the parent's")
        finish(start(lambda _: print("the worker's")))
    assert capfd.readouterr().out == "the parent's\nthe worker's\n"


def test_a_worker_that_can_not_print_has_failed(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    def job(_: Report) -> None:
        sys.stdout = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
        print("lost")

    one = start(job)
    finish(one)
    assert one.status == UNEXPECTED
    assert "OSError" in said(capfd)


def test_an_agent_without_standard_output_has_workers_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert finish(start(lambda report: report("done"))) == ["done"]


# ---- No room ----


def test_a_system_without_room_for_a_process_is_an_error_that_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before, mask = descriptors(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, "fork", no_room)
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        Worker(lambda _: None)
    assert descriptors() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_a_process_without_room_for_a_pipe_is_an_error(start: Start) -> None:
    def job(report: Report) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        try:
            Worker(lambda _: None)
        except OSError as error:
            report(error.strerror)

    assert finish(start(job)) == ["Too many open files"]


def test_workers_side_by_side_do_not_keep_each_other_s_pipes_open(start: Start, gate: Gate) -> None:
    first = start(lambda _: gate.wait())
    second = start(lambda _: None)
    third = start(lambda report: report("third"))
    assert finish(third) == ["third"]
    assert finish(second) == []
    assert first.status is None
    gate.open()
    finish(first)
    wait_until(lambda: [each.status for each in (first, second, third)] == [0, 0, 0], lambda: None)
