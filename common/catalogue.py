"""THE table: every message, its direction, the lowest version at which it may be sent, and its class.

Both agents, the documentation and the tests read it; nothing else knows the version of a message. A later API version is
a member in ``versions``, classes in ``messages`` and rows here.

Versions 0–3 are those of the deployed oVirt agents and never change.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional

from . import messages
from .versions import Version


class Direction(enum.Enum):
    """Who sends a message."""

    TO_HOST = "guest → host"
    TO_GUEST = "host → guest"


class Row(NamedTuple):
    """One message of the table."""

    name: str
    direction: Direction
    since: Version
    message_class: type[messages.Message]

    @property
    def is_fact(self) -> bool:
        """Whether it reports a state of the guest."""
        return issubclass(self.message_class, messages.Fact)


class Catalogue:
    """A table of messages with its look-ups."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        self._to_host = {row.name: row for row in self.rows if row.direction is Direction.TO_HOST}
        self._to_guest = {row.name: row for row in self.rows if row.direction is Direction.TO_GUEST}
        self._by_class = {(row.direction, row.message_class): row for row in self.rows}

    def find(self, direction: Direction, name: str) -> Optional[Row]:
        """The row of *name* in *direction*, or None."""
        return self.names(direction).get(name)

    def names(self, direction: Direction) -> Mapping[str, Row]:
        """The rows of *direction* by name."""
        return self._to_host if direction is Direction.TO_HOST else self._to_guest

    def row_of(self, direction: Direction, message: messages.Message) -> Optional[Row]:
        """The row of *message* in *direction*, or None."""
        return self._by_class.get((direction, type(message)))

    def facts(self, *, above: int = -1, up_to: int) -> frozenset[str]:
        """The names of the facts that came with a version from *above* (exclusive) to *up_to* (inclusive).

        Without the heartbeat, which has a rhythm of its own.
        """
        return frozenset(
            row.name
            for row in self.rows
            if row.is_fact and above < row.since <= up_to and row.message_class is not messages.Heartbeat
        )


_H = Direction.TO_HOST
_G = Direction.TO_GUEST
_V0, _V1, _V2, _V3 = Version.V0, Version.V1, Version.V2, Version.V3

CATALOGUE = Catalogue(
    (
        Row("heartbeat", _H, _V0, messages.Heartbeat),
        Row("host-name", _H, _V0, messages.HostName),
        Row("os-version", _H, _V0, messages.OsVersion),
        Row("network-interfaces", _H, _V0, messages.NetworkInterfaces),
        Row("applications", _H, _V0, messages.Applications),
        Row("disks-usage", _H, _V0, messages.DisksUsage),
        Row("active-user", _H, _V0, messages.ActiveUser),
        Row("fqdn", _H, _V0, messages.Fqdn),
        Row("memory-stats", _H, _V0, messages.MemoryStats),
        Row("session-startup", _H, _V0, messages.SessionStartup),
        Row("session-shutdown", _H, _V0, messages.SessionShutdown),
        Row("session-logon", _H, _V0, messages.SessionLogon),
        Row("session-logoff", _H, _V0, messages.SessionLogoff),
        Row("session-lock", _H, _V0, messages.SessionLock),
        Row("session-unlock", _H, _V0, messages.SessionUnlock),
        Row("uninstalled", _H, _V0, messages.Uninstalled),
        Row("echo", _H, _V0, messages.Echo),
        Row("number-of-cpus", _H, _V1, messages.NumberOfCpus),
        Row("os-info", _H, _V2, messages.OsInfo),
        Row("timezone", _H, _V2, messages.Timezone),
        Row("containers", _H, _V3, messages.Containers),
        Row("completion", _H, _V3, messages.Completion),
        Row("refresh", _G, _V0, messages.Refresh),
        Row("api-version", _G, _V0, messages.ApiVersion),
        Row("lock-screen", _G, _V0, messages.LockScreen),
        Row("log-off", _G, _V0, messages.LogOff),
        Row("login", _G, _V0, messages.Login),
        Row("shutdown", _G, _V0, messages.Shutdown),
        Row("hibernate", _G, _V0, messages.Hibernate),
        Row("echo", _G, _V0, messages.Echo),
        Row("set-number-of-cpus", _G, _V1, messages.SetNumberOfCpus),
        Row("lifecycle-event", _G, _V3, messages.LifecycleEvent),
    )
)
