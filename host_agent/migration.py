"""What a guest is told around a migration of its VM, so that it can run its hooks.

The source tells it that the migration begins, and gets an answer; if the VM stays, the source tells it that, too. If it
moves, the destination tells it, once it speaks with the guest. A guest that was stopped, or came, a moment ago can't be told
anything yet, and one that is frozen runs no hooks: so what comes after a migration is tried again and again, for a day.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from common.catalogue import CATALOGUE
from common.messages import Code

from .commands import Answer, Commands
from .feed import Feed
from .guest import Guest
from .refusals import Refused, refuse
from .registry import Registry

#: For so many seconds nobody has to tell the same of a guest again: several may notice one migration.
COUNTS_FOR = 300.0

#: Seconds between two attempts to tell a guest that its migration is over, …
RETRY_PERIOD = 0.5

#: … of which there are so many seconds' worth; …
SOON = 60.0

#: … and between two from then on, …
LATER_PERIOD = 5.0

#: … until after so many nobody tries any more.
RETRY_LIMIT = 86_400.0

#: A guest that says that it is frozen is told once more after so many seconds.
FROZEN_PERIOD = 2.0

_EVENT = "lifecycle-event"

_BEGINS: dict[str, Any] = {"type": "before_migration"}
_FAILED: dict[str, Any] = {"type": "after_migration", "failure": True}
_ARRIVED: dict[str, Any] = {"type": "after_migration"}


class _News(NamedTuple):
    """What a guest is to be told, or was.

    :ivar at: since when.
    :ivar answer: None: it could not be told yet.
    """

    arguments: dict[str, Any]
    at: float
    answer: Optional[asyncio.Future[Answer]] = None


class Migrations:
    """What all guests of one daemon are told.

    :param patience: how long their answers are waited for, in seconds.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, commands: Commands, registry: Registry, feed: Feed, patience: float
    ) -> None:
        self._loop = loop
        self._commands = commands
        self._registry = registry
        self._feed = feed
        self._patience = patience
        self._row = CATALOGUE.command(_EVENT)
        #: The latest of each guest.
        self._latest: weakref.WeakKeyDictionary[Guest, _News] = weakref.WeakKeyDictionary()

    def begins(self, guest: Guest, patience: Optional[float] = None) -> Optional[asyncio.Future[Answer]]:
        """The migration of *guest* begins; returns the guest's answer, or None: it can't be told.

        :param patience: how long that is waited for, in seconds; None: as usual.
        """
        latest = self._recent(guest, _BEGINS)
        if latest is not None:
            return latest.answer
        try:
            answer = self._send(guest, _BEGINS, patience)
        except Refused as refusal:
            self._latest.pop(guest, None)
            self._give_up(guest, str(refusal))
            return None
        self._latest[guest] = _News(_BEGINS, self._loop.time(), answer)
        return answer

    def failed(self, guest: Guest) -> None:
        """*guest* stays on this host, where its migration began."""
        self._tell_after(guest, _FAILED)

    def arrived(self, guest: Guest) -> None:
        """*guest* came from another host."""
        self._tell_after(guest, _ARRIVED)

    def _tell_after(self, guest: Guest, arguments: dict[str, Any]) -> None:
        if self._recent(guest, arguments) is None:
            news = self._latest[guest] = _News(arguments, self._loop.time())
            # Whoever notices a migration may be in the midst of what follows from it.
            self._loop.call_soon(self._try, guest, news)

    def _try(self, guest: Guest, news: _News) -> None:
        """Tell *guest*, unless something else is to be told by now, or it is forgotten."""
        if self._latest.get(guest) is not news or self._registry.find(guest.name) is not guest:
            return
        try:
            answer = self._send(guest, news.arguments)
        except Refused as refusal:
            tried = self._loop.time() - news.at
            if tried < RETRY_LIMIT:
                self._loop.call_later(RETRY_PERIOD if tried < SOON else LATER_PERIOD, self._try, guest, news)
            else:
                self._give_up(guest, f"it could not be told for {RETRY_LIMIT / 3600:g} h ({refusal.kind})")
        else:
            self._latest[guest] = told = news._replace(answer=answer)
            if answer is not None:
                answer.add_done_callback(lambda answered: self._try_again_if_frozen(guest, told, answered))

    def _try_again_if_frozen(self, guest: Guest, told: _News, answered: asyncio.Future[Answer]) -> None:
        """A guest runs no hooks while its file systems are frozen; it is told when they have thawed."""
        if _is_frozen(answered) and self._latest.get(guest) is told and self._loop.time() < told.at + RETRY_LIMIT:
            news = self._latest[guest] = told._replace(answer=None)
            self._loop.call_later(FROZEN_PERIOD, self._try, guest, news)

    def _send(
        self, guest: Guest, arguments: dict[str, Any], patience: Optional[float] = None
    ) -> Optional[asyncio.Future[Answer]]:
        """Send the event.

        :raises Refused: it can't be sent now. That counts as a refusal of no operator's.
        """
        assert self._row is not None  # noqa: S101 - the table has it
        refusal = refuse(guest, self._row)
        if refusal is not None:
            raise refusal
        return self._commands.send(guest, _EVENT, arguments, patience or self._patience).answer

    def _recent(self, guest: Guest, arguments: dict[str, Any]) -> Optional[_News]:
        """What is to be told to *guest*, or was not long ago, where it is just that."""
        latest = self._latest.get(guest)
        is_same = latest is not None and latest.arguments is arguments and self._loop.time() < latest.at + COUNTS_FOR
        return latest if is_same else None

    def _give_up(self, guest: Guest, why: str) -> None:
        self._feed.tell("migration", guest.name, text=f"is not told of its migration: {why}")


def _is_frozen(answered: asyncio.Future[Answer]) -> bool:
    if answered.cancelled() or answered.exception() is not None:
        return False
    error = answered.result().more.get("error")
    return isinstance(error, Mapping) and error.get("code") == Code.FROZEN.value
