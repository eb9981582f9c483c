from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Optional

import pytest

from common.session import HostSession
from common.versions import Version
from host_agent import channel as channel_module
from host_agent.channel import Channel
from host_agent.guest import Guest, State

from .parts import make_guest, run, until


class Line:
    """A channel on one end of a socket pair; the test holds the other end."""

    def __init__(self, guest: Optional[Guest] = None) -> None:
        self.guest = guest or make_guest()
        self.lost: list[bool] = []
        self.channel = Channel(asyncio.get_running_loop(), self.guest, self.lost.append)
        self.end, self._other = socket.socketpair()
        self.end.setblocking(False)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Line]:
        await asyncio.get_running_loop().create_unix_connection(lambda: self.channel, sock=self._other)
        try:
            yield self
        finally:
            self.channel.close("the test ends")
            self.end.close()
            await asyncio.sleep(0)

    @property
    def transport(self) -> asyncio.Transport:
        assert self.channel._transport is not None
        return self.channel._transport

    def received(self) -> bytes:
        try:
            return self.end.recv(1 << 20)
        except BlockingIOError:
            return b""


HEARTBEAT = b'{"__name__":"heartbeat","apiVersion":3,"apiVersionInUse":0}\n'


def test_the_first_bytes_end_an_old_line_and_ask_for_everything() -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            first = await until(line.received)
            assert first.startswith(b'\n{"')
            assert json.loads(first) == {"__name__": "refresh", "apiVersion": 3, "hostId": "host-1"}
            assert line.guest.state is State.CONNECTED

    run(scenario())


def test_what_comes_in_reaches_the_guest_and_is_answered() -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            await until(line.received)
            line.end.send(HEARTBEAT)
            assert json.loads(await until(line.received)) == {"__name__": "api-version", "apiVersion": 3}
            assert line.guest.state is State.RESPONSIVE
            assert "heartbeat" in line.guest.facts

    run(scenario())


def test_a_line_may_be_longer_than_a_piece() -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            line.end.setblocking(True)
            name = b"n" * (channel_module.PIECE * 3)
            line.end.sendall(b'{"__name__":"host-name","name":"' + name + b'"}\n')
            await until(lambda: "host-name" in line.guest.facts)
            assert len(line.guest.facts["host-name"].text) > channel_module.PIECE * 3

    run(scenario())


def test_silence_is_noticed_by_the_timer() -> None:
    async def scenario() -> None:
        guest = Guest("web", HostSession(Version.V3, "h", silence_limit=0.01), 0)
        async with Line(guest).open() as line:
            line.end.send(HEARTBEAT)
            await until(lambda: guest.state is State.UNRESPONSIVE)
            line.end.send(HEARTBEAT)
            await until(lambda: guest.state is State.RESPONSIVE)
            await until(lambda: guest.state is State.UNRESPONSIVE)

    run(scenario())


@pytest.mark.parametrize("heard", [True, False])
def test_a_connection_that_ends_is_reported_with_whether_it_carried_anything(heard: bool) -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            if heard:
                line.end.send(HEARTBEAT)
            line.end.close()
            await until(lambda: line.lost)
            assert line.lost == [heard]
            assert line.guest.state is State.CONNECTING

    run(scenario())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (ConnectionResetError("no number"), "no number"),
        (RuntimeError("no error of the system"), "no error of the system"),
    ],
)
def test_a_connection_that_breaks_is_reported_with_the_reason(
    caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    async def scenario() -> None:
        caplog.set_level("INFO")
        async with Line().open() as line:
            line.channel.connection_lost(error)
            assert line.lost == [False]
            line.transport.abort()

    run(scenario())
    assert caplog.messages[-1] == f"web-1: disconnected: {reason}"


def test_a_connection_closed_from_this_side_is_not_reported_as_lost() -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            line.end.send(HEARTBEAT)
            await until(lambda: line.guest.state is State.RESPONSIVE)
            line.channel.close("its socket vanished")
            assert line.guest.state is State.CONNECTING
            line.channel.close("once more")
            await asyncio.sleep(0)
            assert line.lost == []
            assert line.transport.is_closing()

    run(scenario())


def test_a_channel_closed_before_it_opens_never_tells_the_guest() -> None:
    async def scenario() -> None:
        line = Line()
        line.channel.close("too late")
        async with line.open():
            await asyncio.sleep(0)
            assert line.guest.state is State.ABSENT
            assert line.received() == b""

    run(scenario())


def test_a_guest_that_does_not_read_is_not_written_to_and_told_later() -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            await until(line.received)
            line.channel.pause_writing()
            line.end.send(HEARTBEAT)
            await until(lambda: line.guest.state is State.RESPONSIVE)
            assert line.received() == b""
            line.channel.resume_writing()
            assert json.loads(await until(line.received))["__name__"] == "api-version"

    run(scenario())


def test_the_session_is_paused_when_too_much_waits_to_be_written() -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            line.transport.write(b"x" * (1 << 21))
            assert line.guest.session._paused
            line.end.setblocking(True)
            loop = asyncio.get_running_loop()
            while line.guest.session._paused:
                await loop.run_in_executor(None, line.end.recv, 1 << 20)

    run(scenario())


def test_a_guest_that_stops_talking_and_does_not_read_is_let_go() -> None:
    async def scenario() -> None:
        async with Line().open() as line:
            line.transport.write(b"x" * (1 << 21))
            line.end.shutdown(socket.SHUT_WR)
            await until(lambda: line.lost)

    run(scenario())


def test_an_expensive_guest_is_not_read_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "PATIENCE", -1.0)

    async def scenario() -> None:
        async with Line().open() as line:
            pauses: list[Line] = []
            pause = line.transport.pause_reading

            def pause_and_count() -> None:
                pauses.append(line)
                pause()

            monkeypatch.setattr(line.transport, "pause_reading", pause_and_count)
            line.end.send(HEARTBEAT)
            await until(lambda: pauses)
            line.end.send(HEARTBEAT)
            await until(lambda: len(pauses) > 1)
            assert line.guest.session.counters.lines == 2

    run(scenario())


def test_a_cheap_guest_is_always_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "PATIENCE", 60.0)

    async def scenario() -> None:
        async with Line().open() as line:
            line.end.send(HEARTBEAT)
            await until(lambda: line.guest.session.counters.lines)
            assert line.transport.is_reading()

    run(scenario())


def test_a_channel_that_is_held_back_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "PATIENCE", -1.0)
    monkeypatch.setattr(channel_module, "RESTRAINT", 1e9)

    async def scenario() -> None:
        async with Line().open() as line:
            line.end.send(HEARTBEAT)
            await until(lambda: not line.transport.is_reading())
            line.channel.close("enough")
            assert line.channel._restraint is not None
            assert line.channel._restraint.cancelled()

    run(scenario())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 5000,
        b"\n" * 9000,
        b"[" * 9000 + b"\n",
        b'{"__name__":"heartbeat","apiVersion":[]}\n',
        b'{"__name__":{}}\n',
    ],
)
def test_nothing_a_guest_sends_raises_or_ends_the_channel(garbage: bytes) -> None:
    async def scenario() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with Line().open() as line:
            await until(line.received)
            line.end.send(garbage + b"\n" + HEARTBEAT)
            assert json.loads(await until(line.received))["__name__"] == "api-version"
            assert line.lost == []
        assert problems == []

    run(scenario())
