"""Guests that come from other hosts: who is awaited, what is answered to a source, and how a guest is taken.

A guest is this host's from the moment at which that is on disk; the source hears of it after that. Taking, once begun, goes
on to its end, whatever becomes of the connection, or of the daemon that is asked to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, NamedTuple, Optional

from common.handoff import conversions, destination, documents
from common.handoff.destination import Destination, Work
from common.handoff.documents import Spec
from common.handoff.errors import InvalidFrame
from common.handoff.frames import Request, Response
from common.handoff.greetings import Outcome
from common.handoff.refusals import Code, Refusal
from common.handoff.vm import Vm, of_session
from host_agent.commands import Commands
from host_agent.guest import Guest
from host_agent.household import Household, NameTaken
from host_agent.store import Keeper
from host_agent.text import printable

from . import talking
from .network import Connection, ConnectionLost
from .outcomes import HandoffFailed
from .sessions import adopt

_log = logging.getLogger(__name__)

#: So many guests are awaited at once; who is awaited for longest is forgotten first.
AWAITED_LIMIT = 10_000


class Awaited:
    """The VMs that are known to be on their way here, by UUID or name, each for a while. Pure.

    :param clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[Vm, float] = {}

    def expect(self, vm: Vm, patience: float) -> None:
        """Await *vm* for *patience* seconds."""
        self.arrived(vm)
        self._until[vm] = self._clock() + patience
        while len(self._until) > AWAITED_LIMIT:
            del self._until[next(iter(self._until))]

    def find(self, vm: Vm) -> Optional[Vm]:
        """The one that is awaited and can be *vm*, as far as both are known; None: there is none."""
        return next((each for each in self.all() if _can_be(each, vm)), None)

    def arrived(self, vm: Vm) -> None:
        """*vm* is not on its way any more."""
        self._until = {each: until for each, until in self._until.items() if not _can_be(each, vm)}

    def only(self) -> Optional[Vm]:
        """The one that is awaited; None: none is, or several."""
        awaited = self.all()
        return awaited[0] if len(awaited) == 1 else None

    def all(self) -> tuple[Vm, ...]:
        """Every one."""
        now = self._clock()
        self._until = {each: until for each, until in self._until.items() if now < until}
        return tuple(self._until)


class _Offer(NamedTuple):
    """A guest that a source, or a file, offers.

    :ivar vm: which VM's.
    :ivar at: when it was offered: ages and spans count from then.
    """

    spec: Spec
    vm: Vm
    at: float


class Arrivals:
    """What other hosts hand over to this one.

    :param keeper: where it is noted what was taken; None: that is forgotten with the daemon.
    :param arrived: called with each guest that was taken.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        household: Household,
        commands: Commands,
        keeper: Optional[Keeper],
        terms: Callable[[], destination.Terms],
        arrived: Callable[[Guest, str], None],
    ) -> None:
        self._loop = loop
        self._household = household
        self._commands = commands
        self._keeper = keeper
        self._terms = terms
        self._arrived = arrived
        self._book = destination.Arrivals()
        self._taking: set[asyncio.Task[Response]] = set()
        self._present: dict[Destination, str] = {}
        #: What each of them has offered.
        self._offers: dict[Destination, _Offer] = {}
        #: Those that are just being taken.
        self._arriving: set[Guest] = set()
        self.awaited = Awaited(loop.time)

    def restore(self) -> None:
        """Know what was taken before this daemon ran."""
        self._book = destination.Arrivals(self._household.loaded.taken)

    async def serve(self, connection: Connection) -> None:
        """Answer a source until one side ends the connection."""
        terms = self._terms()
        one = Destination(self._book, self, terms)
        self._present[one] = connection.peer
        try:
            await talking.attend(connection, one, lambda request: self._answer(one, request, terms, connection.peer))
        except InvalidFrame as error:
            # Whoever let it in says so, and not too often.
            raise ConnectionLost(f"{connection.peer}: {error}") from None
        finally:
            del self._present[one]
            self._offers.pop(one, None)
            one.closed()
            connection.close()

    async def settle(self) -> None:
        """Wait for what is just being taken."""
        if self._taking:
            await asyncio.wait(self._taking)

    def status(self) -> Iterator[dict[str, Any]]:
        """The guests that other hosts have prepared to hand over, and those that are awaited."""
        for one, peer in self._present.items():
            if one.session is not None:
                yield {"guest": self._offers[one].vm.name, "peer": peer, "phase": one.phase.value}
        for vm in self.awaited.all():
            yield {"guest": vm.name, "peer": None, "phase": "awaited"}

    async def take_in(self, spec: Spec, vm: Vm) -> Guest:
        """Take the guest of a file.

        :raises HandoffFailed: it can't be taken.
        """
        self._check_settled(spec, vm)
        refusal = self.objection(spec, vm)
        if refusal is None:
            offer = _Offer(spec, self._identity(spec, vm), self._loop.time())
            guest, refusal = await self._take(offer, None)
            if guest is not None:
                return guest
        assert refusal is not None  # noqa: S101 - who takes nothing says why
        kind = refusal.code if refusal.code in ("name-taken", "not-saved") else "invalid-session"
        raise HandoffFailed(kind, refusal.message)

    def _check_settled(self, spec: Spec, said: Vm) -> None:
        """A file says nothing of whose a guest is: that of one that is on its way, or gone, is not to be decided by it.

        :raises HandoffFailed: it is.
        """
        vm = self._identity(spec, said)
        known = self._household.registry.find_vm(vm.name, vm.uuid)
        if known is not None and known.moved_to is not None:
            text = f"{known.name} moved to {known.moved_to}: have it handed back there, or take it back with "
            raise HandoffFailed("moved", f"{text}'vmaccord handoff cancel --force {known.name}' first", to=known.moved_to)
        if known is not None and known.moving:
            kind = "moving" if known.departure is None else "in-doubt"
            text = f"{known.name} is being handed over from here: wait, or 'vmaccord handoff cancel {known.name}'"
            raise HandoffFailed(kind, text, **({} if known.departure is None else {"to": known.departure.peer}))

    # ---- What the conversation asks: see ``destination.House`` ----

    def awaits(self, vm: Vm) -> bool:
        """Whether it is known that this VM is on its way here."""
        return self.awaited.find(vm) is not None

    def remembers(self) -> bool:
        """Whether it is known which transfers were taken before this run."""
        return self._household.loaded.readable

    def outcomes(self, reply_ids: Iterable[str]) -> Mapping[str, Outcome]:
        """How those of the commands ended that came with a transfer and have ended."""
        found = ((reply_id, self._commands.outcome(reply_id)) for reply_id in reply_ids)
        return {
            reply_id: Outcome(each.done, max(0.0, each.after), each.more) for reply_id, each in found if each is not None
        }

    def objection(self, spec: Spec, vm: Vm) -> Optional[Refusal]:
        """Why this session can't be taken here; None: it can."""
        identity = self._identity(spec, vm)
        if not identity.name:
            return _refusal(
                Code.INVALID_SESSION, "it does not say which VM it is of: have this host await it, and nothing else"
            )
        try:
            known = self._household.find_vm(identity.name, identity.uuid)
        except NameTaken as error:
            return _refusal(Code.NAME_TAKEN, str(error))
        if known is not None and ((known.moving and known.departure is None) or known in self._arriving):
            return _refusal(Code.BUSY, f"{known.name} is just being handed over: try again in a moment")
        if self._keeper is not None and self._keeper.status()["failing"]:
            return _NOT_SAVED
        return None

    # ---- Answers ----

    async def _answer(self, one: Destination, request: Request, terms: destination.Terms, peer: str) -> Response:
        response = one.receive(request)
        if response is Work.READ:
            at = self._loop.time()
            offered = await self._loop.run_in_executor(None, destination.read, request.payload, terms.specs)
            response = one.prepare(offered)
            if one.session is not None:
                self._offers[one] = _Offer(one.session, self._identity(one.session, one.vm), at)
        elif response is Work.TAKE:
            task = self._loop.create_task(self._conclude(one, peer))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)
            response = await asyncio.shield(task)
        assert isinstance(response, Response)  # noqa: S101 - all work is done
        return response

    async def _conclude(self, one: Destination, peer: str) -> Response:
        offer = self._offers[one]
        guest: Optional[Guest] = None
        refusal: Optional[Refusal] = _UNEXPECTED
        try:
            guest, refusal = await self._take(offer, one.transfer)
        except Exception:  # noqa: BLE001 - the source must hear something, and the log says why
            _log.exception("unexpected error while a guest was taken over from %s", printable(peer))
        response = one.conclude(refusal)
        if guest is not None:
            _log.info(
                "%s: taken over from %s, protocol version %d, session spec %d",
                *(printable(guest.name), printable(peer), one.protocol, documents.number_of(offer.spec)),
            )
            self._arrived(guest, peer)
        return response

    async def _take(self, offer: _Offer, transfer: Optional[str]) -> tuple[Optional[Guest], Optional[Refusal]]:
        """Take the guest, once that is on disk; why not, if that can't be."""
        session = await self._loop.run_in_executor(None, conversions.convert, offer.spec)
        refusal = self.objection(offer.spec, offer.vm)
        if refusal is not None:
            return None, refusal
        try:
            guest = self._household.welcome(offer.vm.name, offer.vm.uuid)
        except NameTaken as error:
            return None, _refusal(Code.NAME_TAKEN, str(error))
        self._arriving.add(guest)
        arriving = guest
        try:
            if not await self._note(guest, transfer):
                return None, _NOT_SAVED
            with contextlib.suppress(NameTaken):
                # It may have been found out meanwhile that it had gone, and so it was forgotten.
                guest = self._household.welcome(offer.vm.name, offer.vm.uuid)
            guest.uuid = guest.uuid or offer.vm.uuid
            self.awaited.arrived(offer.vm)
            adopt(guest, session, self._commands, offer.at)
            if self._keeper is not None:
                await self._keeper.save()
        finally:
            self._arriving.discard(arriving)
        return guest, None

    async def _note(self, guest: Guest, transfer: Optional[str]) -> bool:
        """Have it on disk that *guest* is this host's; whether that is so. Until then it is the source's.

        Only who owns a guest hands it over: what this host knows of handing it over itself is outdated by it.
        """
        if self._keeper is None:
            self._household.take_back(guest)
            return True
        outdated = self._household.departure_of(guest)
        if transfer is not None:
            self._keeper.put_taken(transfer, guest.name)
        if outdated is not None:
            self._keeper.drop_departure(outdated.transfer)
        with self._held(guest):
            saved = await self._keeper.save()
        if saved:
            self._household.take_back(guest)
            return True
        if transfer is not None:
            self._keeper.drop_taken(transfer)
        if outdated is not None:
            self._keeper.put_departure(outdated)
        return False

    @contextlib.contextmanager
    def _held(self, guest: Guest) -> Iterator[None]:
        """Send *guest* nothing meanwhile."""
        if guest.moving or guest.moved_to is not None:
            yield
            return
        self._commands.hold(guest)
        try:
            yield
        finally:
            self._commands.release(guest)

    def _identity(self, spec: Spec, vm: Vm) -> Vm:
        """Which VM it is: what the document does not say, what came before it says, or that nothing else is awaited."""
        known = of_session(spec).beside(vm)
        nameless = not known.name and known.uuid is None
        awaited = self.awaited.only() if nameless else self.awaited.find(known)
        return known if awaited is None else known.beside(awaited)


def _can_be(one: Vm, other: Vm) -> bool:
    if one.uuid is not None and other.uuid is not None:
        return one.uuid == other.uuid
    return bool(one.name) and one.name == other.name


def _refusal(code: Code, message: str) -> Refusal:
    return Refusal(code.value, message)


_UNEXPECTED = _refusal(Code.NOT_SAVED, "an error that should not happen; the destination's log has more")
_NOT_SAVED = _refusal(Code.NOT_SAVED, "the destination can't write its state file: make room for it there")
