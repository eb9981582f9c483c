"""What guests said last, kept over restarts of the daemon in an SQLite file.

Facts only, with wall-clock times so that their ages survive. What was agreed is never kept: it belongs to a channel. A file
that is damaged or of a newer release is set aside; one that can't be written is said once and tried again: the daemon runs
on without it. What a file holds is as untrusted as what a guest says.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, NamedTuple, Optional

from common import errors, messages
from common.catalogue import CATALOGUE, Direction

from .exits import Exit, Failure
from .guest import Fact

_log = logging.getLogger(__name__)

#: The number of this layout; a file with another one is set aside.
LAYOUT = 1

#: What changed is written at most once in this many seconds.
PERIOD = 3.0

#: How long to wait for another program that has the file locked, in seconds.
_LOCK_PATIENCE = 1.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (guest TEXT, name TEXT, value TEXT, heard_at REAL, PRIMARY KEY (guest, name)) WITHOUT ROWID
"""

#: In one statement, so that another program that makes them is seen before or after it, never in between.
_LAYOUT_AND_TABLES = "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"


class MisplacedStateFile(Failure):
    """The state file can't be where the configuration says."""

    status = Exit.STATE_FILE


class StoredFact(NamedTuple):
    """One row.

    :ivar value: the message's arguments as JSON text.
    :ivar heard_at: seconds since the epoch.
    """

    guest: str
    name: str
    value: str
    heard_at: float


class Damaged(Exception):
    """The file holds something else than this release's state."""


class Store:
    """The file at *path*. Blocking: not for the event loop, except before it serves anybody."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: Optional[sqlite3.Connection] = None

    def check_place(self) -> None:
        """Look whether such a file could be there at all.

        :raises MisplacedStateFile: it could not.
        """
        directory = os.path.dirname(self._path)
        if not os.path.isdir(directory):
            raise MisplacedStateFile(
                f"state file {self._path}: there is no directory {directory}; make it, or change --state"
            )
        if os.path.lexists(self._path) and not os.path.isfile(self._path):
            raise MisplacedStateFile(f"state file {self._path}: there is something else than a file; change --state")

    def load(self) -> list[StoredFact]:
        """Everything that is kept; a file that can't be understood is set aside first.

        :raises OSError: the file can't be set aside.
        :raises sqlite3.Error: the file can't be read now.
        """
        try:
            return self._read()
        except Damaged as problem:
            self._set_aside(str(problem))
            return self._read()

    def write(self, forgotten: Iterable[str], facts: Iterable[StoredFact]) -> None:
        """Delete the rows of *forgotten* guests, then put *facts*, all or nothing.

        :raises OSError, sqlite3.Error, Damaged: nothing was written.
        """
        connection = self._open()
        with connection:
            connection.executemany("DELETE FROM facts WHERE guest = ?", ((guest,) for guest in forgotten))
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", facts)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self) -> list[StoredFact]:
        try:
            connection = self._open()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise Damaged(verdict)
            rows = connection.execute("SELECT guest, name, value, heard_at FROM facts").fetchall()
        except sqlite3.OperationalError as error:
            if str(error).startswith("no such"):
                raise Damaged(str(error)) from None
            raise
        except sqlite3.DatabaseError as error:
            raise Damaged(str(error)) from None
        return list(_checked(rows))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(self._path, timeout=_LOCK_PATIENCE, check_same_thread=False)
            try:
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _set_aside(self, why: str) -> None:
        self.close()
        aside = f"{self._path}.set-aside"
        os.replace(self._path, aside)
        # A journal left beside it would be applied to the new file.
        if os.path.exists(f"{self._path}-journal"):
            os.replace(f"{self._path}-journal", f"{aside}-journal")
        _log.warning("state file %s can't be used (%s): it is now %s, a new one was begun", self._path, why, aside)


def _prepare(connection: sqlite3.Connection) -> None:
    layout, tables = connection.execute(_LAYOUT_AND_TABLES).fetchone()
    if layout == 0 and tables == 0:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
    elif layout != LAYOUT:
        raise Damaged("made by a newer release" if layout > LAYOUT else "no state of this program")


def _checked(rows: Iterable[tuple[object, ...]]) -> Iterator[StoredFact]:
    """The rows that this program could have written."""
    for guest, name, value, heard_at in rows:
        if not (isinstance(guest, str) and isinstance(name, str) and isinstance(value, str)):
            continue
        if isinstance(heard_at, float) and math.isfinite(heard_at) and _is_fact(name, value):
            yield StoredFact(guest, name, value, heard_at)


def _is_fact(name: str, value: str) -> bool:
    row = CATALOGUE.find(Direction.TO_HOST, name)
    if row is None or not issubclass(row.message_class, messages.Fact):
        return False
    try:
        arguments = json.loads(value)
        _, mistyped = row.message_class.from_arguments(arguments if isinstance(arguments, dict) else {})
    except (ValueError, RecursionError, errors.InvalidArguments):
        return False
    return isinstance(arguments, dict) and not mistyped


class Keeper:
    """Writes what changes to a store, away from the event loop and not too often.

    :param clock: the loop's clock, in which facts tell when they were heard.
    :param wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - ages must survive a restart
        period: float = PERIOD,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._period = period
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._changed = asyncio.Event()
        self._facts: dict[tuple[str, str], Fact] = {}
        self._forgotten: set[str] = set()
        self._failing = False

    def load(self) -> dict[str, dict[str, Fact]]:
        """The facts of each guest.

        :raises MisplacedStateFile: the file can't be where it should.
        """
        self._store.check_place()
        try:
            rows = self._store.load()
        except (OSError, sqlite3.Error, Damaged) as error:
            self._failed(error)
            return {}
        offset = self._clock() - self._wall_clock()
        guests: dict[str, dict[str, Fact]] = {}
        for row in rows:
            # A wall clock that was set back must not make a fact come from the future.
            guests.setdefault(row.guest, {})[row.name] = Fact(row.value, min(row.heard_at + offset, self._clock()))
        return guests

    def put(self, guest: str, name: str, fact: Fact) -> None:
        """A guest said something: write it soon."""
        self._facts[guest, name] = fact
        self._changed.set()

    def forget(self, guest: str) -> None:
        """A guest was forgotten: delete it soon."""
        self._facts = {key: fact for key, fact in self._facts.items() if key[0] != guest}
        self._forgotten.add(guest)
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._period)
            await self.flush()

    async def flush(self) -> None:
        """Write what has not been written."""
        self._changed.clear()
        if not self._facts and not self._forgotten:
            return
        facts, self._facts = self._facts, {}
        forgotten, self._forgotten = self._forgotten, set()
        offset = self._wall_clock() - self._clock()
        rows = [StoredFact(guest, name, fact.text, fact.heard_at + offset) for (guest, name), fact in facts.items()]
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.write, forgotten, rows)
        except (OSError, sqlite3.Error, Damaged) as error:
            self._failed(error)
            self._put_back(facts, forgotten)
        except asyncio.CancelledError:
            # Whether it was written is not known; writing it twice does no harm.
            self._put_back(facts, forgotten)
            raise
        else:
            self._failing = False

    async def close(self) -> None:
        """Write the rest and close the file."""
        await self.flush()
        self._thread.shutdown()
        self._store.close()

    def _put_back(self, facts: dict[tuple[str, str], Fact], forgotten: set[str]) -> None:
        kept = {key: fact for key, fact in facts.items() if key[0] not in self._forgotten}
        self._facts = {**kept, **self._facts}
        self._forgotten |= forgotten
        self._changed.set()

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            _log.warning("the state file can't be used now (%s): the daemon runs on and keeps trying", error)
