"""file-read: a piece of a file is the answer, and whether it is the last one.

A file whose size the kernel does not tell beforehand, as those of ``/proc``, is read like any other.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import FileRead

from . import Machine, files


def available(machine: Machine) -> Optional[str]:
    """None where the directories below which files may be read can be entered."""
    return _area(machine).why_closed()


def run(machine: Machine, message: FileRead) -> Mapping[str, Any]:
    """Read the piece, or as much of it as one answer takes.

    :raises CommandFailed: the file can't be read, or the host may not have it.
    """
    count = min(message.count or files.PIECE_LIMIT, files.PIECE_LIMIT)
    files.check_offset(message.offset)
    with _area(machine).opened(message.path, os.O_RDONLY) as descriptor:
        found = _read(descriptor, message.offset, count + 1)
        size = os.fstat(descriptor).st_size
    content = binascii.b2a_base64(found[:count], newline=False).decode("ascii")
    return {"content": content, "offset": message.offset, "size": size, "end": len(found) <= count}


def _area(machine: Machine) -> files.Area:
    return files.Area(machine.root, machine.read_roots, "read")


def _read(descriptor: int, offset: int, count: int) -> bytes:
    """As many as *count* bytes; fewer only at the end of the file."""
    found = b""
    while len(found) < count:
        piece = os.pread(descriptor, count - len(found), offset + len(found))
        if not piece:
            break
        found += piece
    return found
