"""A descriptor that makes a selector return, for signals."""

from __future__ import annotations

import contextlib
import os

_READ_SIZE = 4096


class Wakeup:
    """A pipe to oneself."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self.write_end, False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._read_end

    def call(self) -> None:
        """Make it readable. May be called from a signal handler."""
        # Where the pipe is full, whoever waits is woken anyway.
        with contextlib.suppress(BlockingIOError):
            os.write(self.write_end, b"\0")

    def clear(self) -> None:
        """Make it unreadable again."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._read_end, _READ_SIZE)) == _READ_SIZE:
                pass

    def close(self) -> None:
        """Give both ends back."""
        os.close(self._read_end)
        os.close(self.write_end)
