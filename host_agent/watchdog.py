"""The service manager's watchdog: it is told twice in each of its periods that the event loop runs.

A loop that hangs tells nothing, and the service manager starts the daemon anew: sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Optional

from . import notify

#: Signs of life are no closer together than this, in seconds, however impatient the service manager is.
_SHORTEST = 0.01


class Watchdog:
    """Gives signs of life from *loop* while it is open, where the service manager waits for them.

    :param environment: says how often, from whom, and where to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, environment: Mapping[str, str] = os.environ) -> None:
        self._loop = loop
        self._environment = environment
        self._interval = _interval(environment)
        self._timer: Optional[asyncio.TimerHandle] = None

    def open(self) -> None:
        """Give the first sign now."""
        if self._interval is not None and self._timer is None:
            self._give_sign(self._interval)

    def close(self) -> None:
        """Give no more signs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_sign(self, interval: float) -> None:
        notify.tell(notify.ALIVE, self._environment)
        self._timer = self._loop.call_later(interval, self._give_sign, interval)


def _interval(environment: Mapping[str, str]) -> Optional[float]:
    """Seconds between two signs of life of this process; None: nobody waits for them."""
    microseconds = _number(environment.get("WATCHDOG_USEC", ""))
    process = environment.get("WATCHDOG_PID")
    if not microseconds or (process is not None and _number(process) != os.getpid()):
        return None
    return max(_SHORTEST, microseconds / 2_000_000)


def _number(text: str) -> Optional[int]:
    """The number that *text* is, if it is one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
