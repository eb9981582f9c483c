from __future__ import annotations

import math

import pytest

from common.catalogue import CATALOGUE, Direction, Row
from host_agent import deadlines


@pytest.mark.parametrize(
    ("own", "seconds"),
    [
        (None, 30.0),
        (0, 30.0),
        (-5, 30.0),
        (True, 30.0),
        ("60", 30.0),
        (math.nan, 30.0),
        (0.5, 10.5),
        (60, 70.0),
        (3600.0, 3610.0),
        (10**400, 86_410.0),
        (math.inf, 86_410.0),
    ],
)
def test_a_completion_is_waited_for_longer_than_the_command_may_take(own: object, seconds: float) -> None:
    assert deadlines.by_default(row("exec"), {"timeout": own}) == seconds


def test_a_command_that_may_take_long_is_waited_for_as_long() -> None:
    assert deadlines.by_default(row("filesystem-trim"), {}) == 3610.0


def test_a_delay_is_no_time_that_a_command_takes() -> None:
    assert deadlines.by_default(row("shutdown"), {"timeout": 3600}) == 30.0


def row(name: str) -> Row:
    found = CATALOGUE.find(Direction.TO_GUEST, name)
    assert found is not None
    return found


def test_what_is_usual_may_be_asked_for() -> None:
    assert deadlines.SHORTEST < deadlines.USUAL < deadlines.LONGEST < deadlines.LIMIT
