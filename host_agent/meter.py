"""Counters that all guests share, for operators' metrics. Pure.

What is counted has a name of ours: a message of the table, a reason, a state. A guest chooses none of them, so their number
is bounded however hostile it is. What only one guest is asked about stands in its own session's counters; what they come
to over all guests, those included that have been forgotten, is added up when somebody asks.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Iterable
from typing import NamedTuple, Optional

from common.session import Counters

#: Upper ends of the classes into which round trips are counted, in seconds; a last class takes what is longer.
ROUND_TRIPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Counts of values by class.

    :ivar bounds: the upper end of each class but the last, which has none.
    :ivar counts: how many values fell into each class.
    :ivar total: the values' sum.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count *value*."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


class Standing(NamedTuple):
    """How a guest stands: by its state's name, and the version agreed on where its channel is open."""

    state: str
    agreed: Optional[int]


class Meter:
    """One for all guests of a daemon.

    :ivar received: messages from guests, by name.
    :ivar sent: messages to guests, by name.
    :ivar bytes_received: bytes from guests.
    :ivar bytes_sent: bytes to guests.
    :ivar unsent: bytes that wait for guests to read.
    :ivar changes: changes of agreed versions, by reason.
    :ivar guests: how many guests stand so.
    :ivar throttlings: how often a guest was not read from for a while because it sent too much.
    :ivar round_trips: times from a command to its completion, in seconds.
    :ivar late: completions that came after their command's deadline.
    :ivar unknown: completions of commands that nobody knows.
    :ivar timeouts: commands whose completion did not come in time.
    :ivar refusals: commands that were not sent, by reason.
    :ivar handoffs: guests that were handed over to other hosts, taken over from them, or could not be, by what happened.
    """

    def __init__(self) -> None:
        self.received: collections.Counter[str] = collections.Counter()
        self.sent: collections.Counter[str] = collections.Counter()
        self.bytes_received = 0
        self.bytes_sent = 0
        self.unsent = 0
        self.changes: collections.Counter[str] = collections.Counter()
        self.guests: collections.Counter[Standing] = collections.Counter()
        self.throttlings = 0
        self.round_trips = Histogram(ROUND_TRIPS)
        self.late = 0
        self.unknown = 0
        self.timeouts = 0
        self.refusals: collections.Counter[str] = collections.Counter()
        self.handoffs: collections.Counter[str] = collections.Counter()
        self._drops_of_forgotten: collections.Counter[str] = collections.Counter()

    def move(self, old: Optional[Standing], new: Optional[Standing]) -> None:
        """A guest stands otherwise; None: it is not there before, or after."""
        if old is not None:
            self.guests[old] -= 1
            if not self.guests[old]:
                del self.guests[old]
        if new is not None:
            self.guests[new] += 1

    def forget(self, counters: Counters) -> None:
        """A guest with these *counters* is forgotten: what it came to stays."""
        self._drops_of_forgotten.update(counters.dropped)

    def drops(self, present: Iterable[Counters]) -> collections.Counter[str]:
        """What was dropped of all guests ever, by reason.

        :param present: the counters of the guests that are not forgotten.
        """
        drops = self._drops_of_forgotten.copy()
        for counters in present:
            if counters.dropped:
                drops.update(counters.dropped)
        return drops
