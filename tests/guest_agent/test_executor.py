"""Commands carried out: by real workers, with commands made for the purpose."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from common import messages
from common.messages import Completion, LifecycleEvent, Message
from guest_agent import executor as executors
from guest_agent.commands import CommandFailed, Machine
from guest_agent.crew import Crew
from guest_agent.executor import PARALLEL, QUEUE_LIMIT, Executor
from guest_agent.quiet import QuietLog

from .parts import Clock, FakeCommand, Gate, ListLog, Tally, hang, hang_stubbornly, wait_until

PATIENCE = 60.0
#: A password: it must never show.
SECRET = "open-sesame"

#: The one command that is answered.
EVENT = "lifecycle-event"

OTHERS = tuple(f"command-{number}" for number in range(PARALLEL + 2))


class Bench:
    """An executor with a crew of real workers, and what it answered."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.log = ListLog()
        self.answers: list[tuple[str, Message]] = []
        self.done: list[str] = []
        self.commands = {name: FakeCommand() for name in (EVENT, "login", *OTHERS)}
        self.machine = Machine(None, "/nonexistent", 1.0, PATIENCE, "/nonexistent")
        self.selector = selectors.DefaultSelector()
        self.crew = Crew(self.selector)
        self.executor = Executor(
            self.machine,
            frozenset(self.commands),
            self.crew,
            QuietLog(self.log, clock),
            answer=lambda name, answer: self.answers.append((name, answer)),
            done=self.done.append,
        )

    @property
    def workers(self) -> int:
        return len(self.selector.get_map())

    @property
    def completions(self) -> list[Completion]:
        return [answer for _, answer in self.answers if isinstance(answer, Completion)]

    def command(self, name: str, run: Callable[[Machine, Message], Mapping[str, Any]]) -> None:
        self.commands[name] = FakeCommand(run)

    def turn(self) -> None:
        self.selector.select(0.02)
        self.crew.advance(self.clock())
        self.executor.advance(self.clock())

    def until(self, condition: Callable[[], Any]) -> None:
        wait_until(condition, self.turn)

    def settle(self) -> None:
        """Take turns until no worker is left."""
        self.turn()
        self.until(lambda: not self.workers)


@pytest.fixture
def bench(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(clock)
    monkeypatch.setattr(executors, "COMMANDS", made.commands)
    yield made
    made.crew.close(0.0, time.monotonic)
    made.selector.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


def event(reply_id: Optional[str] = "r1") -> LifecycleEvent:
    return LifecycleEvent(type="before_migration", reply_id=reply_id)


def failing(failure: Exception) -> Callable[[Machine, Message], Mapping[str, Any]]:
    def run(*_: object) -> Mapping[str, Any]:
        raise failure

    return run


def refusal(why: str) -> Completion:
    return Completion(reply_id="r1", done=False, more={"reason": why})


# ---- Carried out ----


def test_a_command_is_carried_out_by_a_worker_and_answered(bench: Bench) -> None:
    bench.command(EVENT, lambda machine, message: {"by": os.getpid(), "on": machine.root, "what": str(message)})
    bench.executor.carry_out(EVENT, event())
    bench.settle()
    ((name, answer),) = bench.answers
    assert isinstance(answer, Completion)
    assert (name, answer.reply_id, answer.done) == (EVENT, "r1", True)
    assert answer.more["by"] != os.getpid()
    assert answer.more["on"] == bench.machine.root
    assert answer.more["what"] == str(event())
    assert bench.log.lines == [f"INFO {EVENT}: carrying it out", f"INFO {EVENT}: carried out"]
    assert bench.done == [EVENT]


def test_a_command_without_a_reply_id_is_not_answered(bench: Bench) -> None:
    bench.executor.carry_out(EVENT, event(None))
    bench.executor.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.settle()
    assert bench.answers == []
    assert sorted(bench.done) == [EVENT, "login"]


def test_a_command_that_fails_is_answered_with_the_reason(bench: Bench) -> None:
    failure = CommandFailed("the hook is broken", members={"failed": [{"hook": "a"}]}, notes=["a printed: no"])
    bench.command(EVENT, failing(failure))
    bench.executor.carry_out(EVENT, event())
    bench.settle()
    assert bench.completions == [
        Completion(reply_id="r1", done=False, more={"failed": [{"hook": "a"}], "reason": "the hook is broken"})
    ]
    assert bench.log.lines[1:] == [
        f"WARNING {EVENT}: failed: the hook is broken; a printed: no",
    ]
    assert bench.done == [EVENT]


# ---- Not carried out ----


def test_a_command_that_nobody_knows_is_refused(bench: Bench) -> None:
    bench.executor.carry_out("unheard-of", event())
    bench.settle()
    assert bench.answers == [("unheard-of", refusal("this agent does not know how"))]
    assert bench.log.lines == ["WARNING unheard-of: not carried out: this agent does not know how"]
    assert bench.done == ["unheard-of"]


def test_a_command_that_is_forbidden_is_refused(bench: Bench, tally: Tally) -> None:
    bench.command(EVENT, lambda *_: tally.add())  # type: ignore[arg-type]
    bench.executor.configure(bench.machine, frozenset())
    assert not bench.executor.permits(EVENT)
    bench.executor.carry_out(EVENT, event())
    bench.settle()
    assert bench.completions == [refusal("the configuration of this agent forbids it")]
    assert tally.count == 0


def test_when_too_many_commands_wait_the_next_is_refused(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: hang())
    bench.executor.carry_out(EVENT, event("running"))
    bench.turn()
    for number in range(QUEUE_LIMIT):
        bench.executor.carry_out(EVENT, event(f"waiting {number}"))
        bench.turn()
    assert bench.answers == []
    bench.executor.carry_out(EVENT, event())
    assert bench.completions == [refusal("too many commands wait already")]


def test_a_flood_of_commands_is_no_flood_of_log_lines(bench: Bench) -> None:
    for _ in range(1000):
        bench.executor.carry_out("unheard-of", event())
    assert len(bench.answers) == 1000
    assert len(bench.log.lines) < 10


# ---- One after the other, and at once ----


def test_commands_of_one_name_are_carried_out_one_after_the_other(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def run(_: Machine, message: Message) -> Mapping[str, Any]:
        assert isinstance(message, LifecycleEvent)
        for mark in "<>":
            with trace.open("a", encoding="utf-8") as file:
                file.write(f"{mark}{message.reply_id}")
        return {}

    bench.command(EVENT, run)
    for number in range(5):
        bench.executor.carry_out(EVENT, event(str(number)))
    bench.until(lambda: len(bench.answers) == 5)
    assert trace.read_text(encoding="utf-8") == "<0>0<1>1<2>2<3>3<4>4"
    assert [each.reply_id for each in bench.completions] == ["0", "1", "2", "3", "4"]


def test_commands_of_different_names_run_at_once_but_not_too_many(bench: Bench, gate: Gate, tally: Tally) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        gate.wait()
        return {}

    for name in OTHERS:
        bench.command(name, run)
        bench.executor.carry_out(name, messages.LockScreen())
    bench.until(lambda: tally.count == PARALLEL)
    bench.turn()
    assert bench.workers == PARALLEL
    gate.open()
    bench.until(lambda: len(bench.done) == len(OTHERS))
    assert tally.count == len(OTHERS)


def test_a_command_waits_for_none_of_another_name(bench: Bench, gate: Gate) -> None:
    def wait(*_: object) -> Mapping[str, Any]:
        gate.wait()
        return {}

    bench.command("login", wait)
    for _ in range(2):
        bench.executor.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.executor.carry_out(EVENT, event())
    bench.until(lambda: bench.answers)
    assert bench.done == [EVENT]
    gate.open()
    bench.until(lambda: bench.done == [EVENT, "login", "login"])


# ---- Ended from outside ----


def test_a_command_whose_worker_is_killed_is_answered(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[arg-type]
    bench.executor.carry_out(EVENT, event())
    bench.settle()
    assert bench.completions == [refusal("its worker was ended by signal 9")]


def test_a_command_whose_worker_says_nothing_is_answered(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: os._exit(0))
    bench.executor.carry_out(EVENT, event())
    bench.settle()
    assert bench.completions == [refusal("its worker said nothing")]


@pytest.mark.parametrize("how", [hang, hang_stubbornly])
def test_a_command_that_takes_too_long_is_answered_once_and_the_next_one_begins(
    bench: Bench, how: Callable[[], Any], tally: Tally
) -> None:
    def run(_: Machine, message: Message) -> Mapping[str, Any]:
        tally.add()
        if message == event():
            how()
        return {}

    bench.command(EVENT, run)
    bench.executor.carry_out(EVENT, event())
    bench.executor.carry_out(EVENT, event("r2"))
    bench.until(lambda: tally.count)
    bench.clock.advance(PATIENCE)
    bench.until(lambda: len(bench.answers) == 2)
    assert bench.completions == [
        refusal(f"its worker did not finish within {PATIENCE:g} s"),
        Completion(reply_id="r2", done=True),
    ]
    bench.clock.advance(PATIENCE)
    bench.settle()
    assert len(bench.answers) == 2


def test_a_machine_without_room_for_a_worker_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    bench.executor.carry_out(EVENT, event())
    bench.turn()
    assert bench.completions == [refusal(f"its worker could not be started: {os.strerror(errno.EAGAIN)}")]
    assert bench.done == [EVENT]


def test_at_the_end_all_are_answered_and_each_once(bench: Bench, tally: Tally) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        hang_stubbornly()

    bench.command(EVENT, run)
    for reply_id in ("running", "waiting"):
        bench.executor.carry_out(EVENT, event(reply_id))
    bench.until(lambda: tally.count)
    bench.executor.close()
    bench.crew.close(0.0, time.monotonic)
    assert [(each.reply_id, each.done, each.more["reason"]) for each in bench.completions] == [
        ("waiting", False, "the agent is stopping"),
        ("running", False, "its worker was ended because the agent is stopping"),
    ]


# ---- Secrets ----


@pytest.mark.parametrize(
    "error", [RuntimeError(f"wrong password: {SECRET}"), KeyError(SECRET), SystemExit(SECRET), KeyboardInterrupt(SECRET)]
)
def test_an_error_that_nobody_foresaw_shows_no_password(
    bench: Bench, error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(_: Machine, message: Message) -> Mapping[str, Any]:
        assert isinstance(message, messages.Login)
        raise error

    bench.command("login", run)
    bench.executor.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.settle()
    assert bench.log.messages == ["login: carrying it out", "login: failed: its worker failed with status 1"]
    assert SECRET not in "".join(capfd.readouterr())


def test_no_line_of_the_log_shows_what_a_command_was_told(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    login = messages.Login(username="alice", password=SECRET)
    bench.command("login", failing(CommandFailed("the helper is missing")))
    bench.executor.carry_out("login", login)
    bench.executor.carry_out("unheard-of", login)
    bench.executor.configure(bench.machine, frozenset())
    bench.executor.carry_out("login", login)
    bench.settle()
    bench.executor.close()
    said = "\n".join([*bench.log.lines, *capfd.readouterr()])
    assert len(bench.log.lines) == 4
    assert SECRET not in said
    assert "alice" not in said


# ---- Another configuration ----


def test_what_runs_goes_on_when_it_is_forbidden_and_what_comes_then_is_refused(bench: Bench, gate: Gate) -> None:
    def run(machine: Machine, _: Message) -> Mapping[str, Any]:
        gate.wait()
        return {"on": machine.root}

    bench.command(EVENT, run)
    bench.executor.carry_out(EVENT, event())
    bench.turn()
    bench.executor.configure(bench.machine._replace(root="/elsewhere"), frozenset())
    bench.executor.carry_out(EVENT, event("r2"))
    gate.open()
    bench.settle()
    assert [(each.reply_id, each.done) for each in bench.completions] == [("r2", False), ("r1", True)]
    assert bench.completions[-1].more == {"on": "/nonexistent"}


def test_what_comes_then_is_carried_out_in_the_new_way(bench: Bench) -> None:
    bench.command(EVENT, lambda machine, _: {"on": machine.root})
    bench.executor.configure(bench.machine._replace(root="/elsewhere"), frozenset({EVENT}))
    bench.executor.carry_out(EVENT, event())
    bench.settle()
    assert bench.completions == [Completion(reply_id="r1", done=True, more={"on": "/elsewhere"})]
