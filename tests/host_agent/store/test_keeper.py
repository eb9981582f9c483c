from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Optional

import pytest

from host_agent.guest import HISTORY
from host_agent.known import UNKNOWN_TIME, Departure, Fact, InFlight, VersionChange
from host_agent.store import Keeper, Loaded, MisplacedStateFile, Remembered, Store
from host_agent.store import file as file_module
from host_agent.store.rows import Contents
from tests.host_agent.parts import run, until

from .disks import execute, fill, small_disk, write_layout_1

UUID = "6b6f3c1e-8a53-4d51-9a51-5a4e7d3f0c11"
CHANGE = VersionChange(80.0, 0, 3, "first agreement of this connection")
COMMAND = InFlight("7f3a", "lifecycle-event", 95.0, 125.0)
TRANSFER, OTHER = "0123456789abcdef" * 2, "f" * 32
DEPARTURE = Departure(TRANSFER, "web", UUID, "host-b", 95.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.sqlite")


def named(name: str, heard_at: float = 90.0) -> Fact:
    return Fact.of("host-name", {"name": name}, heard_at)


def read(path: str) -> Contents:
    store = Store(path)
    try:
        return store.load()
    finally:
        store.close()


class Clocks:
    """A loop's clock and a wall clock that the test sets."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = 5000.0


@contextlib.asynccontextmanager
async def keeping(path: str, clocks: Optional[Clocks] = None, store: Optional[Store] = None) -> AsyncIterator[Keeper]:
    """A keeper that has loaded its file, until it has closed it."""
    clocks = clocks or Clocks()
    keeper = Keeper(store or Store(path), lambda: clocks.monotonic, lambda: clocks.wall, period=0.0, retry_after=0.0)
    try:
        yield keeper
    finally:
        await keeper.close()


@contextlib.asynccontextmanager
async def in_service(keeper: Keeper) -> AsyncIterator[None]:
    """The keeper writes by itself."""
    task = asyncio.ensure_future(keeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ---- Over a restart ----


def test_everything_and_its_age_survive_a_restart(path: str) -> None:
    async def scenario() -> None:
        clocks = Clocks()
        async with keeping(path, clocks) as keeper:
            assert keeper.load() == Loaded()
            keeper.put_guest("web", UUID)
            keeper.put_fact("web", "host-name", named("web"))
            keeper.put_change("web", CHANGE)
            keeper.put_command("web", COMMAND)
            keeper.put_fact("db", "host-name", named("db"))
        clocks.monotonic, clocks.wall = 7.0, 5010.0
        async with keeping(path, clocks) as keeper:
            assert keeper.load().guests == {
                "web": Remembered(
                    UUID,
                    {"host-name": named("web", -13.0)},
                    [CHANGE._replace(at=-23.0)],
                    [COMMAND._replace(sent_at=-8.0, deadline=22.0)],
                ),
                "db": Remembered(None, {"host-name": named("db", -13.0)}, [], []),
            }

    run(scenario())


def test_a_wall_clock_that_was_set_back_makes_nothing_come_from_the_future(path: str) -> None:
    async def scenario() -> None:
        clocks = Clocks()
        async with keeping(path, clocks) as keeper:
            keeper.put_fact("web", "host-name", named("web"))
            keeper.put_change("web", CHANGE)
            keeper.put_command("web", COMMAND)
        clocks.wall = 1000.0
        async with keeping(path, clocks) as keeper:
            remembered = keeper.load().guests["web"]
            assert remembered.facts["host-name"].heard_at == remembered.history[0].at == 100.0
            assert remembered.commands == [COMMAND._replace(sent_at=100.0, deadline=130.0)]

    run(scenario())


def test_a_command_whose_deadline_passed_meanwhile_is_remembered_all_the_same(path: str) -> None:
    async def scenario() -> None:
        clocks = Clocks()
        async with keeping(path, clocks) as keeper:
            keeper.put_command("web", COMMAND)
        clocks.wall += 3600.0
        async with keeping(path, clocks) as keeper:
            (command,) = keeper.load().guests["web"].commands
            assert command.deadline < clocks.monotonic

    run(scenario())


def test_of_a_history_that_is_too_long_the_end_is_remembered(path: str) -> None:
    async def scenario() -> None:
        async with keeping(path) as keeper:
            keeper.put_change("web", CHANGE)
        execute(path, *["INSERT INTO changes VALUES ('web', 1.0, 0, (SELECT count(*) FROM changes), 'why')"] * HISTORY)
        async with keeping(path) as keeper:
            assert [change.new for change in keeper.load().guests["web"].history] == list(range(1, HISTORY + 1))

    run(scenario())


def test_a_file_of_the_first_release_is_taken_over(path: str) -> None:
    async def scenario() -> None:
        write_layout_1(path)
        for _ in range(2):
            async with keeping(path) as keeper:
                assert keeper.load().guests["web"].facts["host-name"].arguments() == {"name": "web"}
                keeper.put_guest("web", UUID)
        assert read(path).guests == (("web", UUID),)

    run(scenario())


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with keeping(str(tmp_path / "none/state")) as keeper:
            with pytest.raises(MisplacedStateFile):
                keeper.load()

    run(scenario())


# ---- While it runs ----


def test_changes_are_written_while_it_runs(path: str) -> None:
    async def scenario() -> None:
        clocks = Clocks()
        async with keeping(path, clocks) as keeper, in_service(keeper):
            keeper.put_command("web", COMMAND)
            keeper.put_guest("web", UUID)
            keeper.put_fact("web", "host-name", named("web", 100.0))
            await until(lambda: os.path.exists(path) and read(path).commands)
            assert read(path).facts == ()
            clocks.monotonic += 5.0
            await until(lambda: read(path).facts)
            keeper.drop_command("7f3a")
            keeper.rename("web", "shop")
            await until(lambda: not read(path).commands and read(path).guests == (("shop", UUID),))
            keeper.forget("shop")
            await until(lambda: read(path) == Contents())
            assert keeper.status() == {"path": path, "failing": None}

    run(scenario())


def test_a_guest_that_is_renamed_or_forgotten_before_it_was_written(path: str) -> None:
    async def scenario() -> None:
        async with keeping(path) as keeper:
            for guest in ("web", "db", "gone"):
                keeper.put_fact(guest, "host-name", named(guest))
            keeper.rename("web", "shop")
            keeper.forget("gone")
        assert [(row.guest, row.value) for row in read(path).facts] == [("db", '{"name":"db"}'), ("shop", '{"name":"web"}')]

    run(scenario())


def test_where_nothing_changes_nothing_is_written(path: str) -> None:
    async def scenario() -> None:
        async with keeping(path) as keeper, in_service(keeper):
            await asyncio.sleep(0)

    run(scenario())
    assert not os.path.exists(path)


class HangingStore(Store):
    """A store on a disk that does not answer before it is told to, and then perhaps with an error, once."""

    def __init__(self, path: str, problem: Optional[Exception]) -> None:
        super().__init__(path)
        self.writing = threading.Event()
        self.answer = threading.Event()
        self._problem = problem

    def write(self, batch: Any) -> None:
        self.writing.set()
        self.answer.wait()
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        super().write(batch)


@pytest.mark.parametrize("problem", [None, OSError(5, "Input/output error")])
def test_what_happens_during_a_write_comes_after_it(path: str, problem: Optional[Exception]) -> None:
    async def scenario() -> None:
        store = HangingStore(path, problem)
        async with keeping(path, store=store) as keeper:
            for guest in ("web", "db", "gone"):
                keeper.put_fact(guest, "host-name", named(guest))
                keeper.put_command(guest, COMMAND._replace(reply_id=guest))
                keeper.put_change(guest, CHANGE)
            task = asyncio.ensure_future(keeper.flush())
            await until(store.writing.is_set)
            keeper.put_fact("web", "host-name", named("newer"))
            keeper.put_guest("db", UUID)
            keeper.put_change("db", CHANGE._replace(old=3, new=2))
            keeper.drop_command("db")
            keeper.forget("gone")
            keeper.rename("web", "shop")
            store.answer.set()
            await task
        contents = read(path)
        assert {row.guest: row.value for row in contents.facts} == {"shop": '{"name":"newer"}', "db": '{"name":"db"}'}
        assert [(row.guest, row.reply_id) for row in contents.commands] == [("shop", "web")]
        assert [row.new for row in contents.changes if row.guest == "db"] == [3, 2]
        assert [row.new for row in contents.changes if row.guest == "shop"] == [3]
        assert contents.guests == (("db", UUID),)

    run(scenario())


@pytest.mark.parametrize("problem", [None, OSError(5, "Input/output error")])
def test_a_write_goes_to_its_end_though_the_service_is_stopped(path: str, problem: Optional[Exception]) -> None:
    async def scenario() -> None:
        store = HangingStore(path, problem)
        async with keeping(path, store=store) as keeper:
            keeper.put_guest("web", UUID)
            async with in_service(keeper):
                await until(store.writing.is_set)
            keeper.rename("web", "shop")
            store.answer.set()
        assert read(path).guests == (("shop", UUID),)

    run(scenario())


# ---- What goes wrong ----


def test_a_file_that_cannot_be_used_is_set_aside_and_begun_anew(path: str, caplog: pytest.LogCaptureFixture) -> None:
    Path(path).write_bytes(b"garbage " * 1000)

    async def scenario() -> None:
        async with keeping(path) as keeper:
            assert keeper.load() == Loaded(readable=False)
            keeper.put_guest("web", UUID)
            await keeper.flush()
            assert keeper.status()["failing"] is None
        assert read(path).guests == (("web", UUID),)

    run(scenario())
    assert Path(f"{path}.set-aside").read_bytes() == b"garbage " * 1000
    assert len(caplog.messages) == 1


def test_a_file_damaged_while_it_is_used_is_set_aside_and_loses_nothing_new(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with keeping(path) as keeper:
            keeper.put_guest("web", UUID)
            await keeper.flush()
            execute(path, "PRAGMA user_version = 99")
            keeper.put_guest("db", None)
            await keeper.flush()
            assert keeper.status()["failing"] is None
        assert read(path).guests == (("db", None),)

    run(scenario())
    assert os.path.exists(f"{path}.set-aside")
    (message,) = caplog.messages
    assert "made by a newer release" in message


def test_a_file_that_cannot_even_be_set_aside_is_said_once(
    path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(13, "Permission denied")

    Path(path).write_bytes(b"garbage " * 1000)

    async def scenario() -> None:
        async with keeping(path) as keeper:
            monkeypatch.setattr(os, "replace", refuse)
            assert keeper.load() == Loaded(readable=False)
            keeper.put_guest("web", UUID)
            await keeper.flush()
            assert len(caplog.messages) == 1
            assert "Permission denied" in str(keeper.status()["failing"])
            monkeypatch.undo()
        assert read(path).guests == (("web", UUID),)

    run(scenario())


def test_on_a_full_disk_everything_waits_and_is_written_when_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(disk: Path) -> None:
        path = str(disk / "state")
        async with keeping(path) as keeper:
            keeper.put_guest("web", UUID)
            keeper.put_command("web", COMMAND)
            await keeper.flush()
            filler = fill(disk)
            for number in range(1000):
                keeper.put_fact(f"guest-{number}", "host-name", named("web"))
            keeper.drop_command("7f3a")
            for _ in range(3):
                await keeper.flush()
            assert len(caplog.messages) == 1
            assert "can't be used now (database or disk is full): the daemon runs on and keeps trying" in caplog.messages[0]
            assert keeper.status() == {"path": path, "failing": "database or disk is full"}
            assert keeper.waiting == 1001
            keeper.put_fact("guest-7", "host-name", named("newer"))
            async with in_service(keeper):
                filler.unlink()
                await until(lambda: keeper.status()["failing"] is None)
            assert len(caplog.messages) == 2
            assert caplog.messages[1] == f"state file {path} can be used again: what had to wait is written"
        contents = read(path)
        assert len(contents.facts) == 1000
        assert [row.guest for row in contents.facts if "newer" in row.value] == ["guest-7"]
        assert not contents.commands

    with small_disk(tmp_path / "disk") as disk:
        run(scenario(disk))


def test_a_disk_that_stays_full_until_the_end_is_said_to_have_cost_something(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(disk: Path) -> None:
        async with keeping(str(disk / "state")) as keeper:
            fill(disk)
            keeper.put_guest("web", UUID)

    with small_disk(tmp_path / "disk") as disk:
        run(scenario(disk))
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith("what changed lately could not be written and is lost")


def test_a_file_that_another_program_holds_is_read_by_nobody_and_written_later(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_module, "LOCK_PATIENCE", 0.0)

    async def scenario() -> None:
        async with keeping(path) as keeper:
            keeper.put_guest("web", UUID)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        async with keeping(path) as keeper:
            assert keeper.load() == Loaded(readable=False)
            keeper.put_guest("db", None)
            async with in_service(keeper):
                await until(lambda: keeper.status()["failing"] == "database is locked")
                holder.close()
                await until(lambda: keeper.status()["failing"] is None)
        assert read(path).guests == (("db", None), ("web", UUID))

    run(scenario())
    assert len(caplog.messages) == 1


def test_a_name_that_cannot_be_written_does_not_end_the_daemon(path: str) -> None:
    async def scenario() -> None:
        async with keeping(path) as keeper:
            keeper.put_guest("\ud800", None)
            await keeper.flush()
            assert "surrogates" in str(keeper.status()["failing"])

    run(scenario())


# ---- Hand-offs ----


def test_what_is_known_of_hand_offs_survives_a_restart(path: str) -> None:
    async def scenario() -> None:
        clocks = Clocks()
        async with keeping(path, clocks) as keeper:
            keeper.put_departure(DEPARTURE)
            keeper.put_departure(DEPARTURE._replace(transfer="0" * 32))
            keeper.drop_departure("0" * 32)
            for transfer in (OTHER, "a" * 32, TRANSFER):
                keeper.put_taken(transfer, "db")
            keeper.drop_taken("a" * 32)
            assert await keeper.save()
        clocks.monotonic, clocks.wall = 7.0, 5010.0
        async with keeping(path, clocks) as keeper:
            loaded = keeper.load()
            assert loaded == Loaded({}, (DEPARTURE._replace(since=-8.0),), {OTHER: "db", TRANSFER: "db"})
            assert list(loaded.taken) == [OTHER, TRANSFER]
        clocks.wall = 1000.0
        async with keeping(path, clocks) as keeper:
            (departure,) = keeper.load().departures
            assert departure.since == clocks.monotonic

    run(scenario())


def test_a_fact_of_unknown_age_and_what_was_before_a_guest_came_survive_a_restart(path: str) -> None:
    async def scenario() -> None:
        earlier = CHANGE._replace(at=70.0)
        async with keeping(path) as keeper:
            keeper.put_fact("web", "host-name", named("web", UNKNOWN_TIME))
            keeper.put_change("web", CHANGE)
            keeper.put_change("web", earlier)
        async with keeping(path) as keeper:
            assert keeper.load().guests["web"] == Remembered(
                None, {"host-name": named("web", UNKNOWN_TIME)}, [earlier, CHANGE], []
            )

    run(scenario())


def test_what_was_saved_is_in_the_file_and_what_can_not_be_is_said(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_module, "LOCK_PATIENCE", 0.0)

    async def scenario() -> None:
        async with keeping(path) as keeper:
            assert await keeper.save()
            keeper.put_departure(DEPARTURE)
            keeper.put_fact("web", "host-name", named("web"))
            assert await keeper.save()
            assert [row.transfer for row in read(path).departures] == [TRANSFER]
            assert len(read(path).facts) == 1
            assert not keeper.waiting
            holder = sqlite3.connect(path, isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            keeper.put_taken(OTHER, "db")
            assert not await keeper.save()
            keeper.drop_taken(OTHER)
            holder.close()
            assert await keeper.save()
            assert not read(path).taken

    run(scenario())


@pytest.mark.parametrize("problem", [None, OSError(28, "No space left on device")])
def test_saving_waits_for_what_is_just_being_written_and_writes_it_again_if_that_fails(
    path: str, problem: Optional[Exception]
) -> None:
    async def scenario() -> None:
        store = HangingStore(path, problem)
        async with keeping(path, store=store) as keeper:
            keeper.put_departure(DEPARTURE)
            writing = asyncio.ensure_future(keeper.flush())
            await until(store.writing.is_set)
            assert not keeper.waiting
            saving = asyncio.ensure_future(keeper.save())
            await asyncio.sleep(0)
            store.answer.set()
            assert await saving
            assert len(read(path).departures) == 1
            await writing

    run(scenario())
