"""file-write: a piece of a file is written, which is made if it does not exist, for the agent's user alone.

It is written in place. When that goes wrong midway, the answer has how much was written.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import FileWrite
from guest_agent.processes import one_line

from . import CommandFailed, Machine, files


def available(machine: Machine) -> Optional[str]:
    """None where the directories below which files may be written can be entered."""
    return _area(machine).why_closed()


def run(machine: Machine, message: FileWrite) -> Mapping[str, Any]:
    """Write the piece.

    :raises CommandFailed: the file can't be written, or not all of the piece, or the host may not.
    """
    content = binascii.a2b_base64(message.content)
    if len(content) > files.PIECE_LIMIT:
        raise CommandFailed.invalid(f"content has more than {files.PIECE_LIMIT} bytes; write it in pieces")
    files.check_offset(message.offset)
    with _area(machine).opened(message.path, os.O_WRONLY | os.O_CREAT) as descriptor:
        written = 0
        try:
            while written < len(content):
                written += os.pwrite(descriptor, content[written:], message.offset + written)
            if message.truncate:
                os.ftruncate(descriptor, message.offset + written)
        except OSError as error:
            why = f"{one_line(message.path)}: {error.strerror}"
            raise CommandFailed(why, _result(descriptor, written)) from None
        return _result(descriptor, written)


def _area(machine: Machine) -> files.Area:
    return files.Area(machine.root, machine.write_roots, "write")


def _result(descriptor: int, written: int) -> dict[str, Any]:
    return {"written": written, "size": os.fstat(descriptor).st_size}
