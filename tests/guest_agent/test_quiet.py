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


def test_after_the_period_the_next_line_says_how_many_were_swallowed(
    log: QuietLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(quiet.BURST + 3):
        log.info("flood", "again")
    clock.advance(quiet.PERIOD)
    log.info("flood", "again")
    log.info("flood", "again")
    assert caplog.messages[quiet.BURST :] == ["again (3 more lines like this were not logged)", "again"]
