"""The state file: an SQLite database of a known layout, read whole at the start and written in transactions.

Blocking, and called from one thread at a time. A file that is damaged, foreign or of a newer release is set aside; one of an
older layout is brought up in the transaction of the first write, so that it can be read where nothing can be written.

The journal is a write-ahead log: a commit appends to it and waits for no disk, and who looks into the file holds up no
write. A killed daemon loses nothing that was committed, a power cut at most the last moments, and neither harms the file.
Only a commit that says whose a guest is waits for the disk, and then with all that was committed before: no power cut may
give a guest two owners.
When the file is closed, the log goes: what is left is one plain file, which can be read in a read-only place, too.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple, Optional

from common.handoff.destination import TAKEN_LIMIT
from host_agent.exits import Exit, Failure
from host_agent.guest import HISTORY

from . import rows
from .backlog import Move
from .rows import ChangeRow, CommandRow, Contents, DepartureRow, FactRow, GuestRow, TakenRow

_log = logging.getLogger(__name__)

#: How long to wait for another program that has the file locked, in seconds.
LOCK_PATIENCE = 1.0

#: What brings a file from each layout, beginning with an empty file, to the next.
_STEPS = (
    ("CREATE TABLE facts (guest TEXT, name TEXT, value TEXT, heard_at REAL, PRIMARY KEY (guest, name)) WITHOUT ROWID",),
    (
        "CREATE TABLE guests (guest TEXT PRIMARY KEY, uuid TEXT) WITHOUT ROWID",
        "CREATE TABLE changes (guest TEXT, at REAL, old INTEGER, new INTEGER, reason TEXT)",
        "CREATE INDEX changes_of_guest ON changes (guest)",
        "CREATE TABLE commands (reply_id TEXT PRIMARY KEY, guest TEXT, name TEXT, sent_at REAL, deadline_at REAL)",
    ),
    (
        "CREATE TABLE departures (transfer TEXT PRIMARY KEY, guest TEXT, uuid TEXT, peer TEXT, since REAL, gone INTEGER)",
        "CREATE TABLE taken (transfer TEXT PRIMARY KEY, guest TEXT)",
    ),
)

#: The layout before there were hand-offs.
_BEFORE_HANDOFFS = 2

#: The number of the present layout, kept as the database's ``user_version``.
LAYOUT = len(_STEPS)

_FORGET = (
    "DELETE FROM guests WHERE guest = ?",
    "DELETE FROM facts WHERE guest = ?",
    "DELETE FROM changes WHERE guest = ?",
    "DELETE FROM commands WHERE guest = ?",
)

_RENAME = (
    "UPDATE guests SET guest = ? WHERE guest = ?",
    "UPDATE facts SET guest = ? WHERE guest = ?",
    "UPDATE changes SET guest = ? WHERE guest = ?",
    "UPDATE commands SET guest = ? WHERE guest = ?",
    "UPDATE departures SET guest = ? WHERE guest = ?",
)

#: Of the changes of one guest, keeps as many as are given.
_TRIM = """
DELETE FROM changes WHERE guest = :guest AND rowid NOT IN
(SELECT rowid FROM changes WHERE guest = :guest ORDER BY rowid DESC LIMIT :kept)
"""

#: Of what was taken over, keeps the latest, as many as are given.
_TRIM_TAKEN = "DELETE FROM taken WHERE rowid <= (SELECT rowid FROM taken ORDER BY rowid DESC LIMIT 1 OFFSET ?)"

#: In one statement, so that another program that makes them is seen before or after it, never in between.
_LAYOUT_AND_SCHEMA = "SELECT user_version, sql FROM pragma_user_version LEFT JOIN sqlite_master"


class MisplacedStateFile(Failure):
    """The state file can't be where the configuration says."""

    status = Exit.STATE_FILE


class Damaged(Exception):
    """The file holds something else than this release's state."""


class Batch(NamedTuple):
    """What is written together, in this order."""

    moves: Iterable[Move] = ()
    guests: Iterable[GuestRow] = ()
    facts: Iterable[FactRow] = ()
    changes: Iterable[ChangeRow] = ()
    commands: Iterable[CommandRow] = ()
    answered: Iterable[str] = ()
    departures: Collection[DepartureRow] = ()
    departed: Iterable[str] = ()
    taken: Collection[TakenRow] = ()
    not_taken: Iterable[str] = ()


class Store:
    """The file at *path*."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: Optional[sqlite3.Connection] = None
        self._inode: Optional[tuple[int, int]] = None

    def check_place(self) -> None:
        """Look whether such a file could be there at all.

        :raises MisplacedStateFile: it could not.
        """
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory):
            raise MisplacedStateFile(
                f"state file {self.path}: there is no directory {directory}; make it, or change --state"
            )
        if os.path.lexists(self.path) and not os.path.isfile(self.path):
            raise MisplacedStateFile(f"state file {self.path}: there is something else than a file; change --state")

    def load(self) -> Contents:
        """Everything that is kept.

        :raises Damaged: nothing of it can be used; set it aside.
        :raises OSError, sqlite3.Error: the file can't be read now.
        """
        with self._opened() as connection:
            layout = _layout_of(connection)
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise Damaged(verdict)
            return _read(connection, layout)

    def write(self, batch: Batch) -> None:
        """Write *batch*, all or nothing.

        :raises Damaged: the file can't be used; set it aside.
        :raises OSError, sqlite3.Error: nothing can be written now.
        """
        with self._opened() as connection:
            _layout_of(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if batch.departures or batch.taken else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                _bring_up(connection)
                _apply(connection, batch)

    def set_aside(self, why: str) -> None:
        """Put the file out of the way, in the place of one that was set aside before; the next write begins a new one.

        :raises OSError: it can't be moved.
        """
        self._disconnect()
        aside = f"{self.path}.set-aside"
        # What belongs to one file would be applied to the other: it goes first, and goes with it.
        for suffix in ("-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside + suffix)
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path + suffix, aside + suffix)
        os.replace(self.path, aside)
        _log.warning("state file %s can't be used (%s): it is now %s, a new one is begun", self.path, why, aside)

    def close(self) -> None:
        """Close the file, leaving nothing but itself where that is possible."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._disconnect()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The connection to the file; after an error, the next one is made afresh."""
        try:
            yield self._connect()
        except sqlite3.OperationalError:
            self._disconnect()
            raise
        except sqlite3.DatabaseError as error:
            raise Damaged(str(error)) from None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_gone():
            self._leave()
        if self._connection is None:
            self._inode = _make(self.path)
            self._connection = sqlite3.connect(
                self.path, timeout=LOCK_PATIENCE, isolation_level=None, check_same_thread=False
            )
            # What is no UTF-8 fails the check of its own row, not the reading of all.
            self._connection.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
        return self._connection

    def _is_gone(self) -> bool:
        try:
            return _inode(os.stat(self.path)) != self._inode
        except FileNotFoundError:
            return True

    def _leave(self) -> None:
        """Have nothing to do with a file that is not in its place any more; its log would be applied to the one there."""
        _log.warning("state file %s was removed or replaced: what changes from now on goes to the one there", self.path)
        self._disconnect()
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + suffix)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _make(path: str) -> tuple[int, int]:
    """The inode of the file at *path*, which is made, for its owner alone, where there is none.

    Not while there is a connection: closing any descriptor of a file gives up SQLite's locks on it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return _inode(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _layout_of(connection: sqlite3.Connection) -> int:
    """The layout's number; 0 is an empty file.

    :raises Damaged: it is none of ours, or not one that this release knows.
    """
    found = connection.execute(_LAYOUT_AND_SCHEMA).fetchall()
    layout = found[0][0]
    if layout > LAYOUT:
        raise Damaged("made by a newer release")
    schema = {str(sql).strip() for _, sql in found if sql is not None}
    expected = {statement for step in _STEPS[:layout] for statement in step}
    if layout < 0 or not expected <= schema or (layout == 0 and schema):
        raise Damaged("no state of this program")
    return int(layout)


def _bring_up(connection: sqlite3.Connection) -> None:
    """Have the present layout, within a transaction."""
    layout = _layout_of(connection)
    if layout < LAYOUT:
        for step in _STEPS[layout:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {LAYOUT}")


def _read(connection: sqlite3.Connection, layout: int) -> Contents:
    if layout == 0:
        return Contents()
    facts = rows.passing(rows.check_fact, connection.execute("SELECT guest, name, value, heard_at FROM facts"))
    if layout == 1:
        return Contents(facts=tuple(facts))
    guests = connection.execute("SELECT guest, uuid FROM guests")
    changes = connection.execute("SELECT guest, at, old, new, reason FROM changes ORDER BY rowid")
    commands = connection.execute("SELECT reply_id, guest, name, sent_at, deadline_at FROM commands ORDER BY sent_at")
    contents = Contents(
        tuple(rows.passing(rows.check_guest, guests)),
        tuple(facts),
        tuple(rows.passing(rows.check_change, changes)),
        tuple(rows.passing(rows.check_command, commands)),
    )
    if layout == _BEFORE_HANDOFFS:
        return contents
    departures = connection.execute("SELECT transfer, guest, uuid, peer, since, gone FROM departures ORDER BY rowid")
    taken = connection.execute("SELECT transfer, guest FROM taken ORDER BY rowid")
    return contents._replace(
        departures=tuple(rows.passing(rows.check_departure, departures)),
        taken=tuple(rows.passing(rows.check_taken, taken)),
    )


def _apply(connection: sqlite3.Connection, batch: Batch) -> None:
    for move in batch.moves:
        _move(connection, move)
    connection.executemany("INSERT OR REPLACE INTO guests VALUES (?, ?)", batch.guests)
    connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", batch.facts)
    changes = list(batch.changes)
    connection.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", changes)
    changed = {change.guest for change in changes}
    connection.executemany(_TRIM, ({"guest": guest, "kept": HISTORY} for guest in changed))
    connection.executemany("INSERT OR REPLACE INTO commands VALUES (?, ?, ?, ?, ?)", batch.commands)
    connection.executemany("DELETE FROM commands WHERE reply_id = ?", ((reply_id,) for reply_id in batch.answered))
    connection.executemany("INSERT OR REPLACE INTO departures VALUES (?, ?, ?, ?, ?, ?)", batch.departures)
    connection.executemany("DELETE FROM departures WHERE transfer = ?", ((each,) for each in batch.departed))
    connection.executemany("INSERT OR REPLACE INTO taken VALUES (?, ?)", batch.taken)
    connection.executemany("DELETE FROM taken WHERE transfer = ?", ((each,) for each in batch.not_taken))
    connection.execute(_TRIM_TAKEN, (TAKEN_LIMIT,))


def _move(connection: sqlite3.Connection, move: Move) -> None:
    for statement in _FORGET:
        connection.execute(statement, (move.old if move.new is None else move.new,))
    if move.new is not None:
        for statement in _RENAME:
            connection.execute(statement, (move.new, move.old))
