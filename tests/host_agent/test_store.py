from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any, Optional

import pytest

from host_agent import store as store_module
from host_agent.exits import Exit
from host_agent.guest import Fact
from host_agent.store import Damaged, Keeper, MisplacedStateFile, Store, StoredFact

from .parts import run, until

NAME = '{"name":"web"}'
ROW = StoredFact("web", "host-name", NAME, 1000.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.sqlite")


def written(path: str, *rows: StoredFact) -> None:
    store = Store(path)
    store.write([], rows)
    store.close()


def loaded(path: str) -> list[StoredFact]:
    store = Store(path)
    try:
        return store.load()
    finally:
        store.close()


def execute(path: str, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# ---- The file ----


def test_what_was_written_is_loaded(path: str) -> None:
    assert loaded(path) == []
    other = StoredFact("db", "fqdn", '{"fqdn":"ü.example"}', 2000.5)
    written(path, ROW, other)
    assert loaded(path) == [other, ROW]


def test_only_its_owner_may_read_the_file(path: str) -> None:
    written(path, ROW)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_the_last_fact_replaces_the_one_before_and_forgotten_guests_go(path: str) -> None:
    store = Store(path)
    store.write([], [ROW, StoredFact("db", "host-name", NAME, 1.0)])
    store.write(["db"], [ROW._replace(heard_at=2000.0)])
    assert store.load() == [ROW._replace(heard_at=2000.0)]
    store.write(["web"], [ROW._replace(name="fqdn", value='{"fqdn":"x"}')])
    assert [row.name for row in store.load()] == ["fqdn"]
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: Path(path).write_bytes(b"no database at all, but quite long " * 100),
        lambda path: execute(path, "PRAGMA user_version = 2"),
        lambda path: execute(path, "DROP TABLE facts"),
        lambda path: execute(path, "PRAGMA user_version = 0"),
        lambda path: execute(path, "DROP TABLE facts", "CREATE TABLE facts (x)"),
        lambda path: os.truncate(path, 5000),
    ],
)
def test_a_damaged_newer_or_foreign_file_is_set_aside(path: str, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    written(path, ROW)
    damage(path)
    before = Path(path).read_bytes()
    assert loaded(path) == []
    assert Path(f"{path}.set-aside").read_bytes() == before
    (message,) = caplog.messages
    assert f"state file {path} can't be used" in message
    assert f"it is now {path}.set-aside, a new one was begun" in message
    written(path, ROW)
    assert loaded(path) == [ROW]


def test_a_journal_goes_aside_with_its_file(path: str) -> None:
    Path(path).write_bytes(b"garbage " * 1000)
    Path(f"{path}-journal").write_bytes(b"x")
    assert loaded(path) == []
    assert not os.path.exists(f"{path}-journal")


def test_rows_that_this_program_cannot_have_written_are_left_out(path: str) -> None:
    written(
        path,
        ROW,
        ROW._replace(guest="a", name="no-such-message"),
        ROW._replace(guest="b", name="echo"),
        ROW._replace(guest="c", value="no json"),
        ROW._replace(guest="d", value="[]"),
        ROW._replace(guest="e", value='{"name": 7}'),
        ROW._replace(guest="f", name="heartbeat", value='{"apiVersion": "3"}'),
        ROW._replace(guest="g", heard_at=float("inf")),
        ROW._replace(guest="h", value="[" * 100_000),
    )
    execute(path, "INSERT INTO facts VALUES (x'00', 'host-name', '{}', 1), ('i', 'host-name', '{}', 'soon')")
    assert loaded(path) == [ROW]


@pytest.mark.parametrize("place", ["none/state", "."])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(MisplacedStateFile, match="change --state") as caught:
        Store(os.path.abspath(tmp_path / place)).check_place()
    assert caught.value.status is Exit.STATE_FILE


# ---- The keeper ----


class Clocks:
    """A loop's clock and a wall clock that the test sets."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = 5000.0


def make_keeper(path: str, clocks: Optional[Clocks] = None) -> Keeper:
    clocks = clocks or Clocks()
    return Keeper(Store(path), lambda: clocks.monotonic, lambda: clocks.wall, period=0.0)


def test_ages_survive_a_restart(path: str) -> None:
    async def scenario() -> None:
        clocks = Clocks()
        keeper = make_keeper(path, clocks)
        assert keeper.load() == {}
        keeper.put("web", "host-name", Fact(NAME, 90.0))
        await keeper.close()
        clocks.monotonic, clocks.wall = 7.0, 5060.0
        keeper = make_keeper(path, clocks)
        assert keeper.load() == {"web": {"host-name": Fact(NAME, 7.0 - 70.0)}}
        clocks.wall = 1000.0
        assert keeper.load() == {"web": {"host-name": Fact(NAME, 7.0)}}
        await keeper.close()

    run(scenario())


def test_changes_are_written_while_it_runs(path: str) -> None:
    async def scenario() -> None:
        keeper = make_keeper(path)
        task = asyncio.ensure_future(keeper.run())
        keeper.put("web", "host-name", Fact(NAME, 90.0))
        await until(lambda: os.path.exists(path) and loaded(path))
        keeper.forget("web")
        await until(lambda: not loaded(path))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await keeper.close()

    run(scenario())


def test_a_guest_forgotten_before_it_was_written_is_not_written(path: str) -> None:
    async def scenario() -> None:
        keeper = make_keeper(path)
        keeper.put("web", "host-name", Fact(NAME, 90.0))
        keeper.put("db", "host-name", Fact(NAME, 90.0))
        keeper.forget("web")
        await keeper.close()
        assert [row.guest for row in loaded(path)] == ["db"]

    run(scenario())


def test_nothing_new_is_not_written(path: str) -> None:
    async def scenario() -> None:
        await make_keeper(path).close()

    run(scenario())
    assert not os.path.exists(path)


class FailingStore(Store):
    """A store on a full disk, until it is not."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.error: Optional[Exception] = sqlite3.OperationalError("database or disk is full")

    def write(self, *batch: Any) -> None:
        if self.error is not None:
            raise self.error
        super().write(*batch)


@pytest.mark.parametrize("error", [sqlite3.OperationalError("full"), OSError(28, "full"), Damaged("x")])
def test_a_file_that_cannot_be_written_is_said_once_and_tried_again(
    path: str, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def scenario() -> None:
        store = FailingStore(path)
        store.error = error
        keeper = Keeper(store, lambda: 100.0, lambda: 5000.0)
        keeper.put("web", "host-name", Fact(NAME, 90.0))
        keeper.forget("gone")
        await keeper.flush()
        keeper.put("web", "host-name", Fact('{"name":"newer"}', 95.0))
        await keeper.flush()
        assert len(caplog.messages) == 1
        assert "can't be used now" in caplog.messages[0]
        store.error = None
        await keeper.flush()
        assert loaded(path) == [StoredFact("web", "host-name", '{"name":"newer"}', 4995.0)]
        store.error = OSError("again")
        keeper.put("web", "host-name", Fact(NAME, 96.0))
        await keeper.flush()
        assert len(caplog.messages) == 2
        await keeper.close()

    run(scenario())


class SlowStore(Store):
    """A store that fails to write, and only when it is told to."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.writing = threading.Event()
        self.end = threading.Event()

    def write(self, *batch: Any) -> None:
        self.writing.set()
        self.end.wait()
        raise OSError("full")


def test_what_happens_during_a_failed_write_counts_more(path: str) -> None:
    async def scenario() -> None:
        store = SlowStore(path)
        keeper = Keeper(store, lambda: 100.0, lambda: 5000.0)
        for guest in ("web", "db", "gone"):
            keeper.put(guest, "host-name", Fact(NAME, 90.0))
        task = asyncio.ensure_future(keeper.flush())
        await until(store.writing.is_set)
        keeper.put("web", "host-name", Fact('{"name":"newer"}', 95.0))
        keeper.forget("gone")
        store.end.set()
        await task
        keeper._store = Store(path)
        await keeper.close()
        assert {row.guest: row.value for row in loaded(path)} == {"web": '{"name":"newer"}', "db": NAME}

    run(scenario())


def test_a_batch_whose_writing_was_cut_short_is_written_at_the_end(path: str) -> None:
    async def scenario() -> None:
        keeper = make_keeper(path)
        keeper.put("web", "host-name", Fact(NAME, 90.0))
        task = asyncio.ensure_future(keeper.flush())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await keeper.close()
        assert len(loaded(path)) == 1

    run(scenario())


@pytest.mark.parametrize("error", [OSError(13, "Permission denied"), sqlite3.OperationalError("database is locked")])
def test_a_file_that_cannot_be_read_is_said_and_the_daemon_runs_on(
    path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(self: Store) -> None:
        raise error

    monkeypatch.setattr(Store, "_open", refuse)

    async def scenario() -> None:
        keeper = make_keeper(path)
        assert keeper.load() == {}
        await keeper.close()

    run(scenario())
    assert len(caplog.messages) == 1


def test_a_file_that_another_program_holds_is_an_error_of_the_moment(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LOCK_PATIENCE", 0.0)
    written(path, ROW)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        loaded(path)
    holder.close()
    assert loaded(path) == [ROW]
