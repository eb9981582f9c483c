from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from host_agent.api import inputs
from host_agent.api.problems import Problem


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/guests/web", "web"),
        ("/v1/guests/web/commands?x=/y", "web"),
        ("/v1/guests/a%2Fb/refresh", "a/b"),
        ("/v1/guests/%F0%9F%90%9A", "\N{SPIRAL SHELL}"),
        ("/v1/guests/%ff%FE", "\udcff\udcfe"),
        ("/v1/guests/100%", "100%"),
    ],
)
def test_the_name_of_a_guest_is_read_from_the_path(path: str, name: str) -> None:
    assert inputs.guest_name(make_mocked_request("GET", path)) == name


def test_parameters_are_read_by_their_readers() -> None:
    request = make_mocked_request("GET", "/x?facts=no")
    assert inputs.read_query(request, {"facts": inputs.yes_or_no, "more": inputs.yes_or_no}) == {"facts": False}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("fact=no", "unknown parameter 'fact'; allowed: facts"),
        ("%1B%5B=1", r"unknown parameter '\\x1b\['; allowed: facts"),
        ("facts=", "facts is ''; allowed: yes, no"),
        ("facts=NO", "facts is 'NO'; allowed: yes, no"),
        ("facts=no&facts=yes", "the parameter facts is there twice; send it once"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(query: str, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        inputs.read_query(make_mocked_request("GET", f"/x?{query}"), {"facts": inputs.yes_or_no})


def test_what_takes_no_parameter_says_so() -> None:
    with pytest.raises(Problem, match="unknown parameter 'x'; allowed: none"):
        inputs.read_query(make_mocked_request("GET", "/x?x=1"), {})


def nested(levels: int, inner: Any = 1) -> Any:
    for level in range(levels):
        inner = [inner] if level % 2 else {"a": inner, "b": 1}
    return inner


def test_values_may_nest_as_deep_as_a_line_may_and_no_deeper() -> None:
    value: Any
    for value in (1, "x", {}, [], nested(32), [nested(31), nested(31)]):
        inputs.check_depth(value)
    for value in (nested(33), [nested(31), nested(32)], nested(500)):
        with pytest.raises(Problem, match="nest deeper than 32 levels"):
            inputs.check_depth(value)


def test_members_that_mean_nothing_are_refused() -> None:
    inputs.check_members({"name": 1}, ("name", "wait"))
    with pytest.raises(Problem, match="unknown member 'nam'; allowed: name, wait"):
        inputs.check_members({"nam": 1}, ("name", "wait"))


def test_a_parameter_that_is_a_number_is_read() -> None:
    assert inputs.number("spec", "12") == 12
    for text in ("", "-1", "1.0", "²", "1" * 10):
        with pytest.raises(Problem, match="send a number"):
            inputs.number("spec", text)


@pytest.mark.parametrize("value", [None, "", 7, "xxxx", ["x"]])
def test_a_member_that_must_be_a_text_is_one(value: object) -> None:
    assert inputs.read_text({"name": "xxx"}, "name", 3) == "xxx"
    for members in ({"name": value}, {}):
        with pytest.raises(Problem, match="name is no text of 1 to 3 characters; send one"):
            inputs.read_text(members, "name", 3)


def test_a_member_that_is_left_out_has_its_usual_value() -> None:
    assert inputs.read_choice({}, "wait", True) is True
    assert inputs.read_choice({"wait": False}, "wait", True) is False
    assert inputs.read_seconds({}, "timeout", 1.0, 2.0) is None
    assert inputs.read_seconds({"timeout": 2}, "timeout", 1.0, 2.0) == 2.0
    with pytest.raises(Problem, match="wait is neither true nor false; send one of them, or leave it out"):
        inputs.read_choice({"wait": None}, "wait", True)


@pytest.mark.parametrize("value", [None, True, "1", 0.5, 3])
def test_a_member_that_must_be_seconds_is_so_many(value: object) -> None:
    with pytest.raises(Problem, match="timeout is no number of seconds from 1 to 2; send one"):
        inputs.read_seconds({"timeout": value}, "timeout", 1.0, 2.0)
