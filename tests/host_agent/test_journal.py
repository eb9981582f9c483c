from __future__ import annotations

import logging

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
    assert caplog.messages[-1] == f"web: agreed again ({1000 - journal.BURST} more lines like this were not logged)"


def test_a_flood_of_one_topic_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    lines = Journal("web")
    for _ in range(1000):
        lines.say("complaint", "bad", 0, logging.WARNING)
    lines.say("life", "unresponsive", 0, logging.WARNING)
    assert caplog.messages[-1] == "web: unresponsive"
