from __future__ import annotations

from typing import Optional

import pytest

from host_agent.client.sse import Parser, ServerSent


def parse(text: str, last_id: Optional[str] = None) -> tuple[list[ServerSent], Parser]:
    parser = Parser(last_id)
    fed = [parser.feed(line) for line in text.splitlines()]
    return [each for each in fed if each is not None], parser


def test_an_event_ends_with_an_empty_line() -> None:
    events, parser = parse('id: a-1\nevent: state\ndata: {"x": 1}\n\n')
    assert events == [ServerSent("a-1", "state", '{"x": 1}')]
    assert parser.last_id == "a-1"


def test_an_event_that_is_cut_off_is_none_and_is_asked_for_again() -> None:
    events, parser = parse("id: a-1\ndata: 1\n\nid: a-2\ndata: 2")
    assert [each.id for each in events] == ["a-1"]
    assert parser.last_id == "a-1"


@pytest.mark.parametrize("text", ["data:x\n\n", "data: x\n\n", "unknown: y\ndata: x\n\n", "retry: 5\ndata: x\nid\n\n"])
def test_a_space_behind_the_colon_and_unknown_fields_mean_nothing(text: str) -> None:
    assert parse(text)[0][0][1:] == ("message", "x")


def test_lines_of_text_are_put_together() -> None:
    assert parse("data: a\ndata:\ndata:  b\n\n")[0] == [ServerSent(None, "message", "a\n\n b")]


def test_an_id_holds_for_what_follows_also_without_an_event_of_its_own() -> None:
    events, parser = parse("id: a-1\n\ndata: x\n\nid: a-2\n\n")
    assert events == [ServerSent("a-1", "message", "x")]
    assert parser.last_id == "a-2"


def test_an_id_with_a_zero_is_ignored() -> None:
    assert parse("id: a\0b\n\n", last_id="z")[1].last_id == "z"


def test_a_kind_holds_for_one_event() -> None:
    events, _ = parse("event: a\ndata: 1\n\ndata: 2\n\nevent: b\n\ndata: 3\n\n")
    assert [each.kind for each in events] == ["a", "message", "message"]


def test_a_comment_says_that_there_is_nothing_more_to_tell() -> None:
    _, parser = parse("data: 1\n\n")
    assert not parser.idle
    parser.feed(": still here")
    assert parser.idle
