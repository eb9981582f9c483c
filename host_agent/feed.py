"""What happened, for operators who follow it: a ring of the latest happenings, each with a number. Pure but for waking.

Whoever follows keeps the number of the last one that it has seen and asks for what came after. So one who is slow holds up
nobody and costs no memory: what left the ring meanwhile is lost to it, and it is told how much that was. Heartbeats and the
contents of facts are not told: they stand in the guest's description.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from typing import Any, Callable, NamedTuple, Optional

#: How many happenings are kept.
LIMIT = 3_000

#: Every kind of happening and what it means, as the documentation lists them.
KINDS = {
    "guest-found": "a guest's port was found; details: path",
    "guest-gone": "a guest has no port any more",
    "guest-forgotten": "a guest without a port is not remembered any longer",
    "guest-renamed": "a guest is called otherwise now; details: old",
    "state": "a guest's channel stands otherwise; details: state, why",
    "version": "host and guest agreed on another version; details: old, new, reason",
    "agent-restarted": "a guest's agent was restarted",
    "fact": "a guest says something else of itself than before; details: name",
    "notice": "something happened in a guest; details: name",
    "command": "a command was sent; details: name, reply_id",
    "completion": "a guest answered a command; details: name, reply_id, done, late",
    "progress": "a command is still in flight; details: name, reply_id, waited_s, left_s",
    "resent": "a command was sent again, on the guest's next channel; details: name, reply_id",
    "unsupported": "a guest says that it does not carry out a command; details: name, reason",
    "timed-out": "a guest did not answer a command in time; details: name, reply_id",
    "throttled": "a guest sends too much, and is read from slowly",
    "unthrottled": "a guest is read from as usual again",
    "complaint": "a guest did something wrong; details: text",
    "migration": "a guest's VM moves or moved; details: text",
    "handoff": "a guest was handed over, taken over or kept, or peers can't come in, or can again; details: text",
    "discovery": "a source of guests came or went; details: source, text",
    "configuration": "the configuration was read again; details: text",
}


class Happening(NamedTuple):
    """One thing that happened.

    :ivar number: counts up by one.
    :ivar at: when, in seconds since the epoch.
    :ivar kind: one of ``KINDS``.
    :ivar guest: the name of the guest it happened to, or None.
    """

    number: int
    at: float
    kind: str
    guest: Optional[str]
    details: dict[str, Any]


class Feed:
    """The happenings of one run of the daemon.

    :param run: the identity of this run.
    :param wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        run: str,
        limit: int = LIMIT,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - people want to know when it was
    ) -> None:
        self.run = run
        self.last = 0
        self._ring: deque[Happening] = deque(maxlen=limit)
        self._wall_clock = wall_clock
        #: Set with the next happening, where somebody waits for it.
        self._news: Optional[asyncio.Event] = None

    def __len__(self) -> int:
        return len(self._ring)

    def tell(self, kind: str, guest: Optional[str] = None, **details: Any) -> None:
        """Something happened."""
        self.last += 1
        self._ring.append(Happening(self.last, self._wall_clock(), kind, guest, details))
        news, self._news = self._news, None
        if news is not None:
            news.set()

    def since(self, number: int) -> tuple[int, list[Happening]]:
        """How many happenings after *number* are lost, and those that are not, in order."""
        there = min(self.last - number, len(self._ring))
        latest_first = list(itertools.islice(reversed(self._ring), max(0, there)))
        return max(0, self.last - number - there), latest_first[::-1]

    async def wait(self, after: int) -> None:
        """Return as soon as there is something newer than *after*."""
        while self.last <= after:
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
