"""``common.handoff.refusals``"""

from __future__ import annotations

import pytest

from common.handoff import refusals
from common.handoff.errors import InvalidPayload
from common.handoff.frames import TALK_LIMIT, Response, Status
from common.handoff.refusals import Code, Refusal, Refused


def test_every_code_has_a_meaning_and_a_word_that_stays() -> None:
    assert list(refusals.MEANINGS) == list(Code)
    assert {code.name: code.value for code in Code} == {
        "UNSUPPORTED_VERSION": "unsupported-protocol-version",
        "UNKNOWN_SPEC": "unknown-session-spec",
        "OUT_OF_ORDER": "out-of-order",
        "INVALID_HELLO": "invalid-hello",
        "INVALID_SESSION": "invalid-session",
        "ALREADY_TAKEN": "already-taken",
        "SUPERSEDED": "superseded",
        "NAME_TAKEN": "name-taken",
        "BUSY": "busy",
        "NOT_SAVED": "not-saved",
        "STOPPING": "stopping",
        "NOT_ADMITTED": "not-admitted",
    }


def test_a_refusal_is_said_by_an_error() -> None:
    assert Refusal("busy", "ask again").response() == Response(
        Status.ERROR, b'{"code":"busy","message":"ask again","supported":[]}'
    )


@pytest.mark.parametrize(("refusal", "text"), [(Refusal("busy", "ask again"), "ask again"), (Refusal("busy"), "busy")])
def test_who_was_refused_is_told_why(refusal: Refusal, text: str) -> None:
    assert str(Refused(refusal)) == text
    assert Refused(refusal).refusal == refusal


def test_a_refusal_that_nobody_could_read_is_not_written() -> None:
    with pytest.raises(ValueError, match="larger than 65536 bytes"):
        refusals.pack(Refusal("a-code", "x" * TALK_LIMIT))


def test_a_refusal_is_a_json_object() -> None:
    refusal = Refusal("a-code", "why", (0, 1))
    assert refusals.pack(refusal) == b'{"code":"a-code","message":"why","supported":[0,1]}'
    assert refusals.unpack(refusals.pack(refusal)) == refusal


def test_what_a_refusal_lacks_has_a_default_and_a_code_may_be_anything_short() -> None:
    assert refusals.unpack(b"{}") == Refusal("", "", ())
    assert refusals.unpack(b'{"code": 17}') == Refusal("17", "", ())
    assert refusals.unpack(b'{"code": "%s"}' % (b"c" * 1000)).code == "c" * refusals.CODE_LENGTH
    assert refusals.unpack(b'{"code": "x", "supported": null, "more": 1}') == Refusal("x", "", ())


@pytest.mark.parametrize(
    "payload",
    [
        *[b"", b"[]", b"\xff", b'{"code": []}', b'{"code": "x", "supported": [true]}'],
        *[b'{"code": "x", "supported": [-1]}', b'{"code": "x", "message": "%s"}' % (b"m" * 2001)],
        b'{"code": "%s"}' % (b"x" * TALK_LIMIT),
    ],
)
def test_a_refusal_that_is_none_is_an_error_that_says_where_to_look(payload: bytes) -> None:
    with pytest.raises(InvalidPayload, match=r"look into its log$"):
        refusals.unpack(payload)


def test_control_characters_of_a_peer_reach_no_terminal() -> None:
    assert refusals.unpack(rb'{"code": "x", "message": "\u001b[2J"}').message == "�[2J"
