from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import Any

import pytest

from common.handoff import destination, frames, source
from common.handoff.destination import Destination
from common.handoff.errors import InvalidFrame
from common.handoff.frames import Command, Request, Response, Status
from common.handoff.refusals import Code, Refusal, Refused
from host_agent.handoff import talking
from host_agent.handoff.network import ConnectionLost
from host_agent.handoff.talking import PATIENCE, PREPARED_PATIENCE, Line, attend
from tests.common.handoff.talks import Host
from tests.host_agent.parts import ManualLoop

OK = frames.pack_response(Response(Status.OK))


class Peer:
    """A connection whose peer says one piece after the other, each after *pause* seconds, and then leaves, or stalls.

    :ivar written: what it was told, and ``patiences`` how long it was to be waited for each time.
    """

    def __init__(self, loop: ManualLoop, pieces: Iterable[bytes] = (), pause: float = 0.0, stalls: bool = False) -> None:
        self.written = b""
        self.patiences: list[float] = []
        self.closed = False
        self._loop = loop
        self._pieces = iter(pieces)
        self._pause = pause
        self._last = None if stalls else b""

    async def read(self, patience: float) -> bytes:
        self.patiences.append(patience)
        piece = next(self._pieces, self._last)
        self._loop.now += min(patience, self._pause)
        if piece is None or self._pause > patience:
            raise ConnectionLost("it said nothing")
        return piece

    async def write(self, data: bytes, patience: float) -> None:
        assert patience == PATIENCE
        self.written += data

    def close(self) -> None:
        self.closed = True


def play(scenario: Any) -> None:
    loop = ManualLoop()
    loop.play(scenario(loop))


def letters(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# ---- The source's end ----


@pytest.mark.parametrize("cut", [letters, lambda data: [data]])
def test_a_source_asks_one_thing_after_the_other(cut: Any) -> None:
    async def scenario(loop: ManualLoop) -> None:
        peer = Peer(loop, cut(OK))
        line = Line(peer)
        await line.converse(source.complete())
        assert peer.written == frames.pack_request(Request(Command.COMPLETE))
        line.close()
        assert peer.closed

    play(scenario)


def test_answers_that_came_at_once_are_for_one_question_each() -> None:
    async def scenario(loop: ManualLoop) -> None:
        refused = frames.pack_response(Refusal(Code.BUSY.value, "in a moment").response())
        peer = Peer(loop, [OK + refused])
        await Line(peer).converse(source.complete())
        line = Line(Peer(loop, [OK + refused]))
        await line.converse(source.complete())
        with pytest.raises(Refused, match="in a moment"):
            await line.converse(source.abandon())

    play(scenario)


def test_garbage_behind_an_answer_counts_when_it_would_be_one() -> None:
    async def scenario(loop: ManualLoop) -> None:
        line = Line(Peer(loop, [OK + b"\xff" * 16, b"more"]))
        await line.converse(source.complete())
        with pytest.raises(InvalidFrame, match="answer is none"):
            await line.converse(source.abandon())

    play(scenario)


def test_a_destination_that_leaves_without_a_word_is_said_to_have_left() -> None:
    async def scenario(loop: ManualLoop) -> None:
        with pytest.raises(ConnectionLost, match="ended the connection before it answered"):
            await Line(Peer(loop)).converse(source.complete())
        with pytest.raises(InvalidFrame, match="in the middle of a frame"):
            await Line(Peer(loop, [OK[:-1]])).converse(source.complete())

    play(scenario)


@pytest.mark.parametrize("length", [frames.ANSWER_LIMIT + 1, 2**63, 2**64 - 1])
def test_a_destination_that_announces_too_much_is_not_waited_for(length: int) -> None:
    async def scenario(loop: ManualLoop) -> None:
        peer = Peer(loop, [struct.pack("<H6xQ", 1, length)], stalls=True)
        with pytest.raises(InvalidFrame, match="allowed are"):
            await Line(peer).converse(source.complete())
        assert len(peer.patiences) == 1

    play(scenario)


def test_a_destination_that_announces_more_than_it_says_is_waited_for_no_longer_than_for_nothing() -> None:
    async def scenario(loop: ManualLoop) -> None:
        began = loop.now
        peer = Peer(loop, [struct.pack("<H6xQ", 1, 100), b"x" * 99], stalls=True, pause=1.0)
        with pytest.raises(ConnectionLost):
            await Line(peer).converse(source.complete())
        assert peer.patiences == [PATIENCE, PATIENCE - 1.0, PATIENCE - 2.0]
        assert loop.now <= began + PATIENCE

    play(scenario)


def test_the_time_for_one_answer_is_not_the_time_for_each_of_its_bytes() -> None:
    async def scenario(loop: ManualLoop) -> None:
        began = loop.now
        peer = Peer(loop, letters(OK), pause=1.0)
        with pytest.raises(ConnectionLost, match="said nothing"):
            await Line(peer).converse(source.complete())
        assert loop.now == began + PATIENCE

    play(scenario)


# ---- The destination's end ----


def served(pieces: Iterable[bytes], **more: Any) -> tuple[Peer, list[Request], Any]:
    """What a destination was asked by a source that says these *pieces*, and what it raised."""
    loop = ManualLoop()
    peer, asked = Peer(loop, pieces, **more), []
    one = Destination(destination.Arrivals(), Host(), destination.Terms())

    async def answer(request: Request) -> Response:
        asked.append(request)
        response = one.receive(request)
        return response if isinstance(response, Response) else one.prepare(destination.read(request.payload, (0, 1, 2)))

    async def whole() -> Any:
        try:
            return await attend(peer, one, answer)
        except (ConnectionLost, InvalidFrame) as error:
            return error

    return peer, asked, loop.play(whole())


HELLO_AND_BYE = frames.pack_request(frames.start(1)) + frames.pack_request(Request(Command.ABANDON))


@pytest.mark.parametrize("cut", [letters, lambda data: [data]])
def test_each_request_is_answered_until_all_is_said(cut: Any) -> None:
    peer, asked, error = served([*cut(HELLO_AND_BYE), b"never read"])
    assert error is None
    assert [each.command for each in asked] == [Command.START, Command.ABANDON]
    assert peer.written == OK * 2


def test_a_source_may_leave_between_two_requests_but_not_within_one() -> None:
    start = frames.pack_request(frames.start(1))
    assert served([start])[2] is None
    _, asked, error = served([start + start[:5]])
    assert len(asked) == 1
    assert "in the middle of a frame" in str(error)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(16),
        struct.pack("<H6xQ", Command.START, 1),
        struct.pack("<H6xQ", Command.HELLO, frames.TALK_LIMIT + 1),
        struct.pack("<H6xQ", Command.SESSION, 2**64 - 1),
    ],
)
def test_what_is_no_request_costs_the_source_its_connection_after_what_was_one(garbage: bytes) -> None:
    peer, asked, error = served([frames.pack_request(frames.start(1)) + garbage])
    assert isinstance(error, InvalidFrame)
    assert len(asked) == 1
    assert peer.written == OK


def test_a_source_that_stalls_is_waited_for_and_one_that_has_prepared_much_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    session = frames.pack_request(Request(Command.SESSION, b'{"spec":1,"session":{"name":"web-1"}}'))
    peer, asked, error = served([frames.pack_request(frames.start(1)), session], stalls=True)
    assert isinstance(error, ConnectionLost)
    assert [each.command for each in asked] == [Command.START, Command.SESSION]
    assert peer.patiences == [PATIENCE, PATIENCE, PREPARED_PATIENCE]
    assert talking.PREPARED_PATIENCE > 10 * talking.PATIENCE


def test_a_source_is_not_waited_for_longer_because_it_sends_byte_by_byte() -> None:
    peer, asked, error = served(letters(frames.pack_request(frames.start(1))), pause=1.0)
    assert isinstance(error, ConnectionLost)
    assert (asked, sum(peer.patiences[-1:])) == ([], 0.0)


def test_nothing_is_read_where_something_waits_to_be_answered() -> None:
    async def scenario(loop: ManualLoop) -> None:
        peer = Peer(loop, [HELLO_AND_BYE], stalls=True)
        one = Destination(destination.Arrivals(), Host(), destination.Terms())

        async def answer(request: Request) -> Response:
            await asyncio.sleep(0)
            response = one.receive(request)
            assert isinstance(response, Response)
            return response

        await attend(peer, one, answer)
        assert peer.patiences == [PATIENCE]

    play(scenario)
