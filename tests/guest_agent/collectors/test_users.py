"""Who is logged in, who came and who went."""

from __future__ import annotations

from typing import NamedTuple, Optional

import psutil
import pytest

from common.messages import ActiveUser, Message, SessionLogoff, SessionLogon
from guest_agent.collectors.users import Users


class Session(NamedTuple):
    """What the machine says of a session."""

    name: str
    terminal: Optional[str] = "tty1"
    started: float = 100.0


ALICE = Session("alice")
BOB = Session("bob", "pts/0", 200.0)


class Machine:
    """Sessions that come and go, and the collector that looks at them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sessions: tuple[Session, ...] = ()
        self._users = Users()
        monkeypatch.setattr(psutil, "users", lambda: list(self._sessions))

    def look(self, *sessions: Session) -> list[Message]:
        self._sessions = sessions
        return list(self._users.report())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_who_has_been_logged_in_longest_is_the_active_user(machine: Machine) -> None:
    assert machine.look(BOB, ALICE) == [ActiveUser(name="alice")]


def test_nobody_is_a_word(machine: Machine) -> None:
    assert machine.look() == [ActiveUser(name="None")]


def test_who_was_there_at_the_first_look_has_not_come(machine: Machine) -> None:
    assert machine.look(ALICE) == [ActiveUser(name="alice")]
    assert machine.look(ALICE) == [ActiveUser(name="alice")]


def test_a_session_that_came_or_went_is_noticed_once(machine: Machine) -> None:
    machine.look()
    assert machine.look(ALICE) == [SessionLogon(), ActiveUser(name="alice")]
    assert machine.look(ALICE, BOB) == [SessionLogon(), ActiveUser(name="alice")]
    assert machine.look(BOB, ALICE) == [ActiveUser(name="alice")]
    assert machine.look(BOB) == [SessionLogoff(), ActiveUser(name="bob")]
    assert machine.look() == [SessionLogoff(), ActiveUser(name="None")]


def test_one_who_went_and_one_who_came_are_both_noticed(machine: Machine) -> None:
    machine.look(ALICE)
    assert machine.look(BOB) == [SessionLogoff(), SessionLogon(), ActiveUser(name="bob")]


def test_a_user_who_logged_in_anew_since_the_last_look_is_noticed(machine: Machine) -> None:
    machine.look(ALICE)
    later = ALICE._replace(started=300.0)
    assert machine.look(later) == [SessionLogoff(), SessionLogon(), ActiveUser(name="alice")]


def test_sessions_that_can_not_be_told_apart_are_counted(machine: Machine) -> None:
    machine.look(ALICE)
    assert machine.look(ALICE, ALICE) == [SessionLogon(), ActiveUser(name="alice")]
    assert machine.look(ALICE) == [SessionLogoff(), ActiveUser(name="alice")]


def test_many_who_came_at_once_are_one_notice(machine: Machine) -> None:
    machine.look()
    crowd = [ALICE._replace(terminal=f"pts/{number}") for number in range(100)]
    assert machine.look(*crowd) == [SessionLogon(), ActiveUser(name="alice")]


def test_this_machine_can_be_asked() -> None:
    (fact,) = Users().report()
    assert isinstance(fact, ActiveUser)
