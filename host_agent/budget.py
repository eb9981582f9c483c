"""How much a guest may send. Pure: time is passed in.

Each message and each byte is paid for with time; who has spent more than a reserve is in debt, and is not read from until
the debt is paid. A guest that keeps to its rates never notices, whatever it sends at once within the reserve.
"""

from __future__ import annotations

import math

#: What a guest may send at once is what it may send in so many seconds.
RESERVE = 10.0


class Limits:
    """What each guest may do; the same object for all guests, changed where the configuration changes.

    :ivar message_rate: messages a second.
    :ivar byte_rate: bytes a second.
    :ivar facts_size: how many bytes the lines of a guest's facts may have together.
    """

    def __init__(self, message_rate: float = 200.0, byte_rate: float = 1048576.0, facts_size: int = 262144) -> None:
        self.message_rate = message_rate
        self.byte_rate = byte_rate
        self.facts_size = facts_size


class Budget:
    """One guest's."""

    __slots__ = ("_limits", "_paid_until")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._paid_until = -math.inf

    def spend(self, messages: int, size: int, now: float) -> float:
        """Pay for *messages* and *size* bytes; returns how long not to read, in seconds."""
        limits = self._limits
        start = now - RESERVE
        if self._paid_until > start:
            start = self._paid_until
        for_messages, for_bytes = messages / limits.message_rate, size / limits.byte_rate
        self._paid_until = start + (for_messages if for_messages > for_bytes else for_bytes)
        debt = self._paid_until - now
        return debt if debt > 0.0 else 0.0

    def owes(self, now: float) -> bool:
        """Whether it is in debt."""
        return self._paid_until > now

    def is_calm(self, now: float) -> bool:
        """Whether half the reserve is there again."""
        return self._paid_until <= now - RESERVE / 2

    def calm_at(self) -> float:
        """When half the reserve will be there again, if nothing is spent."""
        return self._paid_until + RESERVE / 2
