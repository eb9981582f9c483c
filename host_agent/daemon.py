"""The composition root: what the daemon is made of, what starts first and what stops last.

Services (discovery, the keeper of the state) are tasks; guests are callbacks. A service that dies ends the daemon, a guest
never does. SIGHUP reads the configuration again, SIGTERM and SIGINT end the daemon: what is in flight is given a while.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
import uuid
from collections.abc import Coroutine, Iterator
from typing import Any, Callable, Optional

from common.settings import SettingsError
from common.versions import Version

from . import config, deadlines, discovery, notify, release
from .api.access import Roles
from .api.application import make_application
from .api.listener import ControlSocketError, Listener
from .api.server import Server
from .budget import Limits
from .commands import Commands
from .config import Configuration
from .descriptors import Descriptors
from .discovery.combined import CombinedDiscovery, Directories, Fixed, Libvirt, Wanted
from .exits import Failure
from .feed import Feed
from .guest import Shared
from .handoff.engine import Handoffs
from .household import Household
from .meter import Meter
from .metrics import Levels, Metrics
from .migration import Migrations
from .registry import Registry
from .store import Keeper, Store
from .text import printable
from .watchdog import Watchdog

_log = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT)

#: What stopping takes at most beside what is in flight, in seconds.
_FAREWELL = 5.0


class Daemon:
    """One run of the daemon; to be made and run inside an event loop.

    :param reload: reads the configuration again; None: it is never read again.
    """

    def __init__(self, configuration: Configuration, reload: Optional[Callable[[], Configuration]] = None) -> None:
        self._configuration = configuration
        self._reload = reload
        self._host_id = uuid.uuid4().hex
        self._loop = loop = asyncio.get_running_loop()
        self._started = loop.time()
        self._descriptors = Descriptors()
        self._watchdog = Watchdog(loop)
        self._meter = Meter()
        self._limits = Limits()
        self._keeper = Keeper(Store(configuration.state), loop.time) if configuration.state else None
        self.feed = Feed(self._host_id)
        self.commands = Commands(loop, self._host_id, self._meter, self.feed, self._keeper)
        shared = Shared(
            self._meter,
            self.feed,
            self._limits,
            self._keeper,
            self.commands.completed,
            loop.call_at,
            self.commands.offered,
        )
        self._household = Household(loop, configuration, self._host_id, shared, self.commands, self._keeper)
        migrations = Migrations(loop, self.commands, self.registry, self.feed, deadlines.USUAL)
        self.handoffs = Handoffs(
            loop, configuration, self._household, self.commands, self._keeper, self.feed, self._meter, migrations
        )
        self._discovery = CombinedDiscovery(
            _sources(configuration), self._follow, self.feed.tell, self.handoffs.follow_migration
        )
        started_at = time.time()  # noqa: TID251 - people want to know when it was
        self._metrics = Metrics(self._meter, self.registry, loop.time, self._levels, started_at)
        self._listener: Optional[Listener] = None
        self._reloading: Optional[asyncio.Task[None]] = None
        self._reload_wanted = False
        self._stop = asyncio.Event()
        self.roles = Roles()
        self._take(configuration)

    async def run(self) -> None:
        """Serve until ``stop``, SIGTERM or SIGINT; a second signal ends the process at once.

        :raises Failure: it can't start.
        """
        self._listener = Listener(self._configuration.control, self.roles.shared)
        try:
            await self._serve(Server(make_application(self), self._listener.socket))
        finally:
            self._listener.close()
        _log.info("stopped")

    def stop(self) -> None:
        """End ``run``."""
        self._stop.set()

    def reload(self) -> None:
        """Read the configuration again, and treat everything by it from then on without touching a channel."""
        if self._reload is None or self._stop.is_set():
            return
        self._reload_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = self._loop.create_task(self._reconfigure_while_wanted(self._reload))

    # ---- For the control API ----

    @property
    def registry(self) -> Registry:
        """The guests."""
        return self._household.registry

    def clock(self) -> float:
        """The clock in which guests tell ages, in seconds."""
        return self._loop.time()

    async def render_metrics(self) -> tuple[bytes, str]:
        """What ``/metrics`` says, and its content type."""
        return await self._metrics.render()

    def describe_host(self) -> dict[str, Any]:
        """What ``/v1/host`` says, but for who asks."""
        supported = self._configuration.max_api_version
        return {
            "version": release(),
            "host_id": self._host_id,
            "started_s": round(self.clock() - self._started, 3),
            "api": {"supported": _number(supported), "versions": _versions(supported)},
            **self._discovery.status(),
            "guests": len(self.registry),
            "descriptors": {"limit": self._descriptors.limit, "used": self._descriptors.used()},
            "state": None if self._keeper is None else self._keeper.status(),
            "handoff": self.handoffs.describe(),
        }

    # ---- Start and end ----

    def _follow(self, event: discovery.Event) -> None:
        self._household.follow(event)
        too_few = self._descriptors.enough_for(len(self.registry))
        if too_few:
            _log.warning(too_few)

    async def _serve(self, server: Server) -> None:
        self._handle_signals()
        try:
            self._household.restore()
            await self.handoffs.open()
            self._discovery.open()
            await server.start()
            self._say_ready()
            await self._run_services()
        finally:
            await self._shut_down(server)

    async def _run_services(self) -> None:
        """Run until asked to stop; an error of a service is raised."""
        running: list[Coroutine[Any, Any, object]] = [self._stop.wait(), self._discovery.run()]
        if self._keeper is not None:
            running.append(self._keeper.run())
        tasks = [asyncio.ensure_future(each) for each in running]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            notify.tell(notify.STOPPING)
            notify.tell(notify.more_time(self._configuration.drain + _FAREWELL))
            await self.commands.drain(self._configuration.drain)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _shut_down(self, server: Server) -> None:
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)
        await self.commands.drain(0.0)
        await self.handoffs.close()
        await server.close()
        self._discovery.close()
        self._household.stop()
        if self._keeper is not None:
            await self._keeper.close()
        self._watchdog.close()
        for each in (*_ENDING, signal.SIGHUP):
            self._loop.remove_signal_handler(each)

    def _handle_signals(self) -> None:
        for each in _ENDING:
            self._loop.add_signal_handler(each, self._stop_by_signal)
        self._loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _stop_by_signal(self) -> None:
        _log.info("stopping")
        self.stop()
        for each in _ENDING:
            self._loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    def _say_ready(self) -> None:
        places = ", ".join(map(printable, _places(self._configuration)))
        listening = ", ".join(each["address"] for each in self.handoffs.describe()["listen"])
        _log.info(
            "ready: control socket %s; guests from %s%s",
            *(printable(self._configuration.control), places, listening and f"; peers come in at {listening}"),
        )
        notify.tell(notify.READY)
        self._watchdog.open()

    # ---- Configuration ----

    async def _reconfigure_while_wanted(self, read: Callable[[], Configuration]) -> None:
        """Whoever asks while files are read may have changed one of them that has been read already."""
        while self._reload_wanted:
            self._reload_wanted = False
            await self._reconfigure(read)

    async def _reconfigure(self, read: Callable[[], Configuration]) -> None:
        notify.tell(notify.reloading())
        try:
            new = await self._loop.run_in_executor(None, read)
            changes = config.changes(self._configuration, new)
            await self.handoffs.reconfigure(changes.configuration)
            self._discovery.exchange(_sources(changes.configuration))
            self._take(changes.configuration)
            self._household.reconfigure(changes.configuration)
            self._say_changed(changes)
        except (SettingsError, Failure) as error:
            _log.error("the configuration stays as it was: %s", printable(str(error)))
            self.feed.tell("configuration", text=f"stays as it was: {error}")
        finally:
            notify.tell(notify.READY)

    def _take(self, configuration: Configuration) -> None:
        """Treat by *configuration* what looks at it only now and then."""
        self._configuration = configuration
        self._limits.message_rate = configuration.limits_message_rate
        self._limits.byte_rate = configuration.limits_byte_rate
        self._limits.facts_size = configuration.limits_facts_size
        self.roles = Roles(configuration.operator_group, configuration.viewer_group)
        self._share()
        logging.getLogger().setLevel(configuration.log_level.upper())

    def _share(self) -> None:
        """Open the control socket for all whom the roles let in; what each may do is looked at with every question."""
        if self._listener is not None:
            try:
                self._listener.share(self.roles.shared)
            except ControlSocketError as error:
                _log.error("%s", printable(str(error)))

    def _say_changed(self, changes: config.Changes) -> None:
        text = f"changed: {', '.join(changes.now)}" if changes.now else "nothing changed"
        if changes.at_start:
            text += f"; not before the next start: {', '.join(changes.at_start)}"
        _log.info("configuration reloaded; %s", text)
        self.feed.tell("configuration", text=text)

    # ---- Itself ----

    def _levels(self) -> Levels:
        status = self._discovery.status()
        return Levels(
            supported=_number(self._configuration.max_api_version),
            commands=len(self.commands),
            unsent=self._meter.unsent,
            events=len(self.feed),
            events_ever=self.feed.last,
            state_rows=0 if self._keeper is None else self._keeper.waiting,
            state_failing=self._keeper is not None and bool(self._keeper.status()["failing"]),
            lost_sources=sum(not each["connected"] for each in status["libvirt"]),
        )


def _sources(configuration: Configuration) -> Iterator[Wanted]:
    if configuration.port:
        yield Fixed(tuple(configuration.port))
    for uri in configuration.libvirt:
        yield Libvirt(uri)
    if configuration.directory:
        yield Directories(configuration.directory)


def _places(configuration: Configuration) -> Iterator[str]:
    yield from configuration.libvirt
    yield from configuration.directory
    if configuration.port:
        yield "the configuration"


def _number(version: Optional[Version]) -> Optional[int]:
    return None if version is None else int(version)


def _versions(supported: Optional[Version]) -> list[int]:
    return [] if supported is None else [int(each) for each in Version if each <= supported]
