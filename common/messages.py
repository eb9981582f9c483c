"""One frozen class per message, and how each travels.

A class says what a message means and which arguments it has; its name, direction and version stand in ``catalogue``.
Names of arguments are the wire's, and so are their types (see ``fields``). Unknown arguments are ignored.

Units are those of the deployed agents: memory in KiB, disks in bytes, offsets in minutes, time-outs in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional, TypeVar, Union

from .fields import (
    BOOLEAN,
    INTEGER,
    NATURAL,
    NUMBER_TEXT,
    POSITIVE,
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


class Echo(Message):
    """Send the same arguments back; and what comes back."""

    more: Mapping[str, Any] = rest()


class LockScreen(Message):
    """Lock the screen."""


class LogOff(Message):
    """Log the active user off."""


class Login(Message):
    """Log a user in; the name is ``user`` or ``user@domain``."""

    username: str = argument("username", TEXT)
    password: str = argument("password", TEXT, secret=True)


class Shutdown(Message):
    """Shut the guest down after *timeout* seconds; *reboot* is the string ``True`` or ``False``."""

    timeout: int = argument("timeout", NATURAL)
    message: str = argument("message", TEXT)
    reboot: str = argument("reboot", one_of("True", "False"))


class Hibernate(Message):
    """Suspend the guest to disk or to memory."""

    state: str = argument("state", one_of("disk", "mem"), default="disk")


class SetNumberOfCpus(Message):
    """Bring CPUs on- or offline; the guest answers number-of-cpus."""

    count: int = argument("count", POSITIVE)


class LifecycleEvent(Message):
    """Something happens to the whole VM: the guest runs its hooks, then answers completion where there is a reply id."""

    #: Which of its events there are is known to the guest agent, which answers an unknown one, too.
    type: str = argument("type", TEXT)
    failure: Optional[bool] = argument("failure", BOOLEAN, default=None, lenient=True)
    reply_id: Optional[str] = argument("reply_id", TEXT, default=None)


class Completion(Message):
    """The answer to a command with a reply id; more members depend on the command."""

    reply_id: str = argument("reply_id", TEXT)
    done: bool = argument("done", BOOLEAN)
    more: Mapping[str, Any] = rest()
