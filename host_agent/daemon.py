"""The composition root: what the daemon is made of, what starts first and what stops last.

Services (discovery, the keeper of the state) are tasks; guests are callbacks. A service that dies ends the daemon, a guest
never does.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import uuid
from collections.abc import Coroutine
from typing import Any, Optional

from aiohttp import web

from common.session import HostSession
from common.versions import Version

from . import discovery, notify, release
from .alarm import Alarm
from .api import application
from .api.listener import Listener
from .config import Configuration
from .connector import Connector
from .discovery.directory import DirectoryDiscovery
from .guest import Fact, Guest
from .registry import Registry
from .store import Keeper, Store
from .text import printable

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Daemon:
    """One run of the daemon; to be made and run inside an event loop."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._host_id = uuid.uuid4().hex
        self._loop = asyncio.get_running_loop()
        self._registry = Registry(self._make_guest, configuration.forget_after)
        self._forgetting = Alarm(self._loop, self._forget)
        self._connectors: dict[str, Connector] = {}
        self._discovery = DirectoryDiscovery(configuration.directory, self._follow)
        self._keeper = Keeper(Store(configuration.state), self._loop.time) if configuration.state else None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until ``stop``, SIGTERM or SIGINT; a second signal ends the process at once.

        :raises Failure: it can't start.
        """
        listener = Listener(self._configuration.control)
        try:
            await self._serve(listener)
        finally:
            listener.close()
        _log.info("stopped")

    def stop(self) -> None:
        """End ``run``."""
        self._stop.set()

    async def _serve(self, listener: Listener) -> None:
        for each in _SIGNALS:
            self._loop.add_signal_handler(each, self._stop_by_signal)
        runner = web.AppRunner(
            application.make_application(self._registry, self._describe, self._loop.time), access_log=None
        )
        try:
            self._restore()
            self._discovery.open()
            await runner.setup()
            await web.SockSite(runner, listener.socket).start()
            self._say_ready()
            await self._run_services()
        finally:
            await self._shut_down(runner)

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
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _shut_down(self, runner: web.AppRunner) -> None:
        notify.tell(notify.STOPPING)
        await runner.cleanup()
        self._discovery.close()
        self._forgetting.cancel()
        for connector in self._connectors.values():
            connector.stop("this daemon stops")
        if self._keeper is not None:
            await self._keeper.close()
        for each in _SIGNALS:
            self._loop.remove_signal_handler(each)
        # Sockets that were let go are closed when the loop comes to it.
        await asyncio.sleep(0)

    def _stop_by_signal(self) -> None:
        _log.info("stopping")
        self.stop()
        for each in _SIGNALS:
            self._loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    # ---- Guests ----

    def _follow(self, event: discovery.Event) -> None:
        """Discovery found something."""
        now = self._loop.time()
        if isinstance(event, discovery.Added):
            guest = self._registry.arrived(event.name)
            if event.name not in self._connectors:
                self._connectors[event.name] = Connector(self._loop, guest)
            self._connectors[event.name].aim(event.path)
        else:
            self._connectors.pop(event.name).stop("its socket vanished")
            self._registry.left(event.name, now).vanished(now)
            self._forget()

    def _make_guest(self, name: str) -> Guest:
        session = HostSession(
            self._configuration.max_api_version,
            self._host_id,
            silence_limit=self._configuration.unresponsive_after,
        )
        return Guest(name, session, self._loop.time(), self._keep, self._loop.call_at)

    def _keep(self, guest: str, name: str, fact: Fact) -> None:
        if self._keeper is not None:
            self._keeper.put(guest, name, fact)

    def _forget(self) -> None:
        for name in self._registry.tick(self._loop.time()):
            _log.info("%s: forgotten", printable(name))
            if self._keeper is not None:
                self._keeper.forget(name)
        self._forgetting.set(self._registry.next_deadline())

    def _restore(self) -> None:
        if self._keeper is not None:
            for name, facts in self._keeper.load().items():
                self._registry.left(name, self._loop.time()).restore(facts)
            self._forget()

    # ---- Itself ----

    def _describe(self) -> dict[str, Any]:
        supported = self._configuration.max_api_version
        return {
            "version": release(),
            "host_id": self._host_id,
            "api": {"supported": _number(supported), "versions": _versions(supported)},
            "directories": list(self._configuration.directory),
            "guests": len(self._registry),
        }

    def _say_ready(self) -> None:
        directories = ", ".join(map(printable, self._configuration.directory))
        _log.info("ready: control socket %s; directories %s", printable(self._configuration.control), directories)
        notify.tell(notify.READY)


def _number(version: Optional[Version]) -> Optional[int]:
    return None if version is None else int(version)


def _versions(supported: Optional[Version]) -> list[int]:
    return [] if supported is None else [int(each) for each in Version if each <= supported]
