"""File descriptors: one for each guest's channel, so the limit of the process limits how many guests it serves."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Optional

#: What the daemon needs for itself: its loop, its sockets and files, clients of the control socket.
RESERVE = 128


class Descriptors:
    """The limit, raised as far as this process may.

    :ivar limit: how many descriptors may be open at once.
    """

    def __init__(self) -> None:
        self.limit = _raise_limit()
        self._said = False

    def used(self) -> int:
        """How many are open now."""
        return len(os.listdir("/proc/self/fd")) - 1  # the one by which they are listed

    def enough_for(self, guests: int) -> Optional[str]:
        """A sentence for the operator when the limit is too low for so many *guests*; None otherwise, and ever after."""
        if self._said or guests + RESERVE <= self.limit:
            return None
        self._said = True
        return (
            f"{guests} guests need {guests + RESERVE} file descriptors and this process may have {self.limit}: "
            "some will not be connected; raise the hard limit (LimitNOFILE= in the unit, ulimit -Hn in a shell) and restart"
        )


def _raise_limit() -> int:
    """Raise the limit to the hard limit; returns how high it is then."""
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The kernel refuses a hard limit that is above what it has been told to allow since.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        limit = hard
    return limit
