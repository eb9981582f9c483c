"""Reading the machine's small files: bounded, and as text whatever they hold."""

from __future__ import annotations

import os

#: No file read here is larger, in bytes; what is behind that is not seen.
SIZE_LIMIT = 1024 * 1024


def read_text(root: str, path: str) -> str:
    """The text of *path* (relative to *root*).

    :raises OSError: it can't be read.
    """
    with open(os.path.join(root, path), "rb") as file:
        return file.read(SIZE_LIMIT).decode("utf-8", "replace")


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
