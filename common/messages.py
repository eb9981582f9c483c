"""One frozen class per message, and how each travels.

A class says what a message means and which arguments it has; its name, direction and version stand in ``catalogue``.
Names of arguments are the wire's, and so are their types (see ``fields``). Unknown arguments are ignored. The reply id of a
command is no argument of it: any command may have one, and the session adds and takes it (see ``session``).

Units are those of the deployed agents: memory in KiB, disks in bytes, offsets in minutes, time-outs in seconds. What later
versions brought is in bytes and seconds; times are in nanoseconds since the epoch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional, TypeVar, Union

from .fields import (
    ANY,
    BASE64,
    BOOLEAN,
    INTEGER,
    NATURAL,
    NUMBER_TEXT,
    POSITIVE,
    SECONDS,
    TEXT,
    Argument,
    Rest,
    argument,
    arguments_of,
    list_of,
    mapping_of,
    one_of,
    record,
    rest,
)
from .records import Record, dataclass_transform

M = TypeVar("M", bound="Message")


_DECLARED: dict[type, tuple[Union[Argument, Rest], ...]] = {}


def declared(message_class: type) -> tuple[Union[Argument, Rest], ...]:
    """The arguments of *message_class*, as the documentation lists them."""
    if message_class not in _DECLARED:
        _DECLARED[message_class] = arguments_of(message_class)
    return _DECLARED[message_class]


class _Reader(NamedTuple):
    """How one field is read: with *check* where *wire* is there and right, which is nearly always, else with *read*."""

    attribute: str
    wire: Any  # None, which no argument is called, where there is no single one
    check: Callable[[Any], Any]
    read: Callable[[Mapping[str, Any], list[str]], Any]


_READERS: dict[type, tuple[_Reader, ...]] = {}


def _readers(message_class: type) -> tuple[_Reader, ...]:
    if message_class not in _READERS:
        _READERS[message_class] = tuple(
            _Reader(each.attribute, each.wire if isinstance(each, Argument) else None, each.kind.check, each.read)
            for each in declared(message_class)
        )
    return _READERS[message_class]


@dataclass_transform(frozen_default=True, field_specifiers=(argument,))
class Message(Record):
    """Base of all messages."""

    @classmethod
    def from_arguments(cls: type[M], arguments: Mapping[str, Any]) -> tuple[M, list[str]]:
        """Build the message from what a peer sent.

        :returns: the message, and the wire names of lenient arguments that were mistyped and took their defaults.
        :raises InvalidArguments: an argument is missing or mistyped.
        """
        mistyped: list[str] = []
        values: dict[str, Any] = {}
        for attribute, wire, check, read in _readers(cls):
            try:
                values[attribute] = check(arguments[wire]) if wire in arguments else read(arguments, mistyped)
            except ValueError:
                values[attribute] = read(arguments, mistyped)
        return cls.of_fields(values), mistyped

    def to_arguments(self) -> dict[str, Any]:
        """The arguments as the wire has them; an optional one that is None is left out."""
        arguments: dict[str, Any] = {}
        for each in declared(type(self)):
            each.write(getattr(self, each.attribute), arguments)
        return arguments


class Fact:
    """Marks a message that reports a state of the guest: the newest one replaces the one before."""


class Command:
    """Marks a message by which the host has the guest do something."""


class Code(enum.Enum):
    """Why a command failed, in the ``error`` of its completion."""

    UNSUPPORTED = "unsupported"
    DISABLED = "disabled"
    INVALID_ARGUMENTS = "invalid-arguments"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    BUSY = "busy"
    FROZEN = "frozen"


#: What each code says.
CODES = {
    Code.UNSUPPORTED: "the guest does not know this command",
    Code.DISABLED: "the guest's configuration does not let the host give it",
    Code.INVALID_ARGUMENTS: "an argument is missing, mistyped or out of bounds",
    Code.FAILED: "it could not be done, or only in part",
    Code.TIMED_OUT: "it took longer than it may, and was ended",
    Code.BUSY: "the guest has too much to do",
    Code.FROZEN: "file systems of the guest are frozen, so that it does nothing but thaw",
}


# ---- Negotiation ----


class Refresh(Message):
    """Report everything again. Carries the host's highest version, unless the host knows none."""

    api_version: Optional[int] = argument("apiVersion", NATURAL, default=None, lenient=True)
    #: Identity of this run of the host daemon; deployed oVirt hosts send none.
    host_id: Optional[str] = argument("hostId", TEXT, default=None, lenient=True)


class ApiVersion(Message):
    """The version to speak from now on."""

    api_version: int = argument("apiVersion", NATURAL)


class Heartbeat(Message, Fact):
    """The guest lives. Carries its highest version, unless the guest knows none."""

    free_ram: Optional[str] = argument("free-ram", NUMBER_TEXT, default=None, lenient=True)
    memory_stat: Optional[Mapping[str, int]] = argument("memory-stat", mapping_of(INTEGER), default=None, lenient=True)
    api_version: Optional[int] = argument("apiVersion", NATURAL, default=None, lenient=True)
    #: What the guest sends at; deployed oVirt guests do not say.
    api_version_in_use: Optional[int] = argument("apiVersionInUse", NATURAL, default=None, lenient=True)
    #: Identity of this run of the guest agent; deployed oVirt guests send none.
    agent_id: Optional[str] = argument("agentId", TEXT, default=None, lenient=True)


# ---- Facts ----


class HostName(Message, Fact):
    """The guest's host name."""

    name: str = argument("name", TEXT)


class OsVersion(Message, Fact):
    """The guest's kernel release."""

    version: str = argument("version", TEXT)


class NetworkInterfaces(Message, Fact):
    """Interfaces that are up, without loopback, each with its hardware and IP addresses."""

    interfaces: tuple[Mapping[str, Any], ...] = argument(
        "interfaces", list_of(record(name=TEXT, hw=TEXT, inet=list_of(TEXT), inet6=list_of(TEXT)))
    )


class Applications(Message, Fact):
    """Installed packages out of a configured list, as name-version or name-version-release."""

    applications: tuple[str, ...] = argument("applications", list_of(TEXT))


class DisksUsage(Message, Fact):
    """Mounted file systems with their size and use in bytes, and the device of each disk's serial number."""

    disks: tuple[Mapping[str, Any], ...] = argument(
        "disks", list_of(record(path=TEXT, fs=TEXT, total=NATURAL, used=NATURAL))
    )
    mapping: Optional[Mapping[str, Any]] = argument("mapping", mapping_of(record(name=TEXT)), default=None, lenient=True)


class ActiveUser(Message, Fact):
    """Who is logged in; the word ``None`` for nobody."""

    name: str = argument("name", TEXT)


class Fqdn(Message, Fact):
    """The guest's fully qualified domain name."""

    fqdn: str = argument("fqdn", TEXT)


class MemoryStats(Message, Fact):
    """What a heartbeat says of memory, on its own."""

    memory: Mapping[str, int] = argument("memory", mapping_of(INTEGER))


class NumberOfCpus(Message, Fact):
    """How many CPUs are online; -1 where that is unknown."""

    count: int = argument("count", INTEGER)


class OsInfo(Message, Fact):
    """The guest's operating system; empty where unknown."""

    version: str = argument("version", TEXT)
    distribution: str = argument("distribution", TEXT)
    codename: str = argument("codename", TEXT)
    arch: str = argument("arch", TEXT)
    type: str = argument("type", TEXT)
    kernel: str = argument("kernel", TEXT)


class Timezone(Message, Fact):
    """The guest's time zone, and its distance from UTC in minutes."""

    zone: str = argument("zone", TEXT)
    offset: int = argument("offset", INTEGER)


class Capabilities(Message, Fact):
    """What the guest lets the host do.

    A command that the guest knows is listed, with whether its configuration lets the host give it.
    """

    commands: Mapping[str, bool] = argument("commands", mapping_of(BOOLEAN))
    #: What else the guest can do, by names that each stand for one thing for ever.
    features: tuple[str, ...] = argument("features", list_of(TEXT))


class Containers(Message, Fact):
    """Containers that run in the guest."""

    containers: tuple[Mapping[str, Any], ...] = argument(
        "list", list_of(record(id=TEXT, names=list_of(TEXT), image=TEXT, command=TEXT, status=TEXT))
    )


# ---- Notices of the guest ----


class SessionStartup(Message):
    """The agent (or its session with this host) starts."""


class SessionShutdown(Message):
    """The guest shuts down."""


class SessionLogon(Message):
    """A user logged in."""


class SessionLogoff(Message):
    """A user logged off."""


class SessionLock(Message):
    """The screen was locked."""


class SessionUnlock(Message):
    """The screen was unlocked."""


class Uninstalled(Message):
    """The agent is being removed; old agents send it."""


# ---- Commands of the host, and their answers ----


class Echo(Message, Command):
    """Send the same arguments back; and what comes back."""

    more: Mapping[str, Any] = rest()


class LockScreen(Message, Command):
    """Lock the screen."""


class LogOff(Message, Command):
    """Log the active user off."""


class Login(Message, Command):
    """Log a user in; the name is ``user`` or ``user@domain``."""

    username: str = argument("username", TEXT)
    password: str = argument("password", TEXT, secret=True)


class Shutdown(Message, Command):
    """Shut the guest down after *timeout* seconds; *reboot* is the string ``True`` or ``False``."""

    timeout: int = argument("timeout", NATURAL)
    message: str = argument("message", TEXT)
    reboot: str = argument("reboot", one_of("True", "False"))


class Hibernate(Message, Command):
    """Suspend the guest to disk or to memory."""

    state: str = argument("state", one_of("disk", "mem"), default="disk")


class SetNumberOfCpus(Message, Command):
    """Bring CPUs on- or offline; the guest answers number-of-cpus."""

    count: int = argument("count", POSITIVE)


class LifecycleEvent(Message, Command):
    """Something happens to the whole VM: the guest runs its hooks."""

    #: Which of its events there are is known to the guest agent, which answers an unknown one, too.
    type: str = argument("type", TEXT)
    failure: Optional[bool] = argument("failure", BOOLEAN, default=None, lenient=True)


class Completion(Message):
    """The answer to a command with a reply id; what *result* has depends on the command.

    A guest that speaks a version without *result* and *error* may say in further members what they would.
    """

    reply_id: str = argument("reply_id", TEXT)
    done: bool = argument("done", BOOLEAN)
    result: Optional[Mapping[str, Any]] = argument("result", mapping_of(ANY), default=None, lenient=True, private=True)
    #: Only where it is not done. The code is one of ``Code``, or of a later version.
    error: Optional[Mapping[str, str]] = argument("error", record(code=TEXT, message=TEXT), default=None, lenient=True)
    more: Mapping[str, Any] = rest()


class Unsupported(Message):
    """The answer to a command without a reply id that the guest does not carry out; *api_version* is the guest's highest."""

    name: str = argument("name", TEXT)
    api_version: int = argument("apiVersion", NATURAL)
    reason: str = argument("reason", TEXT)


# ---- What backups need ----


class FilesystemFreeze(Message, Command):
    """Bring file systems into a consistent state and let nothing write to them until they are thawed.

    Whatever happens, they are thawed after *thaw_after* seconds.
    """

    thaw_after: float = argument("thaw_after", SECONDS)
    #: Where they are mounted; None: all that can be frozen.
    mountpoints: Optional[tuple[str, ...]] = argument("mountpoints", list_of(TEXT), default=None)


class FilesystemThaw(Message, Command):
    """Let all that was frozen be written to again. Nothing being frozen is no error."""


class FilesystemStatus(Message, Command):
    """Say whether file systems are frozen, which, and for how long still."""


class FilesystemTrim(Message, Command):
    """Tell the disks which blocks the file systems do not use; of pieces of at least *minimum* bytes."""

    minimum: Optional[int] = argument("minimum", NATURAL, default=None)


# ---- What operators need ----


class SetTime(Message, Command):
    """Set the clock to *epoch_ns*, or else from the hardware clock."""

    epoch_ns: Optional[int] = argument("epoch_ns", NATURAL, default=None)


class Suspend(Message, Command):
    """Suspend the guest to memory, to disk, or to both."""

    mode: str = argument("mode", one_of("memory", "disk", "hybrid"))


class Exec(Message, Command):
    """Run a program, and answer with its exit status and what it printed.

    After *timeout* seconds it is ended with its process group.
    """

    #: The program, as a path or a name, and its arguments; no shell reads them.
    argv: tuple[str, ...] = argument("argv", list_of(TEXT), private=True)
    timeout: float = argument("timeout", SECONDS)
    #: Variables beside the few that every program gets.
    environment: Optional[Mapping[str, str]] = argument("environment", mapping_of(TEXT), default=None, private=True)
    #: What it reads from standard input.
    input: Optional[str] = argument("input", TEXT, default=None, secret=True)
    #: How *input* and what the program printed travel.
    encoding: str = argument("encoding", one_of("text", "base64"), default="text")


class SshKeys(Message, Command):
    """List, add or remove the public keys with which a user may log in by SSH."""

    user: str = argument("user", TEXT)
    operation: str = argument("operation", one_of("list", "add", "remove"))
    keys: Optional[tuple[str, ...]] = argument("keys", list_of(TEXT), default=None, private=True)


class SetPassword(Message, Command):
    """Set a user's password; *crypted*: it is the hash that the guest is to store."""

    user: str = argument("user", TEXT)
    password: str = argument("password", TEXT, secret=True)
    crypted: bool = argument("crypted", BOOLEAN, default=False)


class FileRead(Message, Command):
    """Read a piece of a file: at most *count* bytes from *offset* on."""

    path: str = argument("path", TEXT)
    offset: int = argument("offset", NATURAL, default=0)
    count: Optional[int] = argument("count", POSITIVE, default=None)


class FileWrite(Message, Command):
    """Write a piece of a file, which is made if it does not exist: *content* from *offset* on.

    With *truncate* the file ends behind it.
    """

    path: str = argument("path", TEXT)
    content: str = argument("content", BASE64, private=True)
    offset: int = argument("offset", NATURAL, default=0)
    truncate: bool = argument("truncate", BOOLEAN, default=False)


class Load(Message, Command):
    """Say how much the guest has to do: load averages over 1, 5 and 15 minutes."""


class Users(Message, Command):
    """Say who is logged in: all sessions."""
