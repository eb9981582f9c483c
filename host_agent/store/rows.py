"""The rows of the state file, and which of them this program can have written. Pure; times are seconds since the epoch.

Whoever can write the file can write anything into it: a row counts only if it passes the checks that what comes from a
guest has to pass. One that does not is left out, and costs nothing but itself.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional, TypeVar

from common import characters, codec, errors, framing
from common.catalogue import CATALOGUE, Direction
from common.handoff.members import TRANSFER
from host_agent.known import UNKNOWN_TIME, VERSION_LIMIT

T = TypeVar("T")

#: No name or reason is longer, in characters.
_TEXT_LIMIT = 1000

#: No time is later, in seconds since the epoch: the year 5138.
_TIME_LIMIT = 1e11

#: No command has as much time, in seconds.
_TIMEOUT_LIMIT = 100_000.0


class GuestRow(NamedTuple):
    """A guest, by the name of its VM, and the VM's UUID where it is known."""

    guest: str
    uuid: Optional[str]


class FactRow(NamedTuple):
    """What a guest said last in the message *name*; *value* is its arguments as JSON text.

    :ivar heard_at: infinitely long ago: nobody knows.
    """

    guest: str
    name: str
    value: str
    heard_at: float


class ChangeRow(NamedTuple):
    """Another version was agreed on with a guest."""

    guest: str
    at: float
    old: int
    new: int
    reason: str


class CommandRow(NamedTuple):
    """A command to a guest whose completion is awaited."""

    reply_id: str
    guest: str
    name: str
    sent_at: float
    deadline_at: float


class DepartureRow(NamedTuple):
    """A guest was offered to the host *peer*, which has taken it, if it is *gone*, or perhaps has."""

    transfer: str
    guest: str
    uuid: Optional[str]
    peer: str
    since: float
    gone: bool


class TakenRow(NamedTuple):
    """A guest was taken over from another host."""

    transfer: str
    guest: str


class Contents(NamedTuple):
    """Everything that the file holds; all but guests and facts in the order in which it came."""

    guests: tuple[GuestRow, ...] = ()
    facts: tuple[FactRow, ...] = ()
    changes: tuple[ChangeRow, ...] = ()
    commands: tuple[CommandRow, ...] = ()
    departures: tuple[DepartureRow, ...] = ()
    taken: tuple[TakenRow, ...] = ()


def passing(check: Callable[..., T], raws: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """Those of *raws*, rows as the file has them, that pass *check*."""
    for raw in raws:
        try:
            yield check(*raw)
        except (ValueError, errors.RemoteProtocolError):
            continue


def check_guest(guest: object, uuid: object) -> GuestRow:
    """A row of the guests.

    :raises ValueError: this program has not written it.
    """
    return GuestRow(_text(guest), _uuid(uuid))


def check_fact(guest: object, name: object, value: object, heard_at: object) -> FactRow:
    """A row of the facts: one that a guest could have sent.

    :raises ValueError, RemoteProtocolError: this program has not written it.
    """
    row = FactRow(_text(guest), _text(name), _json_object(value), _time_heard(heard_at))
    message = CATALOGUE.find(Direction.TO_HOST, row.name)
    if message is None or not message.is_fact:
        raise ValueError("no fact")
    said, arguments = codec.decode(line_of(row))
    _, mistyped = message.message_class.from_arguments(arguments)
    if mistyped or said != row.name:
        raise ValueError("not as a fact is written")
    return row


def check_change(guest: object, at: object, old: object, new: object, reason: object) -> ChangeRow:
    """A row of the changes.

    :raises ValueError: this program has not written it.
    """
    return ChangeRow(_text(guest), _time(at), _version(old), _version(new), _text(reason))


def check_command(reply_id: object, guest: object, name: object, sent_at: object, deadline_at: object) -> CommandRow:
    """A row of the commands.

    :raises ValueError: this program has not written it.
    """
    row = CommandRow(_text(reply_id), _text(guest), _text(name), _time(sent_at), _time(deadline_at))
    if CATALOGUE.command(row.name) is None:
        raise ValueError("no command")
    if not 0 < row.deadline_at - row.sent_at <= _TIMEOUT_LIMIT:
        raise ValueError("no time that a command has")
    return row


def check_departure(
    transfer: object, guest: object, uuid: object, peer: object, since: object, gone: object
) -> DepartureRow:
    """A row of the departures.

    :raises ValueError: this program has not written it.
    """
    return DepartureRow(TRANSFER.check(transfer), _text(guest), _uuid(uuid), _text(peer), _time(since), gone == 1)


def check_taken(transfer: object, guest: object) -> TakenRow:
    """A row of what was taken over.

    :raises ValueError: this program has not written it.
    """
    return TakenRow(TRANSFER.check(transfer), _text(guest))


def line_of(row: FactRow) -> bytes:
    """The line in which a guest would send this fact; *row* names a message of the table.

    :raises ValueError: it holds what UTF-8 can't express.
    """
    members = row.value[1:].encode()
    separator = b"" if members == b"}" else b","
    return b'{"%b":"%b"%b%b' % (codec.NAME.encode(), row.name.encode(), separator, members)


def _text(value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= _TEXT_LIMIT and characters.clean(value) == value:
        return value
    raise ValueError("no text")


def _uuid(value: object) -> Optional[str]:
    return None if value is None else str(uuids.UUID(_text(value)))


def _json_object(value: object) -> str:
    if isinstance(value, str) and len(value) < framing.LINE_LIMIT and value.startswith("{"):
        return value
    raise ValueError("no JSON object of a line's length")


def _time(value: object) -> float:
    if isinstance(value, float) and 0 <= value < _TIME_LIMIT:
        return value
    raise ValueError("no time")


def _time_heard(value: object) -> float:
    return UNKNOWN_TIME if value == UNKNOWN_TIME else _time(value)


def _version(value: object) -> int:
    if isinstance(value, int) and 0 <= value < VERSION_LIMIT:
        return value
    raise ValueError("no version")
