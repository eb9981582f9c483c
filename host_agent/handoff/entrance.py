"""The doors of this host, which open as soon as they can: an address or a certificate that is not there yet ends no daemon.

What fails is said once, and tried again and again. Nothing here knows what is said between hosts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Optional

from host_agent.config import Address
from host_agent.exits import Failure
from host_agent.feed import Feed
from host_agent.text import printable

from .network import Doors
from .security import PLAIN_TEXT, Security

_log = logging.getLogger(__name__)

#: Doors that could not be opened are tried again so often, in seconds.
RETRY_PERIOD = 10.0


class Entrance:
    """Keeps *doors* as they are wanted.

    :ivar failing: why they are not open, a sentence; None: they are, or need not be.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, doors: Doors, feed: Feed) -> None:
        self.failing: Optional[str] = None
        self._loop = loop
        self._doors = doors
        self._feed = feed
        self._wanted: tuple[Sequence[Address], Security] = (), Security(PLAIN_TEXT)
        self._trying: Optional[asyncio.Task[None]] = None

    async def open(self, addresses: Sequence[Address], security: Security) -> None:
        """Let peers in at *addresses*, by *security*, as soon as that can be."""
        self._wanted = addresses, security
        if not await self._is_open():
            self._trying = self._loop.create_task(self._try_again())

    async def change(self, addresses: Sequence[Address], security: Security) -> None:
        """Let them in at other addresses, or otherwise, from now on.

        :raises Failure: that can't be; all is as before.
        """
        wanted = addresses, security
        try:
            await self._doors.open(*wanted)
        except Failure:
            if self.failing is None or wanted != self._wanted:
                raise
            return
        self._wanted = wanted
        self._end_trying()
        self._note_open()

    async def close(self) -> None:
        """Let nobody in any more."""
        self._end_trying()
        await self._doors.close()

    async def _try_again(self) -> None:
        while True:
            await asyncio.sleep(RETRY_PERIOD)
            if await self._is_open():
                return

    async def _is_open(self) -> bool:
        """Whether the doors can be opened as they are wanted; then they are."""
        try:
            await self._doors.open(*self._wanted)
        except Failure as failure:
            self._note_failing(str(failure))
            return False
        self._note_open()
        return True

    def _end_trying(self) -> None:
        if self._trying is not None:
            self._trying.cancel()
            self._trying = None

    def _note_failing(self, why: str) -> None:
        if why != self.failing:
            self.failing = why
            _log.warning("no peer is let in, which is tried again every %g s: %s", RETRY_PERIOD, printable(why))
            self._feed.tell("handoff", text=f"no peer is let in: {why}")

    def _note_open(self) -> None:
        if self.failing is not None:
            self.failing = None
            _log.info("peers are let in now")
            self._feed.tell("handoff", text="peers are let in now")
