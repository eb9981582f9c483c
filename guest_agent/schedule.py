"""When each fact is due. Pure: time is passed in, and nothing is collected here.

A fact is due when somebody wants it, and then again each time its period has passed. It is taken by whoever comes by, and
that is at the latest the next heartbeat: so facts cost no wake-ups of their own. Which ones may be taken now, whoever comes
by says; the others stay due until they may.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Callable

#: Seconds between two reports of a fact that nobody asked for.
PERIODS: Mapping[str, float] = {
    "active-user": 10.0,
    "number-of-cpus": 60.0,
    "capabilities": 60.0,
    "host-name": 120.0,
    "fqdn": 120.0,
    "os-version": 120.0,
    "os-info": 120.0,
    "timezone": 120.0,
    "network-interfaces": 120.0,
    "memory-stats": 120.0,
    "applications": 120.0,
    "containers": 120.0,
    "disks-usage": 300.0,
}

#: A period that never ends: the fact is not reported, whoever asks.
NEVER = math.inf

#: Seconds that a periodic fact waits for a heartbeat to ride on; where heartbeats are further apart, it is taken without.
LENIENCE = 5.0

#: Seconds that a timer may be early or late, without a fact missing its heartbeat.
_JITTER = 0.1


class Schedule:
    """Due times of the facts in *periods*, the first ones a period after *now*."""

    def __init__(self, now: float, periods: Mapping[str, float] = PERIODS) -> None:
        self._periods = {name: period for name, period in periods.items() if period != NEVER}
        self._due_at = {name: now + period for name, period in self._periods.items()}
        self._wanted: set[str] = set()

    def want(self, names: Iterable[str]) -> None:
        """Make *names* due at once; one that this agent does not report is ignored."""
        self._wanted.update(self._periods.keys() & set(names))

    def take(self, now: float, allowed: Callable[[str], bool]) -> list[str]:
        """The facts that are due and *allowed*; each of them is due again after its period."""
        due = (name for name, due_at in self._due_at.items() if name in self._wanted or due_at <= now + _JITTER)
        taken = list(filter(allowed, due))
        for name in taken:
            self._due_at[name] = now + self._periods[name]
        self._wanted.difference_update(taken)
        return taken

    def next_deadline(self, now: float, allowed: Callable[[str], bool]) -> float:
        """When the next fact that is *allowed* has to be taken."""
        if any(map(allowed, self._wanted)):
            return now
        return min((due_at for name, due_at in self._due_at.items() if allowed(name)), default=NEVER) + LENIENCE
