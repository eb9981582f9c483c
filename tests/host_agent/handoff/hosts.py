"""Two hosts with a daemon each, and a virtual machine that goes from one to the other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Callable, Optional

from host_agent.config import Address, Configuration, Peer
from host_agent.discovery import Migration
from tests.host_agent.guests import FACTS, Answers, SimulatedVm
from tests.host_agent.parts import RunningDaemon, make_configuration, running, until

#: The event of which guests run hooks, and which they answer.
EVENT = {"type": "before_hibernation"}

#: Of the VM where its guest has one.
UUID = "6b6f3c1e-8a53-4d51-9a51-5a4e7d3f0c11"

#: The commands of a hand-off, as they stand in its frames.
START, HELLO, SESSION, COMPLETE, ABANDON = range(1, 6)


def free_address() -> Address:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return Address(*found.getsockname())


class Host:
    """A host by the *name* that the other one knows it by."""

    def __init__(self, place: Path, name: str, **changes: Any) -> None:
        self.place = place / name
        self.name = name
        self.address = free_address()
        self.changes = changes
        (self.place / "ports").mkdir(parents=True)

    def configuration(self, *peers: Host) -> Configuration:
        """One that hands guests over to *peers*, and takes theirs."""
        usual = {"state": str(self.place / "state.sqlite"), "handoff_listen": (self.address,), "drain": 0.1}
        known = tuple(Peer(each.name, each.address) for each in peers)
        return make_configuration(self.place, **{**usual, "handoff_peers": known, **self.changes})

    def through(self, wire: Wire, peer: Host) -> Configuration:
        """One that reaches *peer* by *wire*."""
        return dataclasses.replace(self.configuration(), handoff_peers=(Peer(peer.name, wire.address),))

    def vm(self, behaviour: Any, name: str = "web") -> SimulatedVm:
        """A VM that runs here."""
        return SimulatedVm(self.place / "ports" / name, behaviour)


@contextlib.asynccontextmanager
async def two(place: Path, **changes: Any) -> AsyncIterator[tuple[Host, RunningDaemon, Host, RunningDaemon]]:
    """Two hosts that know each other, *a* and *b*."""
    a, b = Host(place, "a", **changes), Host(place, "b", **changes)
    async with running(a.configuration(b)) as first, running(b.configuration(a)) as second:
        yield a, first, b, second


async def ask(daemon: RunningDaemon, call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """What a call of the client returns, which blocks."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: call(*arguments, **more))


async def hand_over(daemon: RunningDaemon, to: Optional[str] = "b", **more: Any) -> Any:
    """``vmaccord handoff send web``."""
    return await ask(daemon, daemon.client.hand_over, "web", to, **more)


async def with_a_command(daemon: RunningDaemon, answers: Answers, **more: Any) -> asyncio.Future[Any]:
    """A command that the guest on the host has got and does not answer."""
    sending = asyncio.ensure_future(ask(daemon, daemon.client.send, "web", "lifecycle-event", EVENT, **more))
    await until(lambda: answers.asked)
    return sending


def tell(daemon: RunningDaemon, stage: Migration, name: str = "web", uuid: Optional[str] = UUID) -> None:
    """libvirt tells of a migration."""
    daemon.daemon.handoffs.follow_migration(stage, name, uuid)


# ---- What is waited for ----


def agreed(version: int) -> Callable[[dict[str, Any]], bool]:
    """A guest that agrees to that version."""
    return lambda guest: bool(guest["api"]["agreed"] == version)


def known(guest: dict[str, Any]) -> bool:
    """A guest that has said all that it has to say."""
    return set(FACTS) <= set(guest["facts"])


def state(wanted: str) -> Callable[[dict[str, Any]], bool]:
    """A guest that is so far on its way."""
    return lambda guest: bool(guest["handoff"]["state"] == wanted)


def phases(daemon: RunningDaemon) -> list[tuple[str, str]]:
    """The role of the host in each hand-off, and how far that is."""
    return [(each["role"], each["phase"]) for each in daemon.daemon.handoffs.status()]


# ---- Wires ----


class Wire:
    """A wire between two hosts that counts what the source asks, and can break or hang.

    :ivar cut: called with each request's command; returns what happens to it: it is lost, and the wire with it (``LOST``),
        or its answer is (``UNANSWERED``); or it goes on (None). Requests that are ``HELD``, and answers that are
        ``STALLED``, wait for ``gate``.
    :ivar dead: whether nobody gets in any more.
    """

    def __init__(self, to: Address, cut: Callable[[int], Optional[str]] = lambda command: None) -> None:
        self.address = free_address()
        self.cut = cut
        self.commands: list[int] = []
        self.dead = False
        self.gate = asyncio.Event()
        self._to = to
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._begin, *self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.dead:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._to)
        try:
            while await self._carry_one(reader, writer, there, back):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            back.transport.abort()
            writer.transport.abort()

    async def _carry_one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> bool:
        request = await _frame(reader)
        command = int.from_bytes(request[:2], "little")
        self.commands.append(command)
        what = self.cut(command)
        if what == HELD:
            await self.gate.wait()
        if what == LOST:
            return False
        back.write(request)
        response = await _frame(there)
        if what == STALLED:
            await self.gate.wait()
        if what == UNANSWERED:
            return False
        writer.write(response)
        return True


#: What may happen to a request on a wire.
LOST, UNANSWERED, HELD, STALLED = "lost", "unanswered", "held", "stalled"


def at(command: int, *happens: str) -> Callable[[int], Optional[str]]:
    """What *happens* to the first requests of that command, one after the other."""
    left = iter(happens)
    return lambda each: next(left, None) if each == command else None


def dies_after_complete(wire: Wire, what: str = UNANSWERED) -> Callable[[int], Optional[str]]:
    """Nobody gets through any more once a source has asked the destination to take its guest."""

    def cut(command: int) -> Optional[str]:
        wire.dead = wire.dead or command == COMPLETE
        return what if command == COMPLETE else None

    return cut


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(16)
    return head + await reader.readexactly(int.from_bytes(head[8:], "little"))
