"""When each fact is due. Pure: time is passed in, and nothing is collected here.

A fact is due when somebody wants it, and then again each time its period has passed. Whether it may be sent at the
version in use is not known here: who takes a fact and may not send it drops it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Seconds between two reports of a fact that nobody asked for.
PERIODS: Mapping[str, float] = {
    "active-user": 10.0,
    "number-of-cpus": 60.0,
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


class Schedule:
    """Due times of the facts in *periods*, the first ones a period after *now*."""

    def __init__(self, now: float, periods: Mapping[str, float] = PERIODS) -> None:
        self._periods = periods
        self._due_at = {name: now + period for name, period in periods.items()}

    def want(self, names: Iterable[str], now: float) -> None:
        """Make *names* due at once; one that this agent does not know is ignored."""
        for name in names:
            if name in self._due_at:
                self._due_at[name] = min(now, self._due_at[name])

    def take(self, now: float) -> list[str]:
        """The facts that are due; each is due again after its period."""
        due = [name for name, due_at in self._due_at.items() if due_at <= now]
        for name in due:
            self._due_at[name] = now + self._periods[name]
        return due

    def next_deadline(self) -> float:
        """When the next fact is due."""
        return min(self._due_at.values())
