"""``common.framing``"""

from __future__ import annotations

from typing import Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import errors
from common.framing import LINE_LIMIT, LineSplitter, Overlong

Lines = list[Union[bytes, Overlong]]


def _split(splitter: LineSplitter, *pieces: bytes) -> Lines:
    return [line for piece in pieces for line in splitter.feed(piece)]


def _model(data: bytes, limit: int) -> Lines:
    """What lines *data* has, said without chunks: the last one is not ended, and given up only if it reached the limit."""
    *ended, unfinished = data.split(b"\n")
    given_up = [unfinished] if len(unfinished) >= limit else []
    return [line if len(line) < limit else Overlong(line[: errors.EVIDENCE_LIMIT]) for line in [*ended, *given_up]]


def test_a_line_comes_out_without_its_newline() -> None:
    assert _split(LineSplitter(), b"one\ntwo\n") == [b"one", b"two"]


def test_a_line_comes_out_only_when_it_is_ended() -> None:
    splitter = LineSplitter()
    assert _split(splitter, b"on") == []
    assert splitter.pending == 2
    assert _split(splitter, b"e\nt") == [b"one"]
    assert splitter.pending == 1


def test_empty_lines_are_lines() -> None:
    assert _split(LineSplitter(), b"\n\n") == [b"", b""]


def test_only_the_newline_ends_a_line() -> None:
    assert _split(LineSplitter(), b"a\rb\x0bc\x0cd\x85e\xe2\x80\xa8f\r\n") == [b"a\rb\x0bc\x0cd\x85e\xe2\x80\xa8f\r"]


def test_a_line_just_below_the_limit_passes() -> None:
    line = b"x" * (LINE_LIMIT - 1)
    assert _split(LineSplitter(), line + b"\n") == [line]
    assert _split(LineSplitter(), line, b"\n") == [line]


@pytest.mark.parametrize("cut", [1, 40, LINE_LIMIT - 1, LINE_LIMIT])
def test_a_line_that_reaches_the_limit_is_dropped_once_and_the_next_line_passes(cut: int) -> None:
    line = b"x" * LINE_LIMIT
    splitter = LineSplitter()
    assert _split(splitter, line[:cut], line[cut:], b"\nnext\n") == [Overlong(b"x" * errors.EVIDENCE_LIMIT), b"next"]


def test_a_line_of_the_limit_that_comes_with_its_newline_is_dropped_too() -> None:
    assert _split(LineSplitter(), b"x" * LINE_LIMIT + b"\nnext\n") == [Overlong(b"x" * errors.EVIDENCE_LIMIT), b"next"]


def test_a_line_that_never_ends_is_given_up_at_once_and_costs_no_memory() -> None:
    splitter = LineSplitter()
    given_up = 0
    for _ in range(5 * LINE_LIMIT // 65536):
        given_up += len(_split(splitter, b"x" * 65536))
        assert splitter.pending < LINE_LIMIT
    assert given_up == 1
    assert splitter.pending == 0
    assert _split(splitter, b"tail\nnext\n") == [b"next"]


def test_what_was_dropped_is_shown_by_how_it_began_across_pieces() -> None:
    line = bytes(range(32, 127)) * 2
    assert _split(LineSplitter(limit=90), line[:5], line[5:]) == [Overlong(line[: errors.EVIDENCE_LIMIT])]


def test_after_a_reset_a_half_line_is_forgotten() -> None:
    splitter = LineSplitter()
    _split(splitter, b"half")
    splitter.reset()
    assert splitter.pending == 0
    assert _split(splitter, b"whole\n") == [b"whole"]


def test_after_a_reset_the_rest_of_an_endless_line_is_no_longer_awaited() -> None:
    splitter = LineSplitter(limit=4)
    _split(splitter, b"too long")
    splitter.reset()
    assert _split(splitter, b"ok\n") == [b"ok"]


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"a" * 40, b"b" * 87, b"c" * 88]), max_size=12))
def test_however_the_bytes_are_cut_the_lines_are_the_same(pieces: list[bytes]) -> None:
    data, limit = b"".join(pieces), errors.EVIDENCE_LIMIT + 8
    expected = _model(data, limit)
    assert _split(LineSplitter(limit), data) == expected
    assert _split(LineSplitter(limit), *pieces) == expected
    assert _split(LineSplitter(limit), *(bytes([byte]) for byte in data)) == expected


@pytest.mark.parametrize("before", [b"", b"half"])
@pytest.mark.parametrize("behind", [b"", b"half"])
def test_lines_that_come_whole_and_lines_that_come_in_pieces_are_the_same(before: bytes, behind: bytes) -> None:
    splitter = LineSplitter()
    assert _split(splitter, before) == []
    assert _split(splitter, b"one\n\ntwo\n" + behind) == [before + b"one", b"", b"two"]
    assert splitter.pending == len(behind)
    assert _split(splitter, b"end\n") == [behind + b"end"]


def test_lines_are_bytes_of_their_own_that_nothing_changes_later() -> None:
    splitter = LineSplitter()
    lines = _split(splitter, b"ha", b"lf\n", b"whole\n")
    assert [type(line) for line in lines] == [bytes, bytes]
    _split(splitter, b"more\n")
    assert lines == [b"half", b"whole"]


@pytest.mark.parametrize("size", [15, 16, 17])
def test_many_short_lines_that_come_at_once_are_none_of_them_too_long(size: int) -> None:
    data = (b"x\n" * 16)[:size]
    splitter = LineSplitter(limit=16)
    assert _split(splitter, data) == [b"x"] * (size // 2)
    assert splitter.pending == size % 2


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_what_is_held_stays_below_the_limit(pieces: list[bytes]) -> None:
    splitter = LineSplitter(limit=16)
    for piece in pieces:
        _split(splitter, piece)
        assert splitter.pending < 16
