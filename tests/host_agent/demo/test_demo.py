"""The demonstration, as a user runs it; and that it can fail."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from host_agent import demo
from host_agent.exits import Exit


def test_the_demo_plays_every_scenario_and_all_agree() -> None:
    played = subprocess.run(
        [sys.executable, "-m", "host_agent.cli", "demo"], capture_output=True, text=True, timeout=100, check=False
    )
    assert (played.returncode, played.stderr) == (0, "")
    for scenario in demo.SCENARIOS:
        assert scenario.name in played.stdout
        assert f"  => agreed {scenario.expected}, in use {scenario.expected}" in played.stdout
    assert "All agreed; the slowest took" in played.stdout


def test_the_demo_fails_when_a_version_is_not_as_it_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = dataclasses.replace(demo.SCENARIOS[0], expected=2)
    assert demo.play([wrong, demo.SCENARIOS[1]], patience=1.0) == Exit.DEMO_FAILED
    played = capsys.readouterr()
    assert "FAILED, expected 2" in played.out
    assert f"  => agreed {demo.SCENARIOS[1].expected}, in use {demo.SCENARIOS[1].expected}" in played.out
    assert "the demo failed: a version is not as it should be" in played.err
    assert "--- agent" in played.err


def test_an_outcome_counts_only_where_both_sides_are_right_and_it_was_seen() -> None:
    scenario = demo.SCENARIOS[0]
    good = demo.Outcome(scenario, scenario.expected, scenario.expected, 0.1)
    assert good.as_expected
    for other in ({"agreed": 0}, {"in_use": None}, {"took": None}):
        assert not dataclasses.replace(good, **other).as_expected
