"""The RPM database, where it is one of SQLite, read without the rpm command.

Table ``Name`` leads from a package's name to its row in ``Packages``, whose blob is the package's header: two big-endian
32-bit numbers (how many index entries, how many bytes of values), the entries of four such numbers each (tag, type,
offset, count), the values. A string value ends with a zero byte.

Nothing in a header is believed: offsets are checked by slicing, and what does not fit makes the package invisible.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Callable, Optional

#: Where distributions keep it; the first one that is there counts.
DATABASES = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")

_VERSION = 1001
_RELEASE = 1002
_STRING = 6

_HEAD = struct.Struct(">II")
_ENTRY = struct.Struct(">IIII")


def packages(root: str, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Each installed package whose name is *wanted*, as name-version-release.

    :raises ValueError: the database can't be read.
    """
    path = next((path for path in (os.path.join(root, each) for each in DATABASES) if os.path.exists(path)), None)
    if path is None:
        return
    import sqlite3
    from urllib.parse import quote

    try:
        database = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
        try:
            for name, row in database.execute("SELECT key, hnum FROM Name").fetchall():
                if isinstance(name, str) and wanted(name):
                    yield from _described(name, database.execute("SELECT blob FROM Packages WHERE hnum = ?", (row,)))
        finally:
            database.close()
    except sqlite3.Error as error:
        raise ValueError(f"{path}: {error}") from None


def _described(name: str, rows: Iterator[tuple[object]]) -> Iterator[str]:
    for (header,) in rows:
        version, release = _string(header, _VERSION), _string(header, _RELEASE)
        if version and release:
            yield f"{name}-{version}-{release}"


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
