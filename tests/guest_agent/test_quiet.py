"""Log lines that a peer can cause are few."""

from __future__ import annotations

import pytest

from guest_agent import quiet
from guest_agent.quiet import QuietLog

from .parts import Clock, ListLog


@pytest.fixture
def said() -> ListLog:
    return ListLog()


@pytest.fixture
def log(clock: Clock, said: ListLog) -> QuietLog:
    return QuietLog(said, clock)


def test_a_flood_of_lines_is_cut(log: QuietLog, said: ListLog) -> None:
    for _ in range(1000):
        log.info("flood", "again")
    assert said.lines == ["INFO again"] * quiet.BURST


def test_a_flood_of_one_kind_hides_no_other(log: QuietLog, said: ListLog) -> None:
    for _ in range(1000):
        log.info("flood", "again")
    log.warning("rare", "look here")
    assert said.lines[-1] == "WARNING look here"


def test_what_must_be_known_each_time_is_said_each_time_and_at_any_level(clock: Clock) -> None:
    said = ListLog("error")
    for _ in range(quiet.BURST * 3):
        QuietLog(said, clock).always("info", "it happened")
    assert said.lines == ["INFO it happened"] * quiet.BURST * 3


def test_the_end_of_a_burst_is_said_when_its_period_ends(log: QuietLog, clock: Clock, said: ListLog) -> None:
    for number in range(quiet.BURST + 3):
        log.info("flood", f"line {number}")
    log.warning("flood", "the truth")
    clock.advance(quiet.PERIOD)
    log.close_windows()
    log.close_windows()
    assert said.lines[quiet.BURST :] == ["WARNING the truth (lines held back: 4; this is the last)"]


def test_the_end_of_a_burst_comes_before_the_next_line_however_late(log: QuietLog, clock: Clock, said: ListLog) -> None:
    for _ in range(quiet.BURST + 1):
        log.info("flood", "again")
    clock.advance(2 * quiet.PERIOD)
    log.info("flood", "anew")
    assert said.lines[quiet.BURST :] == ["INFO again (lines held back: 1; this is the last)", "INFO anew"]


def test_a_deadline_is_there_only_for_lines_held_back(log: QuietLog, clock: Clock) -> None:
    for _ in range(quiet.BURST):
        log.info("flood", "again")
    assert log.next_deadline() is None
    end = clock() + quiet.PERIOD
    clock.advance(1.0)
    log.info("flood", "again")
    log.info("rare", "look here")
    assert log.next_deadline() == end
    clock.advance(quiet.PERIOD - 1.0)
    log.close_windows()
    assert log.next_deadline() is None


def test_after_a_calm_period_nothing_is_said_of_it(log: QuietLog, clock: Clock, said: ListLog) -> None:
    for _ in range(quiet.BURST):
        log.info("flood", "again")
    clock.advance(quiet.PERIOD)
    log.info("flood", "anew")
    assert said.lines[quiet.BURST :] == ["INFO anew"]
