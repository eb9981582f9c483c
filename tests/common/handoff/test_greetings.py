"""``common.handoff.greetings``"""

from __future__ import annotations

import contextlib
import json
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.handoff import greetings
from common.handoff.errors import InvalidPayload
from common.handoff.frames import ANSWER_LIMIT, TALK_LIMIT
from common.handoff.greetings import Hello, Outcome, Welcome
from common.handoff.vm import Vm

from .talks import TRANSFER, VM


def test_a_hello_is_a_json_object() -> None:
    hello = Hello((0, 1), 5, VM, TRANSFER, ("run-1",))
    assert json.loads(greetings.pack_hello(hello)) == {
        "specs": [0, 1],
        "api_maximum": 5,
        "vm": {"uuid": VM.uuid, "name": "web-1"},
        "transfer": TRANSFER,
        "outcomes": ["run-1"],
    }
    assert greetings.unpack_hello(greetings.pack_hello(hello)) == hello


def test_the_answer_to_a_hello_is_a_json_object() -> None:
    welcome = Welcome((0, 1, 2), 4, True, True, {"run-1": Outcome(True, 1.5, {"result": {"exit": 0}})})
    assert json.loads(greetings.pack_welcome(welcome)) == {
        "specs": [0, 1, 2],
        "api_maximum": 4,
        "awaits": True,
        "taken": True,
        "outcomes": {"run-1": {"done": True, "after_s": 1.5, "more": {"result": {"exit": 0}}}},
    }
    assert greetings.unpack_welcome(greetings.pack_welcome(welcome)) == welcome


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"more": 1, "specs": null, "vm": null}'])
def test_what_a_hello_does_not_say_has_a_default(payload: bytes) -> None:
    assert greetings.unpack_hello(payload) == Hello((), None, Vm(None, ""), None, ())


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"more": 1, "taken": null, "outcomes": null}'])
def test_an_answer_that_says_nothing_comes_from_who_knows_the_oldest_spec_only(payload: bytes) -> None:
    assert greetings.unpack_welcome(payload) == Welcome((0,), None, False, False, {})


@pytest.mark.parametrize(
    "said",
    [
        *[{"specs": 1}, {"specs": [-1]}, {"specs": [True]}, {"api_maximum": "5"}, {"api_maximum": -1}],
        *[{"vm": []}, {"vm": {"uuid": "x"}}, {"vm": {"name": "x" * 256}}, {"transfer": TRANSFER.upper()}, {"transfer": 7}],
        *[{"outcomes": ["x"] * 101}, {"outcomes": [7]}, {"outcomes": ["x" * 201]}, {"outcomes": "x"}],
    ],
)
def test_a_hello_that_can_not_be_is_an_error_that_says_which_side_to_upgrade(said: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload, match=r"^Hello can't be read: .*: upgrade the source's vmaccord-host$"):
        greetings.unpack_hello(json.dumps(said).encode())


@pytest.mark.parametrize(
    "said",
    [
        *[{"specs": {}}, {"awaits": 1}, {"taken": "yes"}, {"outcomes": []}, {"outcomes": {"a": {}}}],
        *[{"outcomes": {"a": {"done": 1}}}, {"outcomes": {"a": {"done": True, "after_s": -1}}}],
        *[{"outcomes": {"a" * 201: {"done": True}}}, {"outcomes": {"a": {"done": True, "more": 7}}}],
    ],
)
def test_an_answer_that_can_not_be_is_an_error_that_says_which_side_to_upgrade(said: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload, match=r"can't be read: .*: upgrade the destination's vmaccord-host$"):
        greetings.unpack_welcome(json.dumps(said).encode())


def test_what_is_too_long_is_neither_written_nor_read() -> None:
    with pytest.raises(InvalidPayload, match="larger than 65536 bytes"):
        greetings.unpack_hello(b" " * TALK_LIMIT + b"{}")
    with pytest.raises(InvalidPayload, match="larger than"):
        greetings.unpack_welcome(b" " * ANSWER_LIMIT + b"{}")
    with pytest.raises(ValueError, match="larger than 65536 bytes"):
        greetings.pack_hello(Hello(vm=Vm(name="x" * TALK_LIMIT)))
    with pytest.raises(ValueError, match="larger than"):
        greetings.pack_welcome(Welcome(outcomes={"a": Outcome(True, more={"result": "x" * ANSWER_LIMIT})}))


@given(st.binary(max_size=60) | st.from_regex(rb'\{"(specs|vm|outcomes|taken)":[\[\]{}"a-z0-9:,-]{0,20}\}', fullmatch=True))
def test_whatever_the_bytes_only_a_clear_error_comes_out(payload: bytes) -> None:
    for unpack in (greetings.unpack_hello, greetings.unpack_welcome):
        with contextlib.suppress(InvalidPayload):
            unpack(payload)


@pytest.mark.parametrize(
    ("offered", "read", "spec"),
    [((0, 1, 2), (0, 1), 1), ((0, 1, 2), (0, 1, 2, 3), 2), ((2, 0), (1, 0), 0), ((2,), (0, 1), None), ((3,), (3,), None)],
)
def test_the_newest_spec_that_both_know_is_taken(
    offered: tuple[int, ...], read: tuple[int, ...], spec: Optional[int]
) -> None:
    assert greetings.common_spec(offered, read) == spec
