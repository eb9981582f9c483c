"""hibernate: by systemctl where systemd runs, else by the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.messages import Hibernate
from guest_agent import processes
from guest_agent.commands import COMMANDS, CommandFailed, Machine, hibernate

from .conftest import Programs, Ran, install


@pytest.fixture
def states(root: Path) -> Path:
    """The kernel's states."""
    path = root / hibernate.STATES
    path.parent.mkdir(parents=True)
    path.write_text("freeze mem disk\n", "ascii")
    return path


@pytest.fixture
def systemd(root: Path) -> None:
    (root / hibernate.SYSTEMD).mkdir(parents=True)


@pytest.mark.usefixtures("states", "systemd")
@pytest.mark.parametrize(("state", "verb"), [("disk", "hibernate"), ("mem", "suspend")])
def test_systemctl_is_run_where_systemd_is(machine: Machine, programs: Programs, state: str, verb: str) -> None:
    assert hibernate.run(machine, Hibernate(state=state)) == {}
    assert programs.ran == [Ran(("systemctl", verb))]


@pytest.mark.usefixtures("states", "systemd")
def test_what_systemctl_says_is_passed_on(machine: Machine, programs: Programs) -> None:
    programs.ends["systemctl"] = processes.Finished(1, b"Call to Hibernate failed: no swap\nmore\n")
    with pytest.raises(CommandFailed, match=r"^systemctl hibernate ended with status 1: Call to Hibernate failed: no swap$"):
        hibernate.run(machine, Hibernate())


@pytest.mark.usefixtures("states", "systemd")
def test_systemctl_need_not_say_anything(machine: Machine, programs: Programs) -> None:
    programs.ends["systemctl"] = processes.Finished(-9, b"")
    with pytest.raises(CommandFailed, match=r"^systemctl hibernate was ended by signal 9$"):
        hibernate.run(machine, Hibernate())


@pytest.mark.parametrize("state", ["disk", "mem"])
def test_the_kernel_is_told_elsewhere(machine: Machine, programs: Programs, states: Path, state: str) -> None:
    assert hibernate.run(machine, Hibernate(state=state)) == {}
    assert states.read_text("ascii") == state
    assert programs.ran == []


@pytest.mark.usefixtures("systemd")
def test_a_state_that_the_kernel_does_not_offer_is_a_failure(machine: Machine, programs: Programs, states: Path) -> None:
    states.write_text("freeze mem\n", "ascii")
    with pytest.raises(CommandFailed, match="the kernel does not offer disk in /sys/power/state"):
        hibernate.run(machine, Hibernate())
    assert programs.ran == []


def test_a_kernel_that_refuses_is_a_failure(machine: Machine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sys/power/state").mkdir(parents=True)
    monkeypatch.setattr(hibernate, "_offered", lambda _: {"mem"})
    with pytest.raises(CommandFailed, match="Is a directory"):
        COMMANDS["hibernate"].run(machine, Hibernate(state="mem"))


def test_it_is_available_where_the_kernel_offers_a_state(machine: Machine, states: Path) -> None:
    assert hibernate.available(machine) is None
    states.write_text("freeze\n", "ascii")
    assert "neither disk nor mem" in str(hibernate.available(machine))


def test_it_is_not_available_without_power_management(machine: Machine) -> None:
    assert "neither disk nor mem" in str(hibernate.available(machine))


@pytest.mark.usefixtures("states", "systemd")
def test_systemctl_must_be_there_where_systemd_is(machine: Machine, root: Path) -> None:
    assert hibernate.available(machine) == "systemctl is not installed; install it"
    install(root, "systemctl")
    assert hibernate.available(machine) is None
