from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.client import Client, DaemonUnreachable, Event, Events, UnexpectedAnswer, following
from tests.host_agent.operators import FakeDaemon
from tests.host_agent.parts import wait_for


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries again does so at once."""
    monkeypatch.setattr(following, "PAUSES", (0.001, 0.002))


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "control.sock") as running:
        yield running


def kinds(events: Events) -> list[str]:
    return [event.kind for event in events]


def paths(daemon: FakeDaemon) -> list[str]:
    return [path for _, path, _ in daemon.asked]


# ---- What has happened ----


def test_the_latest_events_are_told_and_then_it_ends(daemon: FakeDaemon) -> None:
    for kind in ("a", "b", "c"):
        daemon.tell(kind, guest="web-1", state="responsive")
    events = list(Client(daemon.path).events(follow=False, recent=2))
    assert events == [
        Event("run-1-2", "b", 1_700_000_000.5, "web-1", {"state": "responsive"}),
        Event("run-1-3", "c", 1_700_000_000.5, "web-1", {"state": "responsive"}),
    ]
    assert paths(daemon) == ["/v1/events?recent=2"]


def test_events_of_one_guest_are_asked_for(daemon: FakeDaemon) -> None:
    daemon.tell("a", guest="web 1&")
    daemon.tell("b", guest="other")
    assert kinds(Client(daemon.path).events(follow=False, guest="web 1&", recent=9)) == ["a"]


def test_what_comes_behind_an_event_is_told(daemon: FakeDaemon) -> None:
    for kind in ("a", "b", "c"):
        daemon.tell(kind)
    assert kinds(Client(daemon.path).events(follow=False, last_id="run-1-1", recent=3)) == ["b", "c"]
    assert paths(daemon) == ["/v1/events"]


def test_a_stream_that_ends_early_is_at_its_end_for_who_does_not_follow(daemon: FakeDaemon) -> None:
    daemon.raw_stream = b"event: a\ndata: {}\n\n"
    assert kinds(Client(daemon.path).events(follow=False)) == ["a"]


# ---- What happens ----


def test_new_events_come_as_they_happen(daemon: FakeDaemon) -> None:
    daemon.tell("before")
    with Client(daemon.path).events(recent=1) as events:
        assert next(events).kind == "before"
        daemon.tell("after")
        assert next(events).kind == "after"


def test_a_daemon_that_is_restarted_is_followed_on_and_what_is_lost_is_told(daemon: FakeDaemon) -> None:
    with Client(daemon.path).events(recent=1) as events:
        daemon.tell("a")
        assert next(events).kind == "a"
        daemon.stop()
        daemon.start("run-2")
        daemon.tell("b")
        assert [(event.kind, event.id) for event in (next(events), next(events))] == [("lost", "run-2-0"), ("b", "run-2-1")]


def test_a_stream_that_broke_goes_on_where_it_was(daemon: FakeDaemon) -> None:
    with Client(daemon.path).events() as events:
        reader = threading.Thread(target=lambda: seen.append(next(events).kind))
        seen: list[str] = []
        reader.start()
        # Where it stands is said before anything has happened.
        wait_for(lambda: daemon.streams == 1 and events._parser.last_id == "run-1-0")
        daemon.stop()
        daemon.start("run-1")
        daemon.tell("a")
        reader.join()
        assert seen == ["a"]


def test_where_nobody_knows_what_was_missed_that_is_told(daemon: FakeDaemon) -> None:
    daemon.raw_stream = b"\n"
    with Client(daemon.path).events() as events:
        assert next(events) == Event(None, "lost", None, None, {"count": None})


def test_a_daemon_that_does_not_run_is_an_error_at_once(place: Path) -> None:
    with pytest.raises(DaemonUnreachable):
        next(Client(str(place / "none")).events())


def test_a_daemon_that_does_not_come_back_is_an_error_after_a_while(daemon: FakeDaemon) -> None:
    with Client(daemon.path).events(recent=1, patience=0.0) as events:
        daemon.tell("a")
        next(events)
        daemon.stop()
        with pytest.raises(DaemonUnreachable):
            next(events)


def test_a_daemon_that_does_not_come_back_is_waited_for(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    attempts = 0

    def clock() -> float:
        nonlocal now, attempts
        attempts += 1
        now += 10.0
        return now

    with Client(daemon.path).events(recent=1, patience=60.0) as events:
        daemon.tell("a")
        next(events)
        daemon.stop()
        monkeypatch.setattr(time, "monotonic", clock)
        with pytest.raises(DaemonUnreachable):
            next(events)
    assert attempts == 7


@pytest.mark.parametrize("raw", [b"data: x\n\n", b"data: [1]\n\n", b"data: " + b"[" * 100_000 + b"\n\n"])
def test_an_event_that_is_none_is_an_unexpected_answer(daemon: FakeDaemon, raw: bytes) -> None:
    daemon.raw_stream = raw
    with pytest.raises(UnexpectedAnswer, match="an event is no JSON object"):
        next(Client(daemon.path).events())


def test_a_line_without_end_is_an_unexpected_answer(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LINE_LIMIT", 100)
    daemon.raw_stream = b"x" * 1000
    with pytest.raises(UnexpectedAnswer, match="longer than 100 bytes"):
        next(Client(daemon.path).events())


def test_an_answer_that_is_no_stream_is_unexpected(daemon: FakeDaemon) -> None:
    daemon.stream_type = "text/html"
    with pytest.raises(UnexpectedAnswer, match="no stream of events"):
        next(Client(daemon.path).events())


# ---- Its end ----


def test_whoever_waits_in_another_thread_is_let_go(daemon: FakeDaemon) -> None:
    events = Client(daemon.path).events(recent=1)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.extend(kinds(events)))
    thread.start()
    daemon.tell("a")
    wait_for(lambda: seen or daemon.streams)
    wait_for(lambda: events._stream is not None and events._parser.idle)
    events.close()
    thread.join()
    assert events._stream is None


def test_after_its_end_nothing_more_comes(daemon: FakeDaemon) -> None:
    events = Client(daemon.path).events(recent=1)
    daemon.tell("a")
    next(events)
    events.close()
    assert list(events) == []
    unused = Client(daemon.path).events()
    unused.close()
    assert list(unused) == []
