"""The RPM database: one of SQLite is read here, one of Berkeley DB or ndb only the rpm program can read.

In SQLite's, table ``Name`` leads from a package's name to its row in ``Packages``, whose blob is the package's header: two
big-endian 32-bit numbers (how many index entries, how many bytes of values), the entries of four such numbers each (tag,
type, offset, count), the values. A string value ends with a zero byte.

Nothing in a header is believed: offsets are checked by slicing, and what does not fit makes the package invisible.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable, Optional

from .files import size
from .prints import RPM_FOREIGN, RPM_SQLITE

if TYPE_CHECKING:
    import sqlite3

    from guest_agent.processes import Run

#: Seconds that the rpm program may take.
PATIENCE = 20.0

#: How much the rpm program may say, in bytes.
OUTPUT_LIMIT = 4 * 1024 * 1024

_QUERY_FORMAT = "%{NAME}\\t%{VERSION}\\t%{RELEASE}\\n"

_VERSION = 1001
_RELEASE = 1002
_STRING = 6

_HEAD = struct.Struct(">II")
_ENTRY = struct.Struct(">IIII")


def packages(root: str, wanted: Callable[[str], bool], run: Run) -> Iterator[tuple[str, str]]:
    """Name and version-release of each installed package whose name is *wanted*.

    :raises ValueError: the database can't be read, or the rpm program says too much.
    :raises ProgramError: the rpm program could not be run.
    """
    path = _first(root, RPM_SQLITE)
    if path is not None:
        yield from _read(path, wanted)
    elif _first(root, RPM_FOREIGN) is not None:
        yield from _asked(root, run)


def _first(root: str, paths: tuple[str, ...]) -> Optional[str]:
    return next((os.path.join(root, path) for path in paths if size(root, path)), None)


# ---- By the program ----


def _asked(root: str, run: Run) -> Iterator[tuple[str, str]]:
    """All packages. The program may have complaints between its lines: what is no line of three is left out."""
    finished = run(
        ["rpm", "--root", os.path.abspath(root), "--query", "--all", "--queryformat", _QUERY_FORMAT],
        deadline=PATIENCE,
        output_limit=OUTPUT_LIMIT,
    )
    if finished.status != 0:
        raise ValueError(f"rpm --query --all {finished.how}; run it by hand to see why")
    if len(finished.output) >= OUTPUT_LIMIT:
        raise ValueError(f"rpm --query --all says more than {OUTPUT_LIMIT} bytes; run it by hand to see what")
    for line in finished.output.decode("utf-8", "replace").splitlines():
        name, *version = line.split("\t")
        if len(version) == len(("version", "release")):
            yield name, "-".join(version)


# ---- By SQLite ----


def _read(path: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    import sqlite3
    from contextlib import closing

    try:
        with closing(_open(path)) as database:
            for name, row in database.execute("SELECT key, hnum FROM Name").fetchall():
                if isinstance(name, str) and wanted(name):
                    for version in _versions(database.execute("SELECT blob FROM Packages WHERE hnum = ?", (row,))):
                        yield name, version
    except sqlite3.Error as error:
        raise ValueError(f"{path}: {error}") from None


def _open(path: str) -> sqlite3.Connection:
    """Even for reading, SQLite makes files beside the database; where it can't, nobody changes the database either."""
    import sqlite3
    from urllib.parse import quote

    uri = f"file:{quote(path)}?mode=ro"
    database = sqlite3.connect(uri, uri=True)
    try:
        database.execute("PRAGMA schema_version")
    except sqlite3.Error:
        database.close()
        return sqlite3.connect(f"{uri}&immutable=1", uri=True)
    return database


def _versions(rows: Iterator[tuple[object]]) -> Iterator[str]:
    for (header,) in rows:
        version, release = _string(header, _VERSION), _string(header, _RELEASE)
        if version and release:
            yield f"{version}-{release}"


def _string(header: object, wanted: int) -> Optional[str]:
    """The string with tag *wanted* in *header*."""
    if not isinstance(header, bytes) or len(header) < _HEAD.size:
        return None
    entries = _HEAD.unpack_from(header)[0]
    values = _HEAD.size + entries * _ENTRY.size
    for tag, kind, offset, _ in _ENTRY.iter_unpack(header[_HEAD.size : values]) if values <= len(header) else ():
        if tag == wanted and kind == _STRING:
            return header[values + offset :].partition(b"\0")[0].decode("utf-8", "replace")
    return None
