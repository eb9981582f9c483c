"""The sessions of users: as logind tells of them on a real bus of the test's own, or as they stand at the terminals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from guest_agent.collectors import users
from guest_agent.sessions import UserSession
from host_agent.demo.vm import packages
from tests.guest_agent.commands import peer as peers
from tests.guest_agent.conftest import CommandGuard
from tests.guest_agent.login1 import Bus, Login1
from tests.needs import or_left_out

ALICE = {
    "Id": "c1",
    "Name": "alice",
    "Class": "user",
    "State": "active",
    "Seat": "seat0",
    "Active": True,
    "LockedHint": True,
    "Timestamp": 1_700_000_000_500_000,
}


_OK = b"OK 00000000000000000000000000000000\r\n"


class Terminal(NamedTuple):
    """What the C library says of a login."""

    name: str
    terminal: str
    started: float
    pid: int


# ---- Logind ----


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def login1(root: Path, command_guard: CommandGuard) -> Iterator[Login1]:
    with or_left_out():
        program = packages.program("dbus-daemon", "dbus-daemon")
    command_guard.allowed |= {program, sys.executable}
    bus = Bus(root, program)
    made = Login1(bus)
    yield made
    made.close()
    bus.close()


@pytest.fixture
def peer(root: Path) -> Iterator[peers.Bus]:
    """A bus that does as it pleases."""
    made = peers.Bus(root)
    yield made
    made.close()


def test_sessions_are_as_logind_tells_of_them(root: Path, login1: Login1) -> None:
    login1.sessions(ALICE, {**ALICE, "Id": "2", "Name": "bob", "Seat": "", "LockedHint": False, "Timestamp": 2_000_000})
    assert users.sessions(str(root)) == (
        UserSession("c1", "alice", 1_700_000_000.5, locked=True, active=True),
        UserSession("2", "bob", 2.0, locked=False, active=False),
    )


@pytest.mark.parametrize("other", [{"Class": "greeter"}, {"Class": "manager"}, {"State": "closing"}], ids=str)
def test_what_is_no_session_of_a_user_is_left_out(root: Path, login1: Login1, other: dict[str, Any]) -> None:
    login1.sessions({**ALICE, **other})
    assert users.sessions(str(root)) == ()


def test_no_more_sessions_are_asked_about_than_the_limit(
    root: Path, login1: Login1, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "SESSIONS_LIMIT", 3)
    login1.sessions(*({**ALICE, "Id": str(number)} for number in range(5)))
    assert len(users.sessions(str(root))) == 3


def test_a_session_that_ended_meanwhile_is_left_out(root: Path, login1: Login1) -> None:
    login1.sessions(ALICE, {**ALICE, "Id": "gone"})
    assert [session.id for session in users.sessions(str(root))] == ["c1"]


def test_a_logind_that_is_not_there_is_an_error(root: Path, login1: Login1) -> None:
    login1.close()
    with pytest.raises(ValueError, match=r"^ListSessions is refused: .*org\.freedesktop\.login1"):
        users.sessions(str(root))


@pytest.mark.parametrize("greeting", [b"", _OK], ids=["no greeting", "only a greeting"])
def test_a_bus_that_does_not_answer_is_given_up(
    root: Path, peer: peers.Bus, monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    monkeypatch.setattr(users, "PATIENCE", 0.1)
    peer.greeting = greeting
    peer.silent_on.add("Hello")
    with pytest.raises(OSError, match="no answer in time"):
        users.sessions(str(root))


def test_a_session_that_can_not_be_asked_about_is_an_error(root: Path, peer: peers.Bus) -> None:
    peer.answers["ListSessions"] = lambda _: ("a(susso)", ([("c1", 0, "alice", "seat0", "/c1")],))
    peer.answers["GetAll"] = lambda _: "org.example.No"
    with pytest.raises(ValueError, match=r"^GetAll is refused: no means no$"):
        users.sessions(str(root))


def test_a_session_without_what_belongs_to_one_is_an_error(root: Path, peer: peers.Bus) -> None:
    peer.answers["ListSessions"] = lambda _: ("a(susso)", ([("c1", 0, "alice", "seat0", "/c1")],))
    peer.answers["GetAll"] = lambda _: ("a{sv}", ({"Class": ("s", "user")},))
    with pytest.raises(ValueError, match="without what belongs to one: 'State'"):
        users.sessions(str(root))


# ---- Terminals ----


def test_without_logind_those_count_who_logged_in_at_a_terminal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logins = [Terminal("alice", "tty1", 100.0, 7), Terminal("alice", "pts/0", 200.0, 8)]
    monkeypatch.setattr(psutil, "users", lambda: logins)
    first, second = users.sessions(str(root))
    assert (first.user, first.since, first.locked, first.active) == ("alice", 100.0, False, False)
    assert first.id != second.id


def test_without_jeepney_too(root: Path, peer: peers.Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "users", lambda: [Terminal("alice", "tty1", 100.0, 7)])
    monkeypatch.setitem(sys.modules, "guest_agent.bus", None)
    assert [session.user for session in users.sessions(str(root))] == ["alice"]


def test_this_machine_can_be_asked(root: Path) -> None:
    assert all(isinstance(session, UserSession) for session in users.sessions(str(root)))
