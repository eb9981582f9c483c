"""Commands to guests, from the request to the completion.

A command that has a completion carries a *reply id*, which no other command of any daemon run ever has. It is in flight
until its completion comes or its deadline passes, whatever becomes of the guest's channel meanwhile, or of whoever asked.
A completion counts only from the guest that the command was sent to; one that comes late, or of which nobody knows, is
counted and told.

What can't be sent is refused before a byte is written, with a sentence that says what to do.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional, Protocol

from common import errors, messages
from common.catalogue import CATALOGUE, Catalogue, Direction, Row
from common.records import fields_of

from .feed import Feed
from .guest import Guest, State
from .known import InFlight
from .meter import Meter

#: How many commands one guest may have in flight.
LIMIT = 100

#: So many commands whose deadline passed are remembered, so that a late completion can be told from an unknown one.
OVERDUE_LIMIT = 10_000

_NEGOTIATING = (messages.Refresh, messages.ApiVersion)


class Refused(Exception):
    """A command was not sent; the text is a sentence that says what to do.

    :ivar kind: why, as the last part of a problem document's type.
    :ivar members: further members of that document.
    """

    def __init__(self, kind: str, text: str, **members: Any) -> None:
        self.kind = kind
        self.members = members
        super().__init__(text)


class TimedOut(Exception):
    """The completion did not come in time."""


class Stopping(Exception):
    """The daemon stops; the completion will find the command when it runs again."""


class Answer(NamedTuple):
    """What a guest answered: *more* are the completion's further members, *after* is how long it took, in seconds."""

    done: bool
    more: Mapping[str, Any]
    after: float


class Sent(NamedTuple):
    """A command that was sent.

    :ivar reply_id: None: it has no completion.
    :ivar answer: fails with TimedOut or Stopping.
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


class _Waiting(NamedTuple):
    guest: Guest
    command: InFlight
    answer: asyncio.Future[Answer]
    timer: asyncio.TimerHandle


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
        self._numbers = itertools.count(1)
        self._waiting: dict[str, _Waiting] = {}
        #: By reply id: the name of the guest.
        self._overdue: collections.OrderedDict[str, str] = collections.OrderedDict()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, guest: Guest, name: str, arguments: Mapping[str, Any], timeout: float) -> Sent:
        """Send the command *name*; its completion is waited for *timeout* seconds.

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
        if not waiting.answer.done():
            waiting.answer.set_result(Answer(completion.done, completion.more, after))

    def resume(self, guest: Guest) -> None:
        """Wait on for the commands of *guest* that an earlier run of the daemon sent."""
        for command in guest.in_flight.values():
            self._wait(guest, command)

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

    # ---- Out ----

    def _send(self, guest: Guest, name: str, arguments: Mapping[str, Any], timeout: float) -> Sent:
        row = self._row(name)
        if self._stopping:
            raise Refused("stopping", "the daemon stops: nothing was sent; try again when it runs again")
        reply_id = f"{self._run[:16]}-{next(self._numbers)}" if has_completion(row) else None
        message = _message(row, arguments, reply_id)
        _require_life(guest)
        if reply_id is not None and len(guest.in_flight) >= LIMIT:
            raise Refused("busy", f"{guest.name} has not answered {LIMIT} commands yet: wait for them")
        _write(guest, row, message)
        self._feed.tell("command", guest.name, name=name, reply_id=reply_id)
        agreed = int(guest.session.negotiation.agreed)
        if reply_id is None:
            return Sent(name, agreed, None, None)
        now = self._loop.time()
        command = guest.in_flight[reply_id] = InFlight(reply_id, name, now, now + timeout)
        if self._memory is not None:
            self._memory.put_command(guest.name, command)
        return Sent(name, agreed, reply_id, self._wait(guest, command))

    def _row(self, name: str) -> Row:
        row = self._catalogue.find(Direction.TO_GUEST, name)
        if row is None or row.message_class in _NEGOTIATING:
            raise Refused("no-such-command", f"no command is called {name!r}: 'vmaccord messages' shows all")
        return row

    # ---- In flight ----

    def _wait(self, guest: Guest, command: InFlight) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = self._loop.create_future()
        # Nobody may be waiting any more when it fails; that is no error.
        answer.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        timer = self._loop.call_at(command.deadline, self._expire, command.reply_id)
        self._waiting[command.reply_id] = _Waiting(guest, command, answer, timer)
        return answer

    def _expire(self, reply_id: str) -> None:
        waiting = self._waiting[reply_id]
        self._meter.timeouts += 1
        self._feed.tell("timed-out", waiting.guest.name, name=waiting.command.name, reply_id=reply_id)
        self._overdue[reply_id] = waiting.guest.name
        if len(self._overdue) > OVERDUE_LIMIT:
            self._overdue.popitem(last=False)
        self._give_up(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        self._end(waiting)
        if not waiting.answer.done():
            waiting.answer.set_exception(TimedOut())

    def _end(self, waiting: _Waiting) -> None:
        reply_id = waiting.command.reply_id
        waiting.timer.cancel()
        del self._waiting[reply_id], waiting.guest.in_flight[reply_id]
        if self._memory is not None:
            self._memory.drop_command(reply_id)

    def _take_stray(self, guest: Guest, completion: messages.Completion) -> None:
        if self._overdue.get(completion.reply_id) == guest.name:
            del self._overdue[completion.reply_id]
            self._meter.late += 1
            self._tell(guest, None, completion, late=True)
        else:
            self._meter.unknown += 1

    def _tell(self, guest: Guest, name: Optional[str], completion: messages.Completion, late: bool) -> None:
        self._feed.tell("completion", guest.name, name=name, reply_id=completion.reply_id, done=completion.done, late=late)


def commands(catalogue: Catalogue = CATALOGUE) -> Iterator[Row]:
    """The rows of the table that are commands."""
    for row in catalogue.rows:
        if row.direction is Direction.TO_GUEST and row.message_class not in _NEGOTIATING:
            yield row


def has_completion(row: Row) -> bool:
    """Whether the guest answers this command with a completion."""
    return _REPLY_ID in fields_of(row.message_class)


def refuse(guest: Guest, row: Row) -> Optional[Refused]:
    """Why the command *row* can't be sent to *guest* now; None: it can."""
    try:
        _require_life(guest)
        guest.session.require(row.name)
    except Refused as refusal:
        return refusal
    except errors.SendRefused as error:
        return _explain(guest, row, error)
    return None


_REPLY_ID = "reply_id"


def _message(row: Row, arguments: Mapping[str, Any], reply_id: Optional[str]) -> messages.Message:
    known = {each.wire for each in messages.declared(row.message_class)} - {_REPLY_ID}
    takes_any = any(each.wire == "…" for each in messages.declared(row.message_class))
    unknown = [] if takes_any else sorted(arguments.keys() - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise Refused(
            "invalid-arguments", f"{row.name} has no argument {unknown[0]!r}; allowed: {allowed}", argument=unknown[0]
        )
    given = dict(arguments) if reply_id is None else {**arguments, _REPLY_ID: reply_id}
    try:
        message, mistyped = row.message_class.from_arguments(given)
    except errors.InvalidArguments as error:
        raise Refused("invalid-arguments", f"{row.name}: {error}", argument=error.argument) from None
    if mistyped:
        raise Refused("invalid-arguments", f"{row.name}: {mistyped[0]}: of a wrong type", argument=mistyped[0])
    return message


def _require_life(guest: Guest) -> None:
    if guest.state in (State.ABSENT, State.CONNECTING):
        what = "no port on this host" if guest.state is State.ABSENT else "nobody answers on its port"
        raise Refused(
            "not-connected", f"{guest.name} is not connected ({what}): start it, or see 'vmaccord doctor {guest.name}'"
        )
    if guest.state is not State.RESPONSIVE:
        raise Refused(
            "unresponsive",
            f"{guest.name} is silent: start vmaccord-guest-agent in it, or see 'vmaccord doctor {guest.name}'",
        )


def _write(guest: Guest, row: Row, message: messages.Message) -> None:
    try:
        guest.send(message)
    except errors.SendRefused as error:
        raise _explain(guest, row, error) from None
    except errors.EncodingError as error:
        raise Refused("invalid-arguments", str(error)) from None


def _explain(guest: Guest, row: Row, error: errors.SendRefused) -> Refused:
    if isinstance(error, errors.VersionTooLow):
        return _version_too_low(guest, row, error)
    if isinstance(error, errors.Congested):
        return Refused("congested", f"{guest.name} does not read what was sent before: see 'vmaccord doctor {guest.name}'")
    return Refused("not-connected", f"{guest.name} is not connected: try again when it is")


def _version_too_low(guest: Guest, row: Row, error: errors.VersionTooLow) -> Refused:
    host, advertised = guest.session.supported, guest.session.negotiation.advertised
    lacking = {
        "guest": (f"its agent supports {_maximum(advertised)}", f"upgrade vmaccord-guest-agent in {guest.name}"),
        "host": (f"this host supports {_maximum(host)}", "upgrade vmaccord-host-agent here, or raise its max-api-version"),
    }
    sides = {"both": ("guest", "host"), None: ()}.get(error.upgrade, (error.upgrade,))
    why = " and ".join(lacking[side][0] for side in sides if side is not None) or "they have not agreed on more yet"
    what = " and ".join(lacking[side][1] for side in sides if side is not None) or "try again in a moment"
    return Refused(
        "version-too-low",
        f"{guest.name} agreed on API {error.spoken}; {row.name} needs {error.needed}; {why}: {what}",
        needed=int(error.needed),
        agreed=int(error.spoken),
        guest_supports=advertised,
        host_supports=None if host is None else int(host),
        upgrade=error.upgrade,
    )


def _maximum(version: Optional[int]) -> str:
    return "no versions" if version is None else str(version)
