"""Users who come and go: what the agent makes of logind, also where it is not there or goes."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from typing import Any, Optional

import pytest

from guest_agent.logind import LogindGone, Notice
from guest_agent.logins import RETRY_PERIOD, Logins

from .parts import ListLog


class FakeLogind:
    """Tells each notice that is written to it, by name; is gone once it is hung up."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.closed = False

    def tell(self, *notices: Notice) -> None:
        self._theirs.sendall(b"".join(f"{notice.name}\n".encode() for notice in notices))

    def hang_up(self) -> None:
        self._theirs.close()

    def fileno(self) -> int:
        return self._ours.fileno()

    def receive(self) -> list[Notice]:
        try:
            received = self._ours.recv(65536)
        except BlockingIOError:
            return []
        if not received:
            raise LogindGone("the bus hung up")
        return [Notice[name] for name in received.decode().split()]

    def close(self) -> None:
        self.closed = True
        self._ours.close()
        self._theirs.close()


class Bench:
    """What can be connected to is *here*, and counts how often that is tried."""

    def __init__(self) -> None:
        self.here: Optional[FakeLogind] = None
        self.refusal = ""
        self.attempts = 0
        self.log = ListLog()
        self.selector = selectors.DefaultSelector()
        connect: Any = self.connect
        self.logins = Logins(connect, self.selector, self.log)

    def connect(self) -> Optional[FakeLogind]:
        self.attempts += 1
        if self.refusal:
            raise LogindGone(self.refusal)
        return self.here

    @property
    def watched(self) -> list[Any]:
        return [key.fileobj for key in self.selector.get_map().values()]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.logins.close()
    made.selector.close()


@pytest.fixture
def logind(bench: Bench) -> Iterator[FakeLogind]:
    bench.here = FakeLogind()
    yield bench.here
    bench.here.close()


# ---- There is one ----


def test_what_logind_tells_is_passed_on(bench: Bench, logind: FakeLogind) -> None:
    assert bench.logins.advance(0.0) == []
    assert bench.watched == [logind]
    logind.tell(Notice.SESSIONS_CHANGED, Notice.SHUTTING_DOWN)
    assert bench.selector.select(0)
    assert bench.logins.advance(1.0) == [Notice.SESSIONS_CHANGED, Notice.SHUTTING_DOWN]
    assert bench.logins.advance(1.0) == []
    assert bench.attempts == 1


def test_the_mark_differs_once_users_have_come_or_gone_and_only_then(bench: Bench, logind: FakeLogind) -> None:
    bench.logins.advance(0.0)
    before = bench.logins.mark()
    assert bench.logins.mark() == before
    logind.tell(Notice.SHUTTING_DOWN)
    bench.logins.advance(1.0)
    assert bench.logins.mark() == before
    logind.tell(Notice.SESSIONS_CHANGED, Notice.SESSIONS_CHANGED)
    bench.logins.advance(2.0)
    assert bench.logins.mark() != before


def test_a_logind_that_has_just_been_met_may_know_other_users(bench: Bench) -> None:
    bench.logins.advance(0.0)
    before = bench.logins.mark()
    bench.here = FakeLogind()
    bench.logins.advance(RETRY_PERIOD)
    assert bench.logins.mark() != before


def test_a_logind_that_goes_is_given_up_and_who_is_logged_in_is_asked_again(bench: Bench, logind: FakeLogind) -> None:
    bench.logins.advance(0.0)
    before = bench.logins.mark()
    logind.hang_up()
    assert bench.selector.select(0)
    assert bench.logins.advance(1.0) == [Notice.SESSIONS_CHANGED]
    assert bench.logins.mark() != before
    assert logind.closed
    assert bench.watched == []
    assert bench.log.lines == ["INFO logind: the bus hung up; trying again every 60 s"]


def test_a_logind_that_has_gone_is_met_again(bench: Bench, logind: FakeLogind) -> None:
    bench.logins.advance(0.0)
    logind.hang_up()
    bench.logins.advance(1.0)
    bench.here = FakeLogind()
    assert bench.logins.advance(RETRY_PERIOD - 1.0) == []
    assert bench.watched == []
    bench.logins.advance(RETRY_PERIOD)
    assert bench.watched == [bench.here]
    bench.here.tell(Notice.SHUTTING_DOWN)
    assert bench.logins.advance(RETRY_PERIOD) == [Notice.SHUTTING_DOWN]


# ---- There is none ----


def test_where_there_is_no_logind_it_is_looked_for_now_and_then(bench: Bench) -> None:
    for now in range(int(10 * RETRY_PERIOD)):
        assert bench.logins.advance(float(now)) == []
    assert bench.attempts == 10
    assert bench.watched == []
    assert bench.log.lines == []


def test_a_logind_that_can_not_be_reached_is_tried_again_without_much_ado(bench: Bench) -> None:
    bench.refusal = "the bus refuses"
    assert bench.logins.advance(0.0) == []
    assert bench.logins.advance(RETRY_PERIOD / 2) == []
    assert bench.attempts == 1
    assert bench.log.lines == ["DEBUG logind: the bus refuses"]
    bench.refusal, bench.here = "", FakeLogind()
    bench.logins.advance(RETRY_PERIOD)
    assert bench.watched == [bench.here]


# ---- The end ----


def test_at_the_end_the_connection_is_given_back_once(bench: Bench, logind: FakeLogind) -> None:
    bench.logins.advance(0.0)
    bench.logins.close()
    assert logind.closed
    assert bench.watched == []
    bench.logins.close()


def test_where_there_was_none_there_is_nothing_to_give_back(bench: Bench) -> None:
    bench.logins.close()
