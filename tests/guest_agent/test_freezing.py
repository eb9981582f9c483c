"""Freezing and thawing: real file systems on loop devices, real processes that are really killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from common.messages import Code
from guest_agent import freeze_record, freezing, options, processes, surroundings
from guest_agent.commands import CommandFailed, Machine
from guest_agent.freeze_record import Noted
from guest_agent.freezer import ASKED, FAILED, FREEZING, FROZEN, KEPT, LEFT, OVER, RECALLED, THAWED, TIME_OVER, boot_seconds
from guest_agent.worker import Report, Worker

from .conftest import CommandGuard
from .loops import Disk, Disks, children, disks_below, gone, hook, made, ran, thaw_program, waits
from .parts import wait_until

#: Seconds that no test waits for: it has them pass.
LONG = 600.0


@pytest.fixture
def disks(tmp_path: Path, command_guard: CommandGuard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    with disks_below(tmp_path, command_guard, monkeypatch) as made_here:
        yield made_here


class Told:
    """A worker, and what it told."""

    def __init__(self, job: Callable[[Report], None]) -> None:
        self.worker = Worker(job)
        self.told: list[Any] = []

    @property
    def kinds(self) -> list[str]:
        self._listen(0)
        return [each[0] for each in self.told]

    def until(self, kind: str) -> list[Any]:
        """Wait for a report of that *kind*; what is in it."""
        wait_until(lambda: kind in self.kinds or self.worker.status is not None, lambda: self._listen(0.05))
        assert kind in self.kinds, (self.told, self.worker.status)
        return next(list(rest) for each, *rest in self.told if each == kind)

    def ended(self) -> Optional[int]:
        wait_until(lambda: self.worker.status is not None, lambda: self._listen(0.05))
        return self.worker.status

    def kill(self) -> None:
        os.kill(self.worker.pid, signal.SIGKILL)
        self.ended()

    def close(self) -> None:
        if self.worker.status is None:
            self.worker.kill()
        self.worker.close()

    def _listen(self, patience: float) -> None:
        if self.worker.silent:
            time.sleep(0.01)
        else:
            select.select([self.worker], [], [], patience)
        self.told += self.worker.reports()


class Bench:
    """Starts keepers, and what they leave is cleared up."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self._started: list[Told] = []

    def keep(self, *names: str, machine: Optional[Machine] = None) -> Told:
        """A keeper whose agent is this process."""
        agent = os.getpid()

        def job(report: Report) -> None:
            freezing.keep(machine or self._disks.machine, agent, LONG, names or None, report)

        return self.start(job)

    def run_out(self) -> Told:
        """A keeper whose time is over."""
        keeper = self.keep()
        keeper.until(FROZEN)
        self._disks.clock.advance(LONG)
        return keeper

    def undo(self) -> Told:
        """A worker that thaws what another has left."""
        return self.start(lambda report: freezing.thaw_recorded(self._disks.machine, report))

    def start(self, job: Callable[[Report], None]) -> Told:
        self._started.append(Told(job))
        return self._started[-1]

    def agent(self, *names: str) -> tuple[Told, int]:
        """A process that has a keeper, and that keeper's number."""

        def job(report: Report) -> None:
            agent = os.getpid()
            keeper = Worker(lambda tell: freezing.keep(self._disks.machine, agent, LONG, names or None, tell))
            while True:
                select.select([keeper], [], [], 1)
                for told in keeper.reports():
                    report(told)

        agent = self.start(job)
        return agent, agent.until(KEPT)[0]

    def close(self) -> None:
        for told in self._started:
            told.close()


@pytest.fixture
def bench(disks: Disks) -> Iterator[Bench]:
    made_here = Bench(disks)
    yield made_here
    disks.look()
    disks.thaw()
    made_here.close()


def thaw_now(disks: Disks) -> tuple[list[str], list[str]]:
    """What was thawed of what is noted, and what went wrong."""
    undone = freezing.thaw_now(disks.machine)
    assert undone is not None
    return undone


def until(condition: Callable[[], Any]) -> None:
    wait_until(condition, lambda: time.sleep(0.01))


# ---- Frozen, and thawed again ----


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_who_writes_waits_until_it_is_thawed(disks: Disks, bench: Bench, kind: str) -> None:
    disk = made(disks, "/data", kind)
    keeper = bench.keep("/data")
    assert keeper.until(FROZEN) == [[]]
    writer = disks.write_to(disk)
    until(lambda: writer.waits)
    assert disk.frozen
    os.kill(keeper.worker.pid, signal.SIGTERM)
    until(lambda: writer.done)
    assert keeper.until(THAWED) == [ASKED, ["/data"], []]
    assert keeper.ended() == 0
    assert keeper.kinds == [KEPT, FREEZING, FROZEN, THAWED, OVER]
    assert not disk.frozen


def test_it_is_thawed_when_the_time_is_over(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    before = boot_seconds()
    keeper = bench.keep("/data")
    keeper.until(FROZEN)
    paths, until_then, notes = keeper.until(FREEZING)
    assert (paths, notes) == (["/data"], [])
    assert before + LONG <= until_then <= boot_seconds() + LONG
    disks.clock.advance(LONG)
    assert keeper.until(THAWED) == [TIME_OVER, ["/data"], []]
    assert keeper.ended() == 0
    assert not disk.frozen


def test_what_somebody_else_thawed_was_not_frozen_until_now(disks: Disks, bench: Bench) -> None:
    one, other = disks.make("/one"), disks.make("/other")
    keeper = bench.keep()
    keeper.until(FROZEN)
    one.thaw()
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert keeper.until(THAWED) == [ASKED, ["/other"], []]
    assert not other.frozen


def test_all_are_frozen_once_but_for_those_that_can_t_be(disks: Disks, bench: Bench) -> None:
    disks.show_as_disks("tmpfs")
    one, other = disks.make("/one"), disks.make("/other")
    disks.bind(one, "/again")
    disks.make("/fixed", options="ro")
    disks.cover(Disk("/memory", disks._place("/memory")))
    keeper = bench.keep()
    paths, _, _ = keeper.until(FREEZING)
    (skipped,) = keeper.until(FROZEN)
    frozen = [path for index, path in enumerate(paths) if index not in skipped]
    assert frozen == ["/other", "/one"]
    assert {paths[index] for index in skipped} == {"/memory", "/run"}
    assert one.frozen
    assert other.frozen
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert sorted(keeper.until(THAWED)[1]) == ["/one", "/other"]


def test_a_file_system_that_stands_on_another_is_frozen_first_and_thawed_last(disks: Disks, bench: Bench) -> None:
    outer = disks.make("/outer")
    inner = disks.make("/inner", inside=outer)
    inner.soil()
    keeper = bench.keep()
    assert keeper.until(FREEZING)[0] == ["/inner", "/outer"]
    keeper.until(FROZEN)
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert sorted(keeper.until(THAWED)[1]) == ["/inner", "/outer"]
    assert not inner.frozen
    assert not outer.frozen


def test_one_that_waits_for_another_is_thawed_with_it_when_the_time_is_over(disks: Disks, bench: Bench) -> None:
    outer = disks.make("/outer")
    inner = disks.make("/inner", inside=outer)
    inner.soil()
    disks.look(reverse=True)
    keeper = bench.keep("/outer", "/inner")
    until(lambda: disks.begun == "/inner")
    disks.clock.advance(LONG)
    code, why, _ = keeper.until(FAILED)
    assert code == Code.TIMED_OUT.value
    assert "longer than thaw_after" in why
    assert keeper.ended() == 0
    assert not outer.frozen
    assert not inner.frozen


def test_it_is_frozen_at_a_place_that_can_be_reached(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    behind = disks.bind(disk, "/behind")
    disks.cover(disk)
    keeper = bench.keep()
    assert keeper.until(FREEZING)[0] == ["/behind"]
    keeper.until(FROZEN)
    assert behind.frozen


def test_of_all_one_that_is_hidden_is_left_out_which_is_told(disks: Disks, bench: Bench) -> None:
    disk, other = disks.make("/data"), disks.make("/other")
    disks.make("/data/below")
    disks.cover(disk)
    keeper = bench.keep()
    paths, _, notes = keeper.until(FREEZING)
    assert paths == ["/other"]
    assert notes == ["left out, since other mounts hide them, so that they can't be frozen: /data/below, /data"]
    keeper.until(FROZEN)
    assert other.frozen


def test_one_that_is_hidden_is_not_left_out_where_it_is_named(disks: Disks, bench: Bench) -> None:
    disk, other = disks.make("/data"), disks.make("/other")
    disks.make("/data/below")
    disks.cover(disk)
    why = "/data/below can't be frozen: another mount hides it; unmount that one, or name the others in mountpoints"
    assert bench.keep("/data/below", "/other").until(FAILED)[1] == why
    assert not other.frozen


def test_where_all_are_hidden_nothing_can_be_frozen(disks: Disks, bench: Bench) -> None:
    disks.cover(disks.make("/data"))
    assert bench.keep().until(FAILED)[1] == "this guest has no file system that can be frozen"


def test_slashes_too_many_in_a_mountpoint_mean_nothing(disks: Disks, bench: Bench) -> None:
    disks.make("/data")
    keeper = bench.keep("//data/")
    assert keeper.until(FREEZING)[0] == ["/data"]
    keeper.until(FROZEN)


def test_two_file_systems_that_were_at_the_same_place_are_both_thawed() -> None:
    thawing = freezing._Thawing()
    for device in ("7:1", "7:2", "7:1"):
        thawing.begin(device, "/data", lambda: 0)
    assert thawing.results() == (["/data", "/data"], [])


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("/nowhere",), "nothing is mounted at /nowhere in this guest"),
        (("data",), "nothing is mounted at data in this guest"),
        (("/data", "/data\0"), "nothing is mounted at /data in this guest"),
        (("",), "nothing is mounted at nowhere"),
        (("/data", "/run"), "/run (tmpfs) stands on no disk"),
        (("/data/" + "x" * 5000,), "nothing is mounted at /data/xxx"),
    ],
)
def test_what_is_no_mountpoint_on_a_disk_is_an_invalid_argument(
    disks: Disks, bench: Bench, names: tuple[str, ...], why: str
) -> None:
    disk = disks.make("/data")
    hook(disks, "before_freeze", "10-any")
    keeper = bench.keep(*names)
    code, sentence, _ = keeper.until(FAILED)
    assert code == Code.INVALID_ARGUMENTS.value
    assert sentence.startswith(why)
    assert keeper.until(OVER) == [[]]
    assert not disk.frozen
    assert ran(disks) == []


def test_an_empty_list_is_an_invalid_argument(disks: Disks) -> None:
    disks.make("/data")
    with pytest.raises(CommandFailed, match="no mountpoint is named") as caught:
        freezing.choose(disks.machine, ())
    assert caught.value.code is Code.INVALID_ARGUMENTS


def test_nothing_that_could_be_frozen_is_a_failure(disks: Disks, bench: Bench) -> None:
    keeper = bench.keep()
    assert keeper.until(FAILED)[:2] == [Code.FAILED.value, "this guest has no file system that can be frozen"]
    assert keeper.ended() == 0
    disks.show_as_disks("tmpfs")
    assert bench.keep().until(FAILED)[1] == "this guest has no file system that can be frozen"


def test_a_named_one_that_can_t_be_frozen_has_the_others_thawed(disks: Disks, bench: Bench) -> None:
    disks.show_as_disks("tmpfs")
    disk = disks.make("/data")
    assert bench.keep("/data", "/run").until(FAILED)[1] == "/run can't be frozen, tmpfs does not know how; leave it out"
    assert not disk.frozen


def test_one_that_somebody_else_has_frozen_has_the_others_thawed_and_stays_theirs(disks: Disks, bench: Bench) -> None:
    theirs, other = disks.make("/theirs"), disks.make("/other")
    theirs.freeze()
    keeper = bench.keep()
    why = "/theirs is frozen already, by somebody else; thaw it first: fsfreeze --unfreeze /theirs"
    assert keeper.until(FAILED)[:2] == [Code.FAILED.value, why]
    assert keeper.ended() == 0
    assert theirs.frozen
    assert not other.frozen
    assert not disks.record.exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (errno.EPERM, "/data can't be frozen: only root may do that; run the agent as root"),
        (errno.EIO, "/data can't be frozen: Input/output error"),
    ],
)
def test_what_the_kernel_refuses_to_freeze_is_told(
    disks: Disks, bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: int, why: str
) -> None:
    disks.make("/data")
    monkeypatch.setattr(freezing, "_ask", lambda _, __: answer)
    assert bench.keep().until(FAILED)[:2] == [Code.FAILED.value, why]


def test_who_is_killed_while_he_thaws_is_told(disks: Disks, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    disks.make("/data")
    ask = freezing._ask

    def die_thawing(descriptor: int, request: int) -> int:
        if request == freezing.FITHAW:
            os.kill(os.getpid(), signal.SIGKILL)
        return ask(descriptor, request)

    monkeypatch.setattr(freezing, "_ask", die_thawing)
    keeper = bench.keep()
    keeper.until(FROZEN)
    os.kill(keeper.worker.pid, signal.SIGTERM)
    _, thawed, (problem,) = keeper.until(THAWED)
    assert thawed == []
    assert problem.startswith("/data can't be thawed: the process that was to do it was ended")


def test_one_named_twice_is_frozen_once_where_it_was_named_first(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    disks.bind(disk, "/again")
    keeper = bench.keep("/again/", "/data", "/again")
    assert keeper.until(FREEZING)[0] == ["/again"]
    keeper.until(FROZEN)
    assert disk.frozen


def test_what_has_too_long_names_for_a_pipe_is_refused(disks: Disks, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezing, "PATHS_LIMIT", 5)
    disks.make("/data1")
    assert bench.keep().until(FAILED)[1] == "1 file systems are too many to be frozen at once; name fewer"


# ---- Mounts come and go ----


def test_a_file_system_that_is_taken_out_of_sight_is_thawed_all_the_same(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    writer_of = disks.bind(disk, "/again")
    keeper = bench.keep("/data")
    keeper.until(FROZEN)
    disks.unmount(disk, "--lazy")
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert keeper.until(THAWED) == [ASKED, ["/data"], []]
    assert not writer_of.frozen


def test_a_hook_may_unmount_what_was_to_be_frozen(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk, other = disks.make("/data"), disks.make("/other")
    shown = disks.root / "proc/self/mountinfo"
    hook(disks, "before_freeze", "10-unmount", f"umount {disk.path}; sed -i '/ .data /d' {shown}", command_guard)
    keeper = bench.keep()
    assert keeper.until(FREEZING)[0] == ["/other"]
    keeper.until(FROZEN)
    assert other.frozen


def test_a_hook_may_unmount_what_is_thawed(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-unmount", f"umount {disk.path}", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert keeper.until(OVER) == [[]]


# ---- The hooks ----


def test_hooks_run_around_a_freeze_and_are_told_how_it_went(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    for event in ("before_freeze", "after_thaw"):
        for name in ("20-b", "10-a"):
            hook(disks, event, name, f"echo {name} > {disk.path}/by-a-hook", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    before = ["before_freeze/10-a before_freeze 0", "before_freeze/20-b before_freeze 0"]
    assert ran(disks) == before
    os.kill(keeper.worker.pid, signal.SIGTERM)
    keeper.until(OVER)
    assert ran(disks) == [*before, "after_thaw/10-a after_thaw 0", "after_thaw/20-b after_thaw 0"]
    assert not disks.record.exists()


def test_hooks_are_told_that_nobody_had_wanted_the_thaw(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    bench.run_out().until(OVER)
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]


def test_a_hook_that_fails_before_keeps_everything_thawed(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "before_freeze", "10-fails", "echo no disk; exit 3", command_guard)
    hook(disks, "before_freeze", "20-works", "", command_guard)
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep()
    code, why, notes = keeper.until(FAILED)
    assert (code, why) == (Code.FAILED.value, "hooks of before_freeze failed: 10-fails; nothing was frozen")
    assert notes == ["10-fails: ended with status 3", "10-fails printed: no disk"]
    keeper.until(OVER)
    assert ran(disks)[-1] == "after_thaw/10-a after_thaw 1"
    assert FREEZING not in keeper.kinds
    assert not disk.frozen


def test_a_hook_that_fails_behind_is_told(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-fails", "exit 3", command_guard)
    hook(disks, "after_thaw", "20-works", "", command_guard)
    keeper = bench.run_out()
    assert keeper.until(OVER) == [["hooks of after_thaw: 10-fails: ended with status 3"]]
    assert ran(disks)[-1] == "after_thaw/20-works after_thaw 1"
    assert not disks.record.exists()


def test_a_thaw_that_is_asked_for_while_hooks_run_ends_them(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "before_freeze", "10-hangs", "exec sleep 1000", command_guard)
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep()
    until(lambda: ran(disks))
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert keeper.until(FAILED)[1].startswith("it was to be thawed before all was frozen")
    keeper.until(OVER)
    assert ran(disks)[-1] == "after_thaw/10-a after_thaw 1"
    assert not disk.frozen


def test_a_thaw_that_is_asked_for_between_two_hooks_keeps_the_next_one_from_running(disks: Disks, bench: Bench) -> None:
    disks.make("/data")
    for name in ("10-a", "20-b"):
        hook(disks, "before_freeze", name)
    begun = disks.hooks / "begun"

    def ask_meanwhile(argv: Any, **_: Any) -> processes.Finished:
        with begun.open("a", encoding="utf-8") as file:
            print(os.path.basename(argv[0]), file=file)
        os.kill(os.getpid(), signal.SIGTERM)
        return processes.Finished(0, b"")

    keeper = bench.keep(machine=disks.machine._replace(run=ask_meanwhile))
    assert keeper.until(FAILED)[1].startswith("it was to be thawed before all was frozen")
    assert begun.read_text("utf-8") == "10-a\n"


# ---- Processes die ----


def test_when_the_agent_is_killed_the_keeper_thaws(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    agent, keeper = bench.agent()
    agent.until(FROZEN)
    writer = disks.write_to(disk)
    until(lambda: writer.waits)
    agent.kill()
    until(lambda: writer.done)
    until(lambda: gone(keeper))
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]
    assert not disks.record.exists()


def test_when_the_agent_is_killed_while_hooks_run_nothing_is_frozen(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disk = disks.make("/data")
    hook(disks, "before_freeze", "10-hangs", "exec sleep 1000", command_guard)
    hook(disks, "after_thaw", "10-a", "", command_guard)
    agent, keeper = bench.agent()
    until(lambda: ran(disks))
    agent.kill()
    until(lambda: gone(keeper))
    assert ran(disks)[-1] == "after_thaw/10-a after_thaw 1"
    assert not disk.frozen
    assert not disks.record.exists()


def test_when_the_agent_is_killed_while_hooks_run_behind_they_run_again(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-once", f"[ -e {disks.hooks}/second ] || exec sleep 1000", command_guard)
    agent, keeper = bench.agent()
    agent.until(FROZEN)
    disks.clock.advance(LONG)
    until(lambda: ran(disks))
    (disks.hooks / "second").touch()
    agent.kill()
    until(lambda: gone(keeper))
    assert ran(disks) == ["after_thaw/10-once after_thaw 1"] * 2
    assert not disks.record.exists()


def test_when_the_keeper_is_killed_another_worker_thaws(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    assert json.loads(disks.record.read_text("utf-8"))["file_systems"] == [[disk.device, "/data"]]
    keeper.kill()
    writer = disks.write_to(disk)
    until(lambda: writer.waits)
    other = bench.undo()
    assert other.until(THAWED) == [LEFT, ["/data"], []]
    until(lambda: writer.done)
    assert other.until(OVER) == [[]]
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]
    assert not disks.record.exists()


def test_when_both_are_killed_the_program_thaws(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    agent, keeper = bench.agent()
    agent.until(FROZEN)
    os.kill(agent.worker.pid, signal.SIGSTOP)  # so that it does not see the keeper's end
    os.kill(keeper, signal.SIGKILL)
    agent.kill()
    writer = disks.write_to(disk)
    until(lambda: writer.waits)
    command_guard.allowed.add(sys.executable)
    said = subprocess.run(thaw_program(disks), check=True, capture_output=True, text=True).stdout
    assert said == "(['/data'], [])\n"
    until(lambda: writer.done)
    assert not disks.record.exists()


def _stuck(disks: Disks, bench: Bench) -> tuple[Disk, Disk, Told, int, int]:
    """A keeper whose child waits in the kernel: it has frozen what the next one stands on."""
    outer = disks.make("/outer")
    inner = disks.make("/inner", inside=outer)
    inner.soil()
    disks.look(reverse=True)
    agent, keeper = bench.agent("/outer", "/inner")
    agent.until(FREEZING)
    until(lambda: disks.begun == "/inner" and any(map(waits, children(keeper))))
    (child,) = children(keeper)
    return outer, inner, agent, keeper, child


@pytest.mark.parametrize(
    "victims", ["keeper", "child", "keeper child", "keeper agent", "child agent", "agent", "keeper child agent"]
)
def test_whoever_is_killed_while_the_kernel_freezes_nothing_stays_frozen(disks: Disks, bench: Bench, victims: str) -> None:
    outer, inner, agent, keeper, child = _stuck(disks, bench)
    os.kill(agent.worker.pid, signal.SIGSTOP)
    numbers = {"keeper": keeper, "child": child, "agent": agent.worker.pid}
    for victim in victims.split():
        os.kill(numbers[victim], signal.SIGKILL)
    if "keeper" in victims:
        # Its agent has another worker do this, or the next agent has.
        other = bench.undo()
        other.until(OVER)
    elif "agent" not in victims:
        os.kill(keeper, signal.SIGTERM)
    until(lambda: gone(child))
    until(lambda: gone(keeper))
    assert not outer.frozen
    assert not inner.frozen
    until(lambda: not disks.record.exists())


def test_a_child_that_outlives_its_keeper_and_its_agent_thaws(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    hook(disks, "after_thaw", "10-a", "", command_guard)
    outer, inner, agent, keeper, child = _stuck(disks, bench)
    os.kill(agent.worker.pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    agent.kill()
    outer.thaw()  # what the kernel had waited for
    until(lambda: gone(child))
    assert not inner.frozen
    assert not outer.frozen
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]
    assert not disks.record.exists()


def test_what_the_kernel_freezes_only_after_its_thaw_was_tried_is_thawed_too(disks: Disks, bench: Bench) -> None:
    outer = disks.make("/outer")
    inner = disks.make("/inner", inside=outer)
    outer.freeze()
    writer = disks.write_to(inner)
    until(lambda: writer.waits)
    agent, keeper = bench.agent("/inner")
    until(lambda: disks.begun == "/inner" and any(map(waits, children(keeper))))
    (child,) = children(keeper)
    for victim in (child, keeper):
        os.kill(victim, signal.SIGKILL)
    agent.kill()
    assert not gone(child)
    other = bench.undo()
    until(lambda: disks.thawings.count > 1)
    outer.thaw()
    other.until(OVER)
    until(lambda: gone(child))
    assert not inner.frozen


def test_a_child_that_is_killed_is_a_failure(disks: Disks, bench: Bench) -> None:
    outer, inner, agent, _, child = _stuck(disks, bench)
    os.kill(child, signal.SIGKILL)
    with contextlib.suppress(OSError):  # unless the kernel let it go at once
        outer.thaw()
    assert agent.until(FAILED)[1] == "/inner: the process that was to freeze it was ended"
    assert not inner.frozen
    assert not outer.frozen


# ---- What another has left ----


def test_nothing_is_left_where_nothing_was_frozen(disks: Disks) -> None:
    assert freezing.thaw_now(disks.machine) is None


def test_the_option_thaws_what_is_recorded(
    disks: Disks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, other = disks.make("/data"), disks.make("/other")
    for each in (disk, other):
        each.freeze()
    disks.state.mkdir(mode=0o700)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8")
    recorded = {"boot": boot, "file_systems": [[disk.device, str(disk.path)]], "failed": None}
    disks.record.write_text(json.dumps(recorded), "utf-8")
    machine = disks.machine._replace(root="/")
    here = surroundings.here()._replace(machine=lambda _: machine)
    monkeypatch.setattr(surroundings, "here", lambda: here)
    for said in (f"{disk.path}: thawed\n", "nothing is noted as frozen\n"):
        with pytest.raises(SystemExit) as ended:
            options.begin(["--config", os.devnull, "--thaw"], lambda _: None)
        assert ended.value.code == 0
        assert capsys.readouterr() == (said, "")
    assert not disk.frozen
    assert other.frozen
    assert not disks.record.exists()


def test_the_program_calls_a_freeze_off_whose_hooks_run_before_it(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disk = disks.make("/data")
    hook(disks, "before_freeze", "10-hangs", "exec sleep 1000", command_guard)
    hook(disks, "before_freeze", "20-next", "", command_guard)
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep(machine=disks.machine._replace(hooks_deadline=LONG))
    until(lambda: ran(disks))
    other = bench.undo()
    assert "by vmaccord-guest --thaw before all was frozen" in keeper.until(FAILED)[1]
    assert other.until(OVER) == [[]]
    assert ran(disks)[1:] == ["after_thaw/10-a after_thaw 1"]
    assert not disk.frozen
    assert not disks.record.exists()


def test_a_keeper_that_has_not_seen_that_it_is_called_off_is_called_off_again(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    disks.state.mkdir(mode=0o700)
    lock = freeze_record.open_lock(disks.machine)
    assert freeze_record.try_lock(lock)
    os.close(freeze_record.write(disks.machine, Noted()))
    first = disks.record.stat().st_ino
    other = bench.undo()
    until(lambda: disks.record.stat().st_ino != first)
    disk.freeze()
    keeps = freeze_record.write(disks.machine, Noted([(disk.device, "/data")]))
    until(lambda: not freeze_record.stands(keeps))
    until(lambda: disks.thawings.count)
    os.close(keeps)
    os.close(lock)
    assert other.until(THAWED) == [LEFT, ["/data"], []]
    assert not disk.frozen


def test_hooks_that_are_run_again_are_told_the_same(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-once", f"[ -e {disks.hooks}/second ] || exec sleep 1000", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    os.kill(keeper.worker.pid, signal.SIGTERM)
    until(lambda: ran(disks))
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert keeper.ended() == 1
    (disks.hooks / "second").touch()
    assert freezing.thaw_now(disks.machine) == ([], [])
    assert ran(disks) == ["after_thaw/10-once after_thaw 0"] * 2
    assert not disks.record.exists()


def test_what_thaws_after_a_sleep_is_the_time_and_not_the_time_awake(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    keeper = bench.keep()
    keeper.until(FROZEN)
    disks.clock.sleep_through(LONG)
    assert keeper.until(THAWED) == [TIME_OVER, ["/data"], []]
    assert not disk.frozen


def test_a_keeper_that_lives_leaves_the_rest_to_who_ran_the_program(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    thawed_here, problems_here = thaw_now(disks)
    why, thawed_there, problems_there = keeper.until(THAWED)
    assert why == RECALLED
    assert thawed_here + thawed_there == ["/data"]
    assert problems_here + problems_there == []
    assert keeper.until(OVER) == [[]]
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]
    assert not disk.frozen
    assert not disks.record.exists()


def test_who_waits_for_hooks_of_a_keeper_that_lives_does_not_run_them_again(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-waits", f"while [ ! -e {disks.hooks}/go ]; do sleep 0.01; done", command_guard)
    keeper = bench.run_out()
    until(lambda: ran(disks))
    other = bench.undo()
    assert other.until(THAWED) == [LEFT, [], []]
    assert OVER not in other.kinds
    (disks.hooks / "go").touch()
    assert other.until(OVER) == [[]]
    keeper.until(OVER)
    assert len(ran(disks)) == 1


def test_two_who_undo_the_same_do_it_once(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    keeper.kill()
    others = [bench.undo() for _ in range(2)]
    assert sorted(other.until(THAWED)[1] for other in others) == [[], ["/data"]]
    assert [other.until(OVER) for other in others] == [[[]], [[]]]
    assert len(ran(disks)) == 1
    assert not disk.frozen


def test_it_is_found_by_its_device_wherever_it_is_mounted_now(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    again = disks.bind(disk, "/again")
    keeper = bench.keep("/data")
    keeper.until(FROZEN)
    keeper.kill()
    disks.unmount(disk, "--lazy")
    assert freezing.thaw_now(disks.machine) == (["/data"], [])
    assert not again.frozen


def test_one_that_is_mounted_nowhere_any_more_is_told(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    keeper = bench.keep("/data")
    keeper.until(FROZEN)
    with disk.held() as thaw:
        keeper.kill()
        disks.unmount(disk, "--lazy")
        thawed, problems = thaw_now(disks)
        assert thawed == []
        assert problems[0].startswith("/data can't be thawed: it is not mounted any more")
        thaw()
    assert not disks.record.exists()


# ---- The record, the lock and their directory ----


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"boot": ""}',
        b'{"boot": "", "file_systems": [["7:0"]], "failed": null}',
        b'{"boot": "", "file_systems": [["7:0", 5]], "failed": null}',
        b'{"boot": "", "file_systems": [[7, "/data"]], "failed": null}',
        b'{"boot": "", "file_systems": [["../x", "/data"]], "failed": null}',
        b'{"boot": "", "file_systems": 5, "failed": null}',
        b'{"boot": "", "file_systems": [], "failed": 5}',
        b'{"boot": "", "file_systems": []}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_record_is_told_and_left_to_people(disks: Disks, bench: Bench, text: bytes) -> None:
    disks.make("/data")
    disks.state.mkdir(mode=0o700)
    disks.record.write_bytes(text)
    thawed, (problem,) = thaw_now(disks)
    assert thawed == []
    assert problem.startswith(f"{disks.record} is not what the agent wrote; see what is frozen")
    assert bench.keep().until(FAILED)[1] == problem
    assert disks.record.read_bytes() == text


def test_a_record_from_before_the_machine_was_started_thaws_nothing(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    disk.freeze()
    disks.state.mkdir(mode=0o700)
    recorded = {"boot": "another", "file_systems": [[disk.device, "/data"]], "failed": None}
    disks.record.write_text(json.dumps(recorded), "utf-8")
    assert freezing.thaw_now(disks.machine) == ([], [])
    assert disk.frozen
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]
    assert not disks.record.exists()


def test_hooks_that_an_earlier_keeper_could_not_run_are_run_first(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disks.make("/data")
    hook(disks, "before_freeze", "10-a", "", command_guard)
    hook(disks, "after_thaw", "10-a", f"[ -e {disks.hooks}/second ] || exec sleep 1000", command_guard)
    keeper = bench.run_out()
    keeper.until(THAWED)
    until(lambda: len(ran(disks)) == 2)
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert keeper.ended() == 1
    assert disks.record.exists()
    (disks.hooks / "second").touch()
    bench.keep().until(FROZEN)
    assert ran(disks)[2:] == ["after_thaw/10-a after_thaw 1", "before_freeze/10-a before_freeze 0"]


def test_there_is_one_freeze_at_a_time(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    disks.make("/other")
    bench.keep("/data").until(FROZEN)
    code, why, _ = bench.keep("/other").until(FAILED)
    assert (code, why) == (Code.BUSY.value, "an earlier freeze is not quite over; try again in a moment")
    assert disk.frozen


def test_nothing_is_frozen_before_what_was_left_is_thawed(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    keeper = bench.keep()
    keeper.until(FROZEN)
    keeper.kill()
    assert bench.keep().until(FAILED)[0] == Code.BUSY.value
    assert freezing.thaw_now(disks.machine) == (["/data"], [])
    bench.keep().until(FROZEN)
    assert disk.frozen


def test_the_record_never_lies_on_a_disk(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    machine = disks.machine._replace(state_directory=str(disk.path / "state"))
    why = bench.keep(machine=machine).until(FAILED)[1]
    assert why == f"{disk.path}/state is on a file system (ext4) that may be frozen; mount a tmpfs there, or above it"
    assert not disk.frozen


def test_a_directory_in_which_others_have_a_say_is_not_used(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    disks.state.mkdir()
    disks.state.chmod(0o777)
    assert "can be written to by others" in bench.keep().until(FAILED)[1]
    disks.state.rmdir()
    disks.state.touch()
    assert "can't be used: Not a directory; remove" in bench.keep().until(FAILED)[1]
    assert not disk.frozen


def test_a_record_that_can_t_be_written_is_a_failure(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    disks.state.mkdir(mode=0o700)
    disks.record.mkdir()
    assert "Is a directory; mend that" in bench.keep().until(FAILED)[1]
    assert "Is a directory; see what is frozen" in thaw_now(disks)[1][0]
    assert not disk.frozen


def test_without_room_for_a_record_nothing_is_frozen(disks: Disks, bench: Bench) -> None:
    disk = disks.make("/data")
    disks.state.mkdir(mode=0o700)
    disks.fill_memory()
    assert (
        bench.keep().until(FAILED)[1] == f"{disks.record} can't be used: No space left on device; mend that, and try again"
    )
    assert os.listdir(disks.state) == []
    assert not disk.frozen


def test_without_room_for_a_record_it_is_thawed_all_the_same(
    disks: Disks, bench: Bench, command_guard: CommandGuard
) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    disks.fill_memory()
    keeper.kill()
    assert freezing.thaw_now(disks.machine) == (["/data"], [])
    assert not disk.frozen
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]
    assert os.listdir(disks.state) == []


def test_without_room_for_a_record_a_keeper_goes_on(disks: Disks, bench: Bench, command_guard: CommandGuard) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    keeper = bench.keep()
    keeper.until(FROZEN)
    disks.fill_memory()
    os.kill(keeper.worker.pid, signal.SIGTERM)
    assert keeper.until(OVER) == [[]]
    assert ran(disks) == ["after_thaw/10-a after_thaw 0"]
    assert os.listdir(disks.state) == []


def test_what_the_kernel_does_not_list_is_a_failure(disks: Disks, bench: Bench) -> None:
    disks.make("/data")
    (disks.root / "proc/filesystems").unlink()
    assert "proc/filesystems can't be used: No such file or directory; mend" in bench.keep().until(FAILED)[1]


# ---- Where the system has no room ----


def test_without_room_for_a_process_nothing_is_frozen(disks: Disks, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disks.make("/data")

    def no_room(_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(freezing, "_fork", no_room)
    why = "no process to freeze with can be had: Resource temporarily unavailable"
    assert bench.keep().until(FAILED)[1] == why
    assert not disk.frozen


def test_without_room_for_a_process_it_is_thawed_all_the_same(
    disks: Disks, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = disks.make("/data")
    keeper = bench.keep()
    keeper.until(FROZEN)
    keeper.kill()

    def no_room(_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(freezing, "_fork", no_room)
    assert freezing.thaw_now(disks.machine) == (["/data"], [])
    assert not disk.frozen
