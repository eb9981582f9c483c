"""Questions over one HTTP connection that stays open, cheap on this side: what is timed is the other."""

from __future__ import annotations

import json
import re
import socket
from typing import Any, Optional

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)

_PIECE = 65536


class Conversation:
    """A connection to the control socket at *path*. Use as a context manager.

    :raises OSError: there is none, or it takes longer than *timeout* seconds to answer.
    """

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._socket.connect(path)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, document: Optional[Any] = None) -> tuple[int, bytes]:
        """The status and the body of the answer.

        :raises OSError: the connection ends, or the answer has no length.
        """
        body = b"" if document is None else json.dumps(document).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self._socket.sendall(head.encode() + b"\r\n\r\n" + body)
        head_of_answer, _, received = self._read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        length = _LENGTH.search(head_of_answer + b"\r\n")
        if length is None:
            raise OSError(f"an answer without a length: {head_of_answer!r}")
        while len(received) < int(length[1]):
            received += self._read()
        return int(head_of_answer.split()[1]), received

    def _read_until(self, end: bytes) -> bytes:
        received = b""
        while end not in received:
            received += self._read()
        return received

    def _read(self) -> bytes:
        piece = self._socket.recv(_PIECE)
        if not piece:
            raise OSError("the connection was closed")
        return piece
