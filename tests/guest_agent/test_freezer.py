"""Freezing as the agent's loop sees it: real keepers, real file systems on loop devices, and a loop that never waits."""

from __future__ import annotations

import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from common.messages import Code, FilesystemFreeze, FilesystemStatus, FilesystemThaw
from guest_agent import freezing
from guest_agent.answers import Outcome
from guest_agent.crew import GRACE, Crew
from guest_agent.freezer import OVERDUE, RETRY, Freezer
from guest_agent.quiet import QuietLog
from guest_agent.worker import Report, Worker

from .conftest import CommandGuard
from .loops import Disks, children, disks_below, hook, ran, waits
from .parts import GIVE_UP, ListLog, wait_until

#: Seconds that no test waits for: it has them pass.
LONG = 500.0

ROOT = Path(__file__).resolve().parents[2]

#: An agent that has loaded what it keeps loaded, and thaws when it is told to.
LATE_AGENT = """
import selectors, sys, time
sys.dont_write_bytecode = True  # as the agent does
from guest_agent.commands import Machine
from guest_agent.crew import Crew
from guest_agent.freezer import Freezer
from guest_agent.log import Log
from guest_agent.quiet import QuietLog

selector = selectors.DefaultSelector()
crew = Crew(selector)
log = QuietLog(Log("debug", lambda line: None), time.monotonic)
freezer = Freezer(crew, log, Machine(login_helper=None, **{machine!r}))
print("ready", flush=True)
sys.stdin.readline()
freezer.recover(time.monotonic())
while freezer.frozen:
    selector.select(1)
    crew.advance(time.monotonic())
    freezer.advance(time.monotonic())
print("thawed", flush=True)
"""


@pytest.fixture
def disks(tmp_path: Path, command_guard: CommandGuard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    with disks_below(tmp_path, command_guard, monkeypatch) as made_here:
        yield made_here


class Loop:
    """A freezer in a loop, and what it answers."""

    def __init__(self, disks: Disks) -> None:
        self.clock = disks.clock.monotonic
        self.log = ListLog()
        self._selector = selectors.DefaultSelector()
        self.crew = Crew(self._selector)
        self.freezer = Freezer(self.crew, QuietLog(self.log, self.clock), disks.machine)

    def freeze(self, *names: str, thaw_after: float = LONG) -> list[Outcome]:
        answers: list[Outcome] = []
        self.freezer.freeze(FilesystemFreeze(thaw_after, names or None), self.clock(), answers.append)
        return answers

    def freeze_again(self) -> list[Outcome]:
        """Freeze, as soon as nothing of the freeze before is left to be done."""
        attempts: list[list[Outcome]] = []

        def begins() -> bool:
            attempts.append(self.freeze())
            return not any(answer.code == Code.BUSY.value for answer in attempts[-1])

        self.until(begins)
        return attempts[-1]

    def thaw(self) -> list[Outcome]:
        answers: list[Outcome] = []
        self.freezer.thaw(FilesystemThaw(), self.clock(), answers.append)
        return answers

    def status(self) -> Any:
        answers: list[Outcome] = []
        self.freezer.status(FilesystemStatus(), self.clock(), answers.append)
        (answer,) = answers
        assert answer.problem is None
        return answer.result

    def turn(self) -> None:
        self._selector.select(0.02)
        self.crew.advance(self.clock())
        self.freezer.advance(self.clock())

    def until(self, condition: Callable[[], Any]) -> Any:
        return wait_until(condition, self.turn)

    def answer(self, answers: list[Outcome]) -> Outcome:
        """The only answer, as soon as it is there."""
        self.until(lambda: answers)
        (answer,) = answers
        return answer

    @property
    def worker(self) -> int:
        """The number of the process that is under way."""
        (worker,) = children(os.getpid())
        return worker

    def close(self) -> None:
        self.crew.close(0.0, time.monotonic)
        self._selector.close()


@pytest.fixture
def loop(disks: Disks) -> Iterator[Loop]:
    made_here = Loop(disks)
    yield made_here
    disks.look()
    disks.thaw()
    made_here.close()


def frozen(*names: str) -> Outcome:
    """The answer that these are frozen, or were until now."""
    return Outcome(result={"mountpoints": list(names)})


THAWED: dict[str, Any] = {"state": "thawed", "mountpoints": [], "thaws_in_s": None}


# ---- The commands ----


def test_a_freeze_is_answered_when_all_is_frozen_and_a_thaw_when_all_is_thawed(disks: Disks, loop: Loop) -> None:
    disk = disks.make("/data")
    assert loop.status() == THAWED
    freezing_answers = loop.freeze()
    assert loop.freezer.frozen
    assert loop.answer(freezing_answers) == frozen("/data")
    assert disk.frozen
    status = loop.status()
    assert (status["state"], status["mountpoints"]) == ("frozen", ["/data"])
    assert 0 < status["thaws_in_s"] <= LONG
    assert loop.answer(loop.thaw()) == frozen("/data")
    assert not disk.frozen
    assert not loop.freezer.frozen
    assert loop.status() == THAWED
    loop.until(lambda: not disks.record.exists())
    assert loop.log.messages == [f"filesystem-freeze: for {LONG:g} s at most", "frozen: /data", "thawed: /data"]


def test_those_that_can_t_be_frozen_are_not_named(disks: Disks, loop: Loop) -> None:
    disks.show_as_disks("tmpfs")
    disks.make("/data")
    assert loop.answer(loop.freeze()) == frozen("/data")
    assert loop.status()["mountpoints"] == ["/data"]


def test_what_has_thawed_by_itself_was_not_frozen_until_now(disks: Disks, loop: Loop) -> None:
    disk = disks.make("/data")
    assert loop.answer(loop.freeze()) == frozen("/data")
    disks.clock.advance(LONG)
    loop.until(lambda: not loop.freezer.frozen)
    assert loop.thaw() == [frozen()]
    assert not disk.frozen
    assert loop.log.lines[-1] == "WARNING thawed by itself, because nobody had wanted it in time: /data"


def test_thawing_what_is_not_frozen_is_no_error(loop: Loop) -> None:
    assert loop.thaw() == [frozen()]


def test_a_second_freeze_is_refused_while_the_first_one_holds(disks: Disks, loop: Loop) -> None:
    disks.make("/data")
    loop.answer(loop.freeze())
    (refusal,) = loop.freeze()
    assert refusal == Outcome.refused(Code.FROZEN, "file systems are frozen already; thaw them first: filesystem-thaw")
    assert loop.answer(loop.thaw()) == frozen("/data")


def test_nobody_may_freeze_for_longer_than_the_limit(disks: Disks, loop: Loop) -> None:
    (refusal,) = loop.freeze(thaw_after=600.5)
    assert refusal.code == Code.INVALID_ARGUMENTS.value
    assert "above 600 s, the limit in [freeze]" in str(refusal.problem)
    loop.freezer.configure(disks.machine._replace(freeze_limit=0.2))
    (refusal,) = loop.freeze(thaw_after=1.0)
    assert "above 0.2 s" in str(refusal.problem)
    assert not loop.freezer.frozen


def test_a_freeze_that_fails_is_answered_with_why(disks: Disks, loop: Loop) -> None:
    answer = loop.answer(loop.freeze("/nowhere"))
    assert answer.code == Code.INVALID_ARGUMENTS.value
    assert answer.problem == "nothing is mounted at /nowhere in this guest; name mountpoints that exist"
    assert not loop.freezer.frozen
    assert loop.log.lines[-1].startswith("WARNING filesystem-freeze: failed: nothing is mounted")


def test_what_a_hook_printed_is_for_the_log_only(disks: Disks, loop: Loop, command_guard: CommandGuard) -> None:
    disks.make("/data")
    hook(disks, "before_freeze", "10-a", "echo secret; exit 1", command_guard)
    answer = loop.answer(loop.freeze())
    assert answer.problem == "hooks of before_freeze failed: 10-a; nothing was frozen"
    assert "secret" not in str(answer)
    assert "10-a printed: secret" in loop.log.lines[-1]


def test_while_hooks_run_behind_nothing_is_frozen_but_nothing_can_be(
    disks: Disks, loop: Loop, command_guard: CommandGuard
) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-waits", f"while [ ! -e {disks.hooks}/go ]; do sleep 0.01; done; exit 1", command_guard)
    loop.answer(loop.freeze())
    assert loop.answer(loop.thaw()) == frozen("/data")
    assert not loop.freezer.frozen
    assert loop.thaw() == [frozen()]
    (refusal,) = loop.freeze()
    assert refusal.code == Code.BUSY.value
    (disks.hooks / "go").touch()
    loop.until(lambda: "hooks of after_thaw: 10-waits: ended with status 1" in loop.log.messages)
    loop.until(lambda: not disks.record.exists())
    assert loop.answer(loop.freeze_again()) == frozen("/data")


def test_while_hooks_run_before_nothing_is_frozen_and_a_thaw_ends_them(
    disks: Disks, loop: Loop, command_guard: CommandGuard
) -> None:
    disks.make("/data")
    hook(disks, "before_freeze", "10-hangs", "exec sleep 1000", command_guard)
    freezing_answers = loop.freeze()
    loop.until(lambda: ran(disks))
    assert loop.freezer.frozen
    assert loop.status() == {**THAWED, "state": "freezing"}
    thawing_answers = [*loop.thaw(), *loop.thaw()]
    assert thawing_answers == []
    assert "thawed before all was frozen" in str(loop.answer(freezing_answers).problem)
    assert not loop.freezer.frozen


def test_a_thaw_that_is_asked_for_before_the_keeper_is_ready_reaches_it(disks: Disks, loop: Loop) -> None:
    disk = disks.make("/data")
    freezing_answers = loop.freeze()
    thawing_answers = loop.thaw()
    assert loop.answer(freezing_answers).problem is None or "thawed before" in str(freezing_answers[0].problem)
    loop.until(lambda: thawing_answers)
    assert not disk.frozen


def test_a_thaw_that_fails_is_answered_with_why(disks: Disks, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    disks.make("/data")
    monkeypatch.setattr(freezing, "FITHAW", freezing.FIFREEZE)  # which the kernel refuses
    loop.answer(loop.freeze())
    answer = loop.answer(loop.thaw())
    why = "/data can't be thawed: Device or resource busy; do it by hand: fsfreeze --unfreeze /data"
    assert (answer.problem, answer.code) == (why, Code.FAILED.value)
    assert why in loop.log.messages


# ---- Workers die ----


def test_when_the_keeper_is_killed_another_worker_thaws(disks: Disks, loop: Loop, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    loop.answer(loop.freeze())
    os.kill(loop.worker, signal.SIGKILL)
    loop.until(lambda: not loop.freezer.frozen)
    assert not disk.frozen
    assert loop.thaw() == [frozen()]
    loop.until(lambda: not disks.record.exists())
    assert ran(disks) == ["after_thaw/10-a after_thaw 1"]
    assert "who was to thaw was ended by signal 9; another one does it" in loop.log.messages
    assert "thawed by itself, because who had frozen it was gone: /data" in loop.log.messages
    assert loop.freezer.next_deadline() == math.inf
    assert loop.answer(loop.freeze_again()) == frozen("/data")


def test_a_keeper_that_is_killed_early_is_a_freeze_that_failed(
    disks: Disks, loop: Loop, command_guard: CommandGuard
) -> None:
    disk = disks.make("/data")
    hook(disks, "before_freeze", "10-waits", f"while [ ! -e {disks.hooks}/go ]; do sleep 0.01; done", command_guard)
    answers = loop.freeze()
    loop.until(lambda: ran(disks))
    os.kill(loop.worker, signal.SIGKILL)
    (disks.hooks / "go").touch()
    assert loop.answer(answers).problem == "who was to freeze was ended before all was frozen; nothing stays frozen"
    assert not disk.frozen


def test_thawing_is_tried_until_it_works(disks: Disks, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disks.make("/data")
    loop.answer(loop.freeze())
    killed = os.kill

    def die(_: object, __: object) -> None:
        killed(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(freezing, "thaw_recorded", die)
        os.kill(loop.worker, signal.SIGKILL)
        loop.until(lambda: len([line for line in loop.log.messages if "another one does it" in line]) == 2)
    assert loop.freezer.frozen
    assert disk.frozen
    assert loop.freezer.next_deadline() <= loop.clock() + RETRY
    disks.clock.advance(RETRY)
    loop.until(lambda: not loop.freezer.frozen)
    assert not disk.frozen


def test_without_room_for_a_process_a_freeze_fails_and_a_thaw_is_tried_again(
    disks: Disks, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = disks.make("/data")
    loop.answer(loop.freeze())

    def no_room() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", no_room)
        os.kill(loop.worker, signal.SIGKILL)
        loop.until(lambda: any("tried again: Resource temporarily" in line for line in loop.log.messages))
        loop.turn()
        assert loop.freezer.frozen
    disks.clock.advance(RETRY)
    loop.until(lambda: not loop.freezer.frozen)
    assert not disk.frozen
    loop.until(lambda: not disks.record.exists())
    monkeypatch.setattr(os, "fork", no_room)
    (answer,) = loop.freeze_again()
    assert answer.problem == "could not be started: Resource temporarily unavailable; try again later"
    assert not loop.freezer.frozen


def test_a_keeper_that_hangs_is_not_relied_on(disks: Disks, loop: Loop) -> None:
    disk = disks.make("/data")
    loop.answer(loop.freeze())
    keeper = loop.worker
    os.kill(keeper, signal.SIGSTOP)
    disks.clock.advance(LONG + OVERDUE)
    loop.turn()
    assert loop.freezer.frozen
    disks.clock.advance(GRACE)
    loop.until(lambda: not loop.freezer.frozen)
    assert not disk.frozen


# ---- The agent ----


def test_what_an_earlier_run_left_frozen_is_thawed(disks: Disks, loop: Loop) -> None:
    disk = disks.make("/data")
    keeper = Worker(lambda report: freezing.keep(disks.machine, os.getppid(), LONG, None, report))
    wait_until(lambda: any(told[0] == "frozen" for told in keeper.reports()), lambda: time.sleep(0.01))
    keeper.kill()
    wait_until(lambda: keeper.status is not None or keeper.reports(), lambda: time.sleep(0.01))
    keeper.close()
    loop.freezer.recover(loop.clock())
    assert loop.freezer.frozen
    assert loop.status()["state"] == "frozen"
    answers = loop.thaw()
    assert loop.answer(answers) == frozen()
    assert not loop.freezer.frozen
    assert not disk.frozen


def test_without_a_record_there_is_nothing_to_thaw(disks: Disks, loop: Loop) -> None:
    loop.freezer.recover(loop.clock())
    assert not loop.freezer.frozen
    assert children(os.getpid()) == []


def test_the_end_of_the_agent_thaws_and_waits_for_that(disks: Disks, loop: Loop, command_guard: CommandGuard) -> None:
    disk = disks.make("/data")
    hook(disks, "after_thaw", "10-a", "", command_guard)
    loop.answer(loop.freeze())
    loop.freezer.close(GIVE_UP, loop.clock)
    assert not disk.frozen
    assert not loop.freezer.frozen
    assert ran(disks) == ["after_thaw/10-a after_thaw 0"]
    assert not disks.record.exists()


def test_the_end_of_the_agent_lets_hooks_run_to_their_end(disks: Disks, loop: Loop, command_guard: CommandGuard) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-slow", f"touch {disks.hooks}/begun; sleep 0.3; touch {disks.hooks}/ended", command_guard)
    loop.answer(loop.freeze())
    loop.answer(loop.thaw())
    loop.until((disks.hooks / "begun").exists)
    loop.freezer.close(GIVE_UP, loop.clock)
    assert (disks.hooks / "ended").exists()
    assert ran(disks) == ["after_thaw/10-slow after_thaw 0"]
    assert not disks.record.exists()
    assert loop.log.messages[-1] == "thawed: /data"


def test_hooks_whose_worker_is_killed_are_run_by_another_one(disks: Disks, loop: Loop, command_guard: CommandGuard) -> None:
    disks.make("/data")
    hook(disks, "after_thaw", "10-once", f"[ -e {disks.hooks}/second ] || exec sleep 1000", command_guard)
    loop.answer(loop.freeze())
    loop.answer(loop.thaw())
    loop.until(lambda: ran(disks))
    (disks.hooks / "second").touch()
    os.kill(loop.worker, signal.SIGTERM)
    loop.until(lambda: not disks.record.exists())
    assert not loop.freezer.frozen
    assert ran(disks) == ["after_thaw/10-once after_thaw 0"] * 2
    why = "who ran the hooks behind a freeze failed with status 1; another one runs them"
    assert loop.log.messages[-2:] == ["thawed: /data", why]
    loop.answer(loop.freeze_again())


def test_what_is_left_of_the_time_is_less_after_a_sleep(disks: Disks, loop: Loop) -> None:
    disks.make("/data")
    loop.answer(loop.freeze())
    disks.clock.sleep_through(LONG - 100)
    assert 0 < loop.status()["thaws_in_s"] <= 100


def test_what_is_hidden_and_so_left_out_of_all_is_logged(disks: Disks, loop: Loop) -> None:
    disks.cover(disks.make("/data"))
    disks.make("/other")
    assert loop.answer(loop.freeze()) == frozen("/other")
    assert any(line.endswith("other mounts hide them, so that they can't be frozen: /data") for line in loop.log.lines)


def test_the_end_of_the_agent_waits_for_nothing_where_nothing_is_frozen(loop: Loop) -> None:
    loop.freezer.close(GIVE_UP, lambda: 0.0)


def test_the_end_of_the_agent_waits_no_longer_than_it_may(disks: Disks, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disks.make("/data")
    loop.answer(loop.freeze())
    keeper = loop.worker
    os.kill(keeper, signal.SIGSTOP)
    answers = loop.thaw()
    loop.freezer.close(0.2, loop.clock)
    assert [str(answer.problem) for answer in answers] == ["the agent is stopping; what is frozen is thawed all the same"]
    assert loop.freezer.frozen
    os.kill(keeper, signal.SIGCONT)
    loop.until(lambda: not loop.freezer.frozen)
    assert not disk.frozen


def _beating(disks: Disks, *names: str) -> Callable[[Report], None]:
    """An agent that freezes and has a heart, each beat of which it reports."""

    def job(report: Report) -> None:
        loop = Loop(disks)
        answers = loop.freeze(*names)
        while True:
            loop.turn()
            report(("beat", loop.status()["state"], [str(answer) for answer in answers]))

    return job


class Agent:
    """A process that plays the agent."""

    def __init__(self, job: Callable[[Report], None]) -> None:
        self._worker = Worker(job)
        self.beats: list[Any] = []

    @property
    def pid(self) -> int:
        return self._worker.pid

    def beat(self) -> Any:
        """Its next heartbeat."""
        self.beats = []
        wait_until(lambda: self.beats, self._listen)
        return self.beats[-1]

    def until(self, condition: Callable[[Any], Any]) -> None:
        wait_until(lambda: condition(self.beat()), lambda: None)

    def kill(self) -> None:
        self._worker.kill()
        wait_until(lambda: self._worker.status is not None, self._listen)
        self._worker.close()

    def _listen(self) -> None:
        time.sleep(0.01)
        self.beats += self._worker.reports()


def test_an_agent_that_is_killed_leaves_nothing_frozen(disks: Disks) -> None:
    disk = disks.make("/data")
    agent = Agent(_beating(disks))
    agent.until(lambda beat: beat[1] == "frozen" and beat[2])
    writer = disks.write_to(disk)
    agent.until(lambda _: writer.waits)
    agent.kill()
    wait_until(lambda: writer.done, lambda: time.sleep(0.01))
    wait_until(lambda: not disks.record.exists(), lambda: time.sleep(0.01))


def test_the_heart_beats_while_the_kernel_freezes_and_when_it_hangs_there(disks: Disks) -> None:
    outer = disks.make("/outer")
    inner = disks.make("/inner", inside=outer)
    inner.soil()
    disks.look(reverse=True)
    agent = Agent(_beating(disks, "/outer", "/inner"))
    agent.until(lambda _: disks.begun == "/inner")
    (keeper,) = children(agent.pid)
    agent.until(lambda _: any(map(waits, children(keeper))))
    for _ in range(5):
        agent.beat()
    os.kill(keeper, signal.SIGKILL)
    agent.until(lambda beat: beat[1] == "thawed")
    agent.kill()
    assert not outer.frozen
    assert not inner.frozen


def test_an_agent_whose_own_code_is_frozen_thaws_it(disks: Disks, command_guard: CommandGuard) -> None:
    disk = disks.make("/code")
    for package in ("common", "guest_agent"):
        shutil.copytree(ROOT / package, disk.path / package, ignore=shutil.ignore_patterns("__pycache__"))
    machine = {key: value for key, value in disks.machine._asdict().items() if isinstance(value, (str, float, int))}
    command_guard.allowed.add(sys.executable)
    with subprocess.Popen(
        [sys.executable, "-c", LATE_AGENT.replace("{machine!r}", repr(machine))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=disk.path,
        env={"PYTHONPATH": str(disk.path), "PATH": os.environ["PATH"]},
    ) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"ready\n"
        disks.state.mkdir(mode=0o700)
        disks.record.write_text(json.dumps({"boot": "", "file_systems": [[disk.device, "/code"]], "failed": None}), "utf-8")
        disk.freeze()
        try:
            said, _ = agent.communicate(b"go\n", timeout=GIVE_UP)
        finally:
            disks.thaw()
    assert said == b"thawed\n"
