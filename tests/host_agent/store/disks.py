"""Disks that are small, and files that are laid out as an older release did; for the tests of what is kept on them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of half a MiB at *place*; the test is left out where nobody may mount one."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "small", str(place)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leave not a byte free on *disk*; returns the file that takes the space."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def execute(path: str, *statements: str) -> None:
    """Have another program change the file at *path*."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def write_layout_1(path: str) -> None:
    """The state file of the first release."""
    os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
    execute(
        path,
        "\nCREATE TABLE IF NOT EXISTS facts "
        "(guest TEXT, name TEXT, value TEXT, heard_at REAL, PRIMARY KEY (guest, name)) WITHOUT ROWID\n",
        "PRAGMA user_version = 1",
        """INSERT INTO facts VALUES ('web', 'host-name', '{"name":"web"}', 1000.0)""",
    )


def write_layout_2(path: str) -> None:
    """The state file of a release before there were hand-offs, with a guest and a command in flight."""
    write_layout_1(path)
    execute(
        path,
        "DELETE FROM facts",
        "CREATE TABLE guests (guest TEXT PRIMARY KEY, uuid TEXT) WITHOUT ROWID",
        "CREATE TABLE changes (guest TEXT, at REAL, old INTEGER, new INTEGER, reason TEXT)",
        "CREATE INDEX changes_of_guest ON changes (guest)",
        "CREATE TABLE commands (reply_id TEXT PRIMARY KEY, guest TEXT, name TEXT, sent_at REAL, deadline_at REAL)",
        "PRAGMA user_version = 2",
        "INSERT INTO guests VALUES ('web', NULL)",
        "INSERT INTO commands VALUES ('7f3a', 'web', 'lifecycle-event', 1000.0, 1030.0)",
    )
