from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.processes import ROOT
from tests.soak import run
from tests.soak.figures import draw
from tests.soak.plan import ENDINGS, Scale
from tests.soak.run import Options

#: Each thing that can happen to a daemon once, but for libvirt, and everything faster than in life.
SHORT = Options(
    seed=20,
    scale=Scale(guests=150, seconds=2.0, intensity=12.0, life=4, adversities=("reload", "disk")),
    seconds=None,
    storms=2 + len(ENDINGS),
    period=1.0,
    settings=("unresponsive-after = 4", "forget-after = 1", "drain = 0.3", "[limits]", "message-rate = 10000"),
    operators=8,
    timeouts=(0.3, 1.0, 2.0),
)


@pytest.mark.timeout(300)
def test_a_daemon_stands_a_soak() -> None:
    said: list[str] = []
    outcome = run.play(SHORT._replace(say=said.append))
    report = "\n".join((*said, draw(outcome.figures), *outcome.faults))
    assert not outcome.failed, report
    heard = {each.name: each.value for each in outcome.figures}
    assert heard["commands that guests heard"] > 0, report


def test_a_plan_is_shown_and_repeated() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.soak",
        "--plan",
        "--storms",
        "2",
        "--guests",
        "50",
        "--domains",
        "0",
        "--seed",
        "5",
    ]
    first, second = (subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout
    assert "storm 0: reload" in first.stdout
    assert "storm 1: disk" in first.stdout
