"""users: who is logged in, all sessions of users.

Logind is asked where there is one. Elsewhere the C library reads who has logged in at a terminal.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional

from common import codec
from common.messages import Users
from guest_agent import logind
from guest_agent.processes import one_line

from . import CommandFailed, Machine

if TYPE_CHECKING:
    from .logind import Logind

#: How much of an answer's line the sessions may take, in bytes, and how many they may be: each has six members, and a line
#: can't have any number of those.
ROOM = 900_000
SESSIONS_LIMIT = 3000

#: No name, of a user, a host or whatever, is longer, in characters; what is more is cut.
NAME_LIMIT = 255

#: How the classes of sessions begin that users work in, as ``user-early``; those of login screens begin otherwise.
_OF_USERS = "user"


def available(machine: Machine) -> Optional[str]:
    """Some answer there is everywhere."""
    return None


def run(machine: Machine, message: Users) -> Mapping[str, Any]:
    """The sessions, as many of them as fit into an answer.

    :raises CommandFailed: logind does not answer, or what it says makes no sense.
    """
    found = _sessions(machine)
    told = list(_as_many_as_fit(found))
    return {"users": told, "truncated": len(told) < len(found)}


def _sessions(machine: Machine) -> list[dict[str, Any]]:
    if not logind.available(machine.root):
        return _at_terminals()
    try:
        from .logind import Logind
    except ImportError:  # jeepney is missing
        return _at_terminals()
    with Logind(machine, machine.deadline) as connection:
        return list(_of_logind(connection))


def _as_many_as_fit(sessions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    room = ROOM
    for session in itertools.islice(sessions, SESSIONS_LIMIT):
        room -= len(codec.encode("", session))
        if room < 0:
            return
        yield session


def _at_terminals() -> list[dict[str, Any]]:
    import psutil

    return [_session("utmp", user.name, str(user.pid), user.started, user.terminal, user.host) for user in psutil.users()]


def _of_logind(connection: Logind) -> Iterator[dict[str, Any]]:
    try:
        (listed,) = connection.call("ListSessions")
        for identifier, _, name, _, path in listed:
            yield from _described(connection, identifier, name, path)
    except (AttributeError, TypeError, ValueError):
        raise CommandFailed("logind describes a session otherwise than it should; restart systemd-logind") from None


def _described(connection: Logind, identifier: str, name: str, path: str) -> Iterator[dict[str, Any]]:
    """The session if it is one that a user works in."""
    from .logind import Refused

    def asked(member: str) -> Any:
        return connection.session_property(path, member)

    try:
        if asked("Class").startswith(_OF_USERS) and asked("State") != logind.ENDED:
            since = asked("Timestamp") / logind.MICROSECONDS
            yield _session("logind", name, identifier, since, asked("TTY"), asked("RemoteHost"))
    except Refused as refusal:
        if refusal.error not in logind.GONE:
            raise


def _session(
    kind: str, name: str, identifier: str, since: float, terminal: Optional[str], host: Optional[str]
) -> dict[str, Any]:
    return {
        "name": _bounded(name),
        "session": _bounded(identifier),
        "since_s": since or None,
        "terminal": _bounded(terminal or "") or None,
        "host": _bounded(host or "") or None,
        "kind": kind,
    }


def _bounded(text: str) -> str:
    return one_line(text)[:NAME_LIMIT]
