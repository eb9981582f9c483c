"""load: as the kernel tells it, on a machine of the test's making and on this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.messages import Load
from guest_agent.commands import CommandFailed, Machine, load


def averages(root: Path, content: str) -> None:
    (root / "proc").mkdir()
    (root / "proc" / "loadavg").write_text(content, "utf-8")


def test_the_averages_and_the_cpus_online_are_told(machine: Machine, root: Path) -> None:
    averages(root, "0.50 12.25 1000.00 3/200 4711\n")
    cpus = root / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    (cpus / "online").write_text("0-2,7\n", "ascii")
    assert load.run(machine, Load()) == {"load": [0.5, 12.25, 1000.0], "cpus": 4}
    assert load.available(machine) is None


def test_without_a_number_of_cpus_there_are_averages_all_the_same(machine: Machine, root: Path) -> None:
    averages(root, "0.00 0.00 0.00 1/1 1\n")
    assert load.run(machine, Load()) == {"load": [0.0, 0.0, 0.0], "cpus": -1}


@pytest.mark.parametrize(
    "content", ["", "0.00 0.00\n", "nan inf 0.00 1/1 1\n", "-1.00 0.00 0.00 1/1 1\n", "٠.٠ 0.00 0.00 1"]
)
def test_what_is_no_average_is_not_passed_on(machine: Machine, root: Path, content: str) -> None:
    averages(root, content)
    with pytest.raises(CommandFailed, match=r"^/proc/loadavg has no load averages"):
        load.run(machine, Load())


def test_without_the_kernels_word_there_is_none(machine: Machine) -> None:
    why = "/proc/loadavg: No such file or directory; mount /proc"
    assert load.available(machine) == why
    with pytest.raises(CommandFailed, match=f"^{why}$"):
        load.run(machine, Load())


def test_this_machine_tells(machine: Machine) -> None:
    result = load.run(machine._replace(root="/"), Load())
    assert len(result["load"]) == 3
    assert result["cpus"] >= len(os.sched_getaffinity(0))
