"""Bytes to lines.

A channel is a byte stream: chunk boundaries mean nothing, a new connection may begin in the middle of an old line, and a
line may never end. So: memory is bounded by the line limit, a line that reaches it is dropped as a whole, and reading
resumes after the next newline. However the bytes are cut, the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Union

from . import errors
from .records import Record

#: A line that has grown to this many bytes without its newline is dropped. The reference host's limit.
LINE_LIMIT = 1024 * 1024


class Overlong(Record):
    """Stands for a line that was dropped because it reached the limit; *evidence* is how it began."""

    evidence: bytes


class LineSplitter:
    """Cuts a byte stream into lines without their newline."""

    __slots__ = ("_discarding", "_limit", "_partial")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._discarding = False

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished line are held."""
        return len(self._partial)

    def feed(self, data: bytes) -> Iterable[Union[bytes, Overlong]]:
        """Take *data*; returns each line that it completes, and an ``Overlong`` for each line given up.

        What is returned must be used up before more is fed.
        """
        if self._partial or self._discarding or len(data) >= self._limit:
            return self._continue(data)
        *lines, rest = data.split(b"\n")
        self._partial += rest
        return lines

    def _continue(self, data: bytes) -> Iterator[Union[bytes, Overlong]]:
        """As ``feed``, behind an unfinished line, or with so much data that a line can reach the limit in it."""
        start = 0
        while True:
            end = data.find(b"\n", start)
            if end < 0:
                yield from self._grow(data[start:])
                return
            yield from self._finish(data[start:end])
            start = end + 1

    def reset(self) -> None:
        """Forget an unfinished line: the stream starts anew."""
        self._partial.clear()
        self._discarding = False

    def _grow(self, piece: bytes) -> Iterator[Overlong]:
        if self._discarding:
            return
        if len(self._partial) + len(piece) < self._limit:
            self._partial += piece
            return
        yield self._give_up(piece)
        self._discarding = True

    def _finish(self, piece: bytes) -> Iterator[Union[bytes, Overlong]]:
        if self._discarding:
            self._discarding = False
        elif len(self._partial) + len(piece) < self._limit:
            line = bytes(self._partial) + piece if self._partial else piece
            self._partial.clear()
            yield line
        else:
            yield self._give_up(piece)

    def _give_up(self, piece: bytes) -> Overlong:
        evidence = bytes(self._partial[: errors.EVIDENCE_LIMIT]) + piece[: errors.EVIDENCE_LIMIT]
        self._partial.clear()
        return Overlong(evidence[: errors.EVIDENCE_LIMIT])
