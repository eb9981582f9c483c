"""Disks: mounted file systems with their size and use, and which device has which serial number.

Reported is what stands on a disk of this machine, once per file system, at the place where it was mounted first. Left out
are pseudo file systems, network file systems (they say nothing of this machine, and may hang), and images that are full
by nature.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from common.messages import DisksUsage

from .files import entries, read_optional, read_text

#: Stand on disks although the kernel counts them among those without a device.
_DISKS_OF_THEIR_OWN = frozenset({"zfs"})

_IMAGES = frozenset({"cramfs", "erofs", "iso9660", "squashfs"})

#: A page of vital product data begins with a head of this many bytes.
_PAGE_HEAD = 4

_OCTAL = re.compile(r"\\([0-7]{3})")


class _Mount(NamedTuple):
    device: str
    path: str
    file_system: str


def disks_usage(root: str) -> DisksUsage:
    """File systems on disks, in bytes, and the device of each serial number.

    :raises OSError: the kernel does not list what is mounted.
    """
    return DisksUsage(disks=tuple(_usages(root)), mapping=_devices_by_serial(root))


def _usages(root: str) -> Iterator[dict[str, Any]]:
    skipped = (_without_device(root) - _DISKS_OF_THEIR_OWN) | _IMAGES
    seen = set()
    for mount in _mounts(read_text(root, "proc/self/mountinfo")):
        if mount.file_system in skipped or mount.device in seen:
            continue
        seen.add(mount.device)
        usage = _usage(root, mount)
        if usage is not None:
            yield usage


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


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        place, _, kind = line.partition(" - ")
        fields, file_system = place.split(" "), kind.split(" ")[0]
        if len(fields) > 4 and file_system:
            yield _Mount(fields[2], _OCTAL.sub(_unescape, fields[4]), file_system)


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))


def _without_device(root: str) -> frozenset[str]:
    lines = read_optional(root, "proc/filesystems").splitlines()
    return frozenset(line.split()[1] for line in lines if line.startswith("nodev") and len(line.split()) > 1)


def _devices_by_serial(root: str) -> dict[str, Any]:
    serials = ((_serial(root, disk), disk) for disk in entries(root, "sys/block"))
    return {serial: {"name": f"/dev/{disk}"} for serial, disk in serials if serial}


def _serial(root: str, disk: str) -> str:
    """The serial number that virtio, NVMe or SCSI know of *disk*; empty for none."""
    directory = f"sys/block/{disk}"
    plain = read_optional(root, f"{directory}/serial") or read_optional(root, f"{directory}/device/serial")
    return (plain or read_optional(root, f"{directory}/device/vpd_pg80")[_PAGE_HEAD:]).strip(" \0\n")
