from __future__ import annotations

import logging
from typing import Callable

import pytest

from host_agent import journal
from host_agent.journal import Journal


def test_a_line_begins_with_the_name_and_is_safe_for_terminals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Journal("web\u202e").say("channel", "connected: \x1b[31m", 0)
    assert caplog.messages == ["web\\u202e: connected: \\x1b[31m"]


def test_a_flood_of_lines_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = Journal("web")
    for number in range(1000):
        lines.say("version", f"agreed {number}", number * 0.01)
    assert len(caplog.messages) == journal.BURST
    lines.say("version", "agreed again", journal.PERIOD + 1)
    assert caplog.messages[journal.BURST :] == [
        f"web: agreed 999 (the latest of {1000 - journal.BURST} lines that were held back)",
        "web: agreed again",
    ]


def test_the_latest_line_of_a_flood_is_said_when_its_period_ends(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[tuple[float, Callable[[], None]]] = []
    lines = Journal("web", lambda when, call: calls.append((when, call)))
    for number in range(1000):
        lines.say("life", f"line {number}", number * 0.01, logging.WARNING)
    ((when, call),) = calls
    assert when == journal.PERIOD
    call()
    closing = f"web: line 999 (the latest of {1000 - journal.BURST} lines that were held back)"
    assert caplog.messages[journal.BURST :] == [closing]
    assert caplog.records[-1].levelno == logging.WARNING
    lines.say("life", "calm", journal.PERIOD + 1, logging.WARNING)
    call()
    assert caplog.messages[journal.BURST :] == [closing, "web: calm"]


def test_a_topic_that_is_never_cut_needs_no_call() -> None:
    calls: list[object] = []
    lines = Journal("web", lambda *call: calls.append(call))
    for number in range(journal.BURST):
        lines.say("life", "line", number)
    assert calls == []


def test_a_flood_of_one_topic_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    lines = Journal("web")
    for _ in range(1000):
        lines.say("complaint", "bad", 0, logging.WARNING)
    lines.say("life", "unresponsive", 0, logging.WARNING)
    assert caplog.messages[-1] == "web: unresponsive"


def test_a_guest_that_is_renamed_goes_on_under_its_new_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = Journal("web")
    for _ in range(journal.BURST + 1):
        lines.say("life", "before", 0)
    lines.rename("shop")
    lines.say("channel", "after", 1)
    lines.say("life", "calm", journal.PERIOD)
    assert caplog.messages[journal.BURST :] == [
        "shop: after",
        "shop: before (the latest of 1 lines that were held back)",
        "shop: calm",
    ]


def test_each_topic_has_its_own_period(caplog: pytest.LogCaptureFixture) -> None:
    lines = Journal("web")
    for second in range(200):
        lines.say("complaint", f"bad {second}", second, logging.WARNING)
        if second % 30 == 0:
            lines.say("life", f"silent {second}", second, logging.WARNING)
    said = [message for message in caplog.messages if "silent" in message]
    assert said == [f"web: silent {second}" for second in range(0, 200, 30)]
    assert len(caplog.messages) - len(said) == 4 * journal.BURST + 3
