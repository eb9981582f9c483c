"""What the tests of the control API are made of: a daemon without a daemon, guests that answer, and clients."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

from common import events, messages
from common.handoff import HandoffError, Spec2, conversions, files
from common.handoff.errors import WouldLose
from common.handoff.spec1 import Fact
from common.session import GuestSession, HostSession
from common.versions import Version
from host_agent.api.access import Peer, Roles
from host_agent.api.application import make_application
from host_agent.api.listener import Listener
from host_agent.api.server import Server
from host_agent.budget import Limits
from host_agent.commands import Answer as Answered
from host_agent.commands import Commands, Moved
from host_agent.feed import Feed
from host_agent.guest import Guest, Shared
from host_agent.handoff.outcomes import Handed, HandoffFailed
from host_agent.meter import Meter
from host_agent.registry import Registry
from tests.host_agent.guests import CAPABILITIES
from tests.host_agent.parts import NEWEST, PATIENCE

RUN = "0123456789abcdef"

PROBLEM = "application/problem+json"


class Handoffs:
    """The engine, as the control API sees it: hands over to nobody, and takes in what real files say.

    :ivar asked: what it was asked for, with its arguments.
    :ivar failure: raised instead of an answer.
    :ivar answer: how a command that went along ended, or what a guest says that is about to migrate.
    :ivar gate: what takes time waits for it.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float]) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: Optional[Exception] = None
        self.answer: Optional[Answered] = Answered(True, {"result": {}}, 0.5)
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gate.set_result(None)
        self._registry = registry
        self._clock = clock

    async def send(self, guest: Guest, to: Optional[str], allow_loss: bool = False) -> Handed:
        await self._note("send", guest.name, to, allow_loss)
        return Handed(to or "host-b", 1, 2, ("commands",) if allow_loss else ())

    async def cancel(self, guest: Guest, force: bool = False) -> None:
        await self._note("cancel", guest.name, force)

    def expect(self, name: str, uuid: Optional[str], patience: float) -> None:
        if self.failure is not None:
            raise self.failure
        self.asked.append(("expect", name, uuid, patience))

    def export(self, guest: Guest, spec: int, allow_loss: bool) -> bytes:
        facts = {"host-name": Fact({"name": "web.example.org"}, 1.5)}
        try:
            return files.write(Spec2(name=guest.name, uuid=guest.uuid, facts=facts), spec, allow_loss)
        except WouldLose as error:
            raise HandoffFailed("would-lose", str(error), names=list(error.names)) from None

    async def take_in(self, content: bytes) -> Guest:
        await self._note("take_in", content)
        try:
            session = conversions.convert(files.read(content))
        except HandoffError as error:
            raise HandoffFailed("invalid-session", str(error)) from None
        assert isinstance(session, Spec2)
        guest = self._registry.left(session.name, self._clock())
        guest.uuid = session.uuid
        return guest

    def status(self) -> list[dict[str, Any]]:
        source = {"guest": "web", "role": "source", "peer": "host-b", "phase": "in doubt", "since_s": 12.5}
        return [source, {**source, "guest": "db", "role": "destination", "peer": None, "phase": "awaited", "since_s": None}]

    async def follow(self, moved: Moved, patience: float) -> Answered:
        await self._note("follow", moved.to, moved.transfer, moved.reply_id, patience)
        assert self.answer is not None
        return self.answer

    async def begin(self, guest: Guest, patience: Optional[float]) -> Optional[Answered]:
        await self._note("begin", guest.name, patience)
        return self.answer

    def failed(self, guest: Guest) -> None:
        self.asked.append(("failed", guest.name))

    def arrived(self, guest: Guest) -> None:
        self.asked.append(("arrived", guest.name))

    async def _note(self, *asked: Any) -> None:
        self.asked.append(asked)
        await asyncio.shield(self.gate)
        if self.failure is not None:
            raise self.failure


class Daemon:
    """What the control API asks for, without discovery, channels and files."""

    def __init__(self, roles: Optional[Roles] = None, kept: int = 1000) -> None:
        loop = asyncio.get_running_loop()
        self.clock = loop.time
        self.roles = roles or Roles()
        self.feed = Feed(RUN, limit=kept)
        meter = Meter()
        self.commands = Commands(loop, RUN, meter, self.feed)
        completed, offered = self.commands.completed, self.commands.offered
        self._shared = Shared(meter, self.feed, Limits(), completed=completed, offered=offered)
        self.registry = Registry(self._make_guest, 3600.0)
        self.handoffs = Handoffs(self.registry, self.clock)

    def _make_guest(self, name: str) -> Guest:
        return Guest(name, HostSession(NEWEST, RUN), self.clock(), self._shared)

    def describe_host(self) -> dict[str, Any]:
        return {
            "version": "1",
            "host_id": RUN,
            "started_s": 1.5,
            "api": {"supported": int(NEWEST), "versions": list(map(int, Version))},
            "directories": ["/nowhere"],
            "libvirt": [{"uri": "qemu:///system", "connected": False, "error": "nobody answers"}],
            "fixed": {},
            "guests": len(self.registry),
            "descriptors": {"limit": 1024},
            "state": None,
            "handoff": {"listen": [], "failing": None, "peers": ["host-b"]},
        }

    async def render_metrics(self) -> tuple[bytes, str]:
        return b"# HELP vmaccord_guests Guests.\n", "text/plain; version=0.0.4"


class Port:
    """The guest called *name*, and an agent of *version* that talks to it over a channel of no bytes lost.

    :param capabilities: what it lets the host do.
    :ivar answers: whether it completes commands at once.
    :ivar asked: the commands that came.
    """

    def __init__(
        self,
        daemon: Daemon,
        name: str,
        version: Version = NEWEST,
        capabilities: messages.Capabilities = CAPABILITIES,
    ) -> None:
        self.guest = daemon.registry.arrived(name)
        self.answers = True
        self.asked: list[events.MessageReceived] = []
        self._capabilities = capabilities
        self._clock = daemon.clock
        self._loop = asyncio.get_running_loop()
        self._agent = GuestSession(version, "agent-1")
        self._agent.opened(self._clock())
        self.guest.found("/nowhere", self._clock())
        self.guest.connected(self._clock(), self._flush)
        self._flush()

    def complete(self, command: events.MessageReceived) -> None:
        """Answer *command*."""
        assert command.reply_id is not None
        self._agent.send(messages.Completion(command.reply_id, True, more={"output": "\x1b[31m<b>ü"}))
        self._flush()

    def vanish(self) -> None:
        """Close the channel."""
        self.guest.disconnected("it was closed", self._clock())

    def _flush(self) -> None:
        self._loop.call_soon(self._exchange)

    def _exchange(self) -> None:
        """Carry bytes in both directions until there are none."""
        now = self._clock()
        while True:
            out = self.guest.session.data_to_send()
            self._agent.receive_data(out, now)
            for event in self._agent.events():
                self._react(event)
            back = self._agent.data_to_send()
            self.guest.session.receive_data(back, now)
            self.guest.absorb(self.guest.session.events(), now)
            if not out and not back:
                return

    def _react(self, event: events.Event) -> None:
        if isinstance(event, events.HeartbeatWanted):
            self._agent.send_heartbeat(None, None)
        elif isinstance(event, events.FactsWanted):
            self._agent.send(messages.HostName("web.example.org"))
            if "capabilities" in event.names:
                self._agent.send(self._capabilities)
        elif isinstance(event, events.MessageReceived):
            self.asked.append(event)
            if self.answers and event.reply_id is not None:
                self.complete(event)


class Answer(NamedTuple):
    """What came back."""

    status: int
    type: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The last part of the problem's type."""
        assert self.type == PROBLEM, self
        document = self.json
        assert document["status"] == self.status
        assert set(document) >= {"type", "title", "status", "detail"}
        return str(document["type"]).removeprefix("about:vmaccord/")


class Served:
    """A control API that is served on a Unix socket."""

    def __init__(self, daemon: Daemon, listener: Listener, server: Server) -> None:
        self.daemon = daemon
        self.control = listener.path
        self.server = server

    async def ask(
        self, path: str, method: str = "GET", body: Optional[object] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Answer:
        """Ask once, over a connection of its own; a body that is no bytes is sent as JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        return await asyncio.get_running_loop().run_in_executor(
            None, ask_blocking, self.control, path, method, body, headers
        )

    async def command(self, guest: str = "web", **body: Any) -> Answer:
        """Send a command."""
        return await self.ask(f"/v1/guests/{guest}/commands", "POST", body)

    async def connect(self, path: str, headers: str = "") -> Connection:
        """Begin to ask, and read the answer piece by piece."""
        reader, writer = await asyncio.open_unix_connection(self.control, limit=2**20)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        return Connection(reader, writer)


class Connection:
    """A client that reads an answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def until(self, text: str) -> str:
        """What came up to and with *text*."""
        return (await asyncio.wait_for(self.reader.readuntil(text.encode()), PATIENCE)).decode()

    async def rest(self) -> str:
        """What came up to the end of the connection."""
        return (await asyncio.wait_for(self.reader.read(), PATIENCE)).decode()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def ask_blocking(control: str, path: str, method: str, body: Optional[bytes], headers: Mapping[str, str]) -> Answer:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(control)
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers.get_content_type(), dict(answer.headers), answer.read())


@contextlib.asynccontextmanager
async def served(place: Path, daemon: Daemon, keep_alive: float = 15.0, **changes: Any) -> AsyncIterator[Served]:
    """The control API of *daemon* on a socket in *place*."""
    listener = Listener(str(place / "control.sock"), shared=daemon.roles.shared)
    server = Server(make_application(daemon, keep_alive=keep_alive, **changes), listener.socket)
    await server.start()
    try:
        yield Served(daemon, listener, server)
    finally:
        await server.close()
        listener.close()


async def as_root(_request: object) -> Peer:
    """Everybody is root."""
    return Peer(0, frozenset({0}))
