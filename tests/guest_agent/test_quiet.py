"""Log lines that a peer can cause are few."""

from __future__ import annotations

import logging

import pytest

from guest_agent import quiet
from guest_agent.quiet import QuietLog

from .parts import Clock


@pytest.fixture
def log(clock: Clock, caplog: pytest.LogCaptureFixture) -> QuietLog:
    caplog.set_level(logging.DEBUG)
    return QuietLog(logging.getLogger("test"), clock)


def test_a_flood_of_lines_is_cut(log: QuietLog, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        log.info("flood", "again")
    assert caplog.messages == ["again"] * quiet.BURST


def test_a_flood_of_one_kind_hides_no_other(log: QuietLog, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        log.info("flood", "again")
    log.warning("rare", "look here")
    assert caplog.records[-1].levelno == logging.WARNING
    assert caplog.messages[-1] == "look here"


def test_the_end_of_a_burst_is_said_when_its_period_ends(
    log: QuietLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(quiet.BURST + 3):
        log.info("flood", f"line {number}")
    log.warning("flood", "the truth")
    clock.advance(quiet.PERIOD)
    log.close_windows()
    log.close_windows()
    assert caplog.messages[quiet.BURST :] == ["the truth (lines held back: 4; this is the last)"]
    assert caplog.records[-1].levelno == logging.WARNING


def test_the_end_of_a_burst_comes_before_the_next_line_however_late(
    log: QuietLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(quiet.BURST + 1):
        log.info("flood", "again")
    clock.advance(2 * quiet.PERIOD)
    log.info("flood", "anew")
    assert caplog.messages[quiet.BURST :] == ["again (lines held back: 1; this is the last)", "anew"]


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


def test_after_a_calm_period_nothing_is_said_of_it(log: QuietLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(quiet.BURST):
        log.info("flood", "again")
    clock.advance(quiet.PERIOD)
    log.info("flood", "anew")
    assert caplog.messages[quiet.BURST :] == ["anew"]
