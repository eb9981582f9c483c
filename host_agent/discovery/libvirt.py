"""Ports of the domains that a libvirt daemon on this machine runs; libvirt tells their full names and UUIDs, too.

An event of libvirt is only a reason to look at the domain's live XML again; what counts is what that shows then. The order
that leaves no gap is: register for events, then look at everything. A read-only connection suffices.

Calls of libvirt's library block, for as long as its daemon likes. So each daemon is spoken with in a thread of its own,
which posts what it sees to the event loop; the library's own event loop has one thread in a process. A daemon that does not
answer any more is noticed by keep-alive messages. While it is away, the guests that are known stay: their VMs run on
without it. It is tried again, less and less often, and what has changed meanwhile is reported then.

That a domain begins to leave, and that it stays after all, is no event of its life. Its memory being sent away is one, but
also where it is saved or dumped; what counts is the job that the daemon then names, which is looked at again and again
while the domain is about to leave, and only then.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import queue
import threading
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Callable, NamedTuple, Optional, Union

from host_agent.connector import Backoff
from host_agent.exits import Exit, Failure
from host_agent.text import printable

from . import Added, Event, Migration, Moving, Report, Tell, ignore
from .domains import Domains, Unusable, port_of
from .journeys import Journeys, Step

_log = logging.getLogger(__name__)

#: Seconds between two keep-alive messages, and how many of them may remain unanswered.
_KEEP_ALIVE = (5, 3)

#: The first wait for a daemon that can't be reached, in seconds.
_FIRST_WAIT = 0.1

#: Besides those of a domain's life, the events after which its port can be there, or elsewhere, or gone.
_DEVICE_EVENTS = ("DEVICE_ADDED", "DEVICE_REMOVED")

#: How often the job of a domain is looked at that is about to leave, in seconds.
_JOB_PERIOD = 1.0

#: The kinds of events of a domain's life that can belong to a migration, by libvirt's names.
_KINDS = ("STARTED", "SUSPENDED", "RESUMED", "STOPPED")

#: Their reasons that do, for operators.
_TEXTS = {
    ("STARTED", "MIGRATED"): "arrives from another host",
    ("RESUMED", "MIGRATED"): "runs on this host now",
    ("RESUMED", "POSTCOPY"): "runs on this host now, and still fetches memory from the other one",
    ("RESUMED", "POSTCOPY_FAILED"): "runs on, but its memory can't be fetched from the other host",
    ("SUSPENDED", "MIGRATED"): "is stopped here, to run on another host",
    ("SUSPENDED", "POSTCOPY"): "runs on another host now, which still fetches memory from this one",
    ("SUSPENDED", "POSTCOPY_FAILED"): "is stopped: its memory can't be fetched from the other host",
    ("STOPPED", "MIGRATED"): "has left for another host",
}

#: What no such event says, for operators.
_FURTHER_TEXTS = {
    Migration.BEGINS: "is being sent to another host",
    Migration.FAILED: "stays on this host: its migration failed",
    Migration.TURNED_BACK: "does not arrive: its migration failed",
}

#: Why the daemon's connection was closed, by libvirt's names.
_CLOSED = {"ERROR": "the connection broke", "EOF": "the daemon ended it", "KEEPALIVE": "the daemon does not answer"}

#: What to do where a daemon can't be reached.
_REMEDY = "start libvirt's daemon, or correct the URI"


class NoLibvirt(Failure):
    """The library is not installed."""

    status = Exit.BAD_CONFIGURATION


class LibvirtDiscovery:
    """Reports the ports of the domains behind *uri*; to be made inside an event loop.

    :param report: called with every event.
    :param tell: told of migrations, and when the daemon comes and goes.
    :param backoff: the waits between attempts to connect.
    :param moving: called with where a migration stands. A VM that arrives has been reported by then, if it has a port; one
        that left is reported to have none only after that.
    """

    def __init__(
        self, uri: str, report: Report, tell: Tell, backoff: Optional[Backoff] = None, moving: Moving = ignore
    ) -> None:
        self._uri = uri
        self._picture = _Picture(uri, report, tell, moving)
        self._backoff = backoff or Backoff(first=_FIRST_WAIT)
        self._library: Optional[ModuleType] = None

    def open(self) -> None:
        """Load the library.

        :raises NoLibvirt: it is not installed.
        """
        self._library = load()

    async def settled(self) -> None:
        """Return when the daemon has answered and all of its domains have been looked at."""
        await self._picture.complete.wait()

    async def run(self) -> None:
        """Report changes until cancelled."""
        assert self._library is not None  # noqa: S101 - it is opened first
        conversation = _Conversation(self._library, self._uri, self._backoff, self._picture)
        conversation.start()
        try:
            await conversation.broken
        finally:
            conversation.stop()

    def close(self) -> None:
        """Nothing is held: the connection ends with ``run``."""

    def status(self) -> dict[str, Any]:
        """Whether the daemon is connected, and why not."""
        return {"libvirt": [{"uri": self._uri, "connected": self._picture.connected, "error": self._picture.error}]}


class _Picture:
    """What is known of the daemon and its domains."""

    def __init__(self, uri: str, report: Report, tell: Tell, moving: Moving) -> None:
        self.complete = asyncio.Event()
        self.connected = False
        self.error: Optional[str] = None
        self._uri = uri
        self._report = report
        self._tell = tell
        self._moving = moving
        self._domains = Domains()
        self._journeys = Journeys()

    def show_running(self, uuids: frozenset[str]) -> None:
        """These domains run, and no others; each will be looked at."""
        for step in self._journeys.keep(uuids):
            self._move(step)
        self._report_all(self._domains.keep(uuids))

    def show_port(self, uuid: str, port: Optional[Added]) -> None:
        """The domain has this port, or none."""
        self._report_all(self._domains.put(uuid, port))

    def show_complete(self) -> None:
        """The daemon is connected, and every domain has been looked at."""
        self.connected, self.error = True, None
        self.complete.set()
        self._say("connected", logging.INFO)

    def show_absence(self, why: str) -> None:
        """The daemon can't be spoken with. That is told once, until it can."""
        is_news = self.connected or self.error is None
        text = f"connection lost: {why}; the guests known stay" if self.connected else f"can't be reached: {why}; {_REMEDY}"
        self.connected, self.error = False, text
        if is_news:
            self._say(f"{text}; trying again", logging.WARNING)

    def show_life(self, life: _Life) -> None:
        """Something happened in the life of a domain."""
        text = _TEXTS.get((life.kind, life.reason))
        if text is not None:
            self._say_migration(life.name, text)
        self._move(self._journeys.happened(*life))

    def show_sending(self, name: str, uuid: str) -> None:
        """The domain's memory is being sent to another host."""
        self._move(self._journeys.begins(name, uuid))

    def show_staying(self, uuid: str) -> None:
        """It is so no longer, and the domain runs on here."""
        self._move(self._journeys.stays(uuid))

    def _move(self, step: Optional[Step]) -> None:
        if step is None:
            return
        text = _FURTHER_TEXTS.get(step.migration)
        if text is not None:
            self._say_migration(step.name, text)
        self._moving(*step)

    def _say_migration(self, name: str, text: str) -> None:
        _log.info("%s: %s", printable(name), text)
        self._tell("migration", name, text=text)

    def _report_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._report(event)

    def _say(self, text: str, level: int) -> None:
        _log.log(level, "%s: %s", printable(self._uri), printable(text))
        self._tell("discovery", source=self._uri, text=text)


class _Closed(Exception):
    """The connection ended by itself; the text says why."""


class _Life(NamedTuple):
    """Something happened in the life of a domain.

    :ivar kind, reason: by libvirt's names; empty where it can't belong to a migration.
    """

    name: str
    uuid: str
    kind: str
    reason: str


class _Sending(NamedTuple):
    """A domain's memory is being sent somewhere."""

    name: str
    uuid: str


_News = Union[str, _Life, _Sending, _Closed, None]


class _Conversation(threading.Thread):
    """Speaks with the daemon, and shows what it says to *picture* in the thread of the event loop.

    :ivar broken: fails when something went wrong that should not.
    """

    def __init__(self, library: ModuleType, uri: str, backoff: Backoff, picture: _Picture) -> None:
        super().__init__(name=f"libvirt {uri}", daemon=True)
        self._library = library
        self._uri = uri
        self._backoff = backoff
        self._picture = picture
        self._loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._stopped = threading.Event()
        #: UUIDs of domains to look at, what happened to others, the end of the connection, or None: the end of this thread.
        self._inbox: queue.SimpleQueue[_News] = queue.SimpleQueue()
        #: Domains that were warned of on this connection.
        self._warned: set[str] = set()
        #: Domains that are being sent to another host.
        self._leaving: set[str] = set()
        self._life = {_number(library, f"DOMAIN_EVENT_{kind}"): (kind, _reasons(library, kind)) for kind in _KINDS}
        self._reasons = {_number(library, f"CONNECT_CLOSE_REASON_{name}"): text for name, text in _CLOSED.items()}

    def stop(self) -> None:
        """Show nothing more, and end as soon as the library lets go of this thread."""
        self._stopped.set()
        self._inbox.put(None)

    def run(self) -> None:
        """Connect and follow what happens, again and again."""
        try:
            while not self._stopped.is_set():
                self._converse()
        except Exception as error:  # noqa: BLE001 - whoever waits for ``broken`` gets it
            self._post(self._break, error)

    def _break(self, error: Exception) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    def _converse(self) -> None:
        try:
            with self._connection() as connection:
                self._look_at_all(connection)
                self._backoff.reset()
                self._follow(connection)
        except (self._library.libvirtError, _Closed) as error:
            self._post(self._picture.show_absence, str(error))
            self._stopped.wait(self._backoff.wait())

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection with its events."""
        connection = self._library.openReadOnly(self._uri)
        registered = []
        try:
            self._keep_alive(connection)
            connection.registerCloseCallback(self._note_end, None)
            registered.append(self._register(connection, "LIFECYCLE", self._note_life))
            registered.append(self._register(connection, "MIGRATION_ITERATION", self._note_sending))
            for kind in _DEVICE_EVENTS:
                registered.append(self._register(connection, kind, self._note_device))
            yield connection
        finally:
            self._leave(connection, registered)

    def _keep_alive(self, connection: Any) -> None:
        try:
            connection.setKeepAlive(*_KEEP_ALIVE)
        except self._library.libvirtError as error:
            # A driver within this process has no connection that could die.
            if error.get_error_code() != self._library.VIR_ERR_NO_SUPPORT:
                raise

    def _register(self, connection: Any, kind: str, note: Callable[..., None]) -> int:
        number = _number(self._library, f"DOMAIN_EVENT_ID_{kind}")
        callback: int = connection.domainEventRegisterAny(None, number, note, None)
        return callback

    def _leave(self, connection: Any, registered: Iterable[int]) -> None:
        """Close the connection, and forget what still came on it."""
        undo = [functools.partial(connection.domainEventDeregisterAny, each) for each in registered]
        for each in (*undo, connection.unregisterCloseCallback, connection.close):
            with contextlib.suppress(self._library.libvirtError):
                each()
        self._warned.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()

    # ---- Looking ----

    def _look_at_all(self, connection: Any) -> None:
        domains = connection.listAllDomains(self._library.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        running = frozenset(domain.UUIDString() for domain in domains)
        self._leaving &= running
        self._post(self._picture.show_running, running)
        for domain in domains:
            self._look(connection, domain.UUIDString(), domain)
        self._post(self._picture.show_complete)

    def _follow(self, connection: Any) -> None:
        while True:
            try:
                news = self._inbox.get(timeout=_JOB_PERIOD if self._leaving else None)
            except queue.Empty:
                self._look_at_jobs(connection)
                continue
            if news is None or self._stopped.is_set():
                return
            self._take(connection, news)

    def _take(self, connection: Any, news: Union[str, _Life, _Sending, _Closed]) -> None:
        if isinstance(news, _Closed):
            raise news
        if isinstance(news, _Sending):
            self._look_whither(connection, news)
        elif isinstance(news, _Life):
            self._take_life(connection, news)
        else:
            self._look(connection, news)

    def _take_life(self, connection: Any, life: _Life) -> None:
        """Show what is there before what happens to it, and what happens before what is gone."""
        if life.kind == "STOPPED":
            self._leaving.discard(life.uuid)
            self._post(self._picture.show_life, life)
            self._look(connection, life.uuid)
        else:
            self._look(connection, life.uuid)
            self._post(self._picture.show_life, life)

    def _look(self, connection: Any, uuid: str, domain: Any = None) -> None:
        """Show the port of a domain as it is now; where that can't be told at present, what is known stays."""
        try:
            domain = domain or connection.lookupByUUIDString(uuid)
            port = port_of(domain.XMLDesc())
        except Unusable as error:
            self._warn_once(uuid, str(error))
            port = None
        except self._library.libvirtError as error:
            if not connection.isAlive():
                raise
            if error.get_error_code() != self._library.VIR_ERR_NO_DOMAIN:
                self._warn_once(uuid, str(error))
                return
            port = None
        self._post(self._picture.show_port, uuid, port)

    def _look_whither(self, connection: Any, sending: _Sending) -> None:
        """A domain's memory may be sent to a file as well."""
        if sending.uuid not in self._leaving and self._is_migrated(connection, sending.uuid):
            self._leaving.add(sending.uuid)
            self._post(self._picture.show_sending, *sending)

    def _look_at_jobs(self, connection: Any) -> None:
        for uuid in list(self._leaving):
            if self._is_migrated(connection, uuid) is False:
                self._leaving.discard(uuid)
                self._post(self._picture.show_staying, uuid)

    def _is_migrated(self, connection: Any, uuid: str) -> Optional[bool]:
        """Whether the domain is being sent to another host; None where it does not run any more, or it can't be told."""
        try:
            job = connection.lookupByUUIDString(uuid).jobStats()
        except self._library.libvirtError:
            if not connection.isAlive():
                raise
            return None
        operation = job.get(self._library.VIR_DOMAIN_JOB_OPERATION)
        return bool(operation == self._library.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)

    def _warn_once(self, uuid: str, text: str) -> None:
        if uuid not in self._warned:
            self._warned.add(uuid)
            _log.warning("%s: domain %s: %s", printable(self._uri), printable(uuid), printable(text))

    # ---- What the library calls, in the thread of its event loop: nothing that could wait ----

    def _note_life(self, _connection: object, domain: Any, kind: int, reason: int, _: object) -> None:
        name, reasons = self._life.get(kind, ("", {}))
        self._inbox.put(_Life(domain.name(), domain.UUIDString(), name, reasons.get(reason, "")))

    def _note_sending(self, _connection: object, domain: Any, _pass: int, _: object) -> None:
        self._inbox.put(_Sending(domain.name(), domain.UUIDString()))

    def _note_device(self, _connection: object, domain: Any, _alias: str, _: object) -> None:
        self._inbox.put(domain.UUIDString())

    def _note_end(self, _connection: object, reason: int, _: object) -> None:
        self._inbox.put(_Closed(self._reasons.get(reason, "the connection ended")))

    def _post(self, show: Callable[..., object], *arguments: object) -> None:
        # The loop may have ended before the library let go of this thread.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, show, arguments)

    def _deliver(self, show: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if not self._stopped.is_set():
            show(*arguments)


def _number(library: ModuleType, name: str) -> Optional[int]:
    """One of the library's constants; None where it is older than that."""
    return getattr(library, f"VIR_{name}", None)


def _reasons(library: ModuleType, kind: str) -> dict[int, str]:
    """The names of the reasons of this kind of event."""
    prefix = f"VIR_DOMAIN_EVENT_{kind}_"
    return {getattr(library, name): name[len(prefix) :] for name in dir(library) if name.startswith(prefix)}


def load() -> ModuleType:
    """The library, with its event loop running: it must be there before the first connection is made.

    :raises NoLibvirt: it is not installed.
    """
    try:
        library = importlib.import_module("libvirt")
    except ImportError:
        raise NoLibvirt(
            "Python's libvirt is missing: install python3-libvirt, or with pip vmaccord[libvirt], or name directories"
        ) from None
    _start_event_loop(library)
    return library


@functools.cache
def _start_event_loop(library: ModuleType) -> None:
    # Otherwise the library prints every error.
    library.registerErrorHandler(lambda _, __: None, None)
    library.virEventRegisterDefaultImpl()
    threading.Thread(target=_turn, args=(library,), name="libvirt events", daemon=True).start()


def _turn(library: ModuleType) -> None:
    while True:
        library.virEventRunDefaultImpl()
