"""When facts are due."""

from __future__ import annotations

import math

import pytest

from common import versions
from common.catalogue import CATALOGUE
from guest_agent.schedule import LENIENCE, NEVER, PERIODS, Schedule

TWO = {"fast": 10.0, "slow": 100.0}


def anything(_: str) -> bool:
    return True


def only_slow(name: str) -> bool:
    return name == "slow"


def test_every_fact_of_the_table_has_a_period() -> None:
    assert PERIODS.keys() == CATALOGUE.facts(up_to=versions.newest())


def test_the_periods_are_those_of_the_deployed_agents() -> None:
    assert [PERIODS[name] for name in ("active-user", "number-of-cpus", "disks-usage")] == [10, 60, 300]
    assert {PERIODS[name] for name in ("applications", "containers", "host-name", "fqdn")} == {120}


def test_a_fact_is_due_each_time_its_period_has_passed() -> None:
    schedule = Schedule(0.0, TWO)
    assert schedule.take(9.8, anything) == []
    assert schedule.take(10.0, anything) == ["fast"]
    assert schedule.take(10.0, anything) == []
    assert schedule.take(100.0, anything) == ["fast", "slow"]


def test_a_timer_that_is_a_little_early_finds_the_fact_due() -> None:
    schedule = Schedule(0.0, TWO)
    assert schedule.take(9.95, anything) == ["fast"]
    assert schedule.take(10.0, anything) == []


def test_a_fact_that_rides_on_heartbeats_keeps_its_rhythm_though_they_come_a_little_early_or_late() -> None:
    schedule = Schedule(0.0, {"fact": 10.0})
    heartbeats = [
        5.0 * number + jitter for number, jitter in enumerate((0.0, 0.04, -0.03, 0.05, 0.0, -0.04, 0.01, 0.02, 0.0))
    ]
    taken = [schedule.take(heartbeat, anything) for heartbeat in heartbeats]
    assert taken == [[], [], ["fact"], [], ["fact"], [], ["fact"], [], ["fact"]]


def test_a_fact_that_is_wanted_is_due_at_once_and_then_after_its_period() -> None:
    schedule = Schedule(0.0, TWO)
    schedule.want(["slow"])
    assert schedule.next_deadline(1.0, anything) == 1.0
    assert schedule.take(1.0, anything) == ["slow"]
    assert schedule.take(100.0, anything) == ["fast"]
    assert schedule.take(101.0, anything) == ["slow"]


def test_what_is_wanted_twice_is_taken_once() -> None:
    schedule = Schedule(0.0, TWO)
    schedule.want(["slow"])
    schedule.want(["slow", "fast"])
    assert schedule.take(1.0, anything) == ["fast", "slow"]
    assert schedule.take(1.0, anything) == []


def test_what_may_not_be_taken_stays_due_and_asks_for_nobody() -> None:
    schedule = Schedule(0.0, TWO)
    schedule.want(["fast"])
    assert schedule.next_deadline(1.0, only_slow) == 100.0 + LENIENCE
    assert schedule.take(1.0, only_slow) == []
    assert schedule.next_deadline(1.0, anything) == 1.0
    assert schedule.take(100.0, only_slow) == ["slow"]
    assert schedule.take(100.0, anything) == ["fast"]
    assert schedule.take(101.0, anything) == []


def test_a_fact_that_is_due_costs_no_wake_up_of_its_own_while_heartbeats_come_by() -> None:
    schedule = Schedule(0.0, TWO)
    assert schedule.next_deadline(0.0, anything) == 10.0 + LENIENCE
    schedule.take(10.0, anything)
    assert schedule.next_deadline(10.0, anything) == 20.0 + LENIENCE


def test_a_fact_that_this_agent_does_not_know_is_ignored() -> None:
    schedule = Schedule(0.0, TWO)
    schedule.want(["from-the-future"])
    assert schedule.next_deadline(1.0, anything) == 10.0 + LENIENCE
    assert schedule.take(1.0, anything) == []


def test_a_fact_that_is_never_reported_is_not_even_when_it_is_wanted() -> None:
    schedule = Schedule(0.0, {"fast": 10.0, "off": NEVER})
    schedule.want(["off"])
    assert schedule.next_deadline(1.0, anything) == 10.0 + LENIENCE
    assert schedule.take(1e9, anything) == ["fast"]


@pytest.mark.parametrize("periods", [{}, {"off": NEVER}])
def test_without_facts_there_is_no_deadline(periods: dict[str, float]) -> None:
    schedule = Schedule(0.0, periods)
    schedule.want(["off"])
    assert schedule.next_deadline(1.0, anything) == math.inf
    assert schedule.take(1e9, anything) == []
