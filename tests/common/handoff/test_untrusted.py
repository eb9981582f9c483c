"""``common.handoff.untrusted``"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.handoff import untrusted

LIMIT = 8 * 1024 * 1024


def test_text_and_bytes_are_read_alike() -> None:
    assert untrusted.read_object('{"a": [1, -2.5, "é"]}', LIMIT) == {"a": [1, -2.5, "é"]}
    assert untrusted.read_object('{"a": [1, -2.5, "é"]}'.encode(), LIMIT) == {"a": [1, -2.5, "é"]}


def test_what_is_as_large_as_it_may_be_is_read_and_a_byte_more_is_not() -> None:
    assert untrusted.read_object(b'{"a":1}', 7) == {"a": 1}
    with pytest.raises(ValueError, match="larger than 6 bytes"):
        untrusted.read_object(b'{"a":1}', 6)


def test_forbidden_characters_are_replaced_in_strings_and_names() -> None:
    assert untrusted.read_object(rb'{"a\u0000": ["\u001b[1m", "\ud800"]}', LIMIT) == {"a�": ["�[1m", "�"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"\xff", "not UTF-8"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": "\x01"}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b'{"a": 1e999}', "a number out of range"),
        (b'{"a": %s}' % (b"9" * 4301), "a number of more than 4300 digits"),
    ],
)
def test_what_is_no_json_object_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        untrusted.read_object(text, LIMIT)


def _nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_nesting_is_bounded() -> None:
    untrusted.read_object(_nested(40), LIMIT)
    for levels in (41, 100_000):
        with pytest.raises(ValueError, match="nested deeper than 40 levels"):
            untrusted.read_object(_nested(levels), LIMIT)


@pytest.mark.parametrize("part", [b"[],", b'"",', b"{},", b"1,", b'"\\"[,",'])
def test_members_are_counted_before_they_are_parsed(part: bytes) -> None:
    text = b'{"a":[' + part * untrusted.PARTS_LIMIT + b"0]}"
    with pytest.raises(ValueError, match="more than 200000 members"):
        untrusted.read_object(text, LIMIT)


def test_quotation_marks_without_end_are_refused_before_they_are_cut() -> None:
    with pytest.raises(ValueError, match="more than 200000 members"):
        untrusted.read_object(b'"' * LIMIT, LIMIT)


def test_what_only_looks_like_members_is_not_counted() -> None:
    text = '{"a": "' + r"\\\"[{,".replace(" ", "") * 200_001 + '"}'
    assert untrusted.read_object(text, LIMIT) == {"a": '\\"[{,' * 200_001}


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": b"secret"}, {"a": 10**5000}])
def test_what_has_no_json_form_is_not_written_and_not_quoted(value: object) -> None:
    with pytest.raises(ValueError, match=r"^a (value has no JSON form|number of more than)") as caught:
        untrusted.write_object(value, LIMIT)
    assert "secret" not in str(caught.value)


def test_what_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        untrusted.write_object({"a": "0123456789"}, 10)


@given(st.binary(max_size=60))
def test_whatever_the_bytes_only_a_clear_error_comes_out(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(untrusted.read_object(text, LIMIT), dict)
