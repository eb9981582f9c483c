"""Who is logged in. Slow: needs a large module, and asks another program.

Logind is asked where there is one: it knows which session is in front and which screen is locked. Elsewhere the C library
reads who has logged in at a terminal.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from guest_agent import logind
from guest_agent.sessions import UserSession

#: Seconds that logind may take for all of its answers.
PATIENCE = 10.0

#: Logind is asked about no more sessions than this.
SESSIONS_LIMIT = 256

_ENDED = "closing"
_MICROSECONDS = 1_000_000
_GONE = frozenset({"org.freedesktop.login1.NoSuchSession", "org.freedesktop.DBus.Error.UnknownObject"})


def sessions(root: str) -> tuple[UserSession, ...]:
    """The sessions of users.

    :raises OSError: logind does not answer.
    :raises ValueError: logind, or the bus between, does not let us ask, or what it says makes no sense.
    """
    if not logind.available(root):
        return _at_terminals()
    try:
        from jeepney.io import blocking
    except ImportError:
        return _at_terminals()
    path = os.path.join(os.path.abspath(root), logind.BUS)
    with blocking.open_dbus_connection(f"unix:path={path}", auth_timeout=PATIENCE) as connection:
        return _of_logind(_Bus(connection))


def _at_terminals() -> tuple[UserSession, ...]:
    import psutil

    return tuple(
        UserSession(id=f"{user.terminal} {user.pid} {user.started}", user=user.name, since=user.started)
        for user in psutil.users()
    )


# ---- Logind ----


class _Gone(Exception):
    """What was asked about has gone meanwhile."""


class _Bus:
    """Asks logind, for a limited time."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._until = time.monotonic() + PATIENCE

    def call(self, path: str, interface: str, method: str, *arguments: str) -> Any:
        """What *method* of the object *path* returns.

        :raises OSError: no answer in time.
        :raises ValueError: logind refuses.
        """
        from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

        address = DBusAddress(path, logind.SERVICE, interface)
        message = new_method_call(address, method, "s" * len(arguments) or None, arguments)
        reply = self._connection.send_and_get_reply(message, timeout=self._until - time.monotonic())
        if reply.header.message_type is not MessageType.error:
            return reply.body[0]
        name = reply.header.fields.get(HeaderFields.error_name)
        if name in _GONE:
            raise _Gone
        raise ValueError(f"logind answers {method} with {name}")


def _of_logind(bus: _Bus) -> tuple[UserSession, ...]:
    listed = bus.call("/org/freedesktop/login1", "org.freedesktop.login1.Manager", "ListSessions")
    found: list[UserSession] = []
    for *_, path in listed[:SESSIONS_LIMIT]:
        with contextlib.suppress(_Gone):
            described = bus.call(path, "org.freedesktop.DBus.Properties", "GetAll", "org.freedesktop.login1.Session")
            found += _session({name: value for name, (_, value) in described.items()})
    return tuple(found)


def _session(properties: Mapping[str, Any]) -> Iterator[UserSession]:
    """The session if it is one that a user works in."""
    try:
        if properties["Class"] == "user" and properties["State"] != _ENDED:
            seat, _ = properties["Seat"]
            yield UserSession(
                id=properties["Id"],
                user=properties["Name"],
                since=properties["Timestamp"] / _MICROSECONDS,
                locked=properties.get("LockedHint", False),
                active=properties["Active"] and seat != "",
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"logind describes a session without what belongs to one: {error}") from None
