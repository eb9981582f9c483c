"""What holds for all tests: a process that a test forks measures its own coverage, and not its parent's once more."""

from __future__ import annotations

import os
import sys
from typing import Any

#: The measurement of the process that is about to fork.
_measured: list[Any] = [None]


def _note_measurement() -> None:
    coverage = sys.modules.get("coverage")
    _measured[0] = coverage.Coverage.current() if coverage is not None else None


def _leave_it_to_the_parent() -> None:
    """A measurement of its own begins in the child; to save the parent's with it, at each child's end, takes minutes."""
    if _measured[0] is not None:
        _measured[0].save = lambda: None


os.register_at_fork(before=_note_measurement, after_in_child=_leave_it_to_the_parent)
