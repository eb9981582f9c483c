"""Memory, for heartbeats and the fact ``memory-stats``.

Amounts are in KiB. As deployed hosts understand them, ``mem_unused`` is what nobody uses at all, and ``mem_free`` is that
plus buffers and cache. Paging is in events per second since the measurement before, 0 in the first one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Callable, Optional

from common.messages import MemoryStats

from .files import read_text

_AMOUNTS = ("MemTotal", "MemFree", "Buffers", "Cached", "SwapTotal", "SwapFree")
_RATES = {"swap_in": "pswpin", "swap_out": "pswpout", "pageflt": "pgfault", "majflt": "pgmajfault"}


class Meter:
    """Measures memory. Each user has a meter of its own, so that rates belong to its own period.

    :param clock: seconds, monotonic.
    """

    def __init__(self, root: str, clock: Callable[[], float]) -> None:
        self._root = root
        self._clock = clock
        self._counted: Optional[Mapping[str, int]] = None
        self._counted_at = 0.0

    def measure(self) -> dict[str, int]:
        """The members of ``memory-stat``.

        :raises OSError: the kernel does not tell.
        :raises ValueError: it does not tell the total, so nothing below makes sense.
        """
        amounts = _numbers(read_text(self._root, "proc/meminfo"), _AMOUNTS)
        if "MemTotal" not in amounts:
            raise ValueError("no MemTotal in /proc/meminfo")
        unused, buffers, cached = (amounts.get(name, 0) for name in ("MemFree", "Buffers", "Cached"))
        swap_total = amounts.get("SwapTotal", 0)
        return {
            "mem_total": amounts["MemTotal"],
            "mem_free": unused + buffers + cached,
            "mem_unused": unused,
            "mem_buffers": buffers,
            "mem_cached": cached,
            "swap_total": swap_total,
            "swap_usage": swap_total - amounts.get("SwapFree", swap_total),
            **self._rates(),
        }

    def memory_stats(self) -> MemoryStats:
        """The fact. Raises what ``measure`` raises."""
        return MemoryStats(memory=self.measure())

    @staticmethod
    def free_ram(measured: Mapping[str, int]) -> str:
        """A heartbeat's ``free-ram`` for what ``measure`` returned: MiB, decimal."""
        return str(measured["mem_free"] // 1024)

    def _rates(self) -> dict[str, int]:
        now = self._clock()
        counted = _numbers(read_text(self._root, "proc/vmstat"), _RATES.values())
        before, elapsed = self._counted, now - self._counted_at
        self._counted, self._counted_at = counted, now
        if before is None or elapsed <= 0:
            return dict.fromkeys(_RATES, 0)
        return {rate: max(0, round((counted.get(name, 0) - before.get(name, 0)) / elapsed)) for rate, name in _RATES.items()}


def _numbers(text: str, wanted: Collection[str]) -> dict[str, int]:
    """The lines ``name number`` whose name is *wanted*, with or without a colon and a unit."""
    numbers = {}
    for line in text.splitlines():
        name, _, rest = line.replace(":", " ", 1).partition(" ")
        figure = rest.split()[:1]
        if name in wanted and figure and figure[0].isascii() and figure[0].isdigit():
            numbers[name] = int(figure[0])
    return numbers
