"""Exit statuses."""

from __future__ import annotations

from guest_agent import exits
from guest_agent.exits import Exit


def test_statuses_are_distinct_numbers_with_a_meaning() -> None:
    assert [status.value for status in Exit] == [0, 1, 2, 3, 4, 5]
    assert all(status.meaning for status in Exit)


def test_the_epilog_lists_every_status() -> None:
    lines = exits.epilog().splitlines()[1:]
    assert [line.split()[0] for line in lines] == [str(status.value) for status in Exit]
