"""shutdown: by logind to the second; without it by the machine's own programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from common.messages import Shutdown
from guest_agent import processes
from guest_agent.commands import CommandFailed, Machine, shutdown

from .conftest import Programs, Ran, install
from .peer import Bus

NOW = 1_700_000_000.5


@pytest.fixture(autouse=True)
def _wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", lambda clock: {time.CLOCK_REALTIME: NOW}[clock])


def ask(timeout: int = 0, message: str = "", reboot: str = "False") -> Shutdown:
    return Shutdown(timeout=timeout, message=message, reboot=reboot)


def asked(bus: Bus) -> list[tuple[Any, ...]]:
    return [(call.member, *call.arguments) for call in bus.calls]


# ---- With logind ----


@pytest.mark.parametrize(("reboot", "action"), [("False", "poweroff"), ("True", "reboot")])
def test_logind_is_given_the_message_and_the_time(
    machine: Machine, bus: Bus, programs: Programs, reboot: str, action: str
) -> None:
    assert shutdown.run(machine, ask(timeout=90, message="Bye.", reboot=reboot)) == {}
    assert asked(bus) == [
        ("SetWallMessage", "Bye.", True),
        ("ScheduleShutdown", action, 1_700_000_090_500_000),
    ]
    assert programs.ran == []


def test_at_once_means_now(machine: Machine, bus: Bus) -> None:
    shutdown.run(machine, ask())
    assert asked(bus)[1] == ("ScheduleShutdown", "poweroff", 1_700_000_000_500_000)


def test_a_message_is_one_bounded_line_whatever_the_host_sends(machine: Machine, bus: Bus) -> None:
    shutdown.run(machine, ask(message="\x1b[2J one\ntwo\t\N{RIGHT-TO-LEFT OVERRIDE}three " + "x" * 10_000))
    text = asked(bus)[0][1]
    assert text.startswith("[2J one two three xxx")
    assert len(text) == 500


@pytest.mark.parametrize("method", ["SetWallMessage", "ScheduleShutdown"])
def test_where_logind_refuses_the_program_is_run(machine: Machine, bus: Bus, programs: Programs, method: str) -> None:
    bus.answers[method] = lambda _: "org.example.No"
    shutdown.run(machine, ask())
    assert programs.ran == [Ran(("poweroff",))]


# ---- Without ----


@pytest.mark.parametrize(("reboot", "action"), [("False", "poweroff"), ("True", "reboot")])
def test_without_logind_a_program_is_run_when_the_time_has_come(
    machine: Machine, programs: Programs, reboot: str, action: str
) -> None:
    assert shutdown.run(machine, ask(timeout=90, reboot=reboot)) == {}
    assert programs.ran == [Ran((action,), delay=90)]


def test_without_logind_users_read_the_message_of_the_host_and_no_option_or_file_is_made_of_it(
    machine: Machine, programs: Programs
) -> None:
    shutdown.run(machine, ask(message="--nobanner /etc/shadow\n"))
    assert programs.ran == [Ran(("wall",), b"--nobanner /etc/shadow\n"), Ran(("poweroff",))]


def test_a_shutdown_does_not_depend_on_users_being_told(machine: Machine, programs: Programs) -> None:
    programs.missing.add("wall")
    shutdown.run(machine, ask(message="Bye."))
    assert programs.ran == [Ran(("poweroff",))]


def test_what_failed_with_logind_and_without_is_said(machine: Machine, programs: Programs) -> None:
    programs.ends["poweroff"] = processes.Finished(1, b"")
    with pytest.raises(CommandFailed, match=r"^logind can't be asked, .*; poweroff ended with status 1$"):
        shutdown.run(machine, ask())


@pytest.mark.parametrize("timeout", [0, 90])
def test_without_logind_and_program_nothing_can_be_done(machine: Machine, programs: Programs, timeout: int) -> None:
    programs.missing.add("reboot")
    with pytest.raises(CommandFailed, match=r"^logind can't be asked, .*; reboot was not found$"):
        shutdown.run(machine, ask(timeout=timeout, reboot="True"))


@pytest.mark.parametrize("timeout", [shutdown.TIMEOUT_LIMIT + 1, 10**5000], ids=["late", "endless"])
def test_a_shutdown_in_the_far_future_is_refused(machine: Machine, programs: Programs, bus: Bus, timeout: int) -> None:
    with pytest.raises(CommandFailed, match="can't be further ahead than 604800 s"):
        shutdown.run(machine, ask(timeout=timeout))
    assert (programs.ran, bus.calls) == ([], [])


# ---- Where it is available ----


def test_it_is_available_where_logind_is(machine: Machine, bus: Bus) -> None:
    assert shutdown.available(machine) is None


def test_it_is_not_available_to_others_than_root(machine: Machine, bus: Bus) -> None:
    somebody_else = machine._replace(owner=machine.owner + 1)
    assert shutdown.available(somebody_else) == "only root may shut the machine down; run the agent as root"


def test_it_is_available_where_both_programs_are(machine: Machine, root: Path) -> None:
    install(root, "poweroff", "reboot")
    assert shutdown.available(machine) is None


def test_it_is_not_available_where_a_program_is_missing(machine: Machine, root: Path) -> None:
    install(root, "poweroff")
    assert shutdown.available(machine) == "logind can't be asked, and reboot is not installed; install either"
