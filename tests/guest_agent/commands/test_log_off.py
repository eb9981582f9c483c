"""log-off: who is at the console is logged off, nobody else."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from common.messages import LogOff
from guest_agent.commands import CommandFailed, Machine, log_off

from .peer import Bus, Call

GONE = "org.freedesktop.login1.NoSuchSession"


class Session(NamedTuple):
    """What logind knows of a session; one that is *gone* ended after it was listed."""

    identifier: str
    seat: str = "seat0"
    active: bool = True
    kind: str = "user"
    gone: bool = False


def has_sessions(bus: Bus, *sessions: Session) -> None:
    by_path = {f"/session/{each.identifier}": each for each in sessions}

    def listed(_: Call) -> Any:
        return "a(susso)", ([(each.identifier, 1000, "alice", each.seat, path) for path, each in by_path.items()],)

    def got(call: Call) -> Any:
        session = by_path[call.path]
        if session.gone:
            return "org.freedesktop.DBus.Error.UnknownObject"
        return "v", (("b", session.active) if call.arguments[1] == "Active" else ("s", session.kind),)

    bus.answers.update(ListSessions=listed, Get=got)


def ended(bus: Bus) -> list[Any]:
    return [call.arguments[0] for call in bus.calls if call.member == "TerminateSession"]


def test_the_session_in_the_foreground_of_each_seat_is_ended(machine: Machine, bus: Bus) -> None:
    has_sessions(bus, Session("1"), Session("2", active=False), Session("3", seat="seat1"))
    assert log_off.run(machine, LogOff()) == {}
    assert ended(bus) == ["1", "3"]


def test_sessions_over_the_network_and_the_login_screen_stay(machine: Machine, bus: Bus) -> None:
    has_sessions(bus, Session("ssh", seat=""), Session("c1", kind="greeter"))
    assert log_off.run(machine, LogOff()) == {}
    assert ended(bus) == []


def test_with_nobody_logged_in_there_is_nothing_to_do(machine: Machine, bus: Bus) -> None:
    has_sessions(bus)
    assert log_off.run(machine, LogOff()) == {}
    assert [call.member for call in bus.calls] == ["ListSessions"]


def test_a_session_that_ends_meanwhile_is_no_failure(machine: Machine, bus: Bus) -> None:
    has_sessions(bus, Session("1", gone=True), Session("2"), Session("3"))
    bus.answers["TerminateSession"] = lambda call: GONE if call.arguments == ("2",) else (None, ())
    assert log_off.run(machine, LogOff()) == {}
    assert ended(bus) == ["2", "3"]


@pytest.mark.parametrize("method", ["ListSessions", "Get", "TerminateSession"])
def test_a_refusal_is_a_failure(machine: Machine, bus: Bus, method: str) -> None:
    has_sessions(bus, Session("1"))
    bus.answers[method] = lambda _: "org.example.No"
    with pytest.raises(CommandFailed, match=f"logind refuses {method}: no means no"):
        log_off.run(machine, LogOff())


def test_it_is_available_where_logind_is(machine: Machine, bus: Bus) -> None:
    assert log_off.available(machine) is None


def test_it_is_not_available_elsewhere(machine: Machine) -> None:
    assert "no system bus" in str(log_off.available(machine))
