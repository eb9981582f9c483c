"""What the control API needs: of the daemon, everything that it tells and everything that it may have done."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

from host_agent.commands import Commands
from host_agent.feed import Feed
from host_agent.registry import Registry

from .access import Identify, Roles


class Facade(Protocol):
    """The daemon, as the control API sees it."""

    @property
    def registry(self) -> Registry:
        """The guests."""

    @property
    def commands(self) -> Commands:
        """Sends commands."""

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
