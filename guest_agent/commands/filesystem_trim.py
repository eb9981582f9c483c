"""filesystem-trim: the disks are told which blocks the file systems do not use, so that the host can have these back.

All file systems that stand on disks and can be written to, each once; those that don't know how, or whose disk does not want
to know, are left out. The result says of each how much its disk was told, or what went wrong.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from common.messages import FilesystemTrim
from guest_agent import mounts, processes

from . import CommandFailed, Machine

#: The ioctl of <linux/fs.h>, and what it is given: where to begin, how far to go, and the smallest piece, in bytes.
FITRIM = 0xC0185879
_RANGE = struct.Struct("=QQQ")
_ALL = 2**64 - 1

_TOO_LARGE = "no piece of it can be as large as the minimum"
_CAN_NOT = frozenset({errno.EOPNOTSUPP, errno.ENOTTY})


def available(machine: Machine) -> Optional[str]:
    """None where this is root."""
    return None if os.geteuid() == machine.owner else "only root may trim file systems; run the agent as root"


def run(machine: Machine, message: FilesystemTrim) -> Mapping[str, Any]:
    """Trim them, one after the other, as long as there is time.

    :raises CommandFailed: it worked for none, though it should have.
    """
    told = list(_trim_all(machine, min(message.minimum or 0, _ALL)))
    failed = [each for each in told if "error" in each]
    if failed and len(failed) == len(told):
        why = "; ".join(f"{processes.one_line(each['path'])}: {each['error']}" for each in failed)
        raise CommandFailed(f"nothing could be trimmed: {why}", members={"file_systems": told})
    return {"file_systems": told}


def _trim_all(machine: Machine, minimum: int) -> Iterator[Mapping[str, Any]]:
    give_up_at = time.monotonic() + machine.deadline
    for system in mounts.file_systems(machine.root):
        path = system.mounts[0].path
        if system.read_only:
            continue
        if time.monotonic() >= give_up_at:
            yield {"path": path, "error": f"not begun within {machine.deadline:g} s"}
            continue
        try:
            yield {"path": path, "trimmed": _trim(machine.root, system, minimum)}
        except OSError as error:
            if error.errno not in _CAN_NOT:
                yield {"path": path, "error": _TOO_LARGE if error.errno == errno.EINVAL else error.strerror}


def _trim(root: str, system: mounts.FileSystem, minimum: int) -> int:
    """How many bytes its disk was told of."""
    _, descriptor = mounts.open_any(root, system.mounts)
    try:
        answer = fcntl.ioctl(descriptor, FITRIM, _RANGE.pack(0, _ALL, minimum))
    finally:
        os.close(descriptor)
    trimmed: int = _RANGE.unpack(answer)[1]
    return trimmed
