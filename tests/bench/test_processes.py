from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import processes
from tests.bench.processes import Fleet, Floor, Gone, Process

pytestmark = pytest.mark.once

CORE = min(os.sched_getaffinity(0))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "ports").mkdir()
    return tmp_path


@pytest.fixture
def fleet(place: Path) -> Iterator[Fleet]:
    with Fleet(place / "ports", CORE) as fleet:
        yield fleet


def test_what_a_process_uses_is_what_the_kernel_counts() -> None:
    work = "x = b'x' * 2**25\nwhile True: pass"
    with Process(["-c", work], CORE) as process:
        while process.memory().resident < 2**15:
            process.check()
        before = process.usage()
        while process.usage().cpu < before.cpu + 0.05:
            process.check()
        assert process.memory().unshared > 2**15
        assert process.usage().sleeps >= before.sleeps


def test_waking_up_is_counted(place: Path) -> None:
    with Process(["-c", "import time\nwhile True: time.sleep(0.001)"], CORE) as process:
        before = process.usage().sleeps
        while process.usage().sleeps < before + 5:
            process.check()


def test_a_process_that_ends_says_why(tmp_path: Path) -> None:
    with Process(["-c", "raise SystemExit('no reason at all')"], CORE, log=tmp_path / "log") as process:
        process.wait()
        with pytest.raises(Gone, match="status 1\nno reason at all"):
            process.check()


def test_a_host_that_gets_nowhere_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GIVE_UP", 0.0)
    with Floor(place, CORE) as floor, pytest.raises(Gone, match="did not come"):
        floor.until(lambda: False)


def test_a_fleet_in_another_process_agrees_with_the_floor(place: Path, fleet: Fleet) -> None:
    fleet.ask("add", first=0, count=3)
    fleet.ask("rate", heartbeats=100)
    with Floor(place, CORE) as floor:
        assert floor.until_ready() > 0
        floor.until(lambda: bool(fleet.ask("report")["agreed"] == 3))
        fleet.ask("behave", first=0, count=1, version=2)
        floor.until(lambda: fleet.ask("states")[0]["in_use"] == 2)
        fleet.ask("behave", first=1, count=1, garbage=True)
        fleet.ask("hang_up", first=2, count=1)
        floor.until(lambda: bool(fleet.ask("report")["connected"] == 2))
        assert all(wait > 0 for wait in fleet.ask("latencies"))
        fleet.ask("report", reset=True)
        floor.until(lambda: bool(fleet.ask("report")["heartbeats"] > 50))
        floor.check()


def test_a_fleet_leaves_nothing_behind(place: Path) -> None:
    with Fleet(place / "ports", CORE) as fleet:
        fleet.ask("add", first=0, count=2)
    assert os.listdir(place / "ports") == []


def test_a_fleet_that_ended_is_noticed(place: Path) -> None:
    fleet = Fleet(place / "ports", CORE)
    with pytest.raises(Gone, match="the fleet ended"):
        fleet.ask("no-such-command")
    fleet.end()
