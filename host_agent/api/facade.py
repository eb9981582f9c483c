"""What the control API needs: of the daemon, everything that it tells and everything that it may have done."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Optional, Protocol

from host_agent.commands import Answer, Commands, Moved
from host_agent.feed import Feed
from host_agent.guest import Guest
from host_agent.handoff.outcomes import Handed
from host_agent.registry import Registry

from .access import Identify, Roles


class Handoffs(Protocol):
    """Hands guests over to other hosts, and takes theirs.

    A method is cancelled only when the daemon ends: then the guest stays, or is in doubt until the next run finds out.
    """

    async def send(self, guest: Guest, to: Optional[str], allow_loss: bool = False) -> Handed:
        """Hand *guest* over.

        :param to: the name of a peer; None: the one that awaits it.
        :param allow_loss: also where the peer's session spec has no place for all.
        :raises HandoffFailed: it was not handed over, or nobody knows.
        """

    async def cancel(self, guest: Guest, force: bool = False) -> None:
        """Give up handing *guest* over: it goes on here.

        :param force: also where nobody knows whether the peer has taken it, and where that has.
        :raises HandoffFailed: that can't be done any more, or nobody knows.
        """

    def expect(self, name: str, uuid: Optional[str], patience: float) -> None:
        """Await a guest from another host, for *patience* seconds.

        :raises HandoffFailed: no host is let in.
        """

    def export(self, guest: Guest, spec: int, allow_loss: bool) -> bytes:
        """The file of what is known of *guest*; it stays here.

        :raises HandoffFailed: it can't be written, or not without a loss; or *guest* is not here, or perhaps not.
        """

    async def take_in(self, content: bytes) -> Guest:
        """The guest that a file tells of; it is of this host from now on.

        :raises HandoffFailed: the file can't be used, or the guest can't be taken.
        """

    def status(self) -> list[dict[str, Any]]:
        """The hand-offs that are under way or in doubt, and the guests that are awaited."""

    async def follow(self, moved: Moved, patience: float) -> Answer:
        """How a command that went along with its guest ended, asked of the host where that is now.

        :raises TimedOut: it did not end within *patience* seconds.
        :raises HandoffFailed: that host can't be asked.
        """

    async def begin(self, guest: Guest, patience: Optional[float]) -> Optional[Answer]:
        """Tell *guest* that it is about to migrate.

        :param patience: seconds within which it must answer; None: the usual time.
        :returns: what it answers; None: it is too old to be told.
        :raises Refused: it can't be told now.
        :raises TimedOut: it did not answer in time.
        """

    def failed(self, guest: Guest) -> None:
        """Tell *guest* that its migration failed."""

    def arrived(self, guest: Guest) -> None:
        """Tell *guest* that it has migrated, as soon as it can be told."""


class Facade(Protocol):
    """The daemon, as the control API sees it."""

    @property
    def registry(self) -> Registry:
        """The guests."""

    @property
    def commands(self) -> Commands:
        """Sends commands."""

    @property
    def handoffs(self) -> Handoffs:
        """Hands guests over to other hosts, and takes theirs."""

    @property
    def feed(self) -> Feed:
        """What happened."""

    @property
    def roles(self) -> Roles:
        """Who may do what, by the configuration that counts now."""

    def clock(self) -> float:
        """The clock in which guests tell ages, in seconds."""

    def describe_host(self) -> dict[str, Any]:
        """What ``/v1/host`` says, but for ``you``."""

    async def render_metrics(self) -> tuple[bytes, str]:
        """What ``/metrics`` says, and its content type."""


class Context(NamedTuple):
    """What every route gets.

    :ivar identify: finds out who asks.
    :ivar ending: is done when nobody may wait for anything any longer, for the daemon stops.
    :ivar keep_alive: seconds after which a silent stream of events says that it lives.
    """

    facade: Facade
    identify: Identify
    ending: asyncio.Future[None]
    keep_alive: float
