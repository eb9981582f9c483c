"""When facts are due."""

from __future__ import annotations

from common import versions
from common.catalogue import CATALOGUE
from guest_agent.schedule import PERIODS, Schedule

TWO = {"fast": 10.0, "slow": 100.0}


def test_every_fact_of_the_table_has_a_period() -> None:
    assert PERIODS.keys() == CATALOGUE.facts(up_to=versions.newest())


def test_the_periods_are_those_of_the_deployed_agents() -> None:
    assert [PERIODS[name] for name in ("active-user", "number-of-cpus", "disks-usage")] == [10, 60, 300]
    assert {PERIODS[name] for name in ("applications", "containers", "host-name", "fqdn")} == {120}


def test_a_fact_is_due_each_time_its_period_has_passed() -> None:
    schedule = Schedule(0.0, TWO)
    assert schedule.take(9.9) == []
    assert schedule.take(10.0) == ["fast"]
    assert schedule.take(10.0) == []
    assert schedule.take(100.0) == ["fast", "slow"]


def test_a_fact_that_is_wanted_is_due_at_once() -> None:
    schedule = Schedule(0.0, TWO)
    schedule.want(["slow"], 1.0)
    assert schedule.next_deadline() == 1.0
    assert schedule.take(1.0) == ["slow"]
    assert schedule.next_deadline() == 10.0


def test_a_fact_that_is_overdue_does_not_become_due_later_when_it_is_wanted() -> None:
    schedule = Schedule(0.0, TWO)
    schedule.want(["fast"], 50.0)
    assert schedule.next_deadline() == 10.0


def test_a_fact_that_this_agent_does_not_know_is_ignored() -> None:
    schedule = Schedule(0.0, TWO)
    schedule.want(["from-the-future"], 1.0)
    assert schedule.take(1.0) == []
