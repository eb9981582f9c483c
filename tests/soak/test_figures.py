from __future__ import annotations

from tests.soak.figures import EXCEEDED, WITHIN, Figure, Outcome, draw


def test_a_figure_is_judged_by_its_bound() -> None:
    assert Figure("fds", 3, bound=3).verdict == WITHIN
    assert Figure("fds", 4, bound=3).verdict == EXCEEDED
    assert Figure("fds", 4).verdict == ""


def test_a_soak_fails_by_a_fault_or_a_figure() -> None:
    assert not Outcome([Figure("fds", 3, bound=3)], []).failed
    assert Outcome([Figure("fds", 4, bound=3)], []).failed
    assert Outcome([], ["the daemon hung"]).failed


def test_a_table_is_drawn_line_by_line() -> None:
    lines = draw([Figure("memory", 1234.5, "KiB", 2000, "much"), Figure("time", 1.234, "s")]).splitlines()
    assert lines[0].split() == ["memory", "1234", "KiB", "≤", "2000", "ok", "much"]
    assert lines[1].split() == ["time", "1.23", "s"]
