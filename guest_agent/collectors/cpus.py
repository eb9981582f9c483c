"""How many CPUs are online."""

from __future__ import annotations

import re

from common.messages import NumberOfCpus

from .files import read_text

_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", re.ASCII)


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
        match = _RANGE.fullmatch(each)
        if match is None:
            raise ValueError(f"no CPU list: {ranges!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        total += max(0, last - first + 1)
    return total
