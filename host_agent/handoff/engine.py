"""The hand-offs of one daemon: what operators ask for, what libvirt tells of migrations, and what other hosts ask for.

``departures`` has the guests that go, ``arrivals`` those that come, ``network`` the connections. Here they meet: a guest
that libvirt stops, to run it on another host, is prepared there; it is handed over when it is gone, and goes on when it is
not. Where nobody awaits a guest, nothing is handed over, and the other host agrees with it afresh.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Optional

from common.handoff import destination, files, source
from common.handoff.errors import HandoffError, WouldLose
from common.handoff.vm import Vm
from host_agent.commands import Answer, Commands, Moved
from host_agent.config import Configuration
from host_agent.discovery import Migration
from host_agent.feed import Feed
from host_agent.guest import Guest
from host_agent.household import Household
from host_agent.meter import Meter
from host_agent.migration import Migrations
from host_agent.refusals import refuse_away
from host_agent.store import Keeper
from host_agent.text import printable

from .arrivals import Arrivals
from .departures import Departures, NotTaken, Wishes
from .entrance import Entrance
from .network import Doors
from .outcomes import Handed, HandoffFailed
from .security import PLAIN_TEXT, Security
from .sessions import session_of

_log = logging.getLogger(__name__)

#: How long a VM that libvirt says to be on its way is awaited, in seconds.
INCOMING_PATIENCE = 86_400.0


class Handoffs:
    """See ``api.facade.Handoffs``.

    :param source_terms: what this host writes, and ``destination_terms`` what it reads; lower ones play an older release.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        configuration: Configuration,
        household: Household,
        commands: Commands,
        keeper: Optional[Keeper],
        feed: Feed,
        meter: Meter,
        migrations: Migrations,
        source_terms: source.Terms = source.Terms(),  # noqa: B008 - never changed
        destination_terms: destination.Terms = destination.Terms(),  # noqa: B008 - never changed
    ) -> None:
        self._loop = loop
        self._configuration = configuration
        self._household = household
        self._commands = commands
        self._feed = feed
        self._meter = meter
        self._migrations = migrations
        self._source_terms = source_terms
        self._destination_terms = destination_terms
        self._departures = Departures(loop, household, commands, keeper, feed, meter, self._wishes)
        self._arrivals = Arrivals(loop, household, commands, keeper, self._understood, self._note_arrival)
        self._doors = Doors(loop, self._arrivals.serve)
        self._entrance = Entrance(loop, self._doors, feed)
        commands.is_awaited = lambda guest: self._arrivals.awaits(Vm(guest.uuid, guest.name))
        #: What is done about migrations, and by guest the last of it: one is done after the other.
        self._jobs: set[asyncio.Task[None]] = set()
        self._last_job: dict[Guest, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Take guests as soon as that can be, and find out what became of those in doubt."""
        self._arrivals.restore()
        self._departures.restore()
        _warn_of_plain_text(self._configuration)
        await self._entrance.open(self._configuration.handoff_listen, Security.of(self._configuration))

    async def reconfigure(self, configuration: Configuration) -> None:
        """Do as another configuration says from now on; connections that are there go on.

        :raises Failure: an address can't be listened at, or a file can't be used; then nothing has changed.
        """
        await self._entrance.change(configuration.handoff_listen, Security.of(configuration))
        self._configuration = configuration
        _warn_of_plain_text(configuration)

    async def close(self) -> None:
        """Take and hand over nothing any more."""
        await self._entrance.close()
        await self._arrivals.settle()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._departures.close()

    # ---- What operators ask for ----

    async def send(self, guest: Guest, to: Optional[str], allow_loss: bool = False) -> Handed:
        """Hand *guest* over; see the facade."""
        try:
            return await self._send(guest, to, allow_loss)
        except HandoffFailed as failure:
            self._note_failed(guest, failure)
            raise

    async def cancel(self, guest: Guest, force: bool = False) -> None:
        """Have *guest* stay; see the facade."""
        await self._departures.cancel(guest, force)

    def expect(self, name: str, uuid: Optional[str], patience: float) -> None:
        """Await a guest from another host, for *patience* seconds; see the facade."""
        if not self._configuration.handoff_listen:
            raise HandoffFailed(
                "handoff-off",
                f"{name} can't come here, for no host is let in: name an address of this host in [handoff] listen",
            )
        self._arrivals.awaited.expect(Vm(uuid, name), patience)

    def export(self, guest: Guest, spec: int, allow_loss: bool) -> bytes:
        """The file of what is known of *guest*; see the facade."""
        _check_here(guest)
        try:
            return files.write(session_of(guest, self._commands, self._loop.time()), spec, allow_loss)
        except WouldLose as error:
            raise HandoffFailed("would-lose", str(error), names=list(error.names)) from None
        except HandoffError as error:
            raise HandoffFailed("invalid-session", str(error)) from None

    async def take_in(self, content: bytes) -> Guest:
        """The guest that a file tells of; see the facade."""
        try:
            container = await self._loop.run_in_executor(None, files.read_container, content)
        except HandoffError as error:
            raise HandoffFailed("invalid-session", str(error)) from None
        guest = await self._arrivals.take_in(container.spec, container.vm)
        self._feed.tell("handoff", guest.name, text="taken in from a file")
        return guest

    def describe(self) -> dict[str, Any]:
        """Where peers come in, why they do not where they should, and which peers there are."""
        peers = [peer.name for peer in self._configuration.handoff_peers]
        return {"listen": self._doors.status(), "failing": self._entrance.failing, "peers": peers}

    def status(self) -> list[dict[str, Any]]:
        """The hand-offs that are under way or in doubt, and the guests that are awaited."""
        leaving = (
            {"role": "source", **each, "peer": each["peer"] or self._going_to(each["guest"])}
            for each in self._departures.status()
        )
        coming = ({"role": "destination", "since_s": None, **each} for each in self._arrivals.status())
        return [*leaving, *coming]

    async def follow(self, moved: Moved, patience: float) -> Answer:
        """How a command that went along with its guest ended; see the facade."""
        return await self._departures.follow(moved, patience)

    async def begin(self, guest: Guest, patience: Optional[float]) -> Optional[Answer]:
        """Tell *guest* that it is about to migrate; see the facade."""
        answer = self._migrations.begins(guest, patience)
        try:
            return None if answer is None else await answer
        except Moved as moved:
            text = f"{guest.name} moved to {moved.to} before it had made itself ready: what it answers goes there"
            raise HandoffFailed("moved", text, to=moved.to) from None

    def failed(self, guest: Guest) -> None:
        """Tell *guest* that its migration failed."""
        self._migrations.failed(guest)

    def arrived(self, guest: Guest) -> None:
        """Tell *guest* that it has migrated, as soon as it can be told."""
        self._migrations.arrived(guest)

    # ---- What libvirt tells ----

    def follow_migration(self, stage: Migration, name: str, uuid: Optional[str]) -> None:
        """The VM called *name* is at that stage of a migration."""
        if stage is Migration.INCOMING and self._configuration.handoff_listen:
            self.expect(name, uuid, INCOMING_PATIENCE)
        elif stage is not Migration.ARRIVED:
            # Wherever it goes from here, or does not come from: it is not on its way here.
            self._arrivals.awaited.arrived(Vm(uuid, name))
        guest = self._household.registry.find_vm(name, uuid)
        if guest is None:
            return
        self._tell(stage, guest)
        if stage is Migration.FAILED:
            self._departures.stop_preparing(guest)
        work = self._work(stage, guest)
        if work is not None:
            job = self._last_job[guest] = self._loop.create_task(self._after(self._last_job.get(guest), guest, work))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    def _tell(self, stage: Migration, guest: Guest) -> None:
        """Tell the guest itself."""
        if stage is Migration.BEGINS:
            self._migrations.begins(guest)
        elif stage is Migration.FAILED:
            self._migrations.failed(guest)
        elif stage is Migration.ARRIVED:
            self._migrations.arrived(guest)

    def _work(self, stage: Migration, guest: Guest) -> Optional[Coroutine[Any, Any, None]]:
        peers = self._configuration.handoff_peers
        if stage is Migration.LEAVING and peers:
            return self._leave(guest)
        if stage is Migration.LEFT and (peers or guest.moving):
            return self._depart(guest)
        return self._remain(guest) if stage is Migration.FAILED and (peers or guest.moving) else None

    async def _after(self, before: Optional[asyncio.Task[None]], guest: Guest, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* when what is done about the same guest is done."""
        try:
            if before is not None:
                await asyncio.wait([before])
            await work
        except HandoffFailed as failure:
            self._note_failed(guest, failure)
        finally:
            work.close()
            if self._last_job.get(guest) is asyncio.current_task():
                del self._last_job[guest]

    async def _leave(self, guest: Guest) -> None:
        await self._departures.prepare(guest)

    async def _depart(self, guest: Guest) -> None:
        to = None
        if self._departures.is_prepared(guest):
            try:
                await self._departures.complete(guest)
                return
            except NotTaken as broken:
                to = broken.peer
        await self._send(guest, to)

    async def _remain(self, guest: Guest) -> None:
        if guest.moving:
            await self._departures.cancel(guest)

    async def _send(self, guest: Guest, to: Optional[str], allow_loss: bool = False) -> Handed:
        try:
            return await self._departures.send(guest, to, allow_loss)
        except HandoffFailed:
            self._meter.handoffs["failed"] += 1
            raise

    def _going_to(self, name: str) -> Optional[str]:
        """The host that was named for the guest of that name, which none has prepared yet."""
        guest = self._household.registry.find(name)
        return None if guest is None else guest.moving_to

    def _note_failed(self, guest: Guest, failure: HandoffFailed) -> None:
        text = f"{'perhaps' if failure.kind == 'in-doubt' else 'not'} handed over: {failure}"
        _log.warning("%s: %s", printable(guest.name), printable(text))
        self._feed.tell("handoff", guest.name, text=text)

    # ---- What the parts want to know ----

    def _wishes(self) -> Wishes:
        configuration = self._configuration
        terms = self._source_terms._replace(
            api_maximum=_number(configuration), allow_loss=self._source_terms.allow_loss or configuration.handoff_allow_loss
        )
        return Wishes(configuration.handoff_peers, Security.of(configuration), terms)

    def _understood(self) -> destination.Terms:
        return self._destination_terms._replace(api_maximum=_number(self._configuration))

    def _note_arrival(self, guest: Guest, peer: str) -> None:
        self._feed.tell("handoff", guest.name, text=f"taken over from {peer}")
        self._meter.handoffs["taken-over"] += 1
        self._migrations.arrived(guest)


def _check_here(guest: Guest) -> None:
    """:raises HandoffFailed: what this host knows of *guest* is not the last that is known."""
    away = refuse_away(guest)
    if away is None:
        return
    if guest.departure is not None:
        raise HandoffFailed("in-doubt", str(away), to=guest.departure.peer)
    raise HandoffFailed(away.kind, str(away), **away.members)


def _warn_of_plain_text(configuration: Configuration) -> None:
    if configuration.handoff_security == PLAIN_TEXT and (configuration.handoff_listen or configuration.handoff_peers):
        _log.warning(
            "[handoff] security is plain-text: whoever can reach the port may read, change and hand over sessions; "
            "set it to tls, except for tests"
        )


def _number(configuration: Configuration) -> Optional[int]:
    return None if configuration.max_api_version is None else int(configuration.max_api_version)
