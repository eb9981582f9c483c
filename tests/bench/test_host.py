from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import host
from tests.bench.processes import ROOT

pytestmark = pytest.mark.once

BRIEF = ["--guests", "5", "--seconds", "0.5", "--rounds", "1"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the bench as ``make`` does."""
    command = [sys.executable, "-m", "tests.bench.host", *BRIEF, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_figures_are_printed_for_programs() -> None:
    answer = run("--only", "start", "--json", "--state", "--set", "forget-after=60")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["surroundings"]["settings"] == "state={place}/state.sqlite, forget-after=60"
    assert all(row["daemon"] is not None for row in document["rows"])


def test_a_profile_shows_where_the_daemon_spends_its_time(tmp_path: Path) -> None:
    answer = run("--only", "command", "--profile", str(tmp_path / "profile"))
    assert answer.returncode == 0, answer.stderr
    assert "Ordered by: internal time" in answer.stdout


def test_a_daemon_that_does_not_start_ends_the_run_with_what_it_said() -> None:
    answer = run("--only", "command", "--set", "no-such-key=1")
    assert answer.returncode == 1
    assert "no-such-key" in answer.stderr


def test_a_profile_of_more_than_one_scenario_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        host.main(["--profile", "profile"])
    assert "one scenario" in capsys.readouterr().err
