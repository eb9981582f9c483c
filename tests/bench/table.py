"""Figures as a table: what the daemon needs, what the floor needs, their ratio, and what was to be reached. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Optional

REACHED, MISSED, UNKNOWN = "ok", "MISSED", "-"

_HEADERS = ("", "daemon", "floor", "ratio", "target", "", "")


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    :ivar daemon: None where it could not be measured.
    :ivar floor: None where there is nothing to compare with.
    :ivar at_most: what *daemon* must not exceed.
    :ivar times_floor: how many times *floor* it must not exceed.
    :ivar note: what else is to be known.
    """

    name: str
    unit: str
    daemon: Optional[float]
    floor: Optional[float] = None
    at_most: Optional[float] = None
    times_floor: Optional[float] = None
    note: str = ""

    @property
    def ratio(self) -> Optional[float]:
        """Of daemon to floor."""
        return self.daemon / self.floor if self.daemon is not None and self.floor else None

    @property
    def target(self) -> str:
        """What was to be reached, for people."""
        if self.times_floor is not None:
            return f"≤ {self.times_floor:g} × floor"
        return "" if self.at_most is None else f"≤ {self.at_most:g} {self.unit}".rstrip()

    @property
    def verdict(self) -> str:
        """Whether it was reached; empty where there was no target."""
        if not self.target:
            return ""
        value, limit = (self.ratio, self.times_floor) if self.times_floor is not None else (self.daemon, self.at_most)
        if value is None or limit is None:
            return UNKNOWN
        return REACHED if value <= limit else MISSED

    def as_mapping(self) -> dict[str, Any]:
        """For a program."""
        return {**dataclasses.asdict(self), "ratio": self.ratio, "target": self.target, "verdict": self.verdict}


def draw(rows: Iterable[Row]) -> str:
    """*rows* as text, a line each, under a line of headers."""
    cells = [_HEADERS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(_line(each, widths) for each in cells)


def percentile(values: Iterable[float], share: float) -> Optional[float]:
    """The smallest of *values* that at least *share* (0 to 1) of them do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    daemon = UNKNOWN if row.daemon is None else _number(row.daemon)
    floor = "" if row.floor is None else _number(row.floor)
    return (f"{row.name}, {row.unit}" if row.unit else row.name, daemon, floor, ratio, row.target, row.verdict, row.note)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names, targets and notes to the left, figures to the right."""
    aligned = (
        cell.rjust(width) if 1 <= position <= 3 else cell.ljust(width)
        for position, (cell, width) in enumerate(zip(cells, widths))
    )
    return "  ".join(aligned).rstrip()
