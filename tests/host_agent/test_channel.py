from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any, Callable, Optional

import pytest

from common import messages
from common.errors import Congested, SendRefused
from common.session import HostSession
from common.versions import Version
from host_agent import channel as channel_module
from host_agent.budget import RESERVE, Limits
from host_agent.channel import Channel, Surroundings
from host_agent.feed import Feed
from host_agent.guest import Guest, Shared, State
from host_agent.meter import Meter
from host_agent.poller import Poller

from .own_time import in_own_time, own_loop

HEARTBEAT = b'{"__name__":"heartbeat","apiVersion":3,"apiVersionInUse":3}\n'
AT_0 = b'{"__name__":"heartbeat","apiVersion":3,"apiVersionInUse":0}\n'
COMPLETION = b'{"__name__":"completion","reply_id":"r","done":true}\n'
NAME = b'{"__name__":"host-name","name":"web"}\n'


async def moment() -> None:
    """Long enough for everything that is possible now."""
    await asyncio.sleep(1e-4)


class Host:
    """What the channels of a daemon have in common."""

    def __init__(self, limits: Optional[Limits] = None) -> None:
        loop = own_loop()
        self.meter = Meter()
        self.feed = Feed("run-1")
        self.poller = Poller(loop)
        self.around = Surroundings(loop, self.poller, self.meter, limits or Limits())
        self.around.clock = loop.time
        self.completed: Callable[[], None] = lambda: None
        self.shared = Shared(self.meter, self.feed, self.around.limits, completed=lambda *_: self.completed())

    def told(self, *kinds: str) -> list[str]:
        return [each.kind for each in self.feed.since(0)[1] if each.kind in kinds]


class Line:
    """A channel on one end of a socket pair; the test holds the other end."""

    def __init__(self, host: Host, name: str = "web-1", silence_limit: float = 15.0) -> None:
        session = HostSession(Version.V3, "host-1", silence_limit=silence_limit)
        self.guest = Guest(name, session, own_loop().now, host.shared)
        self.guest.found("/ports/" + name, own_loop().now)
        self.lost: list[bool] = []
        self.heard = 0
        near, self.end = socket.socketpair()
        near.setblocking(False)
        self.end.setblocking(False)
        self.number = near.fileno()
        self.channel = Channel(host.around, self.guest, near, self._hear, self.lost.append)

    def _hear(self) -> None:
        self.heard += 1

    @property
    def lines(self) -> int:
        return self.guest.session.counters.lines

    def received(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return self.end.recv(1 << 22)
        return b""

    async def receive_all(self) -> bytes:
        """Read until nothing more comes."""
        pieces: list[bytes] = []
        while True:
            await moment()
            piece = self.received()
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    async def agree(self) -> None:
        """Say what a good guest says, until both sides speak the newest version."""
        self.end.send(AT_0)
        await moment()
        self.end.send(HEARTBEAT)
        await self.receive_all()

    def congest(self) -> list[int]:
        """Send until the guest, which does not read, takes nothing more; what was sent."""
        sent: list[int] = []
        while True:
            try:
                self.guest.send(messages.Echo(more={"number": len(sent), "load": "x" * 50_000}))
            except SendRefused:
                return sent
            sent.append(len(sent))


@contextlib.asynccontextmanager
async def lines(count: int, limits: Optional[Limits] = None, **more: Any) -> AsyncIterator[tuple[Host, list[Line]]]:
    """Open channels, which are closed in the end; then nothing of them is left, and nothing comes any more."""
    host = Host(limits)
    opened = [Line(host, f"web-{number}", **more) for number in range(count)]
    try:
        for each in opened:
            each.channel.open()
        await moment()
        yield host, opened
    finally:
        for each in opened:
            each.channel.close("the test ends")
            each.end.close()
    assert len(host.poller) == host.meter.unsent == own_loop().timers() == 0
    host.poller.close()


@contextlib.asynccontextmanager
async def open_line(limits: Optional[Limits] = None, **more: Any) -> AsyncIterator[tuple[Host, Line]]:
    async with lines(1, limits, **more) as (host, (line,)):
        yield host, line


# ---- In and out ----


def test_the_first_bytes_end_an_old_line_and_ask_for_everything() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            first = line.received()
            assert first.startswith(b'\n{"')
            assert json.loads(first) == {"__name__": "refresh", "apiVersion": 3, "hostId": "host-1"}
            assert line.guest.state is State.CONNECTED
            assert host.meter.bytes_sent == len(first)

    in_own_time(scenario())


def test_what_comes_in_reaches_the_guest_and_is_answered() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            line.received()
            line.end.send(AT_0)
            await moment()
            assert json.loads(line.received()) == {"__name__": "api-version", "apiVersion": 3}
            assert line.guest.state is State.RESPONSIVE
            assert "heartbeat" in line.guest.facts
            assert host.meter.bytes_received == len(AT_0)

    in_own_time(scenario())


def test_what_a_guest_is_told_is_written_at_once() -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            await line.agree()
            line.guest.send(messages.LockScreen())
            assert json.loads(line.received()) == {"__name__": "lock-screen"}
            line.guest.refresh(own_loop().now)
            assert json.loads(line.received())["__name__"] == "refresh"

    in_own_time(scenario())


def test_a_line_may_be_longer_than_a_piece_and_come_in_many() -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            name = b"n" * (channel_module.PIECE * 3)
            whole = b'{"__name__":"host-name","name":"' + name + b'"}\n'
            for start in range(0, len(whole), 10_000):
                line.end.send(whole[start : start + 10_000])
                await moment()
            assert line.guest.facts["host-name"].arguments() == {"name": name.decode()}

    in_own_time(scenario())


def test_the_first_message_is_announced_once() -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            line.end.send(b"no message\n")
            await moment()
            assert line.heard == 0
            for _ in range(3):
                line.end.send(HEARTBEAT)
                await moment()
            assert line.heard == 1

    in_own_time(scenario())


def test_silence_is_noticed_by_the_timer() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            for _ in range(3):
                line.end.send(HEARTBEAT)
                await asyncio.sleep(14.9)
                assert line.guest.state is State.RESPONSIVE
            await asyncio.sleep(0.2)
            assert line.guest.state is State.UNRESPONSIVE
            line.end.send(HEARTBEAT)
            await moment()
            states = [each.details["state"] for each in host.feed.since(0)[1] if each.kind == "state"]
            assert states == ["connecting", "connected", "responsive", "unresponsive", "responsive"]

    in_own_time(scenario())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 5000,
        b"\n" * 9000,
        b"[" * 9000 + b"\n",
        b'{"__name__":"heartbeat","apiVersion":[]}\n',
        b'{"__name__":{}}\n',
    ],
    ids=["bytes", "newlines", "nesting", "version", "name"],
)
def test_nothing_a_guest_sends_raises_or_ends_the_channel(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            line.received()
            line.end.send(garbage + b"\n" + AT_0)
            await moment()
            assert json.loads(line.received())["__name__"] == "api-version"
            assert line.lost == []

    in_own_time(scenario())
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


# ---- The end ----


@pytest.mark.parametrize("heard", [True, False])
def test_a_connection_that_ends_is_reported_with_whether_it_carried_anything(heard: bool) -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            line.received()
            if heard:
                line.end.send(HEARTBEAT)
                await moment()
                line.received()
            line.end.close()
            await moment()
            assert line.lost == [heard]
            assert line.guest.state is State.CONNECTING

    in_own_time(scenario())


def test_what_was_said_before_the_end_counts() -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            line.received()
            line.end.send(HEARTBEAT + NAME)
            line.end.close()
            await moment()
            assert line.lost == [True]
            assert set(line.guest.facts) == {"heartbeat", "host-name"}

    in_own_time(scenario())


def _close(line: Line) -> None:
    line.received()
    line.end.close()


def _close_without_reading(line: Line) -> None:
    line.end.close()


def _refuse_to_be_written_to(line: Line) -> None:
    line.end.shutdown(socket.SHUT_RD)
    line.guest.refresh(own_loop().now)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (_close, "the other side closed the channel"),
        (_close_without_reading, "Connection reset by peer"),
        (_refuse_to_be_written_to, "Broken pipe"),
    ],
)
def test_a_connection_that_breaks_is_reported_with_the_reason(
    caplog: pytest.LogCaptureFixture, end: Callable[[Line], None], reason: str
) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        async with open_line() as (_, line):
            end(line)
            await moment()
            assert line.lost == [False]

    in_own_time(scenario())
    assert caplog.messages[-1] == f"web-0: disconnected: {reason}"


def test_a_guest_that_is_gone_when_it_is_opened_is_lost_at_once() -> None:
    async def scenario() -> None:
        host = Host()
        line = Line(host)
        line.end.close()
        line.channel.open()
        assert line.lost == [False]
        assert line.guest.state is State.CONNECTING
        assert len(host.poller) == 0
        host.poller.close()

    in_own_time(scenario())


def test_a_connection_closed_from_this_side_is_not_reported_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        async with open_line() as (_, line):
            line.end.send(HEARTBEAT)
            await moment()
            line.channel.close("its socket vanished")
            line.channel.close("once more")
            assert line.guest.state is State.CONNECTING
            assert line.lost == []
            await line.receive_all()

    in_own_time(scenario())
    assert caplog.messages[-1] == "web-0: disconnected: its socket vanished"


def test_a_channel_may_be_closed_by_what_comes_over_it() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            await line.agree()

            def close() -> None:
                own_loop().now += 10 * channel_module.PATIENCE
                line.channel.close("enough")

            host.completed = close
            line.end.send(COMPLETION + HEARTBEAT * 5)
            await moment()
            assert line.guest.state is State.CONNECTING
            assert line.lost == []
            assert len(host.poller) == 0

    in_own_time(scenario())


class FullPoller(Poller):
    """One for which the kernel has no more room after so many calls."""

    room = 0

    def watch(self, descriptor: int, events: int, ready: Callable[[], None]) -> None:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        super().watch(descriptor, events, ready)


@pytest.mark.parametrize("room", [0, 1, 2])
def test_where_the_kernel_cannot_watch_one_more_socket_the_channel_is_lost(
    room: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        host = Host()
        host.poller.close()
        host.around.poller = poller = FullPoller(own_loop())
        poller.room = room
        line = Line(host)
        line.channel.open()
        if room:
            line.congest()
            await line.receive_all()
        assert line.lost == [False]
        assert host.meter.unsent == len(poller) == 0
        line.end.close()
        poller.close()

    in_own_time(scenario())
    assert caplog.messages[-1] == "web-1: disconnected: No space left on device"


def test_an_event_of_a_channel_that_was_closed_does_not_hurt_the_one_whose_socket_has_its_number() -> None:
    async def scenario() -> None:
        async with lines(2) as (host, (first, second)):
            await first.agree()
            await second.agree()
            host.completed = lambda: replaced.append(replace())
            replaced: list[Line] = []

            def replace() -> Line:
                host.completed = lambda: None
                second.channel.close("its VM moved")
                another = Line(host, "another")
                assert another.number == second.number
                another.channel.open()
                return another

            first.end.send(COMPLETION)
            second.end.send(COMPLETION)
            await moment()
            (another,) = replaced
            assert another.lost == []
            assert (another.guest.state, another.lines) == (State.CONNECTED, 0)
            another.end.send(HEARTBEAT)
            await moment()
            assert another.guest.state is State.RESPONSIVE
            assert second.guest.state is State.CONNECTING
            _end(another)

    in_own_time(scenario())


def _end(line: Line) -> None:
    line.channel.close("the test ends")
    line.end.close()


# ---- A guest that does not read ----


def test_a_guest_that_does_not_read_is_sent_nothing_more_and_gets_all_when_it_reads_again() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            await line.agree()
            sent = line.congest()
            assert 0 < host.meter.unsent < 100_000
            with pytest.raises(Congested):
                line.guest.send(messages.LockScreen())
            before = host.meter.bytes_sent
            got = await line.receive_all()
            assert [json.loads(each)["number"] for each in got.splitlines()] == sent
            assert host.meter.unsent == 0
            assert host.meter.bytes_sent > before
            line.guest.send(messages.LockScreen())
            assert json.loads(line.received())["__name__"] == "lock-screen"

    in_own_time(scenario())


def test_a_guest_that_does_not_read_costs_no_turn_of_the_loop() -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            await line.agree()
            line.congest()
            await moment()
            before = own_loop().turns
            await moment()
            assert own_loop().turns - before < 10
            await asyncio.sleep(10)
            line.end.send(HEARTBEAT)
            await asyncio.sleep(10)
            assert line.guest.state is State.RESPONSIVE

    in_own_time(scenario())


def test_a_guest_that_does_not_read_is_still_read_and_told_later_what_is_due() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            await line.agree()
            sent = line.congest()
            unsent = host.meter.unsent
            line.end.send(AT_0 + NAME)
            await moment()
            assert line.guest.facts["host-name"].arguments() == {"name": "web"}
            assert host.meter.unsent == unsent
            *echoes, last = (await line.receive_all()).splitlines()
            assert len(echoes) == len(sent)
            assert json.loads(last) == {"__name__": "api-version", "apiVersion": 3}

    in_own_time(scenario())


def test_a_guest_that_does_not_read_is_asked_afresh_when_it_reads_where_the_host_supports_something_else_now() -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            await line.agree()
            line.congest()
            line.guest.support(Version.V1, own_loop().now)
            *_, last = (await line.receive_all()).splitlines()
            assert json.loads(last) == {"__name__": "refresh", "apiVersion": 1, "hostId": "host-1"}
            line.end.send(AT_0)
            await moment()
            assert json.loads(line.received()) == {"__name__": "api-version", "apiVersion": 1}

    in_own_time(scenario())


def test_a_guest_that_reads_a_little_is_written_to_as_much() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            await line.agree()
            count = len(line.congest())
            got = b""
            while host.meter.unsent:
                before = host.meter.unsent + host.meter.bytes_sent
                got += line.end.recv(7000)
                await moment()
                assert host.meter.unsent + host.meter.bytes_sent == before
            got += await line.receive_all()
            assert got.count(b"\n") == count

    in_own_time(scenario())


@pytest.mark.parametrize("end", [_close_without_reading, lambda line: line.end.shutdown(socket.SHUT_WR)])
def test_a_guest_that_does_not_read_and_goes_is_lost_and_nothing_waits_for_it(end: Callable[[Line], None]) -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            await line.agree()
            line.congest()
            end(line)
            await moment()
            assert line.lost == [True]
            assert host.meter.unsent == 0

    in_own_time(scenario())


def test_a_guest_that_does_not_read_and_is_let_go_has_nothing_waiting() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            line.congest()
            line.channel.close("its socket vanished")
            assert host.meter.unsent == 0

    in_own_time(scenario())


def test_one_guest_that_does_not_read_holds_up_no_other() -> None:
    async def scenario() -> None:
        async with lines(2) as (_, (deaf, good)):
            await deaf.agree()
            await good.agree()
            deaf.congest()
            good.guest.send(messages.LockScreen())
            assert json.loads(good.received())["__name__"] == "lock-screen"
            good.end.send(AT_0)
            await moment()
            assert json.loads(good.received())["__name__"] == "api-version"

    in_own_time(scenario())


# ---- A guest that costs too much ----


def test_an_expensive_guest_is_not_read_for_nine_times_as_long_and_not_called_throttled() -> None:
    async def scenario() -> None:
        async with open_line() as (host, line):
            await line.agree()
            before = line.lines

            def take_time() -> None:
                own_loop().now += 0.01

            host.completed = take_time
            line.end.send(COMPLETION)
            await moment()
            assert line.lines == before + 1
            line.end.send(HEARTBEAT)
            await asyncio.sleep(0.089)
            assert line.lines == before + 1
            await asyncio.sleep(0.002)
            assert line.lines == before + 2
            assert not line.guest.throttled
            assert host.told("throttled") == []

    in_own_time(scenario())


def test_a_cheap_guest_is_always_read() -> None:
    async def scenario() -> None:
        async with open_line() as (_, line):
            for count in range(1, 20):
                line.end.send(HEARTBEAT)
                await moment()
                assert line.lines == count

    in_own_time(scenario())


@pytest.mark.parametrize(
    ("limits", "one", "within"),
    [
        (Limits(message_rate=10, byte_rate=1e9), HEARTBEAT, 100),
        (Limits(message_rate=1e9, byte_rate=10 * len(HEARTBEAT)), HEARTBEAT, 100),
        (Limits(message_rate=1e9, byte_rate=100), b" " * 99 + b"\n", 10),
    ],
    ids=["messages", "bytes", "nothing but white space"],
)
def test_a_guest_above_its_rate_is_read_slowly_and_shown_and_told_as_throttled_until_it_is_calm(
    limits: Limits, one: bytes, within: int
) -> None:
    async def scenario() -> None:
        async with open_line(limits) as (host, line):
            line.end.send(one * within)
            await moment()
            assert not line.guest.throttled
            line.end.send(one * (within // 2))
            await moment()
            assert line.guest.throttled
            assert line.guest.describe(own_loop().now)["channel"]["throttled"] is True
            read = host.meter.bytes_received
            line.end.send(one)
            await asyncio.sleep(RESERVE / 2 - 0.1)
            assert host.meter.bytes_received == read
            await asyncio.sleep(0.2)
            assert host.meter.bytes_received == read + len(one)
            assert host.told("throttled", "unthrottled") == ["throttled"]
            await asyncio.sleep(RESERVE)
            assert not line.guest.throttled
            assert host.told("throttled", "unthrottled") == ["throttled", "unthrottled"]
            assert host.meter.throttlings == 1

    in_own_time(scenario())


def test_a_guest_that_never_calms_down_stays_throttled_and_is_told_of_once() -> None:
    async def scenario() -> None:
        async with open_line(Limits(message_rate=50)) as (host, line):
            for _ in range(60):
                line.end.send(HEARTBEAT * 80)
                await asyncio.sleep(1)
            assert line.guest.throttled
            assert host.told("throttled", "unthrottled") == ["throttled"]
            assert line.lines <= (60 + RESERVE) * 50 + channel_module.PIECE // len(HEARTBEAT)
            assert line.guest.state is State.RESPONSIVE

    in_own_time(scenario())


def test_a_throttled_guest_is_still_written_to() -> None:
    async def scenario() -> None:
        async with open_line(Limits(message_rate=10)) as (_, line):
            await line.agree()
            line.end.send(HEARTBEAT * 200)
            await moment()
            assert line.guest.throttled
            line.guest.send(messages.LockScreen())
            assert json.loads(line.received())["__name__"] == "lock-screen"

    in_own_time(scenario())


@pytest.mark.parametrize("congested_first", [True, False])
def test_a_throttled_guest_that_did_not_read_is_written_to_as_soon_as_it_reads(congested_first: bool) -> None:
    async def scenario() -> None:
        async with open_line(Limits(message_rate=10)) as (host, line):
            await line.agree()
            sent, lines_before = line.congest() if congested_first else [], line.lines
            line.end.send(HEARTBEAT * 200)
            await moment()
            assert line.guest.throttled
            sent = sent or line.congest()
            lines_then, start = line.lines, own_loop().now
            line.end.send(HEARTBEAT)
            assert (await line.receive_all()).count(b"\n") == len(sent)
            assert own_loop().now - start < 0.1
            assert line.lines == lines_then
            assert host.meter.unsent == 0
            await asyncio.sleep(RESERVE * 2)
            assert line.lines == lines_before + 200 + 1

    in_own_time(scenario())


def test_a_throttled_guest_that_sends_on_and_does_not_read_costs_no_turn_of_the_loop() -> None:
    async def scenario() -> None:
        async with open_line(Limits(message_rate=10)) as (_, line):
            await line.agree()
            line.end.send(HEARTBEAT * 200)
            await moment()
            line.congest()
            line.end.send(HEARTBEAT)
            before = own_loop().turns
            await moment()
            assert own_loop().turns - before < 10

    in_own_time(scenario())


def test_a_throttled_guest_that_reads_late_is_read_again_all_the_same() -> None:
    async def scenario() -> None:
        async with open_line(Limits(message_rate=10)) as (_, line):
            await line.agree()
            line.end.send(HEARTBEAT * 200)
            await moment()
            sent = line.congest()
            await asyncio.sleep(RESERVE * 4)
            assert not line.guest.throttled
            before = line.lines
            line.end.send(HEARTBEAT)
            await moment()
            assert line.lines == before + 1
            assert (await line.receive_all()).count(b"\n") == len(sent)

    in_own_time(scenario())


def test_the_end_of_a_throttled_guest_is_noticed_when_it_is_read_again() -> None:
    async def scenario() -> None:
        async with open_line(Limits(message_rate=10)) as (host, line):
            await line.receive_all()
            line.end.send(HEARTBEAT * 150)
            await moment()
            await line.receive_all()
            line.end.close()
            await asyncio.sleep(1)
            assert line.lost == []
            await asyncio.sleep(RESERVE)
            assert line.lost == [True]
            assert not line.guest.throttled
            assert host.told("throttled", "unthrottled") == ["throttled", "unthrottled"]

    in_own_time(scenario())


def test_a_throttled_guest_that_is_let_go_is_not_throttled_any_more() -> None:
    async def scenario() -> None:
        async with open_line(Limits(message_rate=10)) as (host, line):
            line.end.send(HEARTBEAT * 150)
            await moment()
            line.channel.close("its socket vanished")
            assert not line.guest.throttled
            assert host.told("throttled", "unthrottled") == ["throttled", "unthrottled"]

    in_own_time(scenario())


def test_a_flood_is_not_read_while_others_are() -> None:
    async def scenario() -> None:
        async with lines(3, Limits(message_rate=100, byte_rate=1e9)) as (host, (flooding, *good)):
            loop = own_loop()
            flood = (b'{"__name__":"x%d"}\n' % number for number in range(10**9))

            def write_on() -> None:
                with contextlib.suppress(BlockingIOError):
                    flooding.end.send(b"".join(next(flood) for _ in range(1000)))

            loop.add_writer(flooding.end.fileno(), write_on)
            start, seconds = loop.now, 60
            for _ in range(seconds):
                for each in good:
                    each.end.send(AT_0)
                    await asyncio.sleep(0.01)
                    assert each.received().endswith(b'"api-version","apiVersion":3}\n')
                await asyncio.sleep(0.98)
            loop.remove_writer(flooding.end.fileno())
            assert flooding.guest.throttled
            assert not any(each.guest.throttled for each in good)
            allowed = (loop.now - start + RESERVE) * 100
            assert allowed * 0.9 < flooding.lines < allowed + channel_module.PIECE
            assert [each.lines for each in good] == [seconds, seconds]
            assert host.meter.throttlings == 1

    in_own_time(scenario())


def test_limits_that_change_count_for_channels_that_are_open() -> None:
    async def scenario() -> None:
        limits = Limits(message_rate=10)
        async with open_line(limits) as (_, line):
            limits.message_rate = 1000
            line.end.send(HEARTBEAT * 200)
            await moment()
            assert not line.guest.throttled

    in_own_time(scenario())
