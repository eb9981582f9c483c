"""Python's libvirt as it is seen from here, with a daemon that does what its test driver can't: plug, migrate, end, fail."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Optional, Union

from host_agent.discovery import PORTS


def domain_xml(name: str, uuid: str, path: Optional[str], number: Optional[int] = 1) -> str:
    """A domain, running where it has a *number*, with a port where there is a *path*."""
    running = "" if number is None else f" id='{number}'"
    source = f"<source mode='bind' path='{path}'/>" if path else ""
    channel = f"<channel type='unix'>{source}<target type='virtio' name='{PORTS[1]}'/></channel>"
    devices = f"<devices>{channel}</devices>"
    return f"<domain type='qemu'{running}><name>{name}</name><uuid>{uuid}</uuid>{devices}</domain>"


class Error(Exception):
    """An error of the library."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self._code = code

    def get_error_code(self) -> int:
        return self._code


class FakeLibvirt:
    """The module, and the one daemon that can be reached with it; tests change the daemon as they like."""

    libvirtError = Error  # noqa: N815 - as in the library
    VIR_ERR_NO_SUPPORT = 3
    VIR_ERR_NO_DOMAIN = 42
    VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
    VIR_CONNECT_CLOSE_REASON_ERROR = 0
    VIR_CONNECT_CLOSE_REASON_EOF = 1
    VIR_CONNECT_CLOSE_REASON_KEEPALIVE = 2
    VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = 15
    VIR_DOMAIN_EVENT_ID_DEVICE_ADDED = 19
    VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION = 20
    VIR_DOMAIN_JOB_OPERATION = "operation"
    VIR_DOMAIN_JOB_OPERATION_SAVE = 2
    VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT = 5
    VIR_DOMAIN_EVENT_STARTED = 2
    VIR_DOMAIN_EVENT_STARTED_BOOTED = 0
    VIR_DOMAIN_EVENT_STARTED_MIGRATED = 1
    VIR_DOMAIN_EVENT_SUSPENDED = 3
    VIR_DOMAIN_EVENT_SUSPENDED_PAUSED = 0
    VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED = 1
    VIR_DOMAIN_EVENT_RESUMED = 4
    VIR_DOMAIN_EVENT_RESUMED_MIGRATED = 1
    VIR_DOMAIN_EVENT_STOPPED = 5
    VIR_DOMAIN_EVENT_STOPPED_MIGRATED = 3
    VIR_DOMAIN_EVENT_STOPPED_FAILED = 5

    def __init__(self) -> None:
        #: Why the daemon can't be reached.
        self.refuses: Optional[Exception] = None
        #: Why a connection gets no keep-alive messages.
        self.keeps_not_alive: Optional[Exception] = None
        #: The running domains by UUID: XML, or what makes it, or why there is none.
        self.domains: dict[str, Union[str, Exception, Callable[[], str]]] = {}
        #: The operations of the jobs of some, or why one can't be told of its job.
        self.jobs: dict[str, Union[int, Exception]] = {}
        self.connections: list[FakeConnection] = []
        self.attempts = 0
        self.silenced = False

    # ---- The library ----

    def registerErrorHandler(self, handler: Callable[..., None], context: object) -> None:  # noqa: N802
        handler(context, ("an error that would be printed",))
        self.silenced = True

    def virEventRegisterDefaultImpl(self) -> None:  # noqa: N802
        """Nothing: the tests themselves call what was registered."""

    def virEventRunDefaultImpl(self) -> None:  # noqa: N802
        threading.Event().wait()

    def openReadOnly(self, uri: str) -> FakeConnection:  # noqa: N802
        self.attempts += 1
        if self.refuses is not None:
            raise self.refuses
        connection = FakeConnection(self)
        self.connections.append(connection)
        return connection

    # ---- What happens to it ----

    @property
    def connection(self) -> FakeConnection:
        """The last connection that was made."""
        return self.connections[-1]

    def run_domain(self, name: str, uuid: str, path: Optional[str] = None) -> None:
        """A domain runs, or does so otherwise; nobody is told."""
        self.domains[uuid] = domain_xml(name, uuid, path)

    def end(self, reason: int, error: Optional[Exception] = None) -> None:
        """The daemon goes, and refuses connections with *error* until that is taken back."""
        self.refuses = error
        self.connection.end(reason)


class FakeConnection:
    """A connection to the daemon."""

    def __init__(self, library: FakeLibvirt) -> None:
        self.alive = True
        self.closed = threading.Event()
        self._library = library
        self._numbers = itertools.count()
        self._callbacks: dict[int, tuple[int, Callable[..., None], object]] = {}
        self._when_closed: Optional[tuple[Callable[..., None], object]] = None

    def tell(self, kind: int, uuid: str, *arguments: object) -> None:
        """Something happened to a domain."""
        domain = FakeDomain(self._library, uuid)
        for registered, callback, opaque in list(self._callbacks.values()):
            if registered == kind:
                callback(self, domain, *arguments, opaque)

    def end(self, reason: int) -> None:
        self.alive = False
        if self._when_closed is not None:
            callback, opaque = self._when_closed
            callback(self, reason, opaque)

    def setKeepAlive(self, interval: int, count: int) -> int:  # noqa: N802
        if self._library.keeps_not_alive is not None:
            raise self._library.keeps_not_alive
        return 0

    def registerCloseCallback(self, callback: Callable[..., None], opaque: object) -> None:  # noqa: N802
        self._when_closed = (callback, opaque)

    def unregisterCloseCallback(self) -> None:  # noqa: N802
        self._when_closed = None
        if not self.alive:
            raise Error("the connection is closed")

    def domainEventRegisterAny(  # noqa: N802
        self, domain: None, kind: int, callback: Callable[..., None], opaque: object
    ) -> int:
        number = next(self._numbers)
        self._callbacks[number] = (kind, callback, opaque)
        return number

    def domainEventDeregisterAny(self, number: int) -> None:  # noqa: N802
        del self._callbacks[number]

    def isAlive(self) -> bool:  # noqa: N802
        return self.alive

    def listAllDomains(self, flags: int) -> list[FakeDomain]:  # noqa: N802
        return [FakeDomain(self._library, uuid) for uuid in self._library.domains]

    def lookupByUUIDString(self, uuid: str) -> FakeDomain:  # noqa: N802
        if uuid not in self._library.domains:
            raise Error("Domain not found", FakeLibvirt.VIR_ERR_NO_DOMAIN)
        return FakeDomain(self._library, uuid)

    def close(self) -> None:
        assert not self._callbacks, "closed with callbacks"
        self.alive = False
        self.closed.set()


class FakeDomain:
    """A domain as it is handed out."""

    def __init__(self, library: FakeLibvirt, uuid: str) -> None:
        self._library = library
        self._uuid = uuid

    def UUIDString(self) -> str:  # noqa: N802
        return self._uuid

    def name(self) -> str:
        return f"vm-{self._uuid}"

    def XMLDesc(self, flags: int = 0) -> str:  # noqa: N802
        described = self._library.domains[self._uuid]
        if isinstance(described, Exception):
            raise described
        return described if isinstance(described, str) else described()

    def jobStats(self) -> dict[str, int]:  # noqa: N802
        operation = self._library.jobs.get(self._uuid)
        if isinstance(operation, Exception):
            raise operation
        return {"type": 0} if operation is None else {"type": 2, FakeLibvirt.VIR_DOMAIN_JOB_OPERATION: operation}
