"""When users come and go, and lock or unlock their screens: logind tells, where there is one.

Nothing is asked here: who is logged in is told by the collector of active-user, once ``mark`` shows a change.
"""

from __future__ import annotations

import selectors
from typing import Callable, Optional

from .log import Log
from .logind import Logind, LogindGone, Notice

#: Seconds between two attempts to reach logind, where there is one.
RETRY_PERIOD = 60.0


class Logins:
    """Watches for users who come and go.

    :param connect: connects to logind, or returns None where there is none.
    :param selector: where logind is waited for.
    """

    def __init__(self, connect: Callable[[], Optional[Logind]], selector: selectors.BaseSelector, log: Log) -> None:
        self._connect = connect
        self._selector = selector
        self._log = log
        self._logind: Optional[Logind] = None
        self._changes = 0
        self._retry_at = 0.0

    def mark(self) -> object:
        """Differs from what it was once logind has told of a change."""
        return self._changes

    def advance(self, now: float) -> list[Notice]:
        """What logind has told; connects to it when that is due."""
        if self._logind is None and now >= self._retry_at:
            self._retry_at = now + RETRY_PERIOD
            self._meet()
        notices = self._received()
        self._changes += Notice.SESSIONS_CHANGED in notices
        return notices

    def close(self) -> None:
        """Give the connection back."""
        if self._logind is not None:
            self._selector.unregister(self._logind)
            self._logind.close()
            self._logind = None

    def _received(self) -> list[Notice]:
        if self._logind is None:
            return []
        try:
            return self._logind.receive()
        except LogindGone as gone:
            self._log.info(f"logind: {gone}; trying again every {RETRY_PERIOD:g} s")
            self.close()
            return [Notice.SESSIONS_CHANGED]

    def _meet(self) -> None:
        try:
            self._logind = self._connect()
        except LogindGone as gone:
            self._log.debug(f"logind: {gone}")
        if self._logind is not None:
            self._changes += 1
            self._selector.register(self._logind, selectors.EVENT_READ)
