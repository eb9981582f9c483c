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
from common.messages import Code, Completion, LifecycleEvent, Message
from guest_agent import executor as executors
from guest_agent.answers import Answer, Outcome
from guest_agent.commands import CommandFailed, Machine
from guest_agent.crew import Crew
from guest_agent.executor import PARALLEL, QUEUE_LIMIT, QUEUE_WEIGHT, WHILE_FROZEN, WRITING, Executor
from guest_agent.quiet import BURST, QuietLog

from .parts import Clock, FakeCommand, Gate, ListLog, Tally, hang, hang_stubbornly, wait_until

PATIENCE = 60.0
#: A password: it must never show.
SECRET = "open-sesame"

#: The one command that has been answered since version 3.
EVENT = "lifecycle-event"

#: Commands that the loop answers.
IN_LOOP = ("filesystem-freeze", *sorted(WHILE_FROZEN))

FORBIDDEN = (
    "the configuration of this agent forbids it; look at allow and block, which leave {} out, in [commands] of that, "
    "and reload the agent"
)

OTHERS = tuple(f"command-{number}" for number in range(PARALLEL + 2))


class Bench:
    """An executor with a crew of real workers, and what it answered."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.log = ListLog()
        self.answers: list[Answer] = []
        self.unsupported: list[tuple[str, str]] = []
        self.done: list[str] = []
        self.frozen = False
        #: Who asked the loop for an answer and has not been given one.
        self.asking: list[Callable[[Outcome], None]] = []
        self.commands = {name: FakeCommand() for name in (EVENT, "login", *OTHERS, *IN_LOOP)}
        self.machine = Machine(None, "/nonexistent", 1.0, PATIENCE, "/nonexistent")
        self.selector = selectors.DefaultSelector()
        self.crew = Crew(self.selector)
        self.executor = Executor(
            self.machine,
            frozenset(self.commands),
            self.crew,
            QuietLog(self.log, clock),
            loop=dict.fromkeys(IN_LOOP, lambda message, now, answer: self.asking.append(answer)),
            frozen=lambda: self.frozen,
            answer=self.answers.append,
            unsupported=lambda name, why: self.unsupported.append((name, why)),
            done=self.done.append,
        )

    @property
    def workers(self) -> int:
        return len(self.selector.get_map())

    @property
    def completions(self) -> list[Completion]:
        """As a host of version 3 is told them."""
        return [answer.completion(in_full=False) for answer in self.answers]

    @property
    def codes(self) -> dict[str, Optional[str]]:
        """By reply id, why it failed; None: it did not."""
        return {each.reply_id: each.outcome.code if each.outcome.problem else None for each in self.answers}

    def command(
        self, name: str, run: Callable[[Machine, Message], Mapping[str, Any]], *, parallel: int = 1, about: str = ""
    ) -> None:
        self.commands[name] = FakeCommand(run, parallel=parallel, about=about)

    def carry_out(self, name: str, message: Message, reply_id: Optional[str] = None) -> None:
        self.executor.carry_out(name, message, reply_id, self.clock())

    def happen(self, reply_id: Optional[str] = "r1") -> None:
        """Have the command carried out that is answered."""
        self.carry_out(EVENT, event(), reply_id)

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


def event(kind: str = "before_migration") -> LifecycleEvent:
    return LifecycleEvent(type=kind)


def failing(failure: Exception) -> Callable[[Machine, Message], Mapping[str, Any]]:
    def run(*_: object) -> Mapping[str, Any]:
        raise failure

    return run


def refusal(why: str) -> Completion:
    return Completion(reply_id="r1", done=False, more={"reason": why})


# ---- Carried out ----


def test_a_command_is_carried_out_by_a_worker_and_answered(bench: Bench) -> None:
    bench.command(EVENT, lambda machine, message: {"by": os.getpid(), "on": machine.root, "what": str(message)})
    bench.happen()
    bench.settle()
    (answer,) = bench.answers
    assert (answer.command, answer.reply_id, answer.outcome.problem) == (EVENT, "r1", None)
    result = answer.outcome.result
    assert result["by"] != os.getpid()
    assert result["on"] == bench.machine.root
    assert result["what"] == str(event())
    assert bench.log.lines == [f"INFO {EVENT}: carrying it out", f"INFO {EVENT}: carried out"]
    assert bench.done == [EVENT]


def test_a_command_without_a_reply_id_is_not_answered(bench: Bench) -> None:
    bench.happen(None)
    bench.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.settle()
    assert bench.answers == []
    assert sorted(bench.done) == [EVENT, "login"]


def test_a_command_that_fails_is_answered_with_the_reason(bench: Bench) -> None:
    failure = CommandFailed("the hook is broken", members={"failed": [{"hook": "a"}]}, notes=["a printed: no"])
    bench.command(EVENT, failing(failure))
    bench.happen()
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
    bench.carry_out("unheard-of", event(), "r1")
    bench.settle()
    assert bench.completions == [refusal("this agent does not know how; upgrade it")]
    assert bench.codes == {"r1": "unsupported"}
    assert bench.log.lines == ["WARNING unheard-of: not carried out: this agent does not know how; upgrade it"]
    assert bench.done == ["unheard-of"]


def test_a_command_that_is_forbidden_is_refused(bench: Bench, tally: Tally) -> None:
    bench.command(EVENT, lambda *_: tally.add())  # type: ignore[arg-type]
    bench.executor.configure(bench.machine, frozenset())
    bench.happen()
    bench.settle()
    assert bench.completions == [refusal(FORBIDDEN.format(EVENT))]
    assert bench.codes == {"r1": "disabled"}
    assert tally.count == 0


def test_a_dangerous_command_that_is_forbidden_is_refused_with_how_it_is_turned_on(bench: Bench) -> None:
    bench.command("exec", lambda *_: {})
    bench.carry_out("exec", event(), "r1")
    why = "the configuration of this agent forbids it; name exec in enable in [commands] of that, and reload the agent"
    assert bench.completions == [refusal(why)]


def test_when_too_many_commands_wait_the_next_is_refused(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: hang())
    bench.happen("running")
    bench.turn()
    for number in range(QUEUE_LIMIT):
        bench.happen(f"waiting {number}")
        bench.turn()
    assert bench.answers == []
    bench.happen()
    assert bench.completions == [refusal("too many commands wait already; try again when some of them are done")]
    assert bench.codes == {"r1": "busy"}


def test_a_flood_of_commands_is_no_flood_of_log_lines(bench: Bench) -> None:
    for _ in range(1000):
        bench.carry_out("unheard-of", event(), "r1")
    assert len(bench.answers) == 1000
    assert len(bench.log.lines) < 10


# ---- One after the other, and at once ----


def test_commands_of_one_name_are_carried_out_one_after_the_other(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def run(_: Machine, message: Message) -> Mapping[str, Any]:
        assert isinstance(message, LifecycleEvent)
        for mark in "<>":
            with trace.open("a", encoding="utf-8") as file:
                file.write(f"{mark}{message.type}")
        return {}

    bench.command(EVENT, run)
    for number in range(5):
        bench.carry_out(EVENT, event(str(number)), str(number))
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
        bench.carry_out(name, messages.LockScreen())
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
        bench.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.happen()
    bench.until(lambda: bench.answers)
    assert bench.done == [EVENT]
    gate.open()
    bench.until(lambda: bench.done == [EVENT, "login", "login"])


# ---- Ended from outside ----


def test_a_command_whose_worker_is_killed_is_answered(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[arg-type]
    bench.happen()
    bench.settle()
    assert bench.completions == [refusal("its worker was ended by signal 9")]


def test_a_command_whose_worker_says_nothing_is_answered(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: os._exit(0))
    bench.happen()
    bench.settle()
    assert bench.completions == [refusal("its worker said nothing")]


@pytest.mark.parametrize("how", [hang, hang_stubbornly])
def test_a_command_that_takes_too_long_is_answered_once_and_the_next_one_begins(
    bench: Bench, how: Callable[[], Any], tally: Tally
) -> None:
    def run(_: Machine, message: Message) -> Mapping[str, Any]:
        tally.add()
        if message == event("long"):
            how()
        return {}

    bench.command(EVENT, run)
    bench.carry_out(EVENT, event("long"), "r1")
    bench.happen("r2")
    bench.until(lambda: tally.count)
    bench.clock.advance(PATIENCE)
    bench.until(lambda: len(bench.answers) == 2)
    assert bench.completions == [
        refusal(f"its worker did not finish within {PATIENCE:g} s"),
        Completion(reply_id="r2", done=True),
    ]
    assert bench.codes == {"r1": "timed-out", "r2": None}
    bench.clock.advance(PATIENCE)
    bench.settle()
    assert len(bench.answers) == 2


def test_a_machine_without_room_for_a_worker_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    bench.happen()
    bench.turn()
    assert bench.completions == [refusal(f"its worker could not be started: {os.strerror(errno.EAGAIN)}")]
    assert bench.done == [EVENT]


def test_at_the_end_all_are_answered_and_each_once(bench: Bench, tally: Tally) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        hang_stubbornly()

    bench.command(EVENT, run)
    for reply_id in ("running", "waiting"):
        bench.happen(reply_id)
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
    bench.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.settle()
    assert bench.log.messages == ["login: carrying it out", "login: failed: its worker failed with status 1"]
    assert SECRET not in "".join(capfd.readouterr())


def test_no_line_of_the_log_shows_what_a_command_was_told(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    login = messages.Login(username="alice", password=SECRET)
    bench.command("login", failing(CommandFailed("the helper is missing")))
    bench.carry_out("login", login)
    bench.carry_out("unheard-of", login)
    bench.executor.configure(bench.machine, frozenset())
    bench.carry_out("login", login)
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
    bench.happen()
    bench.turn()
    bench.executor.configure(bench.machine._replace(root="/elsewhere"), frozenset())
    bench.happen("r2")
    gate.open()
    bench.settle()
    assert [(each.reply_id, each.done) for each in bench.completions] == [("r2", False), ("r1", True)]
    assert bench.completions[-1].more == {"on": "/nonexistent"}


def test_what_comes_then_is_carried_out_in_the_new_way(bench: Bench) -> None:
    bench.command(EVENT, lambda machine, _: {"on": machine.root})
    bench.executor.configure(bench.machine._replace(root="/elsewhere"), frozenset({EVENT}))
    bench.happen()
    bench.settle()
    assert bench.completions == [Completion(reply_id="r1", done=True, more={"on": "/elsewhere"})]


# ---- Why it failed, in a word ----


def test_the_code_of_a_failure_is_the_one_that_the_command_names(bench: Bench) -> None:
    bench.command(EVENT, failing(CommandFailed("there is no such user", code=Code.INVALID_ARGUMENTS)))
    bench.happen()
    bench.settle()
    assert bench.codes == {"r1": "invalid-arguments"}


def test_what_a_command_got_done_before_it_failed_is_told_too(bench: Bench) -> None:
    bench.command(EVENT, failing(CommandFailed("it took too long", {"output": "half"}, ["a note"], Code.TIMED_OUT)))
    bench.happen()
    bench.settle()
    assert bench.answers == [Answer(EVENT, "r1", Outcome("it took too long", {"output": "half"}, (), "timed-out"))]


def test_a_command_whose_worker_dies_has_failed(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: os._exit(7))
    bench.happen()
    bench.settle()
    assert bench.codes == {"r1": "failed"}


@pytest.mark.parametrize(
    ("name", "permitted", "why"),
    [
        ("unheard-of", {EVENT}, "this agent does not know how; upgrade it"),
        ("login", {EVENT}, FORBIDDEN.format("login")),
    ],
)
def test_a_refused_command_without_a_reply_id_is_said_to_be_unsupported(
    bench: Bench, name: str, permitted: set[str], why: str
) -> None:
    bench.executor.configure(bench.machine, frozenset(permitted))
    bench.carry_out(name, event())
    assert bench.unsupported == [(name, why)]
    bench.carry_out(name, event(), "r1")
    assert len(bench.unsupported) == len(bench.answers) == 1


def test_a_command_that_can_not_begin_now_is_not_said_to_be_unsupported(bench: Bench) -> None:
    bench.frozen = True
    bench.happen(None)
    assert bench.unsupported == []
    assert bench.log.lines == [
        f"WARNING {EVENT}: not carried out: file systems are frozen; thaw them with filesystem-thaw, or wait"
    ]


# ---- Given again ----


def test_a_command_that_runs_or_waits_is_not_begun_again(bench: Bench, gate: Gate, tally: Tally) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        gate.wait()
        return {}

    bench.command(EVENT, run)
    for reply_id in ("running", "waiting"):
        assert not bench.executor.repeats(EVENT, reply_id)
        bench.happen(reply_id)
    bench.until(lambda: tally.count)
    for reply_id in ("running", "waiting") * 100:
        assert bench.executor.repeats(EVENT, reply_id)
    assert bench.answers == []
    gate.open()
    bench.until(lambda: len(bench.answers) == 2)
    assert tally.count == 2
    assert len(bench.log.lines) < 12


def test_a_command_that_was_answered_is_answered_again(bench: Bench, tally: Tally) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        return {"pid": os.getpid()}

    bench.command(EVENT, run)
    bench.happen()
    bench.settle()
    assert bench.executor.repeats(EVENT, "r1")
    first, second = bench.answers
    assert first is second
    assert tally.count == 1


def test_what_was_refused_is_refused_again_though_it_could_begin_by_now(bench: Bench) -> None:
    bench.frozen = True
    bench.happen()
    bench.frozen = False
    assert bench.executor.repeats(EVENT, "r1")
    assert [each.outcome.code for each in bench.answers] == ["frozen", "frozen"]


def test_another_command_or_another_reply_id_is_no_repetition(bench: Bench) -> None:
    bench.happen()
    bench.settle()
    assert not bench.executor.repeats(EVENT, "r2")
    assert not bench.executor.repeats("login", "r1")


def test_what_the_loop_has_yet_to_answer_is_not_asked_for_again(bench: Bench) -> None:
    bench.carry_out("filesystem-thaw", event(), "r1")
    assert bench.executor.repeats("filesystem-thaw", "r1")
    bench.asking[0](Outcome())
    assert bench.executor.repeats("filesystem-thaw", "r1")
    assert len(bench.asking) == 1
    assert len(bench.answers) == 2


# ---- Commands that take long ----


def test_as_many_of_one_name_run_at_once_as_the_table_says(bench: Bench, gate: Gate, tally: Tally) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        gate.wait()
        return {}

    bench.command(EVENT, run, parallel=3)
    for number in range(5):
        bench.happen(str(number))
    bench.until(lambda: tally.count == 3)
    bench.turn()
    assert bench.workers == 3
    gate.open()
    bench.until(lambda: len(bench.answers) == 5)


def test_commands_of_a_name_of_which_as_many_as_may_run_and_wait_hold_up_no_other(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: hang(), parallel=PARALLEL // 2)
    for number in range(PARALLEL // 2):
        bench.happen(f"running {number}")
    bench.turn()
    for number in range(QUEUE_LIMIT):
        bench.happen(f"waiting {number}")
    bench.carry_out("login", messages.Login(username="alice", password=SECRET), "other")
    bench.until(lambda: bench.answers)
    assert bench.codes == {"other": None}


def test_commands_that_are_too_large_together_do_not_wait(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: hang())
    bench.happen("running")
    bench.turn()
    large = event("x" * (QUEUE_WEIGHT // 2))
    for reply_id in ("first", "second", "third"):
        bench.carry_out(EVENT, large, reply_id)
    assert bench.codes == {"second": "busy", "third": "busy"}
    bench.carry_out("filesystem-thaw", event(), "thaw")
    assert len(bench.asking) == 1


def test_a_single_command_may_be_as_large_as_it_likes(bench: Bench) -> None:
    bench.carry_out(EVENT, event("x" * (2 * QUEUE_WEIGHT)), "r1")
    bench.settle()
    assert bench.codes == {"r1": None}


def test_without_room_for_answers_only_what_wants_none_begins(bench: Bench) -> None:
    bench.happen()
    bench.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.executor.advance(bench.clock(), room=False)
    wait_until(lambda: bench.done, lambda: bench.crew.advance(bench.clock()))
    assert bench.done == ["login"]
    bench.settle()
    assert bench.codes == {"r1": None}


def test_what_runs_for_as_long_as_it_likes_is_given_the_patience_of_its_message(bench: Bench) -> None:
    class Patient(FakeCommand):
        def patience(self, machine: Machine, message: Message) -> float:
            assert isinstance(message, LifecycleEvent)
            return float(message.type)

    bench.commands[EVENT] = Patient(lambda *_: hang())
    bench.carry_out(EVENT, event("1000"), "r1")
    bench.turn()
    assert bench.crew.next_deadline() == bench.clock() + 1000


# ---- Answered in the loop ----


def test_a_command_that_the_loop_answers_needs_no_worker(bench: Bench) -> None:
    bench.carry_out("filesystem-status", event(), "r1")
    assert bench.workers == 0
    assert bench.answers == []
    bench.asking[0](Outcome(result={"state": "thawed"}))
    assert bench.answers == [Answer("filesystem-status", "r1", Outcome(result={"state": "thawed"}))]
    assert bench.done == ["filesystem-status"]
    assert bench.log.lines == []


def test_what_the_loop_answers_twice_is_answered_once(bench: Bench) -> None:
    bench.carry_out("filesystem-thaw", event(), "r1")
    for _ in range(2):
        bench.asking[0](Outcome())
    assert len(bench.answers) == 1
    assert bench.done == ["filesystem-thaw"]


def test_what_the_loop_can_not_begin_is_an_answer(bench: Bench) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    bench.executor._loop = {"filesystem-freeze": refuse}
    bench.carry_out("filesystem-freeze", event(), "r1")
    assert bench.completions == [refusal(f"it could not be started: {os.strerror(errno.EAGAIN)}")]


def test_of_what_the_loop_answers_late_only_so_many_wait(bench: Bench) -> None:
    for number in range(QUEUE_LIMIT + 3):
        bench.carry_out("filesystem-thaw", event(), str(number))
    assert len(bench.asking) == QUEUE_LIMIT
    assert set(bench.codes.values()) == {"busy"}


def test_at_the_end_what_the_loop_has_not_answered_is_answered_and_once(bench: Bench) -> None:
    bench.carry_out("filesystem-thaw", event(), "r1")
    bench.executor.close()
    bench.asking[0](Outcome())
    assert bench.completions == [refusal("the agent is stopping")]


# ---- While file systems are frozen ----


def test_while_frozen_only_what_can_not_wait_for_a_disk_is_answered(bench: Bench) -> None:
    bench.frozen = True
    for name in bench.commands:
        bench.carry_out(name, event(), name)
    bench.turn()
    assert len(bench.asking) == len(WHILE_FROZEN)
    assert set(bench.codes) == set(bench.commands) - WHILE_FROZEN
    assert set(bench.codes.values()) == {"frozen"}
    assert bench.workers == 0


def test_what_waits_as_freezing_begins_is_refused(bench: Bench, gate: Gate, tally: Tally) -> None:
    def run(*_: object) -> Mapping[str, Any]:
        tally.add()
        gate.wait()
        return {}

    bench.command(EVENT, run)
    for reply_id in ("running", "waiting"):
        bench.happen(reply_id)
    bench.until(lambda: tally.count)
    bench.frozen = True
    bench.turn()
    assert bench.codes == {"waiting": "frozen"}
    gate.open()
    bench.until(lambda: len(bench.answers) == 2)
    assert bench.codes == {"waiting": "frozen", "running": None}


@pytest.mark.parametrize("writer", sorted(WRITING))
def test_nothing_is_frozen_while_something_is_written(bench: Bench, gate: Gate, writer: str) -> None:
    bench.command(writer, lambda *_: gate.wait() or {})  # type: ignore[func-returns-value]
    bench.executor.configure(bench.machine, frozenset(bench.commands))
    bench.carry_out(writer, event(), "writer")
    bench.turn()
    bench.carry_out("filesystem-freeze", event(), "r1")
    assert bench.asking == []
    assert bench.completions == [refusal(f"{writer} is still being carried out; try again in a moment")]
    assert bench.codes == {"r1": "busy"}
    gate.open()
    bench.settle()
    bench.carry_out("filesystem-freeze", event(), "r2")
    assert len(bench.asking) == 1


def test_what_does_not_write_keeps_nobody_from_freezing(bench: Bench) -> None:
    bench.command(EVENT, lambda *_: hang())
    bench.happen("running")
    bench.turn()
    bench.carry_out("filesystem-freeze", event(), "r1")
    assert len(bench.asking) == 1


# ---- What the log shows ----


@pytest.mark.parametrize(
    ("run", "end"),
    [(lambda *_: {}, "INFO exec: carried out"), (failing(CommandFailed("no")), "WARNING exec: failed: no")],
)
def test_a_dangerous_command_leaves_its_lines_at_any_level(bench: Bench, run: Any, end: str) -> None:
    bench.log.level = "error"
    bench.command("exec", run, about="/bin/true")
    bench.executor.configure(bench.machine, frozenset(bench.commands))
    for number in range(BURST + 2):
        bench.carry_out("exec", event(), str(number))
        bench.carry_out(EVENT, event())
        bench.settle()
    assert bench.log.lines == ["INFO exec: carrying it out: /bin/true", end] * (BURST + 2)


def test_the_log_shows_what_a_command_is_about_and_that_in_bounds(bench: Bench) -> None:
    bench.command("login", lambda *_: {}, about="/usr/bin/" + "x" * 1_000_000)
    bench.carry_out("login", messages.Login(username="alice", password=SECRET))
    bench.settle()
    assert bench.log.lines[0].startswith("INFO login: carrying it out: /usr/bin/xxx")
    assert len(bench.log.lines[0]) < 200
