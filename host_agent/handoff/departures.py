"""Guests that go to other hosts: prepared, completed, and in doubt until the destination has said what became of them.

A guest that is on its way is *moving*: it is sent nothing, and all that waits for it waits on. It is this host's again as
soon as the hand-off fails before it was completed; commands in flight are as they were. After ``Complete`` was sent and not
answered it is *in doubt*, also over restarts of this daemon: it stays moving, and its destination is asked, again and again,
whether it has taken it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

from common.handoff import source, window
from common.handoff.errors import HandoffError, WouldLose
from common.handoff.refusals import Refused
from common.handoff.source import Conversation, NotAwaited, Prepared, Source
from common.handoff.vm import Vm
from host_agent.commands import Answer, Commands, Moved, TimedOut
from host_agent.config import Peer
from host_agent.connector import Backoff
from host_agent.feed import Feed
from host_agent.guest import Guest
from host_agent.household import Household
from host_agent.known import Departure
from host_agent.meter import Meter
from host_agent.store import Keeper
from host_agent.text import printable

from .network import ConnectionLost, Unreachable, dial
from .outcomes import Handed, HandoffFailed
from .security import Security, SecurityError
from .sessions import session_of
from .talking import PREPARED_PATIENCE, Line

_log = logging.getLogger(__name__)

#: How long a connection to a peer may take to come about, in seconds.
DIAL_PATIENCE = 10.0

#: A peer that can't say what became of a guest is asked again after so many seconds, then less and less often.
FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0

#: Whoever asked for a hand-off waits so long, in seconds, for the end of a doubt.
DOUBT_PATIENCE = 5.0

#: How often a destination is asked for the completion of a command that went along, in seconds.
FOLLOW_PERIOD = 1.0

#: A hand-off that broke before the guest was taken is begun again so many times.
ATTEMPTS = 3

#: What may go wrong with one peer.
_FAILURES = (HandoffError, ConnectionLost, Unreachable, SecurityError)


class Wishes(NamedTuple):
    """What the configuration says of hand-offs to other hosts."""

    peers: Sequence[Peer]
    security: Security
    terms: source.Terms


class _Departing:
    """A guest on its way.

    :ivar preparing: ends when a peer has prepared it, or none does.
    :ivar line: to the peer that has prepared it.
    :ivar cancelled: whether it is to stay as soon as that is possible.
    :ivar not_taken: whether that peer says, asked after a doubt, that it has not taken it.
    """

    preparing: asyncio.Task[None]

    def __init__(self, guest: Guest, since: float) -> None:
        self.guest = guest
        self.since = since
        self.transfer = uuid.uuid4().hex
        self.peer: Optional[Peer] = None
        self.line: Optional[Line] = None
        self.prepared: Optional[Prepared] = None
        self.cancelled = False
        self.not_taken = False
        #: Prepared for too long, it stays.
        self.timer: Optional[asyncio.TimerHandle] = None

    @property
    def phase(self) -> str:
        """For people."""
        if self.guest.departure is not None:
            return "in-doubt"
        return "preparing" if self.prepared is None else "prepared"

    def check_wanted(self) -> None:
        """:raises HandoffFailed: it is to stay."""
        if self.cancelled:
            raise _cancelled(self.guest) from None

    def give_up(self) -> None:
        """It is to stay; nobody needs to prepare it any more."""
        self.cancelled = True
        self.preparing.cancel()


class Departures:
    """What this host hands over.

    :param wishes: what the configuration says now.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        household: Household,
        commands: Commands,
        keeper: Optional[Keeper],
        feed: Feed,
        meter: Meter,
        wishes: Callable[[], Wishes],
    ) -> None:
        self._loop = loop
        self._household = household
        self._commands = commands
        self._keeper = keeper
        self._feed = feed
        self._meter = meter
        self._wishes = wishes
        self._departing: dict[Guest, _Departing] = {}
        #: Each finds out what became of a guest.
        self._asking: dict[asyncio.Task[None], Guest] = {}
        self._closed = False

    def restore(self) -> None:
        """Find out what became of the guests that were in doubt when this daemon ended."""
        left_over = {each.transfer for each in self._household.loaded.departures}
        for guest in self._household.registry:
            left_over.discard(guest.departed or "")
            if guest.departure is not None:
                left_over.discard(guest.departure.transfer)
                self._find_out(guest, guest.departure)
        if self._keeper is not None:
            # Another VM has the name of that guest: whosever it was, it is not this host's any more.
            for transfer in left_over:
                self._keeper.drop_departure(transfer)

    async def close(self) -> None:
        """Hand nothing over any more. What is in doubt is found out by the next run."""
        self._closed = True
        departing = list(self._departing.values())
        for each in departing:
            each.give_up()
            self._end_line(each)
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, *(each.preparing for each in departing), return_exceptions=True)

    def status(self) -> Iterator[dict[str, Any]]:
        """The guests that are on their way."""
        now = self._loop.time()
        for each in self._departing.values():
            peer = None if each.peer is None else each.peer.name
            yield {"guest": each.guest.name, "peer": peer, "phase": each.phase, "since_s": now - each.since}
        for guest in dict.fromkeys(self._asking.values()):
            if guest not in self._departing and guest.departure is not None:
                since = now - guest.departure.since
                yield {"guest": guest.name, "peer": guest.departure.peer, "phase": "in-doubt", "since_s": since}

    # ---- What can be asked for ----

    async def send(self, guest: Guest, to: Optional[str], allow_loss: bool = False) -> Handed:
        """Hand *guest* over to the peer *to*, or to the one that awaits it.

        :raises HandoffFailed: it is this host's, or in doubt.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._attempt(guest, to, allow_loss)
            except NotTaken as broken:
                to = broken.peer
        return await self._attempt(guest, to, allow_loss)

    async def _attempt(self, guest: Guest, to: Optional[str], allow_loss: bool) -> Handed:
        await self.prepare(guest, to, allow_loss)
        return await self.complete(guest)

    async def prepare(self, guest: Guest, to: Optional[str] = None, allow_loss: bool = False) -> None:
        """Have a peer prepare to take *guest*, which is moving from now on.

        :raises HandoffFailed: none does, and it is not moving.
        """
        self._check_here(guest)
        peers = self._peers(to)
        departing = self._departing[guest] = _Departing(guest, self._loop.time())
        self._commands.hold(guest, to)
        departing.preparing = self._loop.create_task(self._prepare_at_one(departing, peers, to is None, allow_loss))
        try:
            await departing.preparing
            departing.check_wanted()
        except BaseException:
            self._stay(departing)
            departing.check_wanted()
            raise
        departing.timer = self._loop.call_later(PREPARED_PATIENCE, self._give_up_waiting, departing)

    def _give_up_waiting(self, departing: _Departing) -> None:
        """Nobody has said for too long what became of the migration."""
        if departing.phase == "prepared":
            guest = departing.guest
            _log.warning("%s: prepared for too long; it goes on here", printable(guest.name))
            self._tell(guest, "prepared for too long: it goes on here")
            self._stay(departing)

    def stop_preparing(self, guest: Guest) -> None:
        """Have *guest* stay if no peer has prepared it yet."""
        departing = self._departing.get(guest)
        if departing is not None and departing.prepared is None:
            departing.give_up()

    def is_prepared(self, guest: Guest) -> bool:
        """Whether a peer is ready to take *guest*, and is not just asked to."""
        departing = self._departing.get(guest)
        return departing is not None and departing.phase == "prepared" and not departing.cancelled

    async def complete(self, guest: Guest) -> Handed:
        """Have the peer that has prepared it take *guest*.

        :raises HandoffFailed: it is this host's, or in doubt.
        """
        departing = self._departing[guest]
        prepared, peer = departing.prepared, departing.peer
        assert prepared is not None  # noqa: S101 - completed is what was prepared
        assert peer is not None  # noqa: S101 - by that peer
        if prepared.taken:
            self._go(guest, peer.name, departing.transfer)
        elif not await self._is_taken(departing, peer):
            text = f"the connection to {peer.name} broke before it took {guest.name}, which goes on here: try again"
            raise NotTaken(peer.name, text)
        handed = Handed(peer.name, prepared.protocol, prepared.spec or 0, prepared.lost)
        _log.info(
            "%s: hand-off to %s spoke protocol version %d, session spec %d; lost: %s",
            *(
                printable(guest.name),
                printable(peer.name),
                handed.protocol,
                handed.spec,
                ", ".join(handed.lost) or "nothing",
            ),
        )
        return handed

    async def cancel(self, guest: Guest, force: bool = False) -> None:
        """Have *guest* stay.

        :param force: also where nobody knows whether its destination has taken it, and where that has.
        :raises HandoffFailed: it can't, or nobody knows.
        """
        departing = self._departing.get(guest)
        if departing is not None:
            departing.give_up()
        if guest.departure is not None:
            await self._cancel_doubt(guest, guest.departure, force)
        elif departing is not None:
            await self._abandon(departing)
        elif guest.moved_to is not None and force:
            _log.warning("%s: taken back from %s by force", printable(guest.name), printable(guest.moved_to))
            guest.stay()
            self._household.take_back(guest)
        elif guest.moved_to is not None:
            raise HandoffFailed(
                "moved",
                f"{guest.name} moved to {guest.moved_to}: have it handed back there, "
                f"or, if it runs here and {guest.moved_to} will never claim it, take it back with --force",
                to=guest.moved_to,
            )
        else:
            raise HandoffFailed("not-moving", f"{guest.name} is not being handed over: there is nothing to cancel")

    async def follow(self, moved: Moved, patience: float) -> Answer:
        """How a command that went along ended, asked of the host where its guest is now.

        :raises TimedOut: it did not end within *patience* seconds.
        :raises HandoffFailed: that host is no peer any more.
        """
        (peer,) = self._peers(moved.to)
        deadline = self._loop.time() + patience
        while True:
            answer = await self._ask_for(peer, moved.reply_id, deadline - self._loop.time())
            if answer is not None:
                return answer
            if self._loop.time() + FOLLOW_PERIOD > deadline:
                raise TimedOut(patience)
            await asyncio.sleep(FOLLOW_PERIOD)

    # ---- Preparing ----

    async def _prepare_at_one(
        self, departing: _Departing, peers: Sequence[Peer], only_awaited: bool, allow_loss: bool
    ) -> None:
        terms = self._wishes().terms
        terms = terms._replace(only_awaited=only_awaited, allow_loss=terms.allow_loss or allow_loss)
        failures: list[tuple[Peer, Exception]] = []
        tasks = {asyncio.ensure_future(self._prepare_at(departing, peer, terms)): peer for peer in peers}
        try:
            waiting = set(tasks)
            while waiting and departing.prepared is None:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    failures += self._note_prepared(departing, tasks[task], task)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._close_others(departing, tasks)
        if departing.prepared is None:
            raise _worst(departing.guest, failures)

    def _note_prepared(
        self, departing: _Departing, peer: Peer, task: asyncio.Future[tuple[Line, Prepared]]
    ) -> Iterable[tuple[Peer, Exception]]:
        error = task.exception()
        if isinstance(error, _FAILURES):
            return [(peer, error)]
        line, prepared = task.result()
        if departing.prepared is None:
            departing.peer, departing.line, departing.prepared = peer, line, prepared
            self._commands.hold(departing.guest, peer.name)
        return ()

    @staticmethod
    def _close_others(departing: _Departing, tasks: Iterable[asyncio.Future[tuple[Line, Prepared]]]) -> None:
        for task in tasks:
            if not task.cancelled() and task.exception() is None and task.result()[0] is not departing.line:
                task.result()[0].close()

    async def _prepare_at(self, departing: _Departing, peer: Peer, terms: source.Terms) -> tuple[Line, Prepared]:
        guest = departing.guest

        def begin(protocol: int) -> Conversation[Prepared]:
            this = Source(departing.transfer, _vm(guest), self._session_of(guest), terms._replace(protocol=protocol))
            return this.prepare()

        return await self._converse(peer, terms.protocol, begin)

    async def _converse(self, peer: Peer, protocol: int, begin: Callable[[int], Conversation[Any]]) -> tuple[Line, Any]:
        """Have the conversation that *begin* makes for a protocol version, and once more with one that a refusal names."""
        try:
            return await self._converse_once(peer, begin(protocol))
        except Refused as refused:
            older = window.retry_with(refused.refusal, protocol)
            if older is None:
                raise
        _log.info("hand-off to %s: once more with protocol version %d", printable(peer.name), older)
        return await self._converse_once(peer, begin(older))

    async def _converse_once(self, peer: Peer, conversation: Conversation[Any]) -> tuple[Line, Any]:
        line = Line(await dial(peer, self._wishes().security, DIAL_PATIENCE))
        try:
            return line, await line.converse(conversation)
        except BaseException:
            line.close()
            raise

    def _session_of(self, guest: Guest) -> Callable[[], Any]:
        return lambda: session_of(guest, self._commands, self._loop.time())

    # ---- Completing ----

    async def _is_taken(self, departing: _Departing, peer: Peer) -> bool:
        """Ask the destination to take the guest; whether it has. If not, the guest is this host's.

        :raises HandoffFailed: that is not known, or it could not be asked to.
        """
        guest, line = departing.guest, departing.line
        assert line is not None  # noqa: S101 - there is one to who has prepared
        departure = Departure(departing.transfer, guest.name, guest.uuid, peer.name, self._loop.time())
        await self._note_doubt(departing, departure)
        if not _is_in_doubt(guest, departure):
            return _as_decided(guest, departure)
        try:
            await line.converse(source.complete())
        except Refused as refused:
            if not _is_in_doubt(guest, departure):
                return _as_decided(guest, departure)
            self._settle(guest, departure)
            self._stay(departing)
            raise _refused(peer, refused) from None
        except (HandoffError, ConnectionLost) as error:
            text = printable(str(error))
            _log.warning("%s: hand-off to %s in doubt: %s", printable(guest.name), printable(peer.name), text)
            self._tell(guest, f"perhaps taken by {peer.name}, which is asked until it is known")
            return await self._doubt(departing, departure)
        self._decide(guest, departure, True)
        return _as_decided(guest, departure)

    async def _note_doubt(self, departing: _Departing, departure: Departure) -> None:
        """From now on nobody may know whose the guest is; that is on disk before the destination is asked to take it."""
        guest = departing.guest
        guest.departure = departure
        if self._keeper is None:
            return
        self._keeper.put_departure(departure)
        if not await self._keeper.save() and _is_in_doubt(guest, departure):
            self._settle(guest, departure)
            await self._abandon(departing)
            raise HandoffFailed("not-saved", f"{guest.name} goes on here: the state file can't be written; make room for it")

    async def _doubt(self, departing: _Departing, departure: Departure) -> bool:
        guest = departing.guest
        self._end_line(departing)
        if _is_in_doubt(guest, departure) and not self._closed:
            await asyncio.wait([self._find_out(guest, departure)], timeout=DOUBT_PATIENCE)
        self._drop(departing)
        if _is_in_doubt(guest, departure):
            raise self._in_doubt(departure)
        if departing.not_taken and not departing.cancelled:
            return False
        return _as_decided(guest, departure)

    def _find_out(self, guest: Guest, departure: Departure) -> asyncio.Task[None]:
        task = self._loop.create_task(self._ask_until_known(guest, departure))
        self._asking[task] = guest
        task.add_done_callback(self._asking.pop)
        return task

    async def _ask_until_known(self, guest: Guest, departure: Departure) -> None:
        """Decide whose the guest is as soon as the destination says whether it has taken it."""
        backoff = Backoff(first=FIRST_WAIT, longest=LONGEST_WAIT)
        while self._is_to_find_out(guest, departure):
            taken = await self._ask(guest, departure)
            if taken is not None:
                self._decide(guest, departure, taken)
            elif self._is_to_find_out(guest, departure):
                await asyncio.sleep(backoff.wait())

    def _is_to_find_out(self, guest: Guest, departure: Departure) -> bool:
        # Before Python 3.12 wait_for can lose a cancellation: who asks looks for itself whether it should.
        return not self._closed and _is_in_doubt(guest, departure)

    async def _ask(self, guest: Guest, departure: Departure, cancelling: bool = False) -> Optional[bool]:
        """Whether the destination has taken the guest; None: that can't be found out now.

        :param cancelling: it is not to take it if it has not.
        """
        peer = next((each for each in self._wishes().peers if each.name == departure.peer), None)
        if peer is None:
            return None
        terms = self._wishes().terms._replace(allow_loss=True)

        def begin(protocol: int) -> Conversation[bool]:
            if cancelling and protocol == 0:
                raise _CannotAsk(f"{peer.name} speaks a protocol in which it can't be asked")
            return Source(departure.transfer, _vm(guest), self._session_of(guest), terms._replace(protocol=protocol)).ask()

        try:
            line, taken = await self._converse(peer, terms.protocol, begin)
        except _FAILURES as error:
            _log.debug("%s: still in doubt: %s", printable(guest.name), printable(str(error)))
            return None
        line.close()
        return bool(taken)

    def _decide(self, guest: Guest, departure: Departure, taken: bool, text: str = "") -> None:
        """It is known whose the guest is, unless that was decided before."""
        if not _is_in_doubt(guest, departure):
            return
        departing = self._departing.get(guest)
        if departing is not None:
            departing.not_taken = not taken
            self._end_line(departing)
            self._drop(departing)
        for task, asked_about in self._asking.items():
            if asked_about is guest and task is not asyncio.current_task():
                task.cancel()
        if taken:
            self._go(guest, departure.peer, departure.transfer)
        else:
            text = text or f"not taken by {departure.peer}: it goes on here"
            _log.info("%s: %s", printable(guest.name), printable(text))
            self._settle(guest, departure)
            self._commands.release(guest)
            self._tell(guest, text)

    # ---- How it ends ----

    def _go(self, guest: Guest, to: str, transfer: str) -> None:
        """The guest is that host's."""
        if self._household.registry.find(guest.name) is guest:
            self._household.hand_over(guest, to, transfer)
        else:
            # It was forgotten, and nothing that is known by its name is its own.
            guest.stay()
            guest.moved_to, guest.departed = to, transfer
            self._household.take_back(guest)
        self._meter.handoffs["handed-over"] += 1
        _log.info("%s: handed over to %s", printable(guest.name), printable(to))
        self._tell(guest, f"handed over to {to}")

    async def _abandon(self, departing: _Departing) -> None:
        line, departing.line = departing.line, None
        self._stay(departing)
        if line is not None:
            try:
                with contextlib.suppress(HandoffError, ConnectionLost):
                    await line.converse(source.abandon())
            finally:
                line.close()

    def _stay(self, departing: _Departing) -> None:
        self._end_line(departing)
        if self._drop(departing):
            self._commands.release(departing.guest)

    def _drop(self, departing: _Departing) -> bool:
        """Whether *departing* was under way until now."""
        if self._departing.get(departing.guest) is not departing:
            return False
        del self._departing[departing.guest]
        if departing.timer is not None:
            departing.timer.cancel()
        return True

    @staticmethod
    def _end_line(departing: _Departing) -> None:
        if departing.line is not None:
            departing.line.close()
            departing.line = None

    def _settle(self, guest: Guest, departure: Departure) -> None:
        """There is no doubt any more."""
        guest.departure = None
        if self._keeper is not None:
            self._keeper.drop_departure(departure.transfer)

    async def _cancel_doubt(self, guest: Guest, departure: Departure, force: bool) -> None:
        taken = await self._ask(guest, departure, cancelling=True)
        if taken is None and _is_in_doubt(guest, departure):
            if not force:
                raise self._in_doubt(departure)
            _log.warning(
                "%s: kept by force; if %s has taken it, two hosts take it for their own now",
                *(printable(guest.name), printable(departure.peer)),
            )
        self._decide(guest, departure, bool(taken), "kept by force" if taken is None else "")
        if guest.moved_to is not None:
            raise HandoffFailed(
                "moved", f"{departure.peer} has taken {guest.name} already: have it handed back there", to=departure.peer
            )

    # ---- Small things ----

    def _check_here(self, guest: Guest) -> None:
        if self._closed:
            raise HandoffFailed(
                "stopping", f"the daemon stops: {guest.name} was not handed over; try again when it runs again"
            )
        if guest.moved_to is not None:
            raise HandoffFailed("moved", f"{guest.name} moved to {guest.moved_to} before: ask there", to=guest.moved_to)
        if guest.departure is not None:
            raise self._in_doubt(guest.departure)
        if guest.moving:
            raise HandoffFailed(
                "moving", f"{guest.name} is being handed over already: wait, or 'vmaccord handoff cancel {guest.name}'"
            )

    def _peers(self, to: Optional[str]) -> Sequence[Peer]:
        peers = self._wishes().peers
        if not peers:
            raise HandoffFailed("handoff-off", "no other host is known here: name them in [handoff] peers, and reload")
        found = [each for each in peers if to in (None, each.name, str(each.address), each.address.host)]
        if not found:
            known = ", ".join(each.name for each in peers)
            raise HandoffFailed("no-such-peer", f"no peer is called {to!r}; known are {known}: name it in [handoff] peers")
        return found if to is None else found[:1]

    def _in_doubt(self, departure: Departure) -> HandoffFailed:
        known = any(each.name == departure.peer for each in self._wishes().peers)
        asked = "it is asked again and again" if known else "it is no peer any more: name it in [handoff] peers, and reload"
        return HandoffFailed(
            "in-doubt",
            f"whether {departure.peer} has taken {departure.guest} is not known: {asked}. If it will never answer, "
            f"and the VM runs here, 'vmaccord handoff cancel --force {departure.guest}' takes it back",
            to=departure.peer,
        )

    async def _ask_for(self, peer: Peer, reply_id: str, patience: float) -> Optional[Answer]:
        """The outcome of a command that went along; None: not yet, or it can't be asked for now."""
        asking = self._converse_once(peer, source.ask_for(self._wishes().terms.protocol, reply_id))
        try:
            line, outcome = await asyncio.wait_for(asking, max(0.0, patience))
        except (*_FAILURES, asyncio.TimeoutError):
            return None
        line.close()
        return None if outcome is None else Answer(outcome.done, outcome.more, outcome.after_s)

    def _tell(self, guest: Guest, text: str) -> None:
        self._feed.tell("handoff", guest.name, text=text)


class _CannotAsk(HandoffError):
    """The destination can't say whether it has taken a guest without taking it."""


class NotTaken(HandoffFailed):
    """The hand-off broke, and the destination has not taken the guest.

    :ivar peer: the destination, to which it was right.
    """

    def __init__(self, peer: str, text: str) -> None:
        super().__init__("unreachable-peer", text)
        self.peer = peer


def _vm(guest: Guest) -> Vm:
    return Vm(guest.uuid, guest.name)


def _is_in_doubt(guest: Guest, departure: Departure) -> bool:
    """Whether nobody has found out yet; a guest may be called otherwise by then."""
    return guest.departure is not None and guest.departure.transfer == departure.transfer


def _as_decided(guest: Guest, departure: Departure) -> bool:
    """Whether the destination has *guest*, now that this is known.

    :raises HandoffFailed: it stays, because somebody wanted that.
    """
    if guest.moved_to != departure.peer:
        raise _cancelled(guest)
    return True


def _cancelled(guest: Guest) -> HandoffFailed:
    return HandoffFailed("not-moving", f"the hand-off of {guest.name} was cancelled: it goes on here")


def _refused(peer: Peer, refused: Refused) -> HandoffFailed:
    refusal = refused.refusal
    return HandoffFailed(
        "refused-by-peer", f"{peer.name} refuses: {refused}", code=refusal.code, supported=list(refusal.supported)
    )


def _worst(guest: Guest, failures: Sequence[tuple[Peer, Exception]]) -> HandoffFailed:
    """Why no peer has prepared it, for people: of several peers what is more than that it is not awaited there."""
    peer, error = next((each for each in failures if not isinstance(each[1], NotAwaited)), failures[0])
    if isinstance(error, Refused):
        return _refused(peer, error)
    if isinstance(error, WouldLose):
        return HandoffFailed("would-lose", f"{peer.name}: {error}", names=list(error.names))
    if isinstance(error, NotAwaited):
        return HandoffFailed(
            "not-awaited",
            f"no peer awaits {guest.name}: name one with --to, or 'vmaccord handoff expect {guest.name}' there",
        )
    if isinstance(error, Unreachable):
        return HandoffFailed("unreachable-peer", str(error))
    kind = "refused-by-peer" if isinstance(error, HandoffError) else "unreachable-peer"
    return HandoffFailed(kind, f"{peer.name}: {error}")
