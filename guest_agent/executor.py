"""Commands of the host: which are permitted, carried out by workers or answered in the loop, and answered once.

A few run at once, of one name as many as the table says, and a bounded number waits: so commands that take long, as programs
do, hold up none of another name. Whatever becomes of a command with a reply id (refused, failed, out of time, ended because
the agent stops) it is answered, and answered once. A host that lost the answer asks again with the same reply id: then the
command is not carried out once more, but its answer given again.

While file systems are frozen nothing begins that could wait for one of them.

A command's arguments may be secret: nothing here shows them, but what the table of commands says may be shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional

from common.messages import Code, Message

from .answers import Answer, Archive, Outcome, weight
from .commands import COMMANDS, CommandFailed, Machine, dangerous
from .crew import Crew, Task
from .quiet import QuietLog
from .worker import Job, Report

#: How many commands run at once.
PARALLEL = 8

#: How many of one name wait, or are being answered in the loop, and how large all that wait may be together, in bytes.
QUEUE_LIMIT = 16
QUEUE_WEIGHT = 4 * 1024 * 1024

#: What the loop answers from memory, or what ends the freezing.
WHILE_FROZEN = frozenset({"echo", "filesystem-status", "filesystem-thaw"})

#: What writes to file systems while it runs, so that nobody could freeze them in good order; what programs do is not known.
WRITING = frozenset({"file-write", "filesystem-trim", "set-password", "ssh-keys"})

#: So much of what a command is about is shown, in characters.
_SUBJECT_LENGTH = 100

_FREEZE = "filesystem-freeze"
_FROZEN = "file systems are frozen; thaw them with filesystem-thaw, or wait"

#: Answers a command in the loop: takes the message, the time, and what is to be told of what became of it.
InLoop = Callable[[Any, float, Callable[[Outcome], None]], None]


class _Order:
    """A command to be carried out, and what became of it."""

    def __init__(self, name: str, message: Message, reply_id: Optional[str]) -> None:
        self.name = name
        self.message = message
        self.reply_id = reply_id
        self.weight = weight(vars(message)) + weight(reply_id)
        self.outcome: Optional[Outcome] = None
        self.task: Optional[Task] = None

    @property
    def out_of_time(self) -> bool:
        """Whether it was ended because it took too long."""
        return self.task is not None and self.task.out_of_time

    def take(self, report: tuple[Any, ...]) -> None:
        """The worker's report."""
        self.outcome = Outcome(*report)


class Executor:
    """Carries commands out.

    :param machine: what commands act on.
    :param permitted: names of the commands that may be carried out.
    :param loop: what answers the commands that no worker carries out, by their names.
    :param frozen: whether file systems are frozen.
    :param answer: takes the answers to commands that have a reply id.
    :param unsupported: told the name of a command without a reply id that this agent does not let the host give, and why.
    :param done: called with a command's name when nothing more is done about it.
    """

    def __init__(
        self,
        machine: Machine,
        permitted: frozenset[str],
        crew: Crew,
        log: QuietLog,
        *,
        loop: Mapping[str, InLoop],
        frozen: Callable[[], bool],
        answer: Callable[[Answer], None],
        unsupported: Callable[[str, str], None],
        done: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._permitted = permitted
        self._crew = crew
        self._log = log
        self._loop = loop
        self._frozen = frozen
        self._answer = answer
        self._unsupported = unsupported
        self._done = done
        self._running: list[_Order] = []
        self._in_loop: list[_Order] = []
        self._waiting: list[_Order] = []
        self._archive = Archive()

    def configure(self, machine: Machine, permitted: frozenset[str]) -> None:
        """Carry out what comes from now on in another way; what runs goes on."""
        self._machine = machine
        self._permitted = permitted

    def repeats(self, name: str, reply_id: str) -> bool:
        """Whether the host has given the command before, with that reply id; where it has been answered, it is once more."""
        answer = self._archive.find(name, reply_id)
        if answer is not None:
            self._log.info(f"repeated {name}", f"{name}: given again, answered again")
            self._answer(answer)
            return True
        if any((each.name, each.reply_id) == (name, reply_id) for each in self._under_way()):
            self._log.info(f"repeated {name}", f"{name}: given again, it is being carried out")
            return True
        return False

    def carry_out(self, name: str, message: Message, reply_id: Optional[str], now: float) -> None:
        """Have *message* carried out as soon as ``advance`` can start it, or answered now, or say why not.

        :param reply_id: by what the host will know the answer; None: it wants none.
        """
        order = _Order(name, message, reply_id)
        if name not in COMMANDS:
            self._refuse(order, Code.UNSUPPORTED, "this agent does not know how; upgrade it")
        elif name not in self._permitted:
            self._refuse(order, Code.DISABLED, _why_forbidden(name))
        elif self._must_not_begin(order):
            self._refuse(order, Code.FROZEN, _FROZEN)
        elif self._too_many(order):
            self._refuse(order, Code.BUSY, "too many commands wait already; try again when some of them are done")
        elif name == _FREEZE and (writing := self._writing()) is not None:
            self._refuse(order, Code.BUSY, f"{writing} is still being carried out; try again in a moment")
        elif name in self._loop:
            self._answer_in_loop(order, now)
        else:
            self._waiting.append(order)

    def advance(self, now: float, *, room: bool = True) -> None:
        """Start what can be started.

        :param room: whether there is room for more answers; without, nothing begins that is to be answered.
        """
        for order in tuple(self._waiting):
            if self._must_not_begin(order):
                self._waiting.remove(order)
                self._refuse(order, Code.FROZEN, _FROZEN)
            elif self._may_start(order) and (room or order.reply_id is None):
                self._waiting.remove(order)
                self._start(order, now)

    def close(self) -> None:
        """Answer what has not begun, or what the loop was to answer later: that will not be any more."""
        for unanswered in (self._waiting, self._in_loop):
            while unanswered:
                self._refuse(unanswered.pop(0), Code.FAILED, "the agent is stopping")

    # ---- What may begin ----

    def _under_way(self) -> tuple[_Order, ...]:
        return (*self._running, *self._in_loop, *self._waiting)

    def _must_not_begin(self, order: _Order) -> bool:
        return order.name not in WHILE_FROZEN and self._frozen()

    def _writing(self) -> Optional[str]:
        """The name of a command that runs and writes to file systems; None: there is none."""
        return next((each.name for each in self._running if each.name in WRITING), None)

    def _too_many(self, order: _Order) -> bool:
        unanswered = self._in_loop if order.name in self._loop else self._waiting
        if sum(each.name == order.name for each in unanswered) >= QUEUE_LIMIT:
            return True
        return bool(unanswered) and sum(each.weight for each in unanswered) + order.weight > QUEUE_WEIGHT

    def _may_start(self, order: _Order) -> bool:
        of_its_name = sum(each.name == order.name for each in self._running)
        return len(self._running) < PARALLEL and of_its_name < COMMANDS[order.name].parallel

    # ---- In the loop ----

    def _answer_in_loop(self, order: _Order, now: float) -> None:
        self._in_loop.append(order)

        def take(outcome: Outcome) -> None:
            if order in self._in_loop:
                self._in_loop.remove(order)
                self._complete(order, outcome)

        try:
            self._loop[order.name](order.message, now, take)
        except OSError as error:
            take(Outcome(f"it could not be started: {error.strerror}"))

    # ---- In a worker ----

    def _start(self, order: _Order, now: float) -> None:
        command = COMMANDS[order.name]
        subject = command.subject(order.message)[:_SUBJECT_LENGTH]
        self._say("info", order, order.name, f"carrying it out{': ' if subject else ''}{subject}")
        self._running.append(order)
        try:
            order.task = self._crew.start(
                _carrying_out(order, self._machine),
                patience=command.patience(self._machine, order.message),
                now=now,
                reported=order.take,
                ended=lambda problem: self._finish(order, problem),
            )
        except OSError as error:
            self._finish(order, f"could not be started: {error.strerror}")

    def _finish(self, order: _Order, end: Optional[str]) -> None:
        self._running.remove(order)
        code = Code.TIMED_OUT if order.out_of_time else Code.FAILED
        outcome = order.outcome or Outcome(f"its worker {end or 'said nothing'}", code=code.value)
        if outcome.problem is None:
            self._say("info", order, order.name, "carried out")
        else:
            notes = "".join(f"; {note}" for note in outcome.notes)
            self._say("warning", order, f"failed {order.name}", f"failed: {outcome.problem}{notes}")
        self._complete(order, outcome)

    def _say(self, level: str, order: _Order, topic: str, what: str) -> None:
        """Have the log say what becomes of *order*: each time and at any level where the command is a dangerous one."""
        text = f"{order.name}: {what}"
        if order.name in dangerous():
            self._log.always(level, text)
        elif level == "info":
            self._log.info(topic, text)
        else:
            self._log.warning(topic, text)

    # ---- What became of it ----

    def _refuse(self, order: _Order, code: Code, why: str) -> None:
        self._log.warning(f"refused {order.name}", f"{order.name}: not carried out: {why}")
        if order.reply_id is None and code in (Code.UNSUPPORTED, Code.DISABLED):
            self._unsupported(order.name, why)
        self._complete(order, Outcome.refused(code, why))

    def _complete(self, order: _Order, outcome: Outcome) -> None:
        if order.reply_id is not None:
            answer = Answer(order.name, order.reply_id, outcome.for_host())
            self._archive.add(answer)
            self._answer(answer)
        self._done(order.name)


def _why_forbidden(name: str) -> str:
    """Why the host may not give the command *name*, and what its administrator can do about that."""
    way = f"name {name} in enable" if name in dangerous() else f"look at allow and block, which leave {name} out,"
    return f"the configuration of this agent forbids it; {way} in [commands] of that, and reload the agent"


def _carrying_out(order: _Order, machine: Machine) -> Job:
    """What a worker does to carry *order* out."""

    def job(report: Report) -> None:
        try:
            outcome = Outcome(None, COMMANDS[order.name].run(machine, order.message))
        except CommandFailed as failure:
            outcome = Outcome(str(failure), failure.members, failure.notes, failure.code.value)
        report(tuple(outcome))

    return job
