"""The guests of this host: who comes, who goes, who is called otherwise, and how each is kept connected.

Discovery's events come in here. A guest belongs to its VM: one that comes back under another name keeps what is known of
it, and another VM under the name of an old one gets nothing of that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Optional

from common.session import HostSession

from . import discovery
from .alarm import Alarm
from .channel import Surroundings
from .commands import Commands
from .config import Configuration
from .connector import Connector, Gate
from .guest import Guest, Shared
from .poller import Poller
from .registry import Registry
from .store import Keeper
from .text import printable

_log = logging.getLogger(__name__)


class Household:
    """All guests of one daemon.

    :param shared: what they have in common.
    :param keeper: where what must survive a restart is kept, if it is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        configuration: Configuration,
        host_id: str,
        shared: Shared,
        commands: Commands,
        keeper: Optional[Keeper],
    ) -> None:
        self._loop = loop
        self._configuration = configuration
        self._host_id = host_id
        self._shared = shared
        self._commands = commands
        self._keeper = keeper
        self.registry = Registry(self._make_guest, configuration.forget_after, self._rename)
        self._forgetting = Alarm(loop, self._forget_absent)
        self._poller = Poller(loop)
        self._around = Surroundings(loop, self._poller, shared.meter, shared.limits)
        self._gate = Gate(loop)
        self._connectors: dict[str, Connector] = {}

    def follow(self, event: discovery.Event) -> None:
        """Discovery found something."""
        if isinstance(event, discovery.Added):
            self._arrive(event)
        else:
            self._leave(event.name)

    def restore(self) -> None:
        """Take what was known before this daemon ran.

        :raises MisplacedStateFile: the state file can't be where the configuration says.
        """
        if self._keeper is None:
            return
        for name, known in self._keeper.load().items():
            guest = self.registry.left(name, self._loop.time())
            guest.uuid = known.uuid
            guest.restore(known.facts, known.history, known.commands)
            self._commands.resume(guest)
        # None is too many before discovery had a chance to find them.
        self._forgetting.set(self.registry.next_deadline())

    def reconfigure(self, configuration: Configuration) -> None:
        """Treat all guests by another configuration from now on, without touching their channels."""
        old, self._configuration = self._configuration, configuration
        self.registry.remember_for(configuration.forget_after)
        self._forget_absent()
        now = self._loop.time()
        for guest in self.registry:
            guest.be_patient(configuration.unresponsive_after)
            if configuration.max_api_version != old.max_api_version:
                guest.support(configuration.max_api_version, now)

    def stop(self) -> None:
        """Let go of all guests."""
        self._forgetting.cancel()
        for connector in self._connectors.values():
            connector.stop("this daemon stops")
        self._gate.close()
        self._poller.close()

    def _arrive(self, event: discovery.Added) -> None:
        known = self.registry.find(event.name)
        if known is not None and event.uuid is not None and known.uuid not in (None, event.uuid):
            self._replace(known)
        guest = self.registry.arrived(event.name, event.uuid)
        if self._keeper is not None:
            self._keeper.put_guest(guest.name, event.uuid or guest.uuid)
        if event.name not in self._connectors:
            self._connectors[event.name] = Connector(self._around, guest, self._gate)
        self._connectors[event.name].aim(event.path, event.uuid)

    def _leave(self, name: str) -> None:
        now = self._loop.time()
        self._connectors.pop(name).stop("its socket vanished")
        self.registry.left(name, now).vanished(now)
        self._forget_absent()

    def _make_guest(self, name: str) -> Guest:
        session = HostSession(
            self._configuration.max_api_version,
            self._host_id,
            silence_limit=self._configuration.unresponsive_after,
            sent=self._shared.meter.sent,
        )
        return Guest(name, session, self._loop.time(), self._shared)

    def _rename(self, old: str, new: str) -> None:
        _log.info("%s: called %s now", printable(old), printable(new))
        if self._keeper is not None:
            self._keeper.rename(old, new)

    def _replace(self, guest: Guest) -> None:
        """Another VM has the name of *guest* now."""
        connector = self._connectors.pop(guest.name, None)
        if connector is not None:
            connector.stop("another VM has its name now")
        self._forget(self.registry.remove(guest.name))

    def _forget_absent(self) -> None:
        for guest in self.registry.tick(self._loop.time()):
            self._forget(guest)
        self._forgetting.set(self.registry.next_deadline())

    def _forget(self, guest: Guest) -> None:
        _log.info("%s: forgotten", printable(guest.name))
        self._commands.forget(guest)
        guest.forgotten()
        if self._keeper is not None:
            self._keeper.forget(guest.name)
