"""Who is logged in, and whether somebody came or went."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any, Optional

from common.messages import ActiveUser, Message, SessionLogoff, SessionLogon

#: What hosts understand as: nobody.
NOBODY = "None"


class Users:
    """The users' sessions of this machine, compared from look to look."""

    def __init__(self) -> None:
        self._before: Optional[collections.Counter[Any]] = None

    def report(self) -> list[Message]:
        """Who has been logged in longest, or nobody; before that, whether sessions ended or began since the last look."""
        import psutil

        sessions = sorted(psutil.users(), key=lambda session: session.started)
        return [*self._changes(collections.Counter(sessions)), ActiveUser(name=sessions[0].name if sessions else NOBODY)]

    def _changes(self, now: collections.Counter[Any]) -> Iterator[Message]:
        before, self._before = self._before, now
        if before is None:
            return
        if before - now:
            yield SessionLogoff()
        if now - before:
            yield SessionLogon()
