"""THE table: every message, its direction, the lowest version at which it may be sent, and its class.

Both agents, the documentation and the tests read it; nothing else knows the version of a message. A later API version is
a member in ``versions``, classes in ``messages`` and rows here.

Versions 0–3 are those of the deployed oVirt agents and never change; what came later to one of their messages, as the
completion that any command may have, is said to come later, and is not written to them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Optional, Union

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
    #: From which version on it may carry a reply id, which asks for a completion; None: never.
    answered: Optional[Version] = None
    #: Arguments that came later than the message, by their names on the wire: from which version on each may be written.
    later: Mapping[str, Version] = MappingProxyType({})
    #: Whether the guest must have said that it carries it out; else it need only not have said that it doesn't.
    needs_capability: bool = False
    #: Whether it gives power over everything in the guest, which has it turned off until its configuration turns it on.
    dangerous: bool = False
    #: Whether it means the moment at which it is given: one that was lost is not sent again.
    momentary: bool = False
    #: How long carrying it out may take where that is known: seconds, or the argument that says so.
    duration: Union[float, str, None] = None

    @property
    def is_command(self) -> bool:
        """Whether it is for the host's operators to send; not what negotiates, nor what a guest sends back."""
        return self.direction is Direction.TO_GUEST and issubclass(self.message_class, messages.Command)

    def is_answered(self, version: int) -> bool:
        """Whether it may carry a reply id at *version*, and so has a completion."""
        return self.answered is not None and self.answered <= version

    @property
    def is_fact(self) -> bool:
        """Whether it reports a state of the guest."""
        return issubclass(self.message_class, messages.Fact)


class Catalogue:
    """A table of messages with its look-ups."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        #: Those of the commands that operators may send.
        self.commands = tuple(row for row in self.rows if row.is_command)
        self._to_host = {row.name: row for row in self.rows if row.direction is Direction.TO_HOST}
        self._to_guest = {row.name: row for row in self.rows if row.direction is Direction.TO_GUEST}
        self._by_class = {(row.direction, row.message_class): row for row in self.rows}

    def find(self, direction: Direction, name: str) -> Optional[Row]:
        """The row of *name* in *direction*, or None."""
        return self.names(direction).get(name)

    def command(self, name: str) -> Optional[Row]:
        """The row of the command *name*, or None."""
        row = self.find(Direction.TO_GUEST, name)
        return row if row is not None and row.is_command else None

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
_V0, _V1, _V2, _V3, _V4, _V5 = Version.V0, Version.V1, Version.V2, Version.V3, Version.V4, Version.V5


def _command(since: Version, name: str, message_class: type[messages.Message], answered: Version = _V4) -> Row:
    """A command of the first versions, which knew completions of a few commands only."""
    return Row(name, _G, since, message_class, answered)


def _capability(name: str, message_class: type[messages.Message], **more: Any) -> Row:
    """A command that some guests carry out and others don't, and that says so itself."""
    return Row(name, _G, _V5, message_class, _V5, needs_capability=True, **more)


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
        Row("completion", _H, _V3, messages.Completion, later={"result": _V4, "error": _V4}),
        Row("capabilities", _H, _V4, messages.Capabilities),
        Row("unsupported", _H, _V4, messages.Unsupported),
        Row("refresh", _G, _V0, messages.Refresh),
        Row("api-version", _G, _V0, messages.ApiVersion),
        _command(_V0, "lock-screen", messages.LockScreen),
        _command(_V0, "log-off", messages.LogOff),
        _command(_V0, "login", messages.Login),
        _command(_V0, "shutdown", messages.Shutdown),
        _command(_V0, "hibernate", messages.Hibernate),
        _command(_V0, "echo", messages.Echo),
        _command(_V1, "set-number-of-cpus", messages.SetNumberOfCpus),
        _command(_V3, "lifecycle-event", messages.LifecycleEvent, answered=_V3),
        _capability("filesystem-freeze", messages.FilesystemFreeze, momentary=True),
        _capability("filesystem-thaw", messages.FilesystemThaw),
        _capability("filesystem-status", messages.FilesystemStatus),
        _capability("filesystem-trim", messages.FilesystemTrim, duration=3600.0),
        _capability("set-time", messages.SetTime, momentary=True),
        _capability("suspend", messages.Suspend),
        _capability("load", messages.Load),
        _capability("users", messages.Users),
        _capability("exec", messages.Exec, dangerous=True, duration="timeout"),
        _capability("ssh-keys", messages.SshKeys, dangerous=True),
        _capability("set-password", messages.SetPassword, dangerous=True),
        _capability("file-read", messages.FileRead, dangerous=True),
        _capability("file-write", messages.FileWrite, dangerous=True),
    )
)
