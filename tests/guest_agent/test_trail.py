"""What an unexpected error was, without its text."""

from __future__ import annotations

import re

from guest_agent.trail import trail


def fail() -> None:
    raise LookupError("open-sesame")


def caught() -> LookupError:
    try:
        fail()
    except LookupError as error:
        return error
    raise AssertionError


def test_an_error_is_its_class_and_the_places_that_it_passed_the_innermost_last() -> None:
    match = re.fullmatch(r"LookupError at test_trail\.py:(\d+), test_trail\.py:(\d+)", trail(caught()))
    assert match is not None
    outer, inner = map(int, match.groups())
    assert inner < outer
