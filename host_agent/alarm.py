"""One timer for a deadline that keeps moving.

A deadline that moves with every message would cost a new timer per message. So a timer that is armed for an earlier
moment is left alone: it rings too early, its owner looks at its clock, finds nothing due and sets the deadline again.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Callable, Optional

#: One for all: the loop would copy one for each timer.
_CONTEXT = contextvars.copy_context()


class Alarm:
    """Calls *ring* at or before the deadline last set; *ring* must set the next one."""

    __slots__ = ("_at", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: Optional[asyncio.TimerHandle] = None
        #: When the timer rings.
        self._at = 0.0

    def set(self, deadline: Optional[float]) -> None:
        """Ring no later than *deadline*, an instant of the loop's clock; None: there is nothing to wait for."""
        if deadline is None:
            self.cancel()
        elif self._timer is None or self._at > deadline:
            self.cancel()
            self._at = deadline
            self._timer = self._loop.call_at(deadline, self._fire, context=_CONTEXT)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._ring()
