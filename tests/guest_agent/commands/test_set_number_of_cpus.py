"""set-number-of-cpus: through the kernel's switches, here ordinary files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import pytest

from common.messages import SetNumberOfCpus
from guest_agent.commands import CommandFailed, Machine, set_number_of_cpus

Cpus = Callable[[str], Path]

#: A CPU that has no switch.
FIXED = "-"


@pytest.fixture
def cpus(root: Path) -> Cpus:
    def make(states: str) -> Path:
        """CPUs in these states, from number 0 on."""
        directory = root / set_number_of_cpus.CPUS
        for number, state in enumerate(states):
            (directory / f"cpu{number}").mkdir(parents=True)
            if state != FIXED:
                (directory / f"cpu{number}" / "online").write_text(f"{state}\n", "ascii")
        for other in ("cpufreq", "cpuidle", "cpu0x"):
            (directory / other).mkdir()
        return directory

    return make


def states(directory: Path) -> str:
    numbers = sorted(int(path.name[3:]) for path in directory.iterdir() if path.name[3:].isdigit())
    switches = [directory / f"cpu{number}" / "online" for number in numbers]
    return "".join(switch.read_text("ascii")[0] if switch.exists() else FIXED for switch in switches)


@pytest.mark.parametrize(
    ("before", "count", "after"),
    [
        ("-111", 2, "-100"),
        ("-111", 1, "-000"),
        ("-000", 4, "-111"),
        ("-001", 2, "-100"),
        ("-101", 3, "-110"),
        ("-111", 4, "-111"),
        ("1111", 1, "1000"),
        ("0001", 1, "1000"),
        ("-11111111111", 3, "-11000000000"),
        ("-", 1, "-"),
    ],
)
def test_the_lowest_numbers_are_online_afterwards(machine: Machine, cpus: Cpus, before: str, count: int, after: str) -> None:
    directory = cpus(before)
    assert set_number_of_cpus.run(machine, SetNumberOfCpus(count=count)) == {}
    assert states(directory) == after


def test_no_cpu_goes_before_another_has_come_and_the_highest_goes_first(
    machine: Machine, cpus: Cpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus("001111")
    turned = []
    monkeypatch.setattr(set_number_of_cpus, "_turn", lambda _, number, state: turned.append(f"{number}:{state}"))
    set_number_of_cpus.run(machine, SetNumberOfCpus(count=3))
    assert turned == ["0:1", "1:1", "2:1", "5:0", "4:0", "3:0"]


@pytest.mark.parametrize("count", [0, -5])
def test_at_least_one_cpu_stays(machine: Machine, cpus: Cpus, count: int) -> None:
    directory = cpus("1111")
    set_number_of_cpus.run(machine, SetNumberOfCpus(count=count))
    assert states(directory) == "1000"


@pytest.mark.parametrize("count", [5, 10**5000], ids=["few", "endless"])
def test_more_than_there_are_brings_all_and_says_how_many_that_is(machine: Machine, cpus: Cpus, count: int) -> None:
    directory = cpus("-010")
    with pytest.raises(CommandFailed, match=r"^this guest has 4 CPUs, all of which are online; give the VM more of them$"):
        set_number_of_cpus.run(machine, SetNumberOfCpus(count=count))
    assert states(directory) == "-111"


def test_fewer_than_have_no_switch_leaves_those_and_says_how_many_that_is(machine: Machine, cpus: Cpus) -> None:
    directory = cpus("--11")
    with pytest.raises(CommandFailed, match=r"^2 CPUs of this guest can't be switched off; ask for no fewer$"):
        set_number_of_cpus.run(machine, SetNumberOfCpus(count=1))
    assert states(directory) == "--00"


@pytest.mark.parametrize(("before", "count", "wish"), [("-0", 2, "online"), ("-1", 1, "offline")])
def test_a_kernel_that_refuses_is_a_failure(machine: Machine, cpus: Cpus, before: str, count: int, wish: str) -> None:
    switch = cpus(before) / "cpu1" / "online"
    switch.unlink()
    switch.mkdir()
    with pytest.raises(CommandFailed, match=f"^the kernel does not bring CPU 1 {wish}: Is a directory$"):
        set_number_of_cpus.run(machine, SetNumberOfCpus(count=count))


def test_without_cpus_in_sight_it_fails(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="the kernel shows no CPUs"):
        set_number_of_cpus.run(machine, SetNumberOfCpus(count=1))


def test_it_is_available_where_there_is_a_switch(machine: Machine, cpus: Cpus) -> None:
    cpus("-1")
    assert set_number_of_cpus.available(machine) is None


@pytest.mark.parametrize("there", ["", "-"])
def test_it_is_not_available_without_one(machine: Machine, cpus: Cpus, there: str) -> None:
    cpus(there) if there else None
    assert "no CPU of this machine can be switched" in str(set_number_of_cpus.available(machine))


def test_it_is_not_available_where_no_switch_can_be_written(
    machine: Machine, cpus: Cpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus("-1")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "can't be written to" in str(set_number_of_cpus.available(machine))
