"""What a soak brought, as a table. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional

WITHIN, EXCEEDED = "ok", "EXCEEDED"


class Figure(NamedTuple):
    """One line of the table.

    :ivar bound: what *value* must not exceed; None: it is only told.
    """

    name: str
    value: float
    unit: str = ""
    bound: Optional[float] = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it is within its bound; empty where it has none."""
        if self.bound is None:
            return ""
        return WITHIN if self.value <= self.bound else EXCEEDED


class Outcome(NamedTuple):
    """The end of a soak.

    :ivar faults: what must not be, a sentence each; of many the first ones.
    """

    figures: list[Figure]
    faults: list[str]

    @property
    def failed(self) -> bool:
        """Whether something did not hold."""
        return bool(self.faults) or any(each.verdict == EXCEEDED for each in self.figures)


def draw(figures: Iterable[Figure]) -> str:
    """The table, a line for each figure."""
    return "\n".join(map(_line, figures))


def _line(figure: Figure) -> str:
    bound = "" if figure.bound is None else f"≤ {_number(figure.bound)}"
    value = f"{_number(figure.value)} {figure.unit:<5}"
    return f"{figure.name:<30}{value:>18}  {bound:<12}{figure.verdict:<10}{figure.note}".rstrip()


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or float(value).is_integer() else f"{value:.2f}"
