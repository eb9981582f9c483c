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

T = TypeVar("T")

#: No name or reason is longer, in characters.
_TEXT_LIMIT = 1000

#: No time is later, in seconds since the epoch: the year 5138.
_TIME_LIMIT = 1e11

#: No version is as high, and no command has as much time, in seconds.
_VERSION_LIMIT = 1000
_TIMEOUT_LIMIT = 100_000.0


class GuestRow(NamedTuple):
    """A guest, by the name of its VM, and the VM's UUID where it is known."""

    guest: str
    uuid: Optional[str]


class FactRow(NamedTuple):
    """What a guest said last in the message *name*; *value* is its arguments as JSON text."""

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


class Contents(NamedTuple):
    """Everything that the file holds; changes and commands in the order in which they came."""

    guests: tuple[GuestRow, ...] = ()
    facts: tuple[FactRow, ...] = ()
    changes: tuple[ChangeRow, ...] = ()
    commands: tuple[CommandRow, ...] = ()


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
    return GuestRow(_text(guest), None if uuid is None else str(uuids.UUID(_text(uuid))))


def check_fact(guest: object, name: object, value: object, heard_at: object) -> FactRow:
    """A row of the facts: one that a guest could have sent.

    :raises ValueError, RemoteProtocolError: this program has not written it.
    """
    row = FactRow(_text(guest), _text(name), _json_object(value), _time(heard_at))
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


def _json_object(value: object) -> str:
    if isinstance(value, str) and len(value) < framing.LINE_LIMIT and value.startswith("{"):
        return value
    raise ValueError("no JSON object of a line's length")


def _time(value: object) -> float:
    if isinstance(value, float) and 0 <= value < _TIME_LIMIT:
        return value
    raise ValueError("no time")


def _version(value: object) -> int:
    if isinstance(value, int) and 0 <= value < _VERSION_LIMIT:
        return value
    raise ValueError("no version")
