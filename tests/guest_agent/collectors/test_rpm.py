"""The RPM database: one that is built here, as rpm lays it out."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from guest_agent.collectors import rpm

NAME, VERSION, RELEASE, SIZE = 1000, 1001, 1002, 1009
STRING, INT32 = 6, 4


def header(strings: Mapping[int, str]) -> bytes:
    """A package header with these string tags, and a number among them."""
    values = b"\0\0\0\7"
    entries = struct.pack(">IIII", SIZE, INT32, 0, 1)
    for tag, text in strings.items():
        entries += struct.pack(">IIII", tag, STRING, len(values), 1)
        values += text.encode() + b"\0"
    return struct.pack(">II", len(strings) + 1, len(values)) + entries + values


def make_database(root: Path, packages: Mapping[str, tuple[str, str]], path: str = "var/lib/rpm/rpmdb.sqlite") -> None:
    headers = {
        name: header({NAME: name, VERSION: version, RELEASE: release}) for name, (version, release) in packages.items()
    }
    make_raw_database(root, headers, path)


def make_raw_database(root: Path, headers: Mapping[str, object], path: str = "var/lib/rpm/rpmdb.sqlite") -> None:
    (root / path).parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(root / path)) as database, database:
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        database.execute("CREATE TABLE 'Name' (key 'TEXT' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL)")
        for number, (name, blob) in enumerate(headers.items(), 1):
            database.execute("INSERT INTO Packages VALUES (?, ?)", (number, blob))
            database.execute("INSERT INTO Name VALUES (?, ?, 0)", (name, number))


def found(root: Path) -> list[str]:
    return list(rpm.packages(str(root), lambda name: name != "bash"))


def test_packages_that_are_wanted_are_named_with_version_and_release(tmp_path: Path) -> None:
    make_database(tmp_path, {"bash": ("5.1", "9"), "kernel": ("5.14.0", "427.el9"), "vmaccord": ("0.1", "1")})
    assert found(tmp_path) == ["kernel-5.14.0-427.el9", "vmaccord-0.1-1"]


def test_the_newer_place_counts_before_the_older_one(tmp_path: Path) -> None:
    make_database(tmp_path, {"old": ("1", "1")})
    make_database(tmp_path, {"new": ("2", "2")}, "usr/lib/sysimage/rpm/rpmdb.sqlite")
    assert found(tmp_path) == ["new-2-2"]


def test_a_path_with_characters_of_a_uri_is_read(tmp_path: Path) -> None:
    root = tmp_path / "a?b#c%20"
    make_database(root, {"kernel": ("1", "2")})
    assert found(root) == ["kernel-1-2"]


def test_a_machine_without_the_database_has_no_packages(tmp_path: Path) -> None:
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\0\0",
        "text",
        struct.pack(">II", 0, 0),
        struct.pack(">II", 0xFFFFFFFF, 0),
        header({VERSION: "1"}),
        struct.pack(">II", 1, 0) + struct.pack(">IIII", VERSION, STRING, 0xFFFFFFFF, 1),
        struct.pack(">II", 1, 0) + struct.pack(">IIII", VERSION, INT32, 0, 1) + b"1\0",
    ],
)
def test_a_damaged_header_costs_its_own_package_only(damaged: object, tmp_path: Path) -> None:
    make_raw_database(tmp_path, {"damaged": damaged, "kernel": header({VERSION: "1", RELEASE: "2"})})
    assert found(tmp_path) == ["kernel-1-2"]


def test_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    (tmp_path / "var/lib/rpm/rpmdb.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(ValueError, match="not a database"):
        found(tmp_path)
