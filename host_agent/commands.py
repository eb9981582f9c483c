"""Commands to guests, from the request to the completion.

A command that the guest answers carries a *reply id*, which no other command of any daemon run ever has. It is in flight
until its completion comes or its deadline passes, whatever becomes of the guest's channel meanwhile, or of whoever asked.
A completion counts only from the guest that the command was sent to, however that is called by then; one that comes late,
twice, or of which nobody knows, is counted and reaches no caller.

A channel that ends may take a command or its completion along. A guest that answers again what it has answered is therefore
sent once more, on its next channel, what it has not answered yet, unless that means the moment at which it was given. What
a command says stays in memory, only for as long as it may be sent again, and is never stored.

A guest that is handed over to another host takes its commands in flight along: whoever waits here is told where to. The
completions of those that another host, or another run of the daemon, sent are remembered for a while, for whoever asks.

What can't be sent is refused before a byte is written: see ``refusals``.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional, Protocol

from common import errors, messages
from common.catalogue import CATALOGUE, Catalogue, Row
from common.fields import TEXT, Rest, list_of
from common.session import REPLY_ID, HostSession

from . import deadlines
from .feed import Feed
from .guest import Guest
from .known import Frozen, InFlight
from .meter import Meter
from .refusals import LIMIT, Refused, refuse

#: So many commands whose deadline passed are remembered, so that a late completion can be told from an unknown one.
OVERDUE_LIMIT = 10_000

#: After so many seconds it is told that a command is still in flight; then after twice as many each time …
PROGRESS_AFTER = 5.0

#: … and at least this often, in seconds.
PROGRESS_PERIOD = 60.0

#: The feature of a guest that carries out no command twice, and answers again what it has answered.
REPEATED = "repeated-completions"

#: Seconds until a guest that does not read is looked after again.
REPEAT_PERIOD = 0.5

#: A command is sent again at most so often: a guest could let its channels end without end.
REPEATS_LIMIT = 10

#: So many outcomes are kept for other hosts, for so many seconds.
OUTCOMES_LIMIT = 1_000
OUTCOMES_PERIOD = 600.0

#: So many completions of a guest that another host is about to hand over are kept until it has done so.
EARLY_LIMIT = 8

#: No host has given so many reply ids. One that says so is not believed: numbers above must still fit into a document.
NUMBERS_LIMIT = 10**12

_FREEZE, _THAW = "filesystem-freeze", "filesystem-thaw"


class TimedOut(Exception):
    """The completion did not come in time.

    :ivar patience: how long it was waited for, in seconds.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        super().__init__(f"not within {patience:g} s")


class Stopping(Exception):
    """The daemon stops; the completion will find the command when it runs again."""


class Moved(Exception):
    """The guest was handed over to another host, which the completion will reach.

    :ivar to: that host.
    :ivar transfer: the hand-off.
    :ivar reply_id: of the command.
    """

    def __init__(self, to: str, transfer: str, reply_id: str) -> None:
        self.to = to
        self.transfer = transfer
        self.reply_id = reply_id
        super().__init__(f"moved to {to}")


class Answer(NamedTuple):
    """What a guest answered: *more* are the completion's further members, *after* is how long it took, in seconds."""

    done: bool
    more: Mapping[str, Any]
    after: float


class Sent(NamedTuple):
    """A command that was sent.

    :ivar reply_id: None: it has no completion at the version that was agreed.
    :ivar answer: fails with TimedOut, Moved or Stopping.
    """

    name: str
    agreed: int
    reply_id: Optional[str]
    answer: Optional[asyncio.Future[Answer]]


class Memory(Protocol):
    """Where commands in flight are kept over a restart; see ``store``."""

    def put_command(self, guest: str, in_flight: InFlight) -> None:
        """A command was sent."""

    def drop_command(self, reply_id: str) -> None:
        """It is not in flight any more."""


class _Waiting:
    """A command in flight.

    :ivar timer: its next: it is told that it is still in flight, or nobody waits any longer.
    :ivar told_after: after how many seconds in flight it is told next that it still is.
    :ivar message: what is sent again; None: nothing is, for it is too late for that, nobody would know that it is the same,
        or an earlier run of the daemon sent it.
    :ivar agent_id: the run of the agent that may be sent it again; None: none may.
    :ivar channel: the guest's channel on which it was sent last.
    :ivar orphaned: whether nobody of this run of the daemon sent it.
    :ivar frozen: what it freezes, as far as that is known before it is answered; None: nothing.
    """

    __slots__ = (
        "agent_id",
        "answer",
        "channel",
        "command",
        "frozen",
        "guest",
        "message",
        "orphaned",
        "repeats",
        "timer",
        "told_after",
    )

    timer: asyncio.TimerHandle

    def __init__(
        self, guest: Guest, command: InFlight, answer: asyncio.Future[Answer], message: Optional[messages.Message]
    ) -> None:
        self.guest = guest
        self.command = command
        self.answer = answer
        self.agent_id = _repeating_agent(guest.session)
        self.message = None if self.agent_id is None else message
        self.channel = guest.channel
        self.repeats = 0
        self.told_after = 0.0
        self.orphaned = False
        self.frozen: Optional[Frozen] = None

    @property
    def patience(self) -> float:
        """How long its completion is waited for, in seconds."""
        return self.command.deadline - self.command.sent_at

    def is_lost_to(self, agent_id: str) -> bool:
        """Whether the run *agent_id* of the guest's agent, on the guest's present channel, may not have got it."""
        return self.message is not None and self.agent_id == agent_id and self.channel != self.guest.channel


class Commands:
    """All commands in flight of one daemon.

    :param run: the identity of this run of the daemon.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run: str,
        meter: Meter,
        feed: Feed,
        memory: Optional[Memory] = None,
        catalogue: Catalogue = CATALOGUE,
    ) -> None:
        self._loop = loop
        self._run = run
        self._meter = meter
        self._feed = feed
        self._memory = memory
        self._catalogue = catalogue
        self._highest = 0
        self._waiting: dict[str, _Waiting] = {}
        #: By reply id: whom it was sent to. A guest that is forgotten is not kept for it.
        self._overdue: collections.OrderedDict[str, weakref.ref[Guest]] = collections.OrderedDict()
        #: By reply id: what was answered to orphaned commands, and when; the oldest first.
        self._outcomes: dict[str, tuple[Answer, float]] = {}
        #: Whether another host is about to hand a guest over.
        self.is_awaited: Callable[[Guest], bool] = lambda guest: False
        #: What such guests answered to commands that are not known here yet.
        self._early: weakref.WeakKeyDictionary[Guest, collections.deque[messages.Completion]] = weakref.WeakKeyDictionary()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, guest: Guest, name: str, arguments: Mapping[str, Any], timeout: Optional[float] = None) -> Sent:
        """Send the command *name*.

        :param timeout: how long its completion is waited for, in seconds; None: see ``deadlines``.
        :raises Refused: it was not sent.
        """
        try:
            return self._send(guest, name, arguments, timeout)
        except Refused as refusal:
            self._meter.refusals[refusal.kind] += 1
            raise

    def completed(self, guest: Guest, completion: messages.Completion, now: float) -> None:
        """*guest* says that a command is done, or that it failed."""
        waiting = self._waiting.get(completion.reply_id)
        if waiting is None or waiting.guest is not guest:
            self._take_stray(guest, completion)
            return
        self._end(waiting)
        after = now - waiting.command.sent_at
        self._meter.round_trips.add(after)
        self._tell(guest, waiting.command.name, completion, late=False)
        _note_freeze(waiting, completion, after)
        answer = Answer(completion.done, _more(completion), after)
        if waiting.orphaned:
            self._keep_outcome(completion.reply_id, answer, now)
        if not waiting.answer.done():
            waiting.answer.set_result(answer)

    def offered(self, guest: Guest) -> None:
        """*guest* says on its channel what it lets the host do."""
        if guest.in_flight:
            # Not from within the channel, which is just reading.
            self._loop.call_soon(self._repeat, guest)

    def resume(self, guest: Guest) -> None:
        """Wait on for the commands of *guest* that an earlier run of the daemon sent."""
        for command in guest.in_flight.values():
            self._wait_for_orphan(guest, command)

    def forget(self, guest: Guest) -> None:
        """Nobody will answer for *guest* any more."""
        for reply_id in list(guest.in_flight):
            self._give_up(self._waiting[reply_id])

    async def drain(self, patience: float) -> None:
        """Send nothing more, and wait up to *patience* seconds for what is in flight.

        Then nobody waits any longer. What completes after that still counts; what does not is for the next run.
        """
        self._stopping = True
        answers = [waiting.answer for waiting in self._waiting.values()]
        if answers:
            await asyncio.wait(answers, timeout=patience)
        for waiting in self._waiting.values():
            waiting.timer.cancel()
            if not waiting.answer.done():
                waiting.answer.set_exception(Stopping())

    # ---- From host to host ----

    def number_above(self, floor: int) -> None:
        """Number commands above *floor* from now on: another host has given that number."""
        if floor < NUMBERS_LIMIT:
            self._highest = max(self._highest, floor)

    def highest(self) -> int:
        """The highest number that a command of this run, or of a host before it, has."""
        return self._highest

    def hold(self, guest: Guest, to: Optional[str] = None) -> None:
        """Send nothing to *guest*: it is being handed over, *to* another host."""
        guest.moving, guest.moving_to = True, to

    def release(self, guest: Guest) -> None:
        """*guest* stays here: it is sent what it is to be sent, and what it may not have got meanwhile."""
        guest.stay()
        self.offered(guest)

    def hand_over(self, guest: Guest, to: str, transfer: str) -> None:
        """*guest* is the host *to*'s, by the hand-off *transfer*: what was in flight will be answered there."""
        for reply_id in list(guest.in_flight):
            waiting = self._waiting[reply_id]
            self._end(waiting)
            if not waiting.answer.done():
                waiting.answer.set_exception(Moved(to, transfer, reply_id))
        guest.move(to)

    def adopt(self, guest: Guest, in_flight: Iterable[InFlight]) -> None:
        """Wait for commands that another host sent to *guest*, and remember how they end.

        What is known here already stays as it is; of too many, the first ones count.
        """
        for command in itertools.islice(in_flight, LIMIT):
            if command.reply_id in self._waiting:
                continue
            guest.in_flight[command.reply_id] = command
            if self._memory is not None:
                self._memory.put_command(guest.name, command)
            waiting = self._wait_for_orphan(guest, command)
            if command.name == _FREEZE:
                waiting.frozen = guest.frozen
        for completion in self._early.pop(guest, ()):
            self.completed(guest, completion, self._loop.time())

    def outcome(self, reply_id: str) -> Optional[Answer]:
        """What was answered lately to a command that another host or another run of the daemon sent; None: nothing."""
        answer, at = self._outcomes.get(reply_id, (None, 0.0))
        return answer if self._loop.time() < at + OUTCOMES_PERIOD else None

    def _keep_outcome(self, reply_id: str, answer: Answer, now: float) -> None:
        self._outcomes[reply_id] = answer, now
        while len(self._outcomes) > OUTCOMES_LIMIT or now >= self._oldest_outcome() + OUTCOMES_PERIOD:
            del self._outcomes[next(iter(self._outcomes))]

    def _oldest_outcome(self) -> float:
        return next(at for _, at in self._outcomes.values())

    # ---- Out ----

    def _send(self, guest: Guest, name: str, arguments: Mapping[str, Any], timeout: Optional[float]) -> Sent:
        row = self._row(name)
        if self._stopping:
            raise Refused("stopping", "the daemon stops: nothing was sent; try again when it runs again")
        message = _message(row, arguments)
        refusal = refuse(guest, row)
        if refusal is not None:
            raise refusal
        reply_id = self._make_reply_id(row, arguments) if guest.session.answered(name) else None
        try:
            guest.send(message, reply_id)
        except errors.EncodingError as error:
            raise Refused("invalid-arguments", str(error)) from None
        self._feed.tell("command", guest.name, name=name, reply_id=reply_id)
        agreed = int(guest.session.negotiation.agreed)
        if reply_id is None:
            return Sent(name, agreed, None, None)
        if timeout is None:
            timeout = deadlines.by_default(row, arguments)
        now = self._loop.time()
        command = guest.in_flight[reply_id] = InFlight(reply_id, name, now, now + timeout)
        if self._memory is not None:
            self._memory.put_command(guest.name, command)
        waiting = self._wait(guest, command, None if row.momentary else message)
        if isinstance(message, messages.FilesystemFreeze):
            waiting.frozen = Frozen(message.mountpoints or (), now + message.thaw_after)
            guest.frozen = guest.frozen_at(now) or waiting.frozen
        return Sent(name, agreed, reply_id, waiting.answer)

    def _row(self, name: str) -> Row:
        row = self._catalogue.command(name)
        if row is None:
            raise Refused("no-such-command", f"no command is called {name!r}: 'vmaccord messages' shows all")
        return row

    def _make_reply_id(self, row: Row, arguments: Mapping[str, Any]) -> str:
        if REPLY_ID in arguments:
            text = f"{row.name}: {REPLY_ID} is given by the daemon: leave it out"
            raise Refused("invalid-arguments", text, argument=REPLY_ID)
        self._highest += 1
        return f"{self._run[:16]}-{self._highest}"

    def _repeat(self, guest: Guest) -> None:
        """Send again what *guest*, which lives on another channel now, may not have got."""
        agent_id = _repeating_agent(guest.session)
        if agent_id is None or self._stopping or guest.moving:
            return
        for waiting in [self._waiting[reply_id] for reply_id in guest.in_flight]:
            if waiting.is_lost_to(agent_id) and waiting.repeats < REPEATS_LIMIT and not self._send_again(waiting):
                self._loop.call_later(REPEAT_PERIOD, self._repeat, guest)
                return

    def _send_again(self, waiting: _Waiting) -> bool:
        """Whether what can be done for *waiting* now is done; not where its guest does not read."""
        guest, command = waiting.guest, waiting.command
        assert waiting.message is not None  # noqa: S101 - what is lost has one
        try:
            guest.send(waiting.message, command.reply_id)
        except errors.Congested:
            return False
        except errors.SendRefused:
            return True
        waiting.channel = guest.channel
        waiting.repeats += 1
        guest.tell("resent", self._loop.time(), name=command.name, reply_id=command.reply_id)
        return True

    # ---- In flight ----

    def _wait_for_orphan(self, guest: Guest, command: InFlight) -> _Waiting:
        waiting = self._wait(guest, command, None)
        waiting.orphaned = True
        return waiting

    def _wait(self, guest: Guest, command: InFlight, message: Optional[messages.Message]) -> _Waiting:
        answer: asyncio.Future[Answer] = self._loop.create_future()
        # Nobody may be waiting any more when it fails; that is no error.
        answer.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        waiting = self._waiting[command.reply_id] = _Waiting(guest, command, answer, message)
        self._set_timer(waiting)
        return waiting

    def _set_timer(self, waiting: _Waiting) -> None:
        sent_at, deadline = waiting.command.sent_at, waiting.command.deadline
        waiting.told_after = _next_progress(max(waiting.told_after, self._loop.time() - sent_at))
        if sent_at + waiting.told_after < deadline:
            waiting.timer = self._loop.call_at(sent_at + waiting.told_after, self._tell_progress, waiting)
        else:
            waiting.timer = self._loop.call_at(deadline, self._expire, waiting)

    def _tell_progress(self, waiting: _Waiting) -> None:
        command, now = waiting.command, self._loop.time()
        self._feed.tell(
            "progress",
            waiting.guest.name,
            name=command.name,
            reply_id=command.reply_id,
            waited_s=round(now - command.sent_at, 3),
            left_s=round(max(0.0, command.deadline - now), 3),
        )
        self._set_timer(waiting)

    def _expire(self, waiting: _Waiting) -> None:
        guest, reply_id = waiting.guest, waiting.command.reply_id
        self._meter.timeouts += 1
        self._feed.tell("timed-out", guest.name, name=waiting.command.name, reply_id=reply_id)
        self._overdue[reply_id] = weakref.ref(guest)
        if len(self._overdue) > OVERDUE_LIMIT:
            self._overdue.popitem(last=False)
        self._give_up(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        self._end(waiting)
        if not waiting.answer.done():
            waiting.answer.set_exception(TimedOut(waiting.patience))

    def _end(self, waiting: _Waiting) -> None:
        reply_id = waiting.command.reply_id
        waiting.timer.cancel()
        del self._waiting[reply_id], waiting.guest.in_flight[reply_id]
        if self._memory is not None:
            self._memory.drop_command(reply_id)

    def _take_stray(self, guest: Guest, completion: messages.Completion) -> None:
        sent_to = self._overdue.get(completion.reply_id)
        if sent_to is not None and sent_to() is guest:
            del self._overdue[completion.reply_id]
            self._meter.late += 1
            self._tell(guest, None, completion, late=True)
        elif self.is_awaited(guest):
            self._early.setdefault(guest, collections.deque(maxlen=EARLY_LIMIT)).append(completion)
        else:
            self._meter.unknown += 1

    def _tell(self, guest: Guest, name: Optional[str], completion: messages.Completion, late: bool) -> None:
        self._feed.tell("completion", guest.name, name=name, reply_id=completion.reply_id, done=completion.done, late=late)


def _message(row: Row, arguments: Mapping[str, Any]) -> messages.Message:
    """What *arguments* say.

    :raises Refused: the table does not have the command so.
    """
    declared = messages.declared(row.message_class)
    known = {each.wire for each in declared}
    takes_any = any(isinstance(each, Rest) for each in declared)
    unknown = [] if takes_any else sorted(arguments.keys() - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise Refused(
            "invalid-arguments", f"{row.name} has no argument {unknown[0]!r}; allowed: {allowed}", argument=unknown[0]
        )
    try:
        message, mistyped = row.message_class.from_arguments(arguments)
    except errors.InvalidArguments as error:
        raise Refused("invalid-arguments", f"{row.name}: {error}", argument=error.argument) from None
    if mistyped:
        raise Refused("invalid-arguments", f"{row.name}: {mistyped[0]}: of a wrong type", argument=mistyped[0])
    return message


def _note_freeze(waiting: _Waiting, completion: messages.Completion, after: float) -> None:
    """What is frozen in the guest now that it has answered *waiting*, *after* so many seconds."""
    guest, frozen = waiting.guest, waiting.frozen
    if waiting.command.name == _THAW and completion.done:
        guest.frozen = None
    elif frozen is not None and completion.done:
        # It counts from a moment between the command and the completion.
        guest.frozen = Frozen(_mountpoints(completion, frozen.mountpoints), frozen.thaws_at + after)
    elif guest.frozen is frozen:
        guest.frozen = None


def _mountpoints(completion: messages.Completion, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    try:
        mountpoints: tuple[str, ...] = list_of(TEXT).check((completion.result or {}).get("mountpoints"))
    except ValueError:
        return otherwise
    return mountpoints


def _more(completion: messages.Completion) -> dict[str, Any]:
    """What *completion* says beside what every completion does."""
    arguments = completion.to_arguments()
    return {name: value for name, value in arguments.items() if name not in ("reply_id", "done")}


def _repeating_agent(session: HostSession) -> Optional[str]:
    """The run of the agent that speaks on the channel, if it said there that it can be sent a command twice."""
    capabilities = session.capabilities
    return session.agent_id if capabilities is not None and REPEATED in capabilities.features else None


def _next_progress(waited: float) -> float:
    """After how many seconds in flight it is told next that a command still is."""
    told_after = distance = PROGRESS_AFTER
    while told_after <= waited:
        distance = min(2 * distance, PROGRESS_PERIOD)
        told_after += distance
    return told_after
