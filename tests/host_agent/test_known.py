from __future__ import annotations

import json
from typing import Any

import pytest

from common import codec, errors
from common.catalogue import CATALOGUE, Direction, Row
from common.messages import Capabilities
from host_agent.known import UNKNOWN_TIME, Departure, Fact, Frozen, InFlight, VersionChange, share
from tests.common.samples import arguments_for

FACTS = [row for row in CATALOGUE.rows if row.direction is Direction.TO_HOST and row.is_fact]


@pytest.mark.parametrize("row", FACTS, ids=lambda row: row.name)
def test_a_fact_says_what_its_line_said(row: Row) -> None:
    arguments = arguments_for(row)
    fact = Fact.of(row.name, arguments, 12.5)
    assert fact.heard_at == 12.5
    assert fact.line + b"\n" == codec.encode(row.name, arguments)
    assert json.loads(json.dumps(fact.arguments())) == json.loads(fact.text) == arguments


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        (b'{"__name__":"host-name","name":"web","of-the-future":1}', {"name": "web"}),
        (b'{"__name__":"heartbeat","apiVersion":"3","free-ram":"1"}', {"free-ram": "1"}),
        (b'{"__name__":"heartbeat","free-ram":512}', {"free-ram": "512"}),
        (b'{"__name__":"host-name","name":"a\\u0000\xff"}\r', {"name": "a\ufffd\ufffd"}),
    ],
)
def test_a_fact_says_what_the_table_has_and_nothing_else(line: bytes, arguments: dict[str, Any]) -> None:
    assert Fact(line, 0.0).arguments() == arguments


def test_its_text_is_short_and_holds_characters_as_they_are() -> None:
    assert Fact.of("host-name", {"name": "ü/€"}, 0.0).text == '{"name":"ü/€"}'


def test_what_no_line_can_hold_is_no_fact() -> None:
    with pytest.raises(errors.EncodingError):
        Fact.of("host-name", {"name": float("nan")}, 0.0)


def test_known_things_are_plain_values() -> None:
    assert VersionChange(1.0, 0, 3, "why") == (1.0, 0, 3, "why")
    assert InFlight("id", "login", 1.0, 2.0)._asdict() == {
        "reply_id": "id",
        "name": "login",
        "sent_at": 1.0,
        "deadline": 2.0,
    }
    assert Frozen(("/",), 7.0) == (("/",), 7.0)
    assert Departure("t", "web", None, "b", 1.0)._asdict() == {
        "transfer": "t",
        "guest": "web",
        "uuid": None,
        "peer": "b",
        "since": 1.0,
        "gone": False,
    }


def test_what_was_heard_nobody_knows_when_is_older_than_anything() -> None:
    assert UNKNOWN_TIME < -1e300


def test_capabilities_that_say_the_same_are_one_object() -> None:
    first, second = (share(Capabilities({"exec": False, "load": True}, ("f",))) for _ in range(2))
    assert first is second
    assert first == Capabilities({"exec": False, "load": True}, ("f",))
    others = [share(Capabilities({"exec": True, "load": True}, ("f",))), share(Capabilities({"exec": False}, ()))]
    assert len({id(each) for each in (first, *others)}) == 3
