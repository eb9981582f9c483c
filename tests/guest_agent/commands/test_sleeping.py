"""Sleeping: by systemctl where systemd runs, else by the kernel, which here is ordinary files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guest_agent import processes
from guest_agent.commands import CommandFailed, Machine, sleeping
from guest_agent.commands.sleeping import Sleep

from .conftest import Programs, Ran, install

ALL = [sleeping.MEMORY, sleeping.DISK, sleeping.HYBRID]


@pytest.fixture
def states(root: Path) -> Path:
    """The kernel's states."""
    path = root / sleeping.STATES
    path.parent.mkdir(parents=True)
    path.write_text("freeze mem disk\n", "ascii")
    return path


@pytest.fixture
def afterwards(states: Path, root: Path) -> Path:
    """What the kernel can do when the memory is on disk."""
    path = root / sleeping.AFTERWARDS
    path.write_text("[platform] shutdown reboot suspend\n", "ascii")
    return path


@pytest.fixture
def systemd(root: Path) -> None:
    (root / sleeping.SYSTEMD).mkdir(parents=True)


@pytest.mark.usefixtures("systemd")
@pytest.mark.parametrize("sleep", ALL)
def test_systemctl_is_run_where_systemd_is(
    machine: Machine, programs: Programs, states: Path, afterwards: Path, sleep: Sleep
) -> None:
    before = (states.read_text("ascii"), afterwards.read_text("ascii"))
    sleeping.fall_asleep(machine, sleep)
    assert programs.ran == [Ran(("systemctl", sleep.verb))]
    assert (states.read_text("ascii"), afterwards.read_text("ascii")) == before


@pytest.mark.usefixtures("states", "systemd")
def test_what_systemctl_says_is_passed_on(machine: Machine, programs: Programs) -> None:
    programs.ends["systemctl"] = processes.Finished(1, b"Call to Hibernate failed: no swap\nmore\n")
    with pytest.raises(CommandFailed, match=r"^systemctl hibernate ended with status 1: Call to Hibernate failed: no swap$"):
        sleeping.fall_asleep(machine, sleeping.DISK)


@pytest.mark.usefixtures("states", "systemd")
def test_systemctl_need_not_say_anything(machine: Machine, programs: Programs) -> None:
    programs.ends["systemctl"] = processes.Finished(-9, b"")
    with pytest.raises(CommandFailed, match=r"^systemctl suspend was ended by signal 9$"):
        sleeping.fall_asleep(machine, sleeping.MEMORY)


@pytest.mark.parametrize("sleep", [sleeping.MEMORY, sleeping.DISK])
def test_the_kernel_is_told_elsewhere(
    machine: Machine, programs: Programs, states: Path, afterwards: Path, sleep: Sleep
) -> None:
    sleeping.fall_asleep(machine, sleep)
    assert states.read_text("ascii") == sleep.state
    assert afterwards.read_text("ascii") == "[platform] shutdown reboot suspend\n"
    assert programs.ran == []


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        ("[platform] shutdown suspend\n", ["sys/power/disk:suspend", "sys/power/state:disk", "sys/power/disk:platform"]),
        ("platform shutdown [suspend]\n", ["sys/power/state:disk"]),
    ],
)
def test_for_both_the_kernel_suspends_when_the_memory_is_on_disk_and_only_this_time(
    machine: Machine, afterwards: Path, monkeypatch: pytest.MonkeyPatch, offered: str, told: list[str]
) -> None:
    afterwards.write_text(offered, "ascii")
    seen = []
    monkeypatch.setattr(sleeping, "_write", lambda _, path, word: seen.append(f"{path}:{word}"))
    sleeping.fall_asleep(machine, sleeping.HYBRID)
    assert seen == told


def test_the_choice_is_taken_back_also_where_the_kernel_does_not_sleep(
    machine: Machine, states: Path, afterwards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = sleeping._write

    def refuse_states(machine: Machine, path: str, word: str) -> None:
        if path == sleeping.STATES:
            raise CommandFailed("no swap")
        write(machine, path, word)

    monkeypatch.setattr(sleeping, "_write", refuse_states)
    with pytest.raises(CommandFailed, match="no swap"):
        sleeping.fall_asleep(machine, sleeping.HYBRID)
    assert afterwards.read_text("ascii") == "platform"


@pytest.mark.parametrize("sleep", [sleeping.DISK, sleeping.HYBRID])
def test_a_state_that_the_kernel_does_not_offer_is_a_failure(
    machine: Machine, states: Path, afterwards: Path, sleep: Sleep
) -> None:
    states.write_text("freeze mem\n", "ascii")
    with pytest.raises(CommandFailed, match="the kernel does not offer disk in /sys/power/state; give the VM that state"):
        sleeping.fall_asleep(machine, sleep)


@pytest.mark.parametrize("offered", ["[platform] shutdown\n", "[disabled]\n", ""])
def test_both_needs_a_kernel_that_offers_both(machine: Machine, states: Path, afterwards: Path, offered: str) -> None:
    afterwards.write_text(offered, "ascii")
    with pytest.raises(CommandFailed, match="the kernel does not offer suspend in /sys/power/disk"):
        sleeping.fall_asleep(machine, sleeping.HYBRID)
    assert states.read_text("ascii") == "freeze mem disk\n"


def test_a_kernel_that_refuses_is_a_failure(machine: Machine, states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.unlink(states)
    states.mkdir()
    monkeypatch.setattr(sleeping, "_words", lambda _, __: {"mem"})
    with pytest.raises(CommandFailed, match=r"^the kernel refuses mem in /sys/power/state: Is a directory$"):
        sleeping.fall_asleep(machine, sleeping.MEMORY)


def test_it_is_available_where_the_kernel_offers_a_state(machine: Machine, states: Path) -> None:
    assert sleeping.available(machine) is None
    states.write_text("freeze\n", "ascii")
    assert "neither disk nor mem" in str(sleeping.available(machine))


def test_it_is_not_available_without_power_management(machine: Machine) -> None:
    assert "neither disk nor mem" in str(sleeping.available(machine))


@pytest.mark.usefixtures("states", "systemd")
def test_systemctl_must_be_there_where_systemd_is(machine: Machine, root: Path) -> None:
    assert sleeping.available(machine) == "systemctl is not installed; install it"
    install(root, "systemctl")
    assert sleeping.available(machine) is None
