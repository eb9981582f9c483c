from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.exits import Exit
from host_agent.guest import HISTORY
from host_agent.known import UNKNOWN_TIME
from host_agent.store import file as file_module
from host_agent.store.backlog import Move
from host_agent.store.file import LAYOUT, Batch, Damaged, MisplacedStateFile, Store
from host_agent.store.rows import ChangeRow, CommandRow, Contents, DepartureRow, FactRow, GuestRow, TakenRow

from .disks import execute, fill, make_read_only, small_disk, write_layout_1, write_layout_2

UUID = "6b6f3c1e-8a53-4d51-9a51-5a4e7d3f0c11"
GUEST = GuestRow("web", UUID)
NAME = '{"name":"web"}'
FACT = FactRow("web", "host-name", NAME, 1000.0)
CHANGE = ChangeRow("web", 1000.0, 0, 3, "first agreement of this connection")
COMMAND = CommandRow("7f3a", "web", "lifecycle-event", 1000.0, 1030.0)
TRANSFER = "0123456789abcdef" * 2
DEPARTURE = DepartureRow(TRANSFER, "web", UUID, "host-b", 1000.0, False)
TAKEN = TakenRow("f" * 32, "db")
EVERYTHING = Batch((), [GUEST], [FACT], [CHANGE], [COMMAND], departures=[DEPARTURE], taken=[TAKEN])


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.sqlite")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def loaded(path: str) -> Contents:
    store = Store(path)
    try:
        return store.load()
    finally:
        store.close()


def write(path: str, *batches: Batch) -> None:
    store = Store(path)
    try:
        for batch in batches:
            store.write(batch)
    finally:
        store.close()


def layout_of(path: str) -> int:
    connection = sqlite3.connect(path)
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(layout)


# ---- What is written is there ----


def test_what_was_written_is_loaded(path: str) -> None:
    assert loaded(path) == Contents()
    other = FactRow("db", "fqdn", '{"fqdn":"ü.example"}', UNKNOWN_TIME)
    write(path, EVERYTHING, Batch(facts=[other]))
    assert loaded(path) == Contents((GUEST,), (other, FACT), (CHANGE,), (COMMAND,), (DEPARTURE,), (TAKEN,))


def test_only_its_owner_may_read_the_file_and_what_belongs_to_it(path: str, store: Store) -> None:
    store.write(EVERYTHING)
    assert os.path.exists(f"{path}-wal")
    for each in Path(path).parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600


def test_a_closed_store_is_one_plain_file(path: str) -> None:
    write(path, EVERYTHING)
    assert os.listdir(os.path.dirname(path)) == ["state.sqlite"]


def test_the_last_row_counts_and_answered_commands_go(store: Store) -> None:
    store.write(EVERYTHING)
    newer = FACT._replace(heard_at=2000.0)
    store.write(Batch(guests=[GuestRow("web", None)], facts=[newer], commands=[COMMAND], answered=["7f3a"]))
    assert store.load()[:4] == ((GuestRow("web", None),), (newer,), (CHANGE,), ())


def test_a_forgotten_guest_leaves_nothing(store: Store) -> None:
    store.write(EVERYTHING)
    kept = FACT._replace(name="fqdn", value='{"fqdn":"x"}')
    store.write(Batch([Move("web", None)], facts=[kept]))
    # Whether another host has it remains to be found out.
    assert store.load() == Contents(facts=(kept,), departures=(DEPARTURE,), taken=(TAKEN,))


def test_a_renamed_guest_takes_everything_along(store: Store) -> None:
    store.write(EVERYTHING)
    store.write(Batch(facts=[FACT._replace(guest="shop", name="fqdn", value='{"fqdn":"old shop"}')]))
    store.write(Batch([Move("web", "shop")]))
    assert store.load() == Contents(
        (GuestRow("shop", UUID),),
        (FACT._replace(guest="shop"),),
        (CHANGE._replace(guest="shop"),),
        (COMMAND._replace(guest="shop"),),
        (DEPARTURE._replace(guest="shop"),),
        (TAKEN,),
    )


def test_guests_can_change_names(store: Store) -> None:
    store.write(Batch(guests=[GuestRow("a", UUID), GuestRow("b", None)]))
    store.write(Batch([Move("a", "c"), Move("b", "a"), Move("c", "b")]))
    assert store.load().guests == (GuestRow("a", None), GuestRow("b", UUID))


def test_the_latest_changes_of_each_guest_are_kept_in_order(store: Store) -> None:
    changes = [CHANGE._replace(new=number) for number in range(HISTORY + 5)]
    store.write(Batch(changes=[CHANGE._replace(guest="db")]))
    for change in changes:
        store.write(Batch(changes=[change]))
    assert store.load().changes == (CHANGE._replace(guest="db"), *changes[5:])


def test_rows_that_this_program_cannot_have_written_are_left_out(path: str) -> None:
    write(path, EVERYTHING)
    execute(
        path,
        "INSERT INTO guests VALUES ('a', 'no uuid'), (x'00', NULL)",
        "INSERT INTO facts VALUES (x'00', 'host-name', '{}', 1), ('i', 'host-name', '{}', 'soon')",
        """INSERT INTO facts VALUES (CAST(x'ff41' AS TEXT), 'host-name', '{"name":"x"}', 1)""",
        "INSERT INTO facts VALUES ('b', 'host-name', CAST(x'7b226e616d65223a22ff227d' AS TEXT), 1)",
        "INSERT INTO changes VALUES ('web', 1, 0, 'three', 'why'), (NULL, NULL, NULL, NULL, NULL)",
        "INSERT INTO commands VALUES ('8', 'web', 'no-such-command', 1, 2)",
        "INSERT INTO departures VALUES ('no transfer', 'web', NULL, 'host-b', 1.0, 0)",
        "INSERT INTO taken VALUES ('no transfer', 'web')",
    )
    assert loaded(path) == Contents((GUEST,), (FACT,), (CHANGE,), (COMMAND,), (DEPARTURE,), (TAKEN,))


# ---- Hand-offs ----


def test_a_hand_off_whose_outcome_is_known_and_one_that_was_none_go(store: Store) -> None:
    store.write(EVERYTHING)
    later = DEPARTURE._replace(since=2000.0)
    store.write(Batch(departures=[later], taken=[TAKEN]))
    assert store.load()[4:] == ((later,), (TAKEN,))
    store.write(Batch(departed=[TRANSFER], not_taken=[TAKEN.transfer]))
    assert store.load()[4:] == ((), ())


def test_of_the_guests_taken_over_the_latest_are_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "TAKEN_LIMIT", 3)
    taken = [TakenRow(f"{number:032x}", "web") for number in range(5)]
    store.write(Batch(taken=taken[:4]))
    assert store.load().taken == tuple(taken[1:4])
    store.write(Batch(taken=[taken[1], taken[4]]))
    assert store.load().taken == (taken[3], taken[1], taken[4])


@pytest.mark.parametrize(
    ("batch", "waits"),
    [
        (Batch(departures=[DEPARTURE], facts=[FACT]), True),
        (Batch(taken=[TAKEN]), True),
        (Batch(departed=[TRANSFER], not_taken=[TAKEN.transfer], facts=[FACT], commands=[COMMAND]), False),
    ],
)
def test_only_what_says_whose_a_guest_is_waits_for_the_disk(store: Store, batch: Batch, waits: bool) -> None:
    store.write(EVERYTHING)
    store.write(batch)
    assert store._connection is not None
    (synchronous,) = store._connection.execute("PRAGMA synchronous").fetchone()
    assert (synchronous == 2) is waits


# ---- What the documentation says of it ----

DOCUMENT = (Path(__file__).parents[3] / "docs/state.md").read_text(encoding="utf-8")


def test_the_documented_tables_are_those_of_the_file(path: str) -> None:
    write(path, EVERYTHING)
    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    columns = "SELECT group_concat('`' || name || '`', ', ') FROM pragma_table_info(?)"
    expected = [(f"`{name}`", *connection.execute(columns, (name,)).fetchone()) for (name,) in tables]
    connection.close()
    rows = [line.split(" | ")[:2] for line in DOCUMENT.splitlines() if re.match(r"\| `\w+` \| `", line)]
    assert sorted((name[2:], named) for name, named in rows) == expected


def test_the_documented_queries_find_what_they_say(path: str) -> None:
    write(path, Batch(facts=[FACT._replace(guest="web-1")], changes=[CHANGE], commands=[COMMAND]))
    write(path, Batch(facts=[FactRow("web-1", "os-info", '{"kernel":"6.1"}', 1000.0)]))
    (block,) = re.findall("```sql\n(.*?)```", DOCUMENT, re.DOTALL)
    connection = sqlite3.connect(path)
    said, kernels, changes, commands = [connection.execute(query).fetchall() for query in block.split(";")[:-1]]
    connection.close()
    assert [(name, value) for name, _, value in said] == [("host-name", NAME), ("os-info", '{"kernel":"6.1"}')]
    assert kernels == [("web-1", "6.1")]
    assert changes == [("1970-01-01 00:16:40", *CHANGE[:1], *CHANGE[2:])]
    assert commands == [("web", "lifecycle-event", "7f3a", "1970-01-01 00:17:10")]


# ---- Places ----


@pytest.mark.parametrize("place", ["none/state", "."])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(MisplacedStateFile, match="change --state") as caught:
        Store(os.path.abspath(tmp_path / place)).check_place()
    assert caught.value.status is Exit.STATE_FILE


def test_a_file_that_is_removed_while_it_is_written_is_begun_anew(
    path: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(EVERYTHING)
    for each in Path(path).parent.iterdir():
        each.unlink()
    store.write(Batch(guests=[GUEST]))
    assert store.load() == Contents(guests=(GUEST,))
    store.close()
    assert loaded(path) == Contents(guests=(GUEST,))
    assert [message for message in caplog.messages if "was removed or replaced" in message] == caplog.messages[:1]


def test_a_file_that_is_replaced_while_it_is_written_is_the_one_that_counts(path: str, tmp_path: Path, store: Store) -> None:
    backup = str(tmp_path / "backup")
    write(backup, Batch(facts=[FACT]))
    store.write(Batch(commands=[COMMAND]))
    os.replace(backup, path)
    store.write(Batch(guests=[GUEST]))
    assert store.load() == Contents((GUEST,), (FACT,))


# ---- Other layouts ----


def test_a_file_of_the_first_layout_is_read_as_it_is_and_brought_up_when_it_is_written(path: str, store: Store) -> None:
    write_layout_1(path)
    assert store.load() == Contents(facts=(FACT,))
    assert layout_of(path) == 1
    store.write(Batch(guests=[GUEST]))
    assert layout_of(path) == LAYOUT
    assert store.load() == Contents(guests=(GUEST,), facts=(FACT,))


def test_a_file_from_before_there_were_hand_offs_is_read_as_it_is_and_brought_up_when_it_is_written(
    path: str, store: Store
) -> None:
    write_layout_2(path)
    before = Contents((GuestRow("web", None),), (), (), (COMMAND,))
    assert store.load() == before
    assert layout_of(path) == 2
    store.write(Batch(departures=[DEPARTURE], taken=[TAKEN]))
    assert layout_of(path) == LAYOUT
    assert store.load() == before._replace(departures=(DEPARTURE,), taken=(TAKEN,))


def test_a_file_that_cannot_be_brought_up_stays_as_it_was(path: str, store: Store) -> None:
    write_layout_1(path)
    poison = FactRow("web", "fqdn", "\ud800", 1.0)
    with pytest.raises(ValueError, match="surrogates"):
        store.write(Batch(facts=[poison]))
    assert layout_of(path) == 1
    assert store.load() == Contents(facts=(FACT,))


@pytest.mark.parametrize(
    ("why", "damage"),
    [
        ("not a database", lambda path: Path(path).write_bytes(b"no database at all, but quite long " * 100)),
        ("newer release", lambda path: execute(path, f"PRAGMA user_version = {LAYOUT + 1}")),
        ("no state", lambda path: execute(path, "PRAGMA user_version = -1")),
        ("no state", lambda path: execute(path, "PRAGMA user_version = 0")),
        ("no state", lambda path: execute(path, "DROP TABLE facts")),
        ("no state", lambda path: execute(path, "DROP TABLE facts", "CREATE TABLE facts (x)")),
        ("malformed", lambda path: os.truncate(path, 5000)),
    ],
)
def test_a_damaged_newer_or_foreign_file_is_neither_read_nor_written(path: str, why: str, damage: Any) -> None:
    write(path, EVERYTHING)
    damage(path)
    before = Path(path).read_bytes()
    with pytest.raises(Damaged, match=why):
        loaded(path)
    with pytest.raises(Damaged, match=why):
        write(path, EVERYTHING)
    assert Path(path).read_bytes() == before


def test_damage_that_shows_only_where_somebody_looks_is_found(path: str) -> None:
    write(path, Batch(facts=[FACT._replace(guest=f"guest-{number}") for number in range(1000)]))
    with open(path, "r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    with pytest.raises(Damaged):
        loaded(path)


def test_a_file_set_aside_takes_along_what_belongs_to_it(path: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    for suffix in ("", "-wal", "-journal", ".set-aside-wal"):
        Path(path + suffix).write_bytes(f"garbage of {suffix}".encode())
    Path(f"{path}-wal").unlink()
    store.set_aside("it is not well")
    assert sorted(os.listdir(os.path.dirname(path))) == ["state.sqlite.set-aside", "state.sqlite.set-aside-journal"]
    assert caplog.messages == [
        f"state file {path} can't be used (it is not well): it is now {path}.set-aside, a new one is begun"
    ]
    store.write(EVERYTHING)
    assert store.load().facts == (FACT,)


# ---- Disks ----


def test_a_full_disk_is_an_error_of_the_moment(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = Store(str(disk / "state"))
        filler = fill(disk)
        with pytest.raises((OSError, sqlite3.OperationalError)):
            store.write(EVERYTHING)
        filler.unlink()
        store.write(EVERYTHING)
        filler = fill(disk)
        many = [FACT._replace(guest=f"guest-{number}") for number in range(1000)]
        with pytest.raises(sqlite3.OperationalError, match="full"):
            store.write(Batch(facts=many))
        assert store.load().facts == (FACT,)
        filler.unlink()
        store.write(Batch(facts=many))
        assert len(store.load().facts) == 1001
        store.close()


def test_what_a_store_left_is_read_in_a_read_only_place(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        write(str(disk / "state"), EVERYTHING)
        write_layout_1(str(disk / "older"))
        make_read_only(disk)
        assert loaded(str(disk / "state")).commands == (COMMAND,)
        assert loaded(str(disk / "older")).facts == (FACT,)
        for name in ("state", "older"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                write(str(disk / name), EVERYTHING)
        with pytest.raises(OSError, match="Read-only"):
            write(str(disk / "new"), EVERYTHING)


def test_a_file_that_another_program_holds_is_an_error_of_the_moment(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "LOCK_PATIENCE", 0.0)
    write(path, EVERYTHING)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        loaded(path)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write(path, EVERYTHING)
    holder.close()
    assert loaded(path).facts == (FACT,)


def test_who_looks_into_the_file_holds_up_no_write(path: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "LOCK_PATIENCE", 0.0)
    store.write(EVERYTHING)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM facts").fetchone() == (1,)
    store.write(Batch([Move("web", None)]))
    assert store.load().facts == ()
    assert reader.execute("SELECT count(*) FROM facts").fetchone() == (1,)
    reader.close()


WRITER = """
import itertools, resource, sys
from host_agent.store.file import Batch, Store
from host_agent.store.rows import FactRow

path, limit = sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
store = Store(path)
for number in itertools.count():
    facts = [FactRow(f"guest-{each}", "host-name", '{"name":"web"}', float(number)) for each in range(500)]
    try:
        store.write(Batch(facts=facts))
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        break
    print(number, flush=True)
"""


def writer(path: str, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, path, str(limit)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("batches", [1, 20])
def test_a_writer_that_is_killed_leaves_whole_batches(path: str, batches: int) -> None:
    with writer(path) as process:
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(batches)][-1]
        process.send_signal(signal.SIGKILL)
    facts = loaded(path).facts
    assert len(facts) == 500
    (number,) = {fact.heard_at for fact in facts}
    assert number >= last


def test_a_file_that_may_not_grow_is_an_error_of_the_moment(path: str) -> None:
    with writer(path, limit=200_000) as process:
        assert process.stdout is not None
        *_, last, error = process.stdout.read().splitlines()
        assert process.wait() == 0
    assert error.startswith("OperationalError")
    assert {fact.heard_at for fact in loaded(path).facts} == {float(last)}
