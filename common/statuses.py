"""Exit statuses: numbers with a meaning, for service supervision, for scripts and for ``--help``."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TypeVar

S = TypeVar("S", bound="Status")


class Status(enum.IntEnum):
    """Base of a program's exit statuses; *meaning* is a clause for people."""

    meaning: str

    def __new__(cls: type[S], status: int, meaning: str) -> S:
        """A member with its meaning."""
        member = int.__new__(cls, status)
        member._value_ = status
        member.meaning = meaning
        return member


def epilog(statuses: Iterable[Status]) -> str:
    """All *statuses*, as ``--help`` lists them."""
    return "\n".join(("exit status:", *(f"  {status.value}  {status.meaning}" for status in statuses)))
