"""For the tests of commands: guests whose lines are put in by hand, under a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Optional

import pytest

from common import codec
from common.messages import Capabilities
from common.session import HostSession
from common.versions import Version
from host_agent.budget import Limits
from host_agent.commands import Commands
from host_agent.feed import Feed
from host_agent.guest import Guest, Shared
from host_agent.known import InFlight
from host_agent.meter import Meter
from host_agent.refusals import Refused

from .guests import CAPABILITIES
from .parts import NEWEST, ManualLoop

RUN = "0123456789abcdef0123456789abcdef"

EVENT = {"type": "before_migration"}

#: A guest that has not said yet what it supports.
UNSAID = -1


class Notes:
    """A memory that notes what it is told."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, InFlight]] = {}

    def put_command(self, guest: str, in_flight: InFlight) -> None:
        assert in_flight.reply_id not in self.kept
        self.kept[in_flight.reply_id] = guest, in_flight

    def drop_command(self, reply_id: str) -> None:
        del self.kept[reply_id]


class Bench:
    """The commands of one daemon, and its guests."""

    def __init__(self, loop: ManualLoop) -> None:
        self.loop = loop
        self.meter = Meter()
        self.feed = Feed(RUN)
        self.notes = Notes()
        self.commands = Commands(loop, RUN, self.meter, self.feed, self.notes)
        self.written: dict[str, list[bytes]] = {}

    def guest(
        self,
        name: str = "web-1",
        agent: Optional[int] = NEWEST,
        host: Optional[Version] = NEWEST,
        capabilities: Optional[Capabilities] = CAPABILITIES,
    ) -> Guest:
        """A guest that is responsive and supports *agent*."""
        guest = self.silent(name, host)
        if agent == UNSAID:
            self.hear(guest, "session-startup")
        else:
            self.beat(guest, agent)
        if capabilities is not None and guest.session.negotiation.agreed >= Version.V4:
            self.offer(guest, capabilities)
        return guest

    def silent(self, name: str = "web-1", host: Optional[Version] = NEWEST) -> Guest:
        """A guest with an open channel on which nothing was heard."""
        guest = self.absent(name, host)
        guest.found("/port", self.loop.now)
        self.connect(guest)
        return guest

    def absent(self, name: str = "web-1", host: Optional[Version] = NEWEST) -> Guest:
        completed, offered = self.commands.completed, self.commands.offered
        shared = Shared(self.meter, self.feed, Limits(), completed=completed, offered=offered)
        self.written[name] = []
        return Guest(name, HostSession(host, RUN), self.loop.now, shared)

    def connect(self, guest: Guest) -> None:
        """Open a channel."""

        def flush() -> None:
            self.written[guest.name] += guest.session.data_to_send().splitlines()

        guest.connected(self.loop.now, flush)
        guest.session.data_to_send()

    def reconnect(self, guest: Guest, agent: int = NEWEST, agent_id: str = "agent-1") -> None:
        """End the channel and open another one, on which *guest* says what it supports."""
        guest.disconnected("gone", self.loop.now)
        self.connect(guest)
        self.beat(guest, agent, agent_id)

    def beat(self, guest: Guest, agent: Optional[int], agent_id: str = "agent-1") -> None:
        """*guest* sends a heartbeat."""
        version = {} if agent is None else {"apiVersion": agent, "apiVersionInUse": min(agent, NEWEST)}
        self.hear(guest, "heartbeat", agentId=agent_id, **version)

    def offer(self, guest: Guest, capabilities: Capabilities = CAPABILITIES) -> None:
        """*guest* says what it carries out."""
        self.hear(guest, "capabilities", **capabilities.to_arguments())

    def hear(self, guest: Guest, name: str, **arguments: Any) -> None:
        guest.session.receive_data(codec.encode(name, arguments), self.loop.now)
        guest.absorb(guest.session.events(), self.loop.now)
        guest.session.data_to_send()

    def complete(self, guest: Guest, reply_id: Optional[str], done: bool = True, **more: Any) -> None:
        self.hear(guest, "completion", reply_id=reply_id, done=done, **more)

    def sent(self, name: str = "web-1") -> list[dict[str, Any]]:
        """The commands that were written to the guest called *name*."""
        return [json.loads(line) for line in self.written[name]]

    def told(self, *kinds: str) -> list[tuple[str, Optional[str], dict[str, Any]]]:
        return [(each.kind, each.guest, each.details) for each in self.feed.since(0)[1] if each.kind in kinds]

    def refused(self, guest: Guest, name: str = "lifecycle-event", arguments: Any = None) -> Refused:
        """Why the command is refused, having seen that nothing else became of it."""
        lines, told = list(self.written[guest.name]), self.feed.last
        in_flight, kept, refusals = dict(guest.in_flight), dict(self.notes.kept), self.meter.refusals.copy()
        with pytest.raises(Refused) as refusal:
            self.commands.send(guest, name, EVENT if arguments is None else arguments, 30.0)
        assert self.written[guest.name] == lines
        assert guest.session.data_to_send() == b""
        assert (self.feed.last, guest.in_flight, self.notes.kept) == (told, in_flight, kept)
        assert self.meter.refusals - refusals == {refusal.value.kind: 1}
        return refusal.value


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    loop = ManualLoop()

    async def whole() -> None:
        await scenario(Bench(loop))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.play(whole())
