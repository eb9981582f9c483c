"""An event loop with real sockets and a clock of its own: where nothing is ready, the next timer's moment has come.

So a minute costs nothing, and no test depends on how fast the machine is. After ``await asyncio.sleep(seconds)``, however
short, everything has happened that could happen before.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, Optional, TypeVar

T = TypeVar("T")

#: What a turn of the loop takes, in seconds; without it, a timer that is a rounding error early would never come.
TURN = 1e-7


class OwnTimeLoop(asyncio.SelectorEventLoop):
    """The loop.

    :ivar now: its clock, in seconds; whatever takes time moves it.
    :ivar turns: how many it has made.
    :ivar problems: what it was told of errors that nobody caught.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.turns = 0
        self.problems: list[dict[str, Any]] = []
        super().__init__(_SkippingSelector(self))
        self.set_exception_handler(lambda _, context: self.problems.append(context))

    def time(self) -> float:
        return self.now

    def timers(self) -> int:
        """How many timers have not rung yet and were not cancelled."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return sum(not timer.cancelled() for timer in scheduled)


class _SkippingSelector(selectors.DefaultSelector):
    """Never waits: moves the loop's clock instead."""

    def __init__(self, loop: OwnTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: Optional[float] = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again"
            self._loop.now += timeout
        self._loop.now += TURN
        self._loop.turns += 1
        return ready


def in_own_time(scenario: Coroutine[Any, Any, T]) -> T:
    """Run *scenario* in a loop with a clock of its own; it must leave no task and no uncaught error behind."""
    loop = OwnTimeLoop()
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(scenario)
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks left behind: {left}"
        assert not loop.problems
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def own_loop() -> OwnTimeLoop:
    """The loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, OwnTimeLoop)
    return loop
