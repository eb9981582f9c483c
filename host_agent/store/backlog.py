"""What has changed and is not in the file yet. Pure; instants are those of the event loop's clock.

Its size is bounded however long the file can't be written: of a guest's facts only the latest wait, of its changes as many
as are remembered, of the commands those in flight, of the hand-offs those in doubt and as many taken as are remembered.

Facts come without end, and a guest that lives says them again after any restart: they may wait, so that a guest costs one
small write a minute. Everything else is written at the next opportunity.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection
from typing import NamedTuple, Optional, TypeVar

from common.handoff.destination import TAKEN_LIMIT
from host_agent.guest import HISTORY
from host_agent.known import Departure, Fact, InFlight, VersionChange

T = TypeVar("T")

#: A guest's facts are written at most once in so many seconds …
FACTS_PERIOD = 60.0

#: … and for the first time when they had time to come in.
FIRST_FACTS_AFTER = 3.0

#: At most so many guests' facts are written together; those that have waited for longest come first.
FACTS_LIMIT = 200

#: So many guests' being renamed or forgotten can wait. Of more, the earliest are not written: after a restart, such a guest
#: is remembered once more, until it has been absent for long enough.
MOVES_LIMIT = 100_000


class Move(NamedTuple):
    """What is known of the guest *old* is known of the guest *new* from now on; None: it is forgotten."""

    old: str
    new: Optional[str]


class Portion:
    """Changes that are written together.

    :ivar moves: come first and in order; all else goes by the names that guests have after them.
    :ivar uuids: by guest.
    :ivar facts: by guest and name.
    :ivar changes: of versions, by guest and in order.
    :ivar commands: those that were sent, with the guest's name, by reply id.
    :ivar answered: the reply ids of those not in flight any more.
    :ivar departures: the hand-offs in doubt, by transfer.
    :ivar departed: the transfers of which the outcome is known.
    :ivar taken: the guests that were taken over, by transfer and in order.
    :ivar not_taken: the transfers that were not taken after all.
    """

    def __init__(self) -> None:
        self.moves: deque[Move] = deque(maxlen=MOVES_LIMIT)
        self.uuids: dict[str, Optional[str]] = {}
        self.facts: dict[str, dict[str, Fact]] = {}
        self.changes: dict[str, deque[VersionChange]] = {}
        self.commands: dict[str, tuple[str, InFlight]] = {}
        self.answered: set[str] = set()
        self.departures: dict[str, Departure] = {}
        self.departed: set[str] = set()
        self.taken: dict[str, str] = {}
        self.not_taken: set[str] = set()

    def __bool__(self) -> bool:
        return any(self._parts)

    def __len__(self) -> int:
        """How many rows of the file it concerns."""
        return sum(map(len, self._parts))

    @property
    def _parts(self) -> tuple[Collection[object], ...]:
        by_guest = (*self.facts.values(), *self.changes.values())
        transfers = (self.departures, self.departed, self.taken, self.not_taken)
        return self.moves, self.uuids, *by_guest, self.commands, self.answered, *transfers

    def put_change(self, guest: str, change: VersionChange) -> None:
        """Another version was agreed on."""
        self.changes.setdefault(guest, deque(maxlen=HISTORY)).append(change)

    def drop_command(self, reply_id: str) -> None:
        """A command is not in flight any more; one that was never written need not be."""
        if self.commands.pop(reply_id, None) is None:
            self.answered.add(reply_id)

    def put_departure(self, departure: Departure) -> None:
        """A hand-off is in doubt."""
        self.departures[departure.transfer] = departure
        self.departed.discard(departure.transfer)

    def drop_departure(self, transfer: str) -> None:
        """Its outcome is known."""
        self.departures.pop(transfer, None)
        self.departed.add(transfer)

    def put_taken(self, transfer: str, guest: str) -> None:
        """A guest was taken over."""
        self.not_taken.discard(transfer)
        self.taken.pop(transfer, None)
        self.taken[transfer] = guest
        if len(self.taken) > TAKEN_LIMIT:
            del self.taken[next(iter(self.taken))]

    def drop_taken(self, transfer: str) -> None:
        """It was not, after all."""
        self.taken.pop(transfer, None)
        self.not_taken.add(transfer)

    def rename(self, old: str, new: str) -> None:
        """What is known of *old* is known of *new*, and what was known of *new* of nobody."""
        self._discard(new)
        _rekey(self.uuids, old, new)
        _rekey(self.facts, old, new)
        _rekey(self.changes, old, new)
        for reply_id, (guest, command) in self.commands.items():
            if guest == old:
                self.commands[reply_id] = (new, command)
        for transfer, departure in self.departures.items():
            if departure.guest == old:
                self.departures[transfer] = departure._replace(guest=new)
        self.moves.append(Move(old, new))

    def forget(self, guest: str) -> None:
        """Nothing is known of *guest*."""
        self._discard(guest)
        self.moves.append(Move(guest, None))

    def follow(self, later: Portion) -> None:
        """Take what came after this one out of *later*, so that both are written together."""
        for old, new in later.moves:
            if new is None:
                self.forget(old)
            else:
                self.rename(old, new)
        self.uuids.update(later.uuids)
        for guest, facts in self.facts.items():
            later.facts[guest] = {**facts, **later.facts.get(guest, {})}
        self.facts = later.facts
        for guest, changes in later.changes.items():
            self.changes.setdefault(guest, deque(maxlen=HISTORY)).extend(changes)
        self.commands.update(later.commands)
        for reply_id in later.answered:
            self.drop_command(reply_id)
        for departure in later.departures.values():
            self.put_departure(departure)
        for transfer in later.departed:
            self.drop_departure(transfer)
        for transfer, guest in later.taken.items():
            self.put_taken(transfer, guest)
        for transfer in later.not_taken:
            self.drop_taken(transfer)

    def _discard(self, guest: str) -> None:
        self.uuids.pop(guest, None)
        self.facts.pop(guest, None)
        self.changes.pop(guest, None)
        self.commands = {reply_id: sent for reply_id, sent in self.commands.items() if sent[0] != guest}


class Backlog:
    """Collects what changes, and gives it out in portions."""

    def __init__(self) -> None:
        self._waiting = Portion()
        #: When each guest's facts may be written next.
        self._due_at: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def put_fact(self, guest: str, name: str, fact: Fact) -> None:
        """A guest said something."""
        facts = self._waiting.facts.get(guest)
        if facts is None:
            facts = self._waiting.facts[guest] = {}
            self._due_at.setdefault(guest, fact.heard_at + FIRST_FACTS_AFTER)
        facts[name] = fact

    def put_uuid(self, guest: str, uuid: Optional[str]) -> None:
        """The UUID of a guest's VM became known."""
        self._waiting.uuids[guest] = uuid

    def put_change(self, guest: str, change: VersionChange) -> None:
        """Another version was agreed on with a guest."""
        self._waiting.put_change(guest, change)

    def put_command(self, guest: str, command: InFlight) -> None:
        """A command was sent whose completion is awaited."""
        self._waiting.commands[command.reply_id] = (guest, command)

    def drop_command(self, reply_id: str) -> None:
        """A command is not in flight any more."""
        self._waiting.drop_command(reply_id)

    def put_departure(self, departure: Departure) -> None:
        """Nobody knows how a hand-off ended."""
        self._waiting.put_departure(departure)

    def drop_departure(self, transfer: str) -> None:
        """It is known."""
        self._waiting.drop_departure(transfer)

    def put_taken(self, transfer: str, guest: str) -> None:
        """A guest was taken over from another host."""
        self._waiting.put_taken(transfer, guest)

    def drop_taken(self, transfer: str) -> None:
        """It was not, after all."""
        self._waiting.drop_taken(transfer)

    def rename(self, old: str, new: str) -> None:
        """What is known of *old* is known of *new* from now on, and what was known of *new* of nobody."""
        self._waiting.rename(old, new)
        self._due_at.pop(new, None)
        _rekey(self._due_at, old, new)

    def forget(self, guest: str) -> None:
        """Nothing is known of a guest any more."""
        self._waiting.forget(guest)
        self._due_at.pop(guest, None)

    def take(self, now: float) -> Portion:
        """What is due; it is written soon, or comes back."""
        portion, self._waiting = self._waiting, Portion()
        due = itertools.islice((guest for guest in portion.facts if self._due_at[guest] <= now), FACTS_LIMIT)
        ready = {guest: portion.facts.pop(guest) for guest in list(due)}
        self._waiting.facts, portion.facts = portion.facts, ready
        self._due_at.update(dict.fromkeys(ready, now + FACTS_PERIOD))
        return portion

    def take_all(self) -> Portion:
        """Everything, due or not."""
        portion, self._waiting = self._waiting, Portion()
        return portion

    def put_back(self, portion: Portion) -> None:
        """*portion*, the last one taken, could not be written: it waits again, and what has changed since counts more."""
        portion.follow(self._waiting)
        self._waiting = portion


def _rekey(mapping: dict[str, T], old: str, new: str) -> None:
    if old in mapping:
        mapping[new] = mapping.pop(old)
