"""Disks: mounted file systems with their size and use, and which device has which serial number. Slow: a disk may hang.

Reported is what stands on a disk of this machine, once per file system, at the place where it was mounted first. Left out
are pseudo file systems, and those of a network: they say nothing of this machine and may hang. So that a hanging one is
never even touched, what is mounted below or behind it is left out too.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

from common.messages import DisksUsage

from .files import entries, read_optional, read_text

#: Types that need not be reported: images, which are full by nature.
IGNORED = ("cramfs", "erofs", "iso9660", "squashfs")

#: Stand on disks although the kernel counts them among those without a device.
_DISKS_OF_THEIR_OWN = frozenset({"zfs"})

#: Those without a device that the way to a disk may lead through: they live in memory or on disks, and answer.
_ON_THE_WAY = frozenset({"autofs", "devtmpfs", "overlay", "ramfs", "rootfs", "tmpfs"})

#: A page of vital product data begins with a head of this many bytes.
_PAGE_HEAD = 4

_OCTAL = re.compile(r"\\([0-7]{3})")


class _Mount(NamedTuple):
    device: str
    path: str
    file_system: str

    @property
    def kind(self) -> str:
        """The type as the kernel lists it: without what a file system in user space adds."""
        return self.file_system.partition(".")[0]


def disks_usage(root: str, ignored: Sequence[str]) -> DisksUsage:
    """File systems on disks, in bytes, and the device of each serial number.

    :param ignored: patterns of types that are left out; see ``IGNORED``.
    :raises OSError: the kernel does not list what is mounted, or which file systems stand on disks.
    """
    return DisksUsage(disks=tuple(_usages(root, ignored)), mapping=_devices_by_serial(root))


def _usages(root: str, ignored: Sequence[str]) -> Iterator[dict[str, Any]]:
    mounts = list(_mounts(root))
    without_disk = _without_device(root) - _DISKS_OF_THEIR_OWN
    untouchable = [mount.path for mount in mounts if mount.kind in without_disk - _ON_THE_WAY and mount.path != "/"]
    # What was mounted last at a place hides what was there before.
    visible = {mount.path: mount for mount in mounts}.values()
    seen = set()
    for mount in visible:
        if mount.kind in without_disk or mount.device in seen or _matches(mount.file_system, ignored):
            continue
        if any(mount.path == path or mount.path.startswith(f"{path}/") for path in untouchable):
            continue
        seen.add(mount.device)
        usage = _usage(root, mount)
        if usage is not None:
            yield usage


def _matches(file_system: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(file_system, pattern) for pattern in patterns)


def _usage(root: str, mount: _Mount) -> Optional[dict[str, Any]]:
    """None where it has no size or can't be asked."""
    try:
        status = os.statvfs(os.path.join(root, mount.path.lstrip("/")))
    except OSError:
        return None
    if not status.f_blocks:
        return None
    return {
        "path": mount.path,
        "fs": mount.file_system,
        "total": status.f_blocks * status.f_frsize,
        "used": (status.f_blocks - status.f_bfree) * status.f_frsize,
    }


def _mounts(root: str) -> Iterator[_Mount]:
    """All of them, however many; a path is whatever bytes its maker liked, without line feeds and spaces."""
    with open(os.path.join(root, "proc/self/mountinfo"), encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            place, _, kind = line.rstrip("\n").partition(" - ")
            fields, file_system = place.split(" "), kind.split(" ")[0]
            if len(fields) > 4 and file_system:
                yield _Mount(fields[2], _OCTAL.sub(_unescape, fields[4]), file_system)


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))


def _without_device(root: str) -> frozenset[str]:
    lines = read_text(root, "proc/filesystems").splitlines()
    return frozenset(line.split()[1] for line in lines if line.startswith("nodev") and len(line.split()) > 1)


def _devices_by_serial(root: str) -> dict[str, Any]:
    serials = ((_serial(root, disk), disk) for disk in entries(root, "sys/block"))
    # The kernel lists a device in a directory, such as cciss/c0d0, with another character for the slash.
    return {serial: {"name": f"/dev/{disk.replace('!', '/')}"} for serial, disk in serials if serial}


def _serial(root: str, disk: str) -> str:
    """The serial number that virtio, NVMe or SCSI know of *disk*; empty for none."""
    directory = f"sys/block/{disk}"
    plain = read_optional(root, f"{directory}/serial") or read_optional(root, f"{directory}/device/serial")
    return (plain or read_optional(root, f"{directory}/device/vpd_pg80")[_PAGE_HEAD:]).strip(" \0\n")
