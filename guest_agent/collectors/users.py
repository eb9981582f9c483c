"""Who is logged in. Slow: needs a large module, and asks another program.

Logind is asked where there is one: it knows which session is in front and which screen is locked. Elsewhere the C library
reads who has logged in at a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional

from guest_agent import logind
from guest_agent.sessions import UserSession

if TYPE_CHECKING:
    from guest_agent.bus import Bus

#: Seconds that logind may take for all of its answers.
PATIENCE = 10.0

#: Logind is asked about no more sessions than this.
SESSIONS_LIMIT = 256


def sessions(root: str) -> tuple[UserSession, ...]:
    """The sessions of users.

    :raises OSError: logind does not answer.
    :raises ValueError: logind, or the bus between, does not let us ask, or what it says makes no sense.
    """
    if not logind.available(root):
        return _at_terminals()
    try:
        from guest_agent.bus import Bus
    except ImportError:
        return _at_terminals()
    with Bus(os.path.join(root, logind.BUS), PATIENCE) as bus:
        return _of_logind(bus)


def _at_terminals() -> tuple[UserSession, ...]:
    import psutil

    return tuple(
        UserSession(id=f"{user.terminal} {user.pid} {user.started}", user=user.name, since=user.started)
        for user in psutil.users()
    )


# ---- Logind ----


def _of_logind(bus: Bus) -> tuple[UserSession, ...]:
    (listed,) = bus.call(logind.SERVICE, logind.MANAGER, f"{logind.SERVICE}.Manager", "ListSessions")
    found: list[UserSession] = []
    for *_, path in listed[:SESSIONS_LIMIT]:
        properties = _properties(bus, path)
        if properties is not None:
            found += _session(properties)
    return tuple(found)


def _properties(bus: Bus, path: str) -> Optional[Mapping[str, Any]]:
    """The properties of the session *path*, without their types; None where it has gone meanwhile."""
    from guest_agent.bus import PROPERTIES, Refused

    try:
        (typed,) = bus.call(logind.SERVICE, path, PROPERTIES, "GetAll", "s", f"{logind.SERVICE}.Session")
    except Refused as refusal:
        if refusal.error in logind.GONE:
            return None
        raise
    return {name: value for name, (_, value) in typed.items()}


def _session(properties: Mapping[str, Any]) -> Iterator[UserSession]:
    """The session if it is one that a user works in."""
    try:
        if properties["Class"] == "user" and properties["State"] != logind.ENDED:
            seat, _ = properties["Seat"]
            yield UserSession(
                id=properties["Id"],
                user=properties["Name"],
                since=properties["Timestamp"] / logind.MICROSECONDS,
                locked=properties.get("LockedHint", False),
                active=properties["Active"] and seat != "",
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"logind describes a session without what belongs to one: {error}") from None
