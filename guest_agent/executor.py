"""Commands of the host: which are permitted, carried out by workers, answered.

A few run at once, those of one name one after the other, and a bounded number waits. Whatever becomes of a command with a
reply id (refused, failed, out of time, ended because the agent stops) it is answered, and answered once.

A command's arguments may be secret: nothing here shows them.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from common.messages import Completion, LifecycleEvent, Message

from .commands import COMMANDS, CommandFailed, Machine
from .crew import Crew
from .quiet import QuietLog
from .worker import Job, Report

#: How many commands run at once.
PARALLEL = 4

#: How many wait.
QUEUE_LIMIT = 16

#: Takes the name of a command and its answer.
Answer = Callable[[str, Message], None]


class _Outcome(NamedTuple):
    """What a worker reports: what went wrong, further members of the completion, further lines for the log."""

    problem: Optional[str]
    members: Mapping[str, Any] = {}
    notes: Sequence[str] = ()


class _Order:
    """A command to be carried out, and what became of it."""

    def __init__(self, name: str, message: Message) -> None:
        self.name = name
        self.message = message
        self.outcome: Optional[_Outcome] = None

    def take(self, report: tuple[Any, ...]) -> None:
        """The worker's report."""
        self.outcome = _Outcome(*report)


class Executor:
    """Carries commands out.

    :param machine: what commands act on.
    :param permitted: names of the commands that may be carried out.
    :param answer: takes completions.
    :param done: called with a command's name when nothing more is done about it.
    """

    def __init__(
        self,
        machine: Machine,
        permitted: frozenset[str],
        crew: Crew,
        log: QuietLog,
        answer: Answer,
        done: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._permitted = permitted
        self._crew = crew
        self._log = log
        self._answer = answer
        self._done = done
        self._running: dict[str, _Order] = {}
        self._waiting: collections.deque[_Order] = collections.deque()

    def configure(self, machine: Machine, permitted: frozenset[str]) -> None:
        """Carry out what comes from now on in another way; what runs goes on."""
        self._machine = machine
        self._permitted = permitted

    def permits(self, name: str) -> bool:
        """Whether the configuration lets *name* be carried out."""
        return name in self._permitted

    def carry_out(self, name: str, message: Message) -> None:
        """Have *message* carried out as soon as ``advance`` can start it, or say why not."""
        if name not in COMMANDS:
            self._refuse(name, message, "this agent does not know how")
        elif not self.permits(name):
            self._refuse(name, message, "the configuration of this agent forbids it")
        elif len(self._waiting) >= QUEUE_LIMIT:
            self._refuse(name, message, "too many commands wait already")
        else:
            self._waiting.append(_Order(name, message))

    def advance(self, now: float) -> None:
        """Start what can be started."""
        for order in tuple(self._waiting):
            if len(self._running) < PARALLEL and order.name not in self._running:
                self._waiting.remove(order)
                self._start(order, now)

    def close(self) -> None:
        """Answer what waits: it will not be carried out any more."""
        while self._waiting:
            order = self._waiting.popleft()
            self._refuse(order.name, order.message, "the agent is stopping")

    def _start(self, order: _Order, now: float) -> None:
        self._log.info(order.name, f"{order.name}: carrying it out")
        self._running[order.name] = order
        try:
            self._crew.start(
                _carrying_out(order, self._machine),
                patience=COMMANDS[order.name].patience(self._machine),
                now=now,
                reported=order.take,
                ended=lambda problem: self._finish(order, problem),
            )
        except OSError as error:
            self._finish(order, f"could not be started: {error.strerror}")

    def _finish(self, order: _Order, end: Optional[str]) -> None:
        del self._running[order.name]
        outcome = order.outcome or _Outcome(f"its worker {end or 'said nothing'}")
        if outcome.problem is None:
            self._log.info(order.name, f"{order.name}: carried out")
        else:
            notes = "".join(f"; {note}" for note in outcome.notes)
            self._log.warning(f"failed {order.name}", f"{order.name}: failed: {outcome.problem}{notes}")
        self._complete(order.name, order.message, outcome)

    def _refuse(self, name: str, message: Message, why: str) -> None:
        self._log.warning(f"refused {name}", f"{name}: not carried out: {why}")
        self._complete(name, message, _Outcome(why))

    def _complete(self, name: str, message: Message, outcome: _Outcome) -> None:
        known_as = reply_id(message)
        if known_as is not None:
            done = outcome.problem is None
            more = outcome.members if done else {**outcome.members, "reason": outcome.problem}
            self._answer(name, Completion(reply_id=known_as, done=done, more=more))
        self._done(name)


def reply_id(message: Message) -> Optional[str]:
    """By what the host knows the answer to *message*; None: it wants none."""
    return message.reply_id if isinstance(message, LifecycleEvent) else None


def _carrying_out(order: _Order, machine: Machine) -> Job:
    """What a worker does to carry *order* out."""

    def job(report: Report) -> None:
        try:
            outcome = _Outcome(None, COMMANDS[order.name].run(machine, order.message))
        except CommandFailed as failure:
            outcome = _Outcome(str(failure), failure.members, failure.notes)
        report(tuple(outcome))

    return job
