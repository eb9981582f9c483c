"""Who is logged in, who came, who went, and whose screen was locked."""

from __future__ import annotations

import pytest

from common.messages import ActiveUser, SessionLock, SessionLogoff, SessionLogon, SessionUnlock
from guest_agent.sessions import Sessions, UserSession

ALICE = UserSession("1", "alice", 100.0)
BOB = UserSession("2", "bob", 200.0)


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def test_who_has_been_logged_in_longest_is_the_active_user(sessions: Sessions) -> None:
    assert sessions.update([BOB, ALICE]) == [ActiveUser(name="alice")]


def test_who_sits_at_the_screen_is_the_active_user_however_long_others_are_there(sessions: Sessions) -> None:
    assert sessions.update([ALICE, BOB._replace(active=True)]) == [ActiveUser(name="bob")]


def test_nobody_is_a_word(sessions: Sessions) -> None:
    assert sessions.update([]) == [ActiveUser(name="None")]


def test_who_was_there_at_the_first_look_has_not_come(sessions: Sessions) -> None:
    assert sessions.update([ALICE._replace(locked=True)]) == [ActiveUser(name="alice")]
    assert sessions.update([ALICE._replace(locked=True)]) == [ActiveUser(name="alice")]


def test_a_session_that_came_or_went_is_noticed_once(sessions: Sessions) -> None:
    sessions.update([])
    assert sessions.update([ALICE]) == [SessionLogon(), ActiveUser(name="alice")]
    assert sessions.update([ALICE, BOB]) == [SessionLogon(), ActiveUser(name="alice")]
    assert sessions.update([BOB, ALICE]) == [ActiveUser(name="alice")]
    assert sessions.update([BOB]) == [SessionLogoff(), ActiveUser(name="bob")]
    assert sessions.update([]) == [SessionLogoff(), ActiveUser(name="None")]


def test_one_who_went_and_one_who_came_are_both_noticed(sessions: Sessions) -> None:
    sessions.update([ALICE])
    assert sessions.update([BOB]) == [SessionLogoff(), SessionLogon(), ActiveUser(name="bob")]


def test_a_screen_that_was_locked_or_unlocked_is_noticed_once(sessions: Sessions) -> None:
    sessions.update([ALICE, BOB])
    locked = ALICE._replace(locked=True)
    assert sessions.update([locked, BOB]) == [SessionLock(), ActiveUser(name="alice")]
    assert sessions.update([locked, BOB]) == [ActiveUser(name="alice")]
    assert sessions.update([ALICE, BOB._replace(locked=True)]) == [SessionLock(), SessionUnlock(), ActiveUser(name="alice")]


def test_a_session_that_comes_locked_is_a_logon_and_no_lock(sessions: Sessions) -> None:
    sessions.update([])
    assert sessions.update([ALICE._replace(locked=True)]) == [SessionLogon(), ActiveUser(name="alice")]


def test_many_who_came_at_once_are_one_notice(sessions: Sessions) -> None:
    sessions.update([])
    crowd = [ALICE._replace(id=str(number)) for number in range(100)]
    assert sessions.update(crowd) == [SessionLogon(), ActiveUser(name="alice")]
