"""Log lines that the other side of the port can cause: never more than a few, however hard it tries.

The last of those that are too many is held back until the burst's period ends, so that the log ends with what is true.
Lines are counted by a *topic* that the caller names, so that a flood of one kind hides no other. Topics come from our
own code, never from a peer: their number is bounded.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Callable, Optional

#: At most this many lines of a topic …
BURST = 5

#: … in this many seconds.
PERIOD = 60.0


@dataclasses.dataclass
class _Window:
    ends_at: float
    said: int = 0
    held_back: int = 0
    last: tuple[int, str] = (logging.NOTSET, "")


class QuietLog:
    """Passes lines on to *log*; of those that come too fast, only the last, and late.

    :param clock: seconds, monotonic.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def info(self, topic: str, text: str) -> None:
        """Say *text* for people who look at what happens."""
        self._say(logging.INFO, topic, text)

    def warning(self, topic: str, text: str) -> None:
        """Say *text* for people who look at what goes wrong."""
        self._say(logging.WARNING, topic, text)

    def next_deadline(self) -> Optional[float]:
        """When ``close_windows`` wants to be called; None: no line is held back."""
        return min((window.ends_at for window in self._windows.values() if window.held_back), default=None)

    def close_windows(self) -> None:
        """Say the lines held back whose period has ended."""
        now = self._clock()
        for topic in [topic for topic, window in self._windows.items() if now >= window.ends_at]:
            window = self._windows.pop(topic)
            if window.held_back:
                level, text = window.last
                self._log.log(level, "%s (lines held back: %d; this is the last)", text, window.held_back)

    def _say(self, level: int, topic: str, text: str) -> None:
        self.close_windows()
        window = self._windows.setdefault(topic, _Window(self._clock() + PERIOD))
        if window.said < BURST:
            window.said += 1
            self._log.log(level, "%s", text)
        else:
            window.held_back += 1
            window.last = level, text
