"""Reading the machine's small files: bounded, and as text whatever they hold; and seeing that larger ones are unchanged."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

#: No file read here is larger, in bytes; what is behind that is not seen.
SIZE_LIMIT = 1024 * 1024


def read_text(root: str, path: str) -> str:
    """The text of *path* (relative to *root*).

    :raises OSError: it can't be read.
    """
    with open(os.path.join(root, path), "rb", opener=_open_at_once) as file:
        return (file.read(SIZE_LIMIT) or b"").decode("utf-8", "replace")


def _open_at_once(path: str, flags: int) -> int:
    """What is no file, as a pipe, must not keep us waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_optional(root: str, path: str) -> str:
    """The text of *path*, empty where it can't be read."""
    try:
        return read_text(root, path)
    except OSError:
        return ""


def entries(root: str, path: str) -> list[str]:
    """What is in the directory *path*, sorted; nothing where it can't be read."""
    try:
        return sorted(os.listdir(os.path.join(root, path)))
    except OSError:
        return []


def size(root: str, path: str) -> int:
    """The size of *path* in bytes, 0 where it does not exist."""
    try:
        return os.stat(os.path.join(root, path)).st_size
    except OSError:
        return 0


def fingerprint(root: str, paths: Iterable[str]) -> tuple[tuple[str, int, int, int], ...]:
    """A value that changes when one of *paths*, files or directories, does; nothing is read.

    An empty file counts as none: a database makes and removes those while it is only being read.
    """
    prints = []
    for path in paths:
        try:
            status = os.stat(os.path.join(root, path))
        except OSError:
            continue
        if status.st_size or stat.S_ISDIR(status.st_mode):
            prints.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(prints)
