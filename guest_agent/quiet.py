"""Log lines that the other side of the port can cause: never more than a few, however hard it tries.

The last of those that are too many is held back until the burst's period ends, so that the log ends with what is true.
Lines are counted by a *topic* that the caller names, so that a flood of one kind hides no other. Topics come from our
own code, never from a peer: their number is bounded.
"""

from __future__ import annotations

from typing import Callable, Optional

from .log import Log

#: At most this many lines of a topic …
BURST = 5

#: … in this many seconds.
PERIOD = 60.0


class _Window:
    """The lines of one topic since *ends_at* minus the period."""

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.said = 0
        self.held_back = 0
        self.last = ("", "")


class QuietLog:
    """Passes lines on to *log*; of those that come too fast, only the last, and late.

    :param clock: seconds, monotonic.
    """

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def info(self, topic: str, text: str) -> None:
        """Say *text* for people who look at what happens."""
        self._say("info", topic, text)

    def always(self, level: str, text: str) -> None:
        """Say *text* each time and whatever level is wanted; who calls it sees to it that such lines are few."""
        self._log.always(level, text)

    def warning(self, topic: str, text: str) -> None:
        """Say *text* for people who look at what goes wrong."""
        self._say("warning", topic, text)

    def next_deadline(self) -> Optional[float]:
        """When ``close_windows`` wants to be called; None: no line is held back."""
        return min((window.ends_at for window in self._windows.values() if window.held_back), default=None)

    def close_windows(self) -> None:
        """Say the lines held back whose period has ended."""
        now = self._clock()
        for topic in [topic for topic, window in self._windows.items() if now >= window.ends_at]:
            self._say_last(self._windows.pop(topic))

    def close(self) -> None:
        """Say all lines held back: nothing more is to come."""
        for window in self._windows.values():
            self._say_last(window)
        self._windows.clear()

    def _say_last(self, window: _Window) -> None:
        if window.held_back:
            level, text = window.last
            self._log.say(level, f"{text} (lines held back: {window.held_back}; this is the last)")

    def _say(self, level: str, topic: str, text: str) -> None:
        self.close_windows()
        window = self._windows.setdefault(topic, _Window(self._clock() + PERIOD))
        if window.said < BURST:
            window.said += 1
            self._log.say(level, text)
        else:
            window.held_back += 1
            window.last = level, text
