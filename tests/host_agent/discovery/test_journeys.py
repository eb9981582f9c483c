from __future__ import annotations

from typing import Optional

import pytest

from host_agent.discovery import Migration
from host_agent.discovery.journeys import Journeys, Step

BEGINS, STAYS = "begins", "stays"


def steps(*happened: str) -> list[Optional[str]]:
    """What each of these means for one domain, told as ``KIND REASON``, by its job, or as the domains that run."""
    journeys, said = Journeys(), []
    for each in happened:
        if each == BEGINS:
            step = journeys.begins("web", "u-1")
        elif each == STAYS:
            step = journeys.stays("u-1")
        else:
            step = journeys.happened("web", "u-1", *each.split())
        assert step is None or step[1:] == ("web", "u-1")
        said.append(None if step is None else step.migration.name)
    return said


@pytest.mark.parametrize(
    "story",
    [
        {"STARTED MIGRATED": "INCOMING", "RESUMED MIGRATED": "ARRIVED"},
        {"STARTED MIGRATED": "INCOMING", "RESUMED POSTCOPY": "ARRIVED", "RESUMED MIGRATED": None},
        {"STARTED MIGRATED": "INCOMING", "SUSPENDED PAUSED": "ARRIVED", "RESUMED UNPAUSED": None},
        {"STARTED MIGRATED": "INCOMING", "STOPPED FAILED": "TURNED_BACK", "STOPPED DESTROYED": None},
        {"STARTED MIGRATED": "INCOMING", "RESUMED MIGRATED": "ARRIVED", "STOPPED SHUTDOWN": None},
        {"RESUMED MIGRATED": "ARRIVED"},
        {BEGINS: "BEGINS", "SUSPENDED MIGRATED": "LEAVING", "STOPPED MIGRATED": "LEFT"},
        {BEGINS: "BEGINS", "SUSPENDED MIGRATED": "LEAVING", "SUSPENDED POSTCOPY": None, "STOPPED MIGRATED": "LEFT"},
        {BEGINS: "BEGINS", "SUSPENDED MIGRATED": "LEAVING", "RESUMED MIGRATED": "FAILED", STAYS: None},
        {BEGINS: "BEGINS", "SUSPENDED PAUSED": None, "STOPPED MIGRATED": "LEFT"},
        {BEGINS: "BEGINS", STAYS: "FAILED", "STOPPED SHUTDOWN": None},
        {BEGINS: "BEGINS", "STOPPED CRASHED": "FAILED"},
        {"SUSPENDED MIGRATED": "LEAVING", BEGINS: None, "STOPPED DESTROYED": "FAILED"},
        {"SUSPENDED MIGRATED": "LEAVING", STAYS: "FAILED"},
        {"STOPPED MIGRATED": "LEFT", "STARTED MIGRATED": "INCOMING", STAYS: None},
        {"STARTED MIGRATED": "INCOMING", "RESUMED MIGRATED": "ARRIVED", BEGINS: "BEGINS", "RESUMED POSTCOPY_FAILED": None},
        {"STARTED BOOTED": None, "RESUMED UNPAUSED": None, "SUSPENDED PAUSED": None, "STOPPED SHUTDOWN": None},
    ],
    ids=str,
)
def test_what_happens_in_turn_says_where_a_migration_stands(story: dict[str, Optional[str]]) -> None:
    assert steps(*story) == list(story.values())


def test_each_domain_has_its_own_journey() -> None:
    journeys = Journeys()
    journeys.happened("web", "u-1", "STARTED", "MIGRATED")
    journeys.begins("db", "u-2")
    assert journeys.happened("db", "u-2", "RESUMED", "MIGRATED") == Step(Migration.FAILED, "db", "u-2")
    assert journeys.happened("web", "u-1", "RESUMED", "MIGRATED") == Step(Migration.ARRIVED, "web", "u-1")


def test_what_became_of_domains_that_are_gone_is_told_once() -> None:
    journeys = Journeys()
    journeys.begins("begun", "u-1")
    journeys.happened("suspended", "u-2", "SUSPENDED", "MIGRATED")
    journeys.happened("incoming", "u-3", "STARTED", "MIGRATED")
    journeys.happened("arrived", "u-4", "RESUMED", "MIGRATED")
    journeys.begins("still there", "u-5")
    assert journeys.keep({"u-5"}) == [
        Step(Migration.LEFT, "begun", "u-1"),
        Step(Migration.LEFT, "suspended", "u-2"),
        Step(Migration.TURNED_BACK, "incoming", "u-3"),
    ]
    assert journeys.keep({"u-5"}) == []
    assert journeys.keep(()) == [Step(Migration.LEFT, "still there", "u-5")]
