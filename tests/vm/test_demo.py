"""The demonstration on a real VM, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from host_agent import demo

from .scene import Scene

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

#: Seconds; the image is built before.
LIMIT = 120.0


def test_the_demo_on_a_vm_plays_every_scenario_in_less_than_two_minutes(scene: Scene) -> None:
    began = time.monotonic()
    command = [sys.executable, "-m", "host_agent.cli", "demo", "--vm"]
    played = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    scene.note_time("the whole demonstration", time.monotonic() - began)
    assert (played.returncode, played.stderr) == (0, "")
    for scenario in demo.SCENARIOS:
        assert f"  => agreed {scenario.expected}, in use {scenario.expected}" in played.stdout
    assert played.stdout.count("live migration to") == 3
