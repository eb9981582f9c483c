"""File systems that are mounted from a disk of this machine: which there are, where, and how to get hold of one.

What the kernel lists is believed only as far as it can be read. A descriptor is taken from the mount that was meant and from
no other: what hides it, or was mounted there meanwhile, is noticed. File systems without a disk (those of a network too) are
never touched, since they may hang. Opening one that stands on a disk may hang all the same: that belongs into workers.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from .collectors.files import read_text

#: What the kernel lists as mounted, relative to the root.
MOUNTS = "proc/self/mountinfo"

#: Where it lists the types that it knows, relative to the root.
TYPES = "proc/filesystems"

_OCTAL = re.compile(r"\\([0-7]{3})")


class Hidden(OSError):
    """A mount can't be reached, since another one hides it. Whoever has a file there open can still write to it."""

    def __init__(self, mount: Mount) -> None:
        super().__init__(errno.ESTALE, "another mount hides it; unmount that one", mount.path)


class Mount(NamedTuple):
    """A file system at one of the places where it is mounted.

    :ivar number: which mount it is, as descriptors know it.
    :ivar device: the number of its device, which is the same at each of its places.
    :ivar path: the place, as seen below the root.
    :ivar kind: the type of the file system.
    :ivar read_only: whether nobody can write to the file system, at whichever place.
    """

    number: int
    device: str
    path: str
    kind: str
    read_only: bool


class FileSystem(NamedTuple):
    """A file system on a disk, and all places where it is mounted, in the order in which they came."""

    mounts: tuple[Mount, ...]

    @property
    def device(self) -> str:
        """The number of its device."""
        return self.mounts[0].device

    @property
    def read_only(self) -> bool:
        """Whether nobody can write to it."""
        return self.mounts[0].read_only


def mounts(root: str) -> list[Mount]:
    """All that is mounted, in the order in which that was done.

    A path is whatever bytes its maker liked; those that are no UTF-8 are kept as surrogates.

    :raises OSError: the kernel does not list it.
    """
    with open(os.path.join(root, MOUNTS), encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return [mount for mount in map(_read, lines) if mount is not None]


def file_systems(root: str, mounted: Optional[Sequence[Mount]] = None) -> list[FileSystem]:
    """Those that stand on a disk, in the order in which they were mounted first.

    :param mounted: what is mounted, where that is known already.
    :raises OSError: the kernel does not list what is mounted, or which types stand on disks.
    """
    kinds = _kinds_on_disks(root)
    places: dict[str, list[Mount]] = {}
    for mount in mounts(root) if mounted is None else mounted:
        if mount.kind.partition(".")[0] in kinds:
            places.setdefault(mount.device, []).append(mount)
    return [FileSystem(tuple(found)) for found in places.values()]


def open_mount(root: str, mount: Mount) -> int:
    """A descriptor of the directory at which *mount* begins.

    :raises Hidden: another mount hides it.
    :raises OSError: it can't be had.
    """
    path = os.path.join(root, mount.path.lstrip("/"))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise Hidden(mount) from None
    if number_of(descriptor) != mount.number:
        os.close(descriptor)
        raise Hidden(mount)
    return descriptor


def open_any(root: str, places: Sequence[Mount]) -> tuple[Mount, int]:
    """The first of *places*, which are those of one file system, that can be opened, and a descriptor of it.

    :raises Hidden: none can, and other mounts hide at least the last one.
    :raises OSError: none can.
    """
    refusal: OSError = FileNotFoundError(errno.ENOENT, "it is not mounted any more")
    for mount in places:
        try:
            return mount, open_mount(root, mount)
        except OSError as error:
            refusal = error
    raise refusal


def number_of(descriptor: int) -> int:
    """The number of the mount through which *descriptor* was opened."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def _read(line: str) -> Optional[Mount]:
    """What a line says; None where it says less than it should."""
    place, _, kind = line.rstrip("\n").partition(" - ")
    fields, more = place.split(" "), kind.split(" ")
    if len(fields) < 6 or len(more) < 3 or not fields[0].isdecimal():
        return None
    return Mount(int(fields[0]), fields[2], _OCTAL.sub(_unescape, fields[4]), more[0], "ro" in more[2].split(","))


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))


def _kinds_on_disks(root: str) -> frozenset[str]:
    return frozenset(_without_nodev(read_text(root, TYPES).splitlines()))


def _without_nodev(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        words = line.split()
        if len(words) == 1:
            yield words[0]
