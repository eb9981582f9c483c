"""Log lines that the other side of the port can cause: never more than a few, however hard it tries.

Lines are counted by a *topic* that the caller names, so that a flood of one kind hides no other. Topics come from our
own code, never from a peer: their number is bounded.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Callable

#: At most this many lines of a topic …
BURST = 5

#: … in this many seconds.
PERIOD = 60.0


@dataclasses.dataclass
class _Window:
    ends_at: float
    said: int = 0
    swallowed: int = 0


class QuietLog:
    """Passes lines on to *log* and swallows those that come too fast.

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

    def _say(self, level: int, topic: str, text: str) -> None:
        window = self._window(topic)
        if window.said >= BURST:
            window.swallowed += 1
            return
        window.said += 1
        more = f" ({window.swallowed} more lines like this were not logged)" if window.swallowed else ""
        window.swallowed = 0
        self._log.log(level, "%s%s", text, more)

    def _window(self, topic: str) -> _Window:
        now = self._clock()
        window = self._windows.setdefault(topic, _Window(now + PERIOD))
        if now >= window.ends_at:
            window.ends_at = now + PERIOD
            window.said = 0
        return window
