"""The sessions of users, compared from look to look: who came, who went, whose screen was locked. Pure: looks at nothing.

What a look saw is a snapshot. Of two snapshots each kind of change is told once, however many sessions it happened to:
the host learns that it did, and asks nobody which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Optional

from common.messages import ActiveUser, Message, SessionLock, SessionLogoff, SessionLogon, SessionUnlock

#: What hosts understand as: nobody.
NOBODY = "None"


class UserSession(NamedTuple):
    """One session of one user.

    :ivar id: told apart by this from all others, also from those that are gone.
    :ivar user: the user's name.
    :ivar since: when it began, in seconds since the epoch.
    :ivar active: whether it is the one in front, at a screen of this machine.
    """

    id: str
    user: str
    since: float
    locked: bool = False
    active: bool = False


class Sessions:
    """Remembers the last snapshot."""

    def __init__(self) -> None:
        self._before: Optional[Mapping[str, UserSession]] = None

    def update(self, snapshot: Iterable[UserSession]) -> list[Message]:
        """What has changed since the snapshot before (at the first one nothing), then who is active.

        Active is who sits at a screen of this machine, else who has been logged in longest.
        """
        now = {session.id: session for session in snapshot}
        before, self._before = self._before, now
        changes = [] if before is None else _changes(before, now)
        return [*changes, ActiveUser(name=_active_user(now.values()))]


def _changes(before: Mapping[str, UserSession], now: Mapping[str, UserSession]) -> Iterator[Message]:
    if before.keys() - now.keys():
        yield SessionLogoff()
    if now.keys() - before.keys():
        yield SessionLogon()
    locks = {(before[each].locked, now[each].locked) for each in before.keys() & now.keys()}
    if (False, True) in locks:
        yield SessionLock()
    if (True, False) in locks:
        yield SessionUnlock()


def _active_user(sessions: Iterable[UserSession]) -> str:
    first = min(sessions, key=lambda session: (not session.active, session.since, session.id), default=None)
    return NOBODY if first is None else first.user
