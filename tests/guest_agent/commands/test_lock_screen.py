"""lock-screen: all sessions are told."""

from __future__ import annotations

import pytest

from common.messages import LockScreen
from guest_agent.commands import CommandFailed, Machine, lock_screen

from .peer import Bus


def test_logind_locks_every_session(machine: Machine, bus: Bus) -> None:
    assert lock_screen.run(machine, LockScreen()) == {}
    assert [call.member for call in bus.calls] == ["LockSessions"]


def test_a_refusal_is_a_failure(machine: Machine, bus: Bus) -> None:
    bus.answers["LockSessions"] = lambda _: "org.example.No"
    with pytest.raises(CommandFailed, match="logind refuses LockSessions"):
        lock_screen.run(machine, LockScreen())


def test_it_is_available_where_logind_is(machine: Machine, bus: Bus) -> None:
    assert lock_screen.available(machine) is None


def test_it_is_not_available_elsewhere(machine: Machine) -> None:
    assert "no system bus" in str(lock_screen.available(machine))
