"""The log lines of one guest: each begins with its name, and a guest can't cause more than a few of them.

Lines are counted by a *topic*, so that a flood of one kind hides no other. Topics come from our own code, never from a
guest: their number is bounded. The latest of the lines that were held back is said in the end, so that the last line on a
topic is always true. Time is passed in.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional

from .text import printable

_log = logging.getLogger(__name__)

#: At most this many lines of a topic …
BURST = 10

#: … in this many seconds, and one more at their end.
PERIOD = 60.0

#: Calls a function at an instant of the clock from which time is passed in, as an event loop does.
CallAt = Callable[[float, Callable[[], None]], object]


class _Window:
    __slots__ = ("ends_at", "held_back", "latest", "level", "said", "topic")

    def __init__(self, topic: str, ends_at: float) -> None:
        self.topic = topic
        self.ends_at = ends_at
        self.said = 0
        self.held_back = 0
        self.latest = ""
        self.level = logging.INFO


class Journal:
    """Says what happens to the guest *name*.

    :param call_at: without it, what was held back is said no sooner than the next line of its topic.
    """

    __slots__ = ("_call_at", "_name", "_windows")

    def __init__(self, name: str, call_at: Optional[CallAt] = None) -> None:
        self._name = name
        self._call_at = call_at
        #: One for each topic; nearly every guest has two, for which a dictionary would be large.
        self._windows: tuple[_Window, ...] = ()

    def rename(self, name: str) -> None:
        """The guest is called *name* now."""
        self._name = name

    def say(self, topic: str, text: str, now: float, level: int = logging.INFO) -> None:
        """Log *text*, or hold it back where too much was said on this topic already."""
        window = self._window(topic, now)
        if window.said < BURST:
            window.said += 1
            self._log(text, level)
        else:
            self._hold_back(window, text, level)

    def _window(self, topic: str, now: float) -> _Window:
        window = next((each for each in self._windows if each.topic == topic), None)
        if window is not None and now < window.ends_at:
            return window
        if window is not None:
            self._close(window)
        fresh = _Window(topic, now + PERIOD)
        self._windows = (*(each for each in self._windows if each is not window), fresh)
        return fresh

    def _hold_back(self, window: _Window, text: str, level: int) -> None:
        if not window.held_back and self._call_at is not None:
            self._call_at(window.ends_at, lambda: self._close(window))
        window.held_back += 1
        window.latest, window.level = text, level

    def _close(self, window: _Window) -> None:
        if window.held_back:
            self._log(f"{window.latest} (the latest of {window.held_back} lines that were held back)", window.level)
            window.held_back = 0

    def _log(self, text: str, level: int) -> None:
        _log.log(level, "%s: %s", printable(self._name), printable(text))
