"""The guests of this host: who comes, who goes, who is called otherwise, and how each is kept connected.

Discovery's events come in here. A guest belongs to its VM: one that comes back under another name keeps what is known of
it, and another VM under the name of an old one gets nothing of that. One that was handed over to another host is known only
as long as its port is still here.
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
from .known import Departure
from .poller import Poller
from .registry import Registry
from .store import Keeper, Loaded
from .text import printable

_log = logging.getLogger(__name__)


class NameTaken(Exception):
    """The guest of another VM has that name here; the text is a sentence that says what to do."""


class Household:
    """All guests of one daemon.

    :param shared: what they have in common.
    :param keeper: where what must survive a restart is kept, if it is.
    :ivar loaded: what ``restore`` found there.
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
        self.loaded = Loaded()
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
        """Take what was known before this daemon ran. A guest whose hand-off is in doubt stays so.

        :raises MisplacedStateFile: the state file can't be where the configuration says.
        """
        if self._keeper is None:
            return
        self.loaded = self._keeper.load()
        for name, known in self.loaded.guests.items():
            guest = self.registry.left(name, self._loop.time())
            guest.uuid = known.uuid
            guest.restore(known.facts, known.history, known.commands)
            self._commands.resume(guest)
        for departure in self.loaded.departures:
            self._doubt(departure)
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

    def find_vm(self, name: str, uuid: Optional[str]) -> Optional[Guest]:
        """The guest of the VM *uuid*, or else the one called *name*; None: none, or one that is gone and can be replaced.

        :raises NameTaken: another VM has that name here.
        """
        guest = self.registry.find_vm(name, uuid)
        if guest is None or _can_be(guest, uuid):
            return guest
        if guest.path is not None or guest.moving:
            raise NameTaken(f"another VM is called {name} here: rename one of them, or remove the old one")
        return None

    def welcome(self, name: str, uuid: Optional[str]) -> Guest:
        """The guest that another host hands over, as ``find_vm`` finds it; an absent one where there is none.

        :raises NameTaken: another VM has that name here.
        """
        guest = self.find_vm(name, uuid)
        if guest is None and self.registry.find(name) is not None:
            self._forget(self.registry.remove(name))
        if guest is None or guest.path is None:
            guest = self._remember(name if guest is None else guest.name)
            self._forget_absent()
        return guest

    def hand_over(self, guest: Guest, to: str, transfer: str) -> None:
        """*guest* is the host *to*'s, by the hand-off *transfer*; it is forgotten at once where it has no port.

        As long as its port is here that stays on disk: after a restart this host must not take it for its own.
        """
        self._commands.hand_over(guest, to, transfer)
        guest.departed = transfer
        if guest.path is None:
            self.take_back(guest)
            if self.registry.find(guest.name) is guest:
                self._forget(self.registry.remove(guest.name))
        elif self._keeper is not None:
            self._keeper.put_departure(Departure(transfer, guest.name, guest.uuid, to, self._loop.time(), gone=True))

    def take_back(self, guest: Guest) -> None:
        """That *guest* was handed over counts no longer."""
        departed, guest.departed = guest.departed, None
        if self._keeper is not None and departed is not None:
            self._keeper.drop_departure(departed)

    def departure_of(self, guest: Guest) -> Optional[Departure]:
        """What is on disk of handing *guest* over; None: nothing."""
        if guest.departed is None or guest.moved_to is None:
            return guest.departure
        return Departure(guest.departed, guest.name, guest.uuid, guest.moved_to, self._loop.time(), gone=True)

    def stop(self) -> None:
        """Let go of all guests."""
        self._forgetting.cancel()
        for connector in self._connectors.values():
            connector.stop("this daemon stops")
        self._gate.close()
        self._poller.close()

    def _arrive(self, event: discovery.Added) -> None:
        known = self.registry.find(event.name)
        if known is not None and not _can_be(known, event.uuid):
            self._replace(known)
        guest = self.registry.arrived(event.name, event.uuid)
        if self._keeper is not None:
            self._keeper.put_guest(guest.name, event.uuid or guest.uuid)
        if event.name not in self._connectors:
            self._connectors[event.name] = Connector(self._around, guest, self._gate)
        self._connectors[event.name].aim(event.path, event.uuid)
        if guest.moved_to is None:
            self.take_back(guest)

    def _leave(self, name: str) -> None:
        now = self._loop.time()
        self._connectors.pop(name).stop("its socket vanished")
        guest = self.registry.left(name, now)
        guest.vanished(now)
        if guest.moved_to is not None:
            self.take_back(guest)
            self._forget(self.registry.remove(name))
        self._forget_absent()

    def _doubt(self, departure: Departure) -> None:
        guest = self.registry.find_vm(departure.guest, departure.uuid) or self._remember(departure.guest)
        if _can_be(guest, departure.uuid):
            guest.uuid = guest.uuid or departure.uuid
            self._remember_departure(guest, departure)

    def _remember_departure(self, guest: Guest, departure: Departure) -> None:
        if departure.gone:
            guest.moved_to, guest.departed = departure.peer, departure.transfer
        else:
            guest.departure = departure
            self._commands.hold(guest, departure.peer)

    def _remember(self, name: str) -> Guest:
        """The guest called *name*, which has no port, for another time from now on."""
        return self.registry.left(name, self._loop.time())

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
        self.take_back(guest)
        guest.forgotten()
        if self._keeper is not None:
            self._keeper.forget(guest.name)


def _can_be(guest: Guest, uuid: Optional[str]) -> bool:
    """Whether *guest* can be that of the VM *uuid*, as far as both are known."""
    return guest.uuid is None or uuid is None or guest.uuid == uuid
