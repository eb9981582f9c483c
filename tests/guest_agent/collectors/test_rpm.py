"""The RPM database: one that is built here, as rpm lays it out, and those that only the rpm program can read."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from guest_agent import processes
from guest_agent.collectors import rpm

from .conftest import Program

NAME, VERSION, RELEASE, SIZE = 1000, 1001, 1002, 1009
STRING, INT32 = 6, 4
SQLITE = "var/lib/rpm/rpmdb.sqlite"
FOREIGN = "var/lib/rpm/Packages.db"


def header(strings: Mapping[int, str]) -> bytes:
    """A package header with these string tags, and a number among them."""
    values = b"\0\0\0\7"
    entries = struct.pack(">IIII", SIZE, INT32, 0, 1)
    for tag, text in strings.items():
        entries += struct.pack(">IIII", tag, STRING, len(values), 1)
        values += text.encode() + b"\0"
    return struct.pack(">II", len(strings) + 1, len(values)) + entries + values


def make_database(root: Path, packages: Mapping[str, tuple[str, str]], path: str = SQLITE) -> None:
    headers = {
        name: header({NAME: name, VERSION: version, RELEASE: release}) for name, (version, release) in packages.items()
    }
    make_raw_database(root, headers, path)


def make_raw_database(root: Path, headers: Mapping[str, object], path: str = SQLITE) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(root / path)) as database, database:
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        database.execute("CREATE TABLE 'Name' (key 'TEXT' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL)")
        for number, (name, blob) in enumerate(headers.items(), 1):
            database.execute("INSERT INTO Packages VALUES (?, ?)", (number, blob))
            database.execute("INSERT INTO Name VALUES (?, ?, 0)", (name, number))


def make_foreign(root: Path, path: str = FOREIGN, content: bytes = b"RpmP") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


@pytest.fixture
def change(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database that rpm is just changing."""
    make_database(tmp_path, {"kernel": ("1", "2")})
    with contextlib.closing(sqlite3.connect(tmp_path / SQLITE)) as database:
        yield database


def found(root: Path, run: processes.Run) -> list[str]:
    return ["-".join(package) for package in rpm.packages(str(root), lambda name: name != "bash", run)]


# ---- SQLite's ----


def test_packages_that_are_wanted_are_named_with_version_and_release(tmp_path: Path, no_program: processes.Run) -> None:
    make_database(tmp_path, {"bash": ("5.1", "9"), "kernel": ("5.14.0", "427.el9"), "vmaccord": ("0.1", "1")})
    assert found(tmp_path, no_program) == ["kernel-5.14.0-427.el9", "vmaccord-0.1-1"]


def test_the_newer_place_counts_before_the_older_one(tmp_path: Path, no_program: processes.Run) -> None:
    make_database(tmp_path, {"old": ("1", "1")})
    make_database(tmp_path, {"new": ("2", "2")}, "usr/lib/sysimage/rpm/rpmdb.sqlite")
    assert found(tmp_path, no_program) == ["new-2-2"]


def test_a_path_with_characters_of_a_uri_is_read(tmp_path: Path, no_program: processes.Run) -> None:
    root = tmp_path / "a?b#c%20"
    make_database(root, {"kernel": ("1", "2")})
    assert found(root, no_program) == ["kernel-1-2"]


def test_a_machine_without_the_database_has_no_packages(tmp_path: Path, no_program: processes.Run) -> None:
    assert found(tmp_path, no_program) == []


def test_what_is_only_in_the_journal_yet_counts(
    tmp_path: Path, change: sqlite3.Connection, no_program: processes.Run
) -> None:
    change.execute("PRAGMA journal_mode = wal")
    with change:
        change.execute("INSERT INTO Packages VALUES (7, ?)", (header({VERSION: "3", RELEASE: "4"}),))
        change.execute("INSERT INTO Name VALUES ('new', 7, 0)")
    assert found(tmp_path, no_program) == ["kernel-1-2", "new-3-4"]


def test_a_database_that_sqlite_can_not_share_is_read_as_it_is(
    tmp_path: Path, change: sqlite3.Connection, no_program: processes.Run
) -> None:
    change.execute("PRAGMA journal_mode = wal")
    change.close()
    # What readers and writers share can't be made, as on a file system that can't be written to.
    (tmp_path / f"{SQLITE}-shm").symlink_to("/nowhere/shared")
    assert found(tmp_path, no_program) == ["kernel-1-2"]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\0\0",
        "text",
        7,
        struct.pack(">II", 0, 0),
        struct.pack(">II", 0xFFFFFFFF, 0),
        header({VERSION: "1"}),
        header({VERSION: "", RELEASE: "1"}),
        struct.pack(">II", 1, 0) + struct.pack(">IIII", VERSION, STRING, 0xFFFFFFFF, 1),
        struct.pack(">II", 1, 0) + struct.pack(">IIII", VERSION, INT32, 0, 1) + b"1\0",
    ],
)
def test_a_damaged_header_costs_its_own_package_only(damaged: object, tmp_path: Path, no_program: processes.Run) -> None:
    make_raw_database(tmp_path, {"damaged": damaged, "kernel": header({VERSION: "1", RELEASE: "2"})})
    assert found(tmp_path, no_program) == ["kernel-1-2"]


def test_a_name_that_is_none_and_a_row_that_is_missing_are_left_out(
    tmp_path: Path, change: sqlite3.Connection, no_program: processes.Run
) -> None:
    with change:
        change.execute("INSERT INTO Name VALUES (x'00', 1, 0)")
        change.execute("INSERT INTO Name VALUES ('gone', 99, 0)")
    assert found(tmp_path, no_program) == ["kernel-1-2"]


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 2000])
def test_a_damaged_database_is_an_error(content: bytes, tmp_path: Path, no_program: processes.Run) -> None:
    make_foreign(tmp_path, SQLITE, content)
    with pytest.raises(ValueError, match=r"rpmdb\.sqlite: (file is not a database|database disk image|unsupported)"):
        found(tmp_path, no_program)


def test_a_database_of_something_else_is_an_error(tmp_path: Path, no_program: processes.Run) -> None:
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(tmp_path / SQLITE)) as database:
        database.execute("CREATE TABLE t (a)")
    with pytest.raises(ValueError, match="no such table: Name"):
        found(tmp_path, no_program)


# ---- By the program ----


@pytest.mark.parametrize("path", [FOREIGN, "var/lib/rpm/Packages", "usr/lib/sysimage/rpm/Packages.db"])
def test_of_another_database_the_rpm_program_is_asked(path: str, tmp_path: Path, program: Program) -> None:
    make_foreign(tmp_path, path)
    program.answer = b"kernel\t4.18.0\t553.el8\nqemu\t6.2\t5\n"
    assert found(tmp_path, program.run) == ["kernel-4.18.0-553.el8", "qemu-6.2-5"]
    (argv,) = program.ran
    assert argv[:5] == ["rpm", "--root", str(tmp_path), "--query", "--all"]


def test_the_program_is_not_asked_where_the_database_can_be_read(tmp_path: Path, no_program: processes.Run) -> None:
    make_foreign(tmp_path)
    make_database(tmp_path, {"kernel": ("1", "2")})
    assert found(tmp_path, no_program) == ["kernel-1-2"]


def test_an_empty_database_is_none(tmp_path: Path, no_program: processes.Run) -> None:
    make_foreign(tmp_path, content=b"")
    make_foreign(tmp_path, SQLITE, b"")
    assert found(tmp_path, no_program) == []


def test_complaints_between_the_packages_are_left_out(tmp_path: Path, program: Program) -> None:
    make_foreign(tmp_path)
    program.answer = b"warning: \xff database\nkernel\t1\t2\na\tb\na\tb\tc\td\n\nqemu\t3\t4"
    assert found(tmp_path, program.run) == ["kernel-1-2", "qemu-3-4"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (processes.Finished(1, b"error: cannot open Packages\n"), "ended with status 1; run it by hand"),
        (processes.Finished(-9, b"kernel\t1\t2\n"), "was ended by signal 9"),
        (processes.Finished(0, b"kernel\t1\t2\n" * 1_000_000), "says more than"),
    ],
)
def test_a_program_that_fails_or_floods_is_an_error(
    answer: processes.Finished, expected: str, tmp_path: Path, program: Program
) -> None:
    make_foreign(tmp_path)
    program.answer = answer
    with pytest.raises(ValueError, match=expected):
        found(tmp_path, program.run)


@pytest.mark.parametrize("error", [processes.ProgramMissing("rpm is missing"), processes.ProgramTimedOut("rpm hung")])
def test_a_program_that_is_missing_or_hangs_is_an_error(
    error: processes.ProgramError, tmp_path: Path, program: Program
) -> None:
    make_foreign(tmp_path)
    program.answer = error
    with pytest.raises(type(error)):
        found(tmp_path, program.run)
