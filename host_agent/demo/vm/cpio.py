"""Writing an initramfs: a cpio archive of the kind that the kernel reads, without need for root or for a program.

Everything in it belongs to root. Device nodes and files can be added that do not exist on this machine.
"""

from __future__ import annotations

import os
import pathlib
import stat
from types import TracebackType
from typing import BinaryIO, Optional

_MAGIC = "070701"
_END = "TRAILER!!!"


class Archive:
    """A cpio archive that is being written to *file*. Use as a context manager."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._entries = 0
        self._names: set[str] = set()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._write(_END, 0, b"")

    def add_tree(self, root: pathlib.Path) -> None:
        """Add everything below *root*."""
        for directory, subdirectories, files in os.walk(root):
            subdirectories.sort()
            for name in sorted([*subdirectories, *files]):
                path = os.path.join(directory, name)
                self._add_path(os.path.relpath(path, root), path)

    def add_file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file of that content."""
        self._add_parents(name)
        self._write(name, stat.S_IFREG | mode, content)

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link to *target*."""
        self._add_parents(name)
        self._write(name, stat.S_IFLNK | 0o777, target.encode())

    def add_directory(self, name: str) -> None:
        """Add a directory, and those above it."""
        self._add_parents(name)
        if name not in self._names:
            self._names.add(name)
            self._write(name, stat.S_IFDIR | 0o755, b"")

    def add_character_device(self, name: str, major: int, minor: int) -> None:
        """Add a device node."""
        self._add_parents(name)
        self._write(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def _add_path(self, name: str, path: str) -> None:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            self.add_directory(name)
        elif stat.S_ISLNK(status.st_mode):
            self._write(name, status.st_mode, os.readlink(path).encode())
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                self._write(name, status.st_mode, file.read())

    def _add_parents(self, name: str) -> None:
        parent = os.path.dirname(name)
        if parent:
            self.add_directory(parent)

    def _write(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._entries += 1
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device twice, length of the name, checksum
        numbers = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        header = _MAGIC + "".join(f"{number:08X}" for number in numbers)
        self._file.write(_padded(header.encode() + encoded) + _padded(content))


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
