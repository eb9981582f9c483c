from __future__ import annotations

from host_agent import exits
from host_agent.exits import Exit, Failure


def test_every_status_is_listed_with_its_meaning() -> None:
    for status in Exit:
        assert f"  {status.value}  {status.meaning}" in exits.epilog().splitlines()


def test_statuses_are_distinct_and_leave_the_usual_ones_alone() -> None:
    assert [Exit.OK, Exit.UNEXPECTED, Exit.USAGE] == [0, 1, 2]
    assert len({status.value for status in Exit}) == len(Exit)
    assert len({status.meaning for status in Exit}) == len(Exit)


def test_a_failure_without_a_status_of_its_own_is_unexpected() -> None:
    assert Failure("x").status is Exit.UNEXPECTED
