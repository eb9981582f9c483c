"""The log lines of one guest: each begins with its name, and a guest can't cause more than a few of them.

Lines are counted by a *topic*, so that a flood of one kind hides no other. Topics come from our own code, never from a
guest: their number is bounded. Time is passed in.
"""

from __future__ import annotations

import dataclasses
import logging

from .text import printable

_log = logging.getLogger(__name__)

#: At most this many lines of a topic …
BURST = 10

#: … in this many seconds.
PERIOD = 60.0


@dataclasses.dataclass
class _Window:
    ends_at: float
    said: int = 0
    swallowed: int = 0


class Journal:
    """Says what happens to the guest *name*."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._windows: dict[str, _Window] = {}

    def say(self, topic: str, text: str, now: float, level: int = logging.INFO) -> None:
        """Log *text*, unless too much was said on this topic already."""
        window = self._window(topic, now)
        if window.said >= BURST:
            window.swallowed += 1
            return
        window.said += 1
        more = f" ({window.swallowed} more lines like this were not logged)" if window.swallowed else ""
        window.swallowed = 0
        _log.log(level, "%s: %s%s", printable(self._name), printable(text), more)

    def _window(self, topic: str, now: float) -> _Window:
        window = self._windows.setdefault(topic, _Window(now + PERIOD))
        if now >= window.ends_at:
            window.ends_at = now + PERIOD
            window.said = 0
        return window
