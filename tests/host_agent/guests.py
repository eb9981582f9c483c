"""Simulated VMs: a Unix socket where the hypervisor would make it, and a good or a bad guest behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Optional

from common import events, messages
from common.catalogue import CATALOGUE, Direction
from common.session import GuestSession
from common.versions import Version
from host_agent.discovery import PORTS

from .parts import NEWEST

#: A hypervisor that dies leaves its sockets behind.
_LEAVE_FILES: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

#: In fewer turns of the loop a connection that was being accepted is handed over.
ACCEPTING_TURNS = 10

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: What a guest says that lets the host do all but what is dangerous.
CAPABILITIES = messages.Capabilities(
    {row.name: not row.dangerous for row in CATALOGUE.names(Direction.TO_GUEST).values() if row.is_command},
    ("repeated-completions",),
)

FACTS: dict[str, messages.Message] = {
    "capabilities": CAPABILITIES,
    "host-name": messages.HostName("web"),
    "fqdn": messages.Fqdn("web.example.org"),
    "number-of-cpus": messages.NumberOfCpus(4),
    "timezone": messages.Timezone("CET", 60),
}


def make_socket(path: Path) -> None:
    """A socket file on which nobody listens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


class Answers:
    """What a guest has to say to the commands that it is to answer, over all its connections.

    It carries none out twice: to one that it has answered it gives the same answer again.

    :param held: it says nothing until ``release``.
    :ivar asked: what it was asked for, each once.
    """

    def __init__(self, held: bool = False, done: bool = True, **more: Any) -> None:
        self.asked: list[events.MessageReceived] = []
        self._held = held
        self._done = done
        self._more = more
        self._said: dict[str, messages.Completion] = {}
        self._unsaid: list[messages.Completion] = []

    def release(self) -> None:
        """Answer everything, from now on at once."""
        self._held = False

    def take(self, asked: events.MessageReceived) -> None:
        """It was asked for that."""
        if asked.reply_id in self._said:
            self._unsaid.append(self._said[asked.reply_id])
            return
        self.asked.append(asked)
        if asked.reply_id is not None:
            arguments = {"reply_id": asked.reply_id, "done": self._done, **self._more}
            self._said[asked.reply_id], _ = messages.Completion.from_arguments(arguments)
            self._unsaid.append(self._said[asked.reply_id])

    def due(self) -> list[messages.Completion]:
        """What must be said now; handed out once."""
        if self._held:
            return []
        due, self._unsaid = self._unsaid, []
        return due


def speaking(
    supported: Optional[Version] = NEWEST,
    agent_id: str = "agent-1",
    period: float = 0.02,
    answers: Optional[Answers] = None,
) -> Behaviour:
    """A guest as it should be."""
    said = answers or Answers()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        session = GuestSession(supported, agent_id, heartbeat_period=period)
        session.opened(clock())
        while True:
            for event in session.events():
                if isinstance(event, events.HeartbeatWanted):
                    session.send_heartbeat("512", {"mem_total": 1024})
                elif isinstance(event, events.FactsWanted):
                    for name in sorted(event.names & FACTS.keys()):
                        session.send(FACTS[name])
                elif isinstance(event, events.MessageReceived):
                    said.take(event)
            # What it said to a host that is gone would be lost.
            if session.allows("completion") and not reader.at_eof():
                for completion in said.due():
                    session.send(completion)
            writer.write(session.data_to_send())
            deadline = session.next_deadline()
            assert deadline is not None
            try:
                data = await asyncio.wait_for(reader.read(4096), max(0.0, deadline - clock()))
            except asyncio.TimeoutError:
                session.tick(clock())
                continue
            if not data:
                return
            session.receive_data(data, clock())

    return speak


def saying(*lines: bytes) -> Behaviour:
    """A guest that says this and then only listens."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(line + b"\n" for line in lines))
        while await reader.read(4096):
            pass

    return say


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A guest that closes at once."""


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A guest that announces ever another version and never reads what that leads to."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    version = 0
    while True:
        version = 3 - version
        writer.write(b'{"__name__":"heartbeat","apiVersion":%d}\n' % version * 100)
        await writer.drain()


async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A guest that sends garbage as fast as it can."""
    garbage = b'{"__name__":"x' + os.urandom(64).replace(b"\n", b"") + b'\n{}\n[[[[\n{"__name__":7}\n' * 200
    while True:
        writer.write(garbage)
        await writer.drain()


async def _finish_accepting(server: asyncio.AbstractServer) -> None:
    """Accept no more, and let the loop hand over what it was just accepting: a server that is closed would lose it."""
    assert isinstance(server, asyncio.base_events.Server)
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(ACCEPTING_TURNS):
        await asyncio.sleep(0)


class SimulatedVm:
    """A VM whose sub-directory is *directory*, with one port on which a guest with that *behaviour* answers."""

    def __init__(self, directory: Path, behaviour: Optional[Behaviour] = None, port: str = PORTS[0]) -> None:
        self.path = directory / port
        self.behaviour = behaviour or speaking()
        self.connections = 0
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: Optional[asyncio.AbstractServer] = None

    async def __aenter__(self) -> SimulatedVm:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, str(self.path), **_LEAVE_FILES)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self, keep_files: bool = False) -> None:
        """End the hypervisor's process; management then removes the socket and its directory."""
        if self._server is None:
            return
        server, self._server = self._server, None
        await _finish_accepting(server)
        server.close()
        tasks = dict(self._tasks)
        for task, writer in tasks.items():
            # The end of its input, too: wait_for can swallow a cancellation.
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not keep_files:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
                self.path.parent.rmdir()

    @property
    def talking(self) -> bool:
        """Whether a host is at the other end, as far as the guest has noticed."""
        return bool(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(self._tasks.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await self.behaviour(reader, writer)
        finally:
            writer.transport.abort()
