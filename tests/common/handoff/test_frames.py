"""``common.handoff.frames``"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.handoff import frames
from common.handoff.errors import InvalidFrame
from common.handoff.frames import Command, Request, RequestReader, Response, ResponseReader, Status

#: Frames written by hand, as the protocol has them.
REQUESTS = [
    (frames.start(1), b"\x01\x00\x01\x00\x00\x00\x00\x00" + bytes(8)),
    (frames.start(0), b"\x01\x00\x00\x00\x00\x00\x00\x00" + bytes(8)),
    (frames.start(0xABCD), b"\x01\x00\xcd\xab\x00\x00\x00\x00" + bytes(8)),
    (Request(Command.HELLO, b"{}"), b"\x02\x00" + bytes(6) + b"\x02\x00\x00\x00\x00\x00\x00\x00{}"),
    (Request(Command.SESSION, b"x" * 258), b"\x03\x00" + bytes(6) + b"\x02\x01\x00\x00\x00\x00\x00\x00" + b"x" * 258),
    (Request(Command.COMPLETE), b"\x04\x00" + bytes(14)),
    (Request(Command.ABANDON), b"\x05\x00" + bytes(14)),
]
RESPONSES = [
    (Response(Status.OK), b"\x01\x00" + bytes(14)),
    (Response(Status.ERROR, b"{}"), b"\x02\x00" + bytes(6) + b"\x02\x00\x00\x00\x00\x00\x00\x00{}"),
]


def test_every_command_has_a_limit_and_a_meaning() -> None:
    assert list(frames.LIMITS) == list(frames.MEANINGS) == list(Command)


@pytest.mark.parametrize(("request_", "written"), REQUESTS)
def test_a_request_is_written_byte_for_byte(request_: Request, written: bytes) -> None:
    assert frames.pack_request(request_) == written
    assert list(RequestReader().feed(written)) == [request_]


@pytest.mark.parametrize(("response", "written"), RESPONSES)
def test_a_response_is_written_byte_for_byte(response: Response, written: bytes) -> None:
    assert frames.pack_response(response) == written
    assert list(ResponseReader().feed(written)) == [response]


def test_of_the_header_of_start_only_the_version_counts() -> None:
    (request,) = RequestReader().feed(b"\x01\x00\x01\x00\xff\xff\xff\xff" + bytes(8))
    assert (request.command, request.version) == (Command.START, 1)


@pytest.mark.parametrize("version", [-1, 65536])
def test_a_version_that_has_no_place_in_the_header_is_a_mistake_of_ours(version: int) -> None:
    with pytest.raises(Exception, match=r"format|range"):
        frames.start(version)


@given(st.lists(st.sampled_from(REQUESTS), max_size=4), st.data())
def test_however_the_bytes_are_cut_the_same_frames_come_out(sent: list[Any], data: st.DataObject) -> None:
    stream = b"".join(written for _, written in sent)
    reader, start = RequestReader(), 0
    read: list[Request] = []
    while start < len(stream):
        end = start + data.draw(st.integers(1, len(stream)))
        read += reader.feed(stream[start:end])
        start = end
    assert read == [request for request, _ in sent]
    assert reader.held == 0
    reader.ended()


@pytest.mark.parametrize("size", [1, 1000])
def test_good_frames_before_a_bad_one_count_however_the_bytes_are_cut(size: int) -> None:
    stream = frames.pack_request(Request(Command.COMPLETE)) + b"\x09\x00" + bytes(14)
    reader = RequestReader()
    read: list[Request] = []

    def feed_all() -> None:
        for start in range(0, len(stream), size):
            for request in reader.feed(stream[start : start + size]):
                read.append(request)

    with pytest.raises(InvalidFrame):
        feed_all()
    assert read == [Request(Command.COMPLETE)]


@pytest.mark.parametrize("command", Command)
def test_a_payload_as_long_as_allowed_is_read_and_a_byte_more_is_not(command: Command) -> None:
    limit = frames.LIMITS[command]
    written = frames.pack_request(Request(command, bytes(limit)))
    assert [len(each.payload) for each in RequestReader().feed(written)] == [limit]
    with pytest.raises(ValueError, match=f"allowed are {limit}"):
        frames.pack_request(Request(command, bytes(limit + 1)))
    _assert_refused(RequestReader(), _head(command, limit + 1), f"with {limit + 1} bytes of payload, allowed are {limit}")


def test_an_answer_over_the_limit_is_neither_written_nor_read() -> None:
    limit = frames.ANSWER_LIMIT
    assert len(list(ResponseReader().feed(frames.pack_response(Response(Status.OK, bytes(limit)))))) == 1
    with pytest.raises(ValueError, match=f"allowed are {limit}"):
        frames.pack_response(Response(Status.ERROR, bytes(limit + 1)))
    _assert_refused(ResponseReader(), _head(1, limit + 1), f"an answer with {limit + 1} bytes of payload")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
def test_a_lie_about_a_length_costs_no_memory(length: int) -> None:
    reader = RequestReader()
    _assert_refused(reader, _head(Command.SESSION, length), "allowed are 8388608")
    assert reader.held == 0


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(10), bytes(16), b"\xff" * 16])
def test_what_speaks_something_else_is_refused_at_its_first_16_bytes(start: bytes) -> None:
    _assert_refused(RequestReader(), start, r"command \d+ is none: speak the protocol")
    _assert_refused(ResponseReader(), start, "answer is none: name a host daemon")


def test_a_response_with_anything_where_zeros_belong_is_refused() -> None:
    _assert_refused(ResponseReader(), b"\x01\x00\x00\x00\x00\x00\x00\x01" + bytes(8), "answer is none")


def test_after_a_bad_frame_nothing_counts_any_more() -> None:
    reader = RequestReader()
    _assert_refused(reader, bytes(16), "command 0 is none")
    _assert_refused(reader, frames.pack_request(Request(Command.ABANDON)), "command 0 is none")


@pytest.mark.parametrize("length", range(1, 18))
def test_an_end_in_the_middle_of_a_frame_is_noticed(length: int) -> None:
    reader = RequestReader()
    assert list(reader.feed(frames.pack_request(Request(Command.HELLO, b"{}"))[:length])) == []
    with pytest.raises(InvalidFrame, match="ended in the middle of a frame"):
        reader.ended()


@given(st.binary(max_size=100))
def test_whatever_the_bytes_only_a_clear_error_comes_out(stream: bytes) -> None:
    for reader in (RequestReader(), ResponseReader()):
        try:
            list(reader.feed(stream))
        except InvalidFrame:
            assert reader.held == 0


def _head(command: int, length: int) -> bytes:
    return command.to_bytes(2, "little") + bytes(6) + length.to_bytes(8, "little")


def _assert_refused(reader: Any, stream: bytes, problem: str) -> None:
    with pytest.raises(InvalidFrame, match=problem):
        list(reader.feed(stream))
