"""Has what changes written to the state file: by a thread of its own, in batches and not too often.

The event loop never waits for the disk: what it hands over waits in memory, and what can't be written waits there until it
can. That is said once, and so is its end.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Callable, NamedTuple, Optional

from host_agent.guest import HISTORY
from host_agent.known import Departure, Fact, InFlight, VersionChange

from .backlog import Backlog, Portion
from .file import Batch, Damaged, Store
from .rows import ChangeRow, CommandRow, Contents, DepartureRow, FactRow, GuestRow, TakenRow, line_of

_log = logging.getLogger(__name__)

#: Something is written at most once in this many seconds …
PERIOD = 1.0

#: … and tried again, where that is not possible, after this many.
RETRY_AFTER = 10.0

#: What keeps a file from being read or written now. ValueError: a text that UTF-8 can't express.
_PROBLEMS = (OSError, sqlite3.Error, Damaged, ValueError)


class Remembered(NamedTuple):
    """What is known of a guest from earlier runs.

    :ivar history: changes of the version agreed on, the latest last.
    :ivar commands: those in flight, the latest last; the deadline of some may have passed.
    """

    uuid: Optional[str]
    facts: dict[str, Fact]
    history: list[VersionChange]
    commands: list[InFlight]


class Loaded(NamedTuple):
    """What was found in the file.

    :ivar guests: by name.
    :ivar departures: the hand-offs in doubt.
    :ivar taken: the guests that were taken over, by transfer, the latest last.
    :ivar readable: whether it could be read. If not, nobody may be told that a transfer is not among those taken.
    """

    guests: Mapping[str, Remembered] = MappingProxyType({})
    departures: tuple[Departure, ...] = ()
    taken: Mapping[str, str] = MappingProxyType({})
    readable: bool = True


class Keeper:
    """Writes what changes to *store*.

    :param clock: the event loop's clock, in which all instants are that come in and go out.
    :param wall_clock: seconds since the epoch, in which the file has them.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - ages must survive a restart
        period: float = PERIOD,
        retry_after: float = RETRY_AFTER,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._period = period
        self._retry_after = retry_after
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._backlog = Backlog()
        self._changed = asyncio.Event()
        self._job: Optional[asyncio.Task[bool]] = None
        self._failing: Optional[str] = None

    def load(self) -> Loaded:
        """What is remembered. Blocking: for the time before anybody is served.

        :raises MisplacedStateFile: the file can't be where it should.
        """
        self._store.check_place()
        try:
            contents, readable = _get(self._store)
        except _PROBLEMS as error:
            self._fail(error)
            return Loaded(readable=False)
        return self._restored(contents)._replace(readable=readable)

    # ---- What changes ----

    def put_fact(self, guest: str, name: str, fact: Fact) -> None:
        """A guest said something."""
        self._backlog.put_fact(guest, name, fact)
        self._changed.set()

    def put_guest(self, guest: str, uuid: Optional[str]) -> None:
        """The UUID of a guest's VM is known."""
        self._backlog.put_uuid(guest, uuid)
        self._changed.set()

    def put_change(self, guest: str, change: VersionChange) -> None:
        """Another version was agreed on with a guest; to be told once."""
        self._backlog.put_change(guest, change)
        self._changed.set()

    def put_command(self, guest: str, command: InFlight) -> None:
        """A command was sent whose completion is awaited."""
        self._backlog.put_command(guest, command)
        self._changed.set()

    def drop_command(self, reply_id: str) -> None:
        """A command is not in flight any more: it was answered, or is not waited for."""
        self._backlog.drop_command(reply_id)
        self._changed.set()

    def put_departure(self, departure: Departure) -> None:
        """A guest will be offered to another host, of which nobody may hear whether it took it: ``save`` comes before."""
        self._backlog.put_departure(departure)
        self._changed.set()

    def drop_departure(self, transfer: str) -> None:
        """It is known whether the other host has taken it."""
        self._backlog.drop_departure(transfer)
        self._changed.set()

    def put_taken(self, transfer: str, guest: str) -> None:
        """A guest was taken over from another host; that counts as soon as ``save`` has said so."""
        self._backlog.put_taken(transfer, guest)
        self._changed.set()

    def drop_taken(self, transfer: str) -> None:
        """It was not taken over, after all: what could not be saved must not be written later."""
        self._backlog.drop_taken(transfer)
        self._changed.set()

    def rename(self, old: str, new: str) -> None:
        """A guest is called otherwise: what is known of *old* is known of *new*, and what was known of *new* of nobody."""
        self._backlog.rename(old, new)
        self._changed.set()

    def forget(self, guest: str) -> None:
        """Nothing is to be known of a guest any more."""
        self._backlog.forget(guest)
        self._changed.set()

    # ---- Writing ----

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            await self._write(lambda: self._backlog.take(self._clock()))
            await asyncio.sleep(self._period if self._failing is None else self._retry_after)
            if not self._backlog:
                self._changed.clear()

    async def flush(self) -> None:
        """Write all that waits."""
        await self._write(self._backlog.take_all)

    async def save(self) -> bool:
        """Write all that waits; what was said of hand-offs then survives a power cut, too.

        :returns: whether that was possible.
        """
        return await self._write(self._backlog.take_all)

    async def close(self) -> None:
        """Write the rest and close the file."""
        await self.flush()
        if self._backlog:
            _log.warning("state file %s: what changed lately could not be written and is lost", self._store.path)
        await self._in_thread(self._store.close)
        self._thread.shutdown()

    @property
    def waiting(self) -> int:
        """How many rows of the file wait to be written."""
        return len(self._backlog)

    def status(self) -> dict[str, Optional[str]]:
        """Where the file is, and why it can't be used now; None: it can."""
        return {"path": self._store.path, "failing": self._failing}

    async def _write(self, take: Callable[[], Portion]) -> bool:
        """Write what *take* gives, after what is being written. Once begun it goes on, even if the caller is cancelled.

        :returns: whether it is written.
        """
        self._job = asyncio.ensure_future(self._write_after(self._job, take))
        return await asyncio.shield(self._job)

    async def _write_after(self, job: Optional[asyncio.Task[bool]], take: Callable[[], Portion]) -> bool:
        if job is not None:
            await job
        portion = take()
        return not portion or await self._write_portion(portion)

    async def _write_portion(self, portion: Portion) -> bool:
        offset = self._wall_clock() - self._clock()
        try:
            await self._in_thread(lambda: _put(self._store, portion, offset))
        except _PROBLEMS as error:
            self._backlog.put_back(portion)
            self._changed.set()
            self._fail(error)
            return False
        self._succeed()
        return True

    async def _in_thread(self, call: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _fail(self, error: Exception) -> None:
        if self._failing is None:
            _log.warning(
                "state file %s can't be used now (%s): the daemon runs on and keeps trying", self._store.path, error
            )
        self._failing = str(error)

    def _succeed(self) -> None:
        if self._failing is not None:
            _log.info("state file %s can be used again: what had to wait is written", self._store.path)
        self._failing = None

    # ---- Reading ----

    def _restored(self, contents: Contents) -> Loaded:
        """*contents* in the loop's clock. A wall clock that was set back must not make anything come from the future."""
        now = self._clock()
        offset = now - self._wall_clock()
        guests = {guest: Remembered(uuid, {}, [], []) for guest, uuid in contents.guests}

        def of(guest: str) -> Remembered:
            return guests.setdefault(guest, Remembered(None, {}, [], []))

        for fact in contents.facts:
            of(fact.guest).facts[fact.name] = Fact(line_of(fact), min(fact.heard_at + offset, now))
        for guest, at, old, new, reason in contents.changes:
            of(guest).history.append(VersionChange(min(at + offset, now), old, new, reason))
        for each in contents.commands:
            deadline = min(each.deadline_at + offset, now + each.deadline_at - each.sent_at)
            command = InFlight(each.reply_id, each.name, min(each.sent_at + offset, now), deadline)
            of(each.guest).commands.append(command)
        for remembered in guests.values():
            del remembered.history[:-HISTORY]
            # What another host told of came later, and was earlier.
            remembered.history.sort(key=lambda change: change.at)
        departures = (Departure(*row)._replace(since=min(row.since + offset, now)) for row in contents.departures)
        return Loaded(guests, tuple(departures), dict(contents.taken))


def _get(store: Store) -> tuple[Contents, bool]:
    """Everything that *store* holds, and whether it could be read; a file that can't be used is set aside."""
    try:
        return store.load(), True
    except Damaged as problem:
        store.set_aside(str(problem))
        return Contents(), False


def _put(store: Store, portion: Portion, offset: float) -> None:
    """Write *portion*, to a new file where the present one can't be used. The wall clock is ahead by *offset*."""
    try:
        store.write(_batch(portion, offset))
    except Damaged as problem:
        store.set_aside(str(problem))
        store.write(_batch(portion, offset))


def _batch(portion: Portion, offset: float) -> Batch:
    return Batch(
        portion.moves,
        (GuestRow(guest, uuid) for guest, uuid in portion.uuids.items()),
        (
            FactRow(guest, name, fact.text, fact.heard_at + offset)
            for guest, facts in portion.facts.items()
            for name, fact in facts.items()
        ),
        (
            ChangeRow(guest, change.at + offset, change.old, change.new, change.reason)
            for guest, changes in portion.changes.items()
            for change in changes
        ),
        (
            CommandRow(each.reply_id, guest, each.name, each.sent_at + offset, each.deadline + offset)
            for guest, each in portion.commands.values()
        ),
        portion.answered,
        tuple(DepartureRow(*each._replace(since=each.since + offset)) for each in portion.departures.values()),
        portion.departed,
        tuple(TakenRow(transfer, guest) for transfer, guest in portion.taken.items()),
        portion.not_taken,
    )
