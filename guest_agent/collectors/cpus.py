"""How many CPUs are online."""

from __future__ import annotations

from common.messages import NumberOfCpus

from .files import read_text

#: No number in a CPU list has more digits.
_DIGITS_LIMIT = 6


def number_of_cpus(root: str) -> NumberOfCpus:
    """The CPUs online; -1 where the kernel does not say."""
    try:
        return NumberOfCpus(count=count(read_text(root, "sys/devices/system/cpu/online").strip()))
    except (OSError, ValueError):
        return NumberOfCpus(count=-1)


def count(ranges: str) -> int:
    """The size of a CPU list such as ``0-3,6``.

    :raises ValueError: it is none.
    """
    total = 0
    for each in ranges.split(","):
        first, dash, last = each.partition("-")
        if not (_is_number(first) and _is_number(last if dash else first)):
            raise ValueError(f"no CPU list: {ranges!r}")
        total += max(0, int(last or first) - int(first) + 1)
    return total


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS_LIMIT
