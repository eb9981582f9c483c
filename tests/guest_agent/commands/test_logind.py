"""Asking logind: over a real socket, in real D-Bus messages."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from guest_agent.commands import CommandFailed, Machine, logind
from guest_agent.logind import BUS, SEATS

from .peer import Bus, Call

#: A deadline that is passed for sure.
SOON = 0.2


def test_a_method_of_the_manager_is_called_and_returns(machine: Machine, bus: Bus) -> None:
    bus.answers["CanSleep"] = lambda call: ("ss", ("yes", *call.arguments))
    with logind.Logind(machine, machine.deadline) as connection:
        assert connection.call("CanSleep", "s", "now") == ("yes", "now")
    assert bus.calls == [Call("/org/freedesktop/login1", "org.freedesktop.login1.Manager", "CanSleep", ("now",))]


def test_a_property_of_a_session_is_read(machine: Machine, bus: Bus) -> None:
    bus.answers["Get"] = lambda _: ("v", (("b", True),))
    with logind.Logind(machine, machine.deadline) as connection:
        assert connection.session_property("/session", "Active") is True
    arguments = ("org.freedesktop.login1.Session", "Active")
    assert bus.calls == [Call("/session", "org.freedesktop.DBus.Properties", "Get", arguments)]


def test_many_calls_go_over_one_connection(machine: Machine, bus: Bus) -> None:
    bus.answers["Count"] = lambda call: ("u", (call.arguments[0] + 1,))
    with logind.Logind(machine, machine.deadline) as connection:
        assert [connection.call("Count", "u", number) for number in range(3)] == [(1,), (2,), (3,)]


def test_a_refusal_says_why(machine: Machine, bus: Bus) -> None:
    bus.answers["LockSessions"] = lambda _: "org.example.No"
    why = r"^logind refuses LockSessions: no means no$"
    with logind.Logind(machine, machine.deadline) as connection, pytest.raises(logind.Refused, match=why) as raised:
        connection.call("LockSessions")
    assert raised.value.error == "org.example.No"


def test_without_a_bus_there_is_nobody_to_ask(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match=r"can't be asked, over /run/dbus/system_bus_socket: No such file"):
        logind.Logind(machine, machine.deadline)


def test_a_bus_that_lets_nobody_in_is_said_so(machine: Machine, bus: Bus) -> None:
    bus.greeting = b"REJECTED EXTERNAL\r\n"
    with pytest.raises(CommandFailed, match="does not let this agent in"):
        logind.Logind(machine, machine.deadline)


@pytest.mark.parametrize("method", ["Hello", "LockSessions"])
def test_a_bus_that_hangs_up_is_said_so(machine: Machine, bus: Bus, method: str) -> None:
    bus.hangs_up_on.add(method)
    with pytest.raises(CommandFailed, match="Connection reset"), logind.Logind(machine, machine.deadline) as connection:
        connection.call("LockSessions")


def test_a_bus_that_nobody_listens_at_is_said_so(machine: Machine, root: Path) -> None:
    (root / "run/dbus").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / BUS))
    with pytest.raises(CommandFailed, match="Connection refused"):
        logind.Logind(machine, machine.deadline)


@pytest.mark.parametrize("method", ["Hello", "LockSessions"])
def test_no_answer_is_waited_for_longer_than_until_the_deadline(machine: Machine, bus: Bus, method: str) -> None:
    bus.silent_on.add(method)
    with pytest.raises(CommandFailed, match="no answer in time"), logind.Logind(machine, SOON) as connection:
        connection.call("LockSessions")


def test_a_bus_that_says_nothing_is_not_waited_for_longer_either(machine: Machine, bus: Bus) -> None:
    bus.greeting = b""
    with pytest.raises(CommandFailed, match="no answer in time"):
        logind.Logind(machine, SOON)


def test_it_is_available_where_there_are_a_bus_and_seats(machine: Machine, root: Path, bus: Bus) -> None:
    assert logind.available(machine) is None
    (root / SEATS).rmdir()
    assert logind.available(machine) == (
        "logind does not run on this machine (there is no /run/systemd/seats); install and start it"
    )


def test_it_is_not_available_without_a_bus(machine: Machine) -> None:
    assert "has no system bus" in str(logind.available(machine))
