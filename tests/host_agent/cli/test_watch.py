from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli import watch
from host_agent.client import Client, DaemonUnreachable, following
from host_agent.exits import Exit
from tests.host_agent.operators import EVIL, FakeDaemon, described
from tests.host_agent.operators import terminal as a_terminal
from tests.host_agent.parts import ROOT, wait_for


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for but news."""
    monkeypatch.setattr(watch, "PAUSE", 0.001)
    monkeypatch.setattr(watch, "PAUSE_BY_COST", 0.0)
    monkeypatch.setattr(watch, "PERIOD", 0.01)
    monkeypatch.setattr(following, "PAUSES", (0.001, 0.002))


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "control.sock", described("web-1"), described("db")) as running:
        yield running


class Script:
    """A screen on which each look calls the next step; after the last one the operator presses Ctrl-C."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        self.steps = list(steps)
        self.seen: list[list[str]] = []
        self.waited = 0

    def show(self, guests: list[dict[str, Any]]) -> None:
        self.seen.append([guest["name"] for guest in guests])
        self._go_on()

    def wait(self, why: str) -> None:
        self.waited += 1
        self._go_on()

    def _go_on(self) -> None:
        if not self.steps:
            raise KeyboardInterrupt
        self.steps.pop(0)()


def nothing() -> None:
    """Go on."""


def follow(daemon: FakeDaemon, screen: watch.Screen) -> None:
    with pytest.raises(KeyboardInterrupt):
        watch.follow(Client(daemon.path), screen)


# ---- When it is looked ----


def test_news_are_a_reason_to_look(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PERIOD", 3600.0)

    def happen() -> None:
        wait_for(lambda: daemon.streams)
        daemon.guests.pop()
        daemon.tell("guest-gone", guest="db")

    screen = Script(happen)
    follow(daemon, screen)
    assert screen.seen == [["web-1", "db"], ["web-1"]]


def test_without_news_it_is_looked_too(daemon: FakeDaemon) -> None:
    screen = Script(nothing, daemon.guests.clear)
    follow(daemon, screen)
    assert screen.seen == [["web-1", "db"], ["web-1", "db"], []]
    assert {path for _, path, _ in daemon.asked} == {"/v1/guests?facts=no", "/v1/events"}


def test_the_more_a_look_costs_the_longer_is_the_pause(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(watch, "PAUSE_BY_COST", 4.0)
    monkeypatch.setattr(watch, "_news", fixed_news)
    clock = types.SimpleNamespace(monotonic=lambda: float(next(now)), sleep=pauses.append)
    monkeypatch.setattr(watch, "time", clock)
    follow(daemon, Script(nothing, nothing))
    assert pauses == [80.0]


def fixed_news(client: Client) -> contextlib.nullcontext[threading.Event]:
    """News without end, in no thread."""
    event = threading.Event()
    event.wait = lambda timeout=None: True  # type: ignore[method-assign]
    return contextlib.nullcontext(event)


def test_a_daemon_that_is_restarted_is_waited_for(daemon: FakeDaemon) -> None:
    screen = Script(daemon.stop, lambda: daemon.start("run-2"), nothing)
    follow(daemon, screen)
    assert screen.waited == 1
    assert len(screen.seen) >= 2


def test_a_daemon_that_does_not_come_back_is_an_error(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Script(daemon.stop, *[nothing] * 1000)
    with pytest.raises(DaemonUnreachable):
        watch.follow(Client(daemon.path), screen, patience=0.02)


def test_a_daemon_that_does_not_run_is_an_error_at_once(place: Path) -> None:
    with pytest.raises(DaemonUnreachable):
        watch.follow(Client(str(place / "none")), Script())


# ---- Lines ----


def lines_of(*looks: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = watch.Lines(lambda guest: f"{guest['name']} {guest['channel']['state']}", lambda name: f"{name} forgotten")
    for guests in looks:
        lines.show(guests)
    return capsys.readouterr().out.splitlines()


def test_a_line_is_printed_for_each_guest_and_then_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    changed = described("db", in_use=2)
    silent = described("web-1", state="unresponsive")
    slowed = {**described("db", in_use=2), "channel": {**changed["channel"], "throttled": True}}
    assert lines_of(
        [described("web-1"), described("db")],
        [described("web-1"), described("db")],
        [{**described("web-1"), "heard_s": 99.0}, changed],
        [silent, changed],
        [silent, slowed],
        [silent],
        capsys=capsys,
    ) == [
        "web-1 responsive",
        "db responsive",
        "db responsive",
        "web-1 unresponsive",
        "db responsive",
        "db forgotten",
    ]


def test_a_guest_that_moves_or_is_frozen_has_changed_and_does_not_with_each_second(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frozen = [{**described(), "frozen": {"mountpoints": [], "thaws_in_s": left}} for left in (9.0, 8.0)]
    moving = {**described(), "handoff": {"state": "moving", "peer": "host-b"}}
    assert len(lines_of([described()], *[[each] for each in frozen], [moving], [moving], capsys=capsys)) == 3


def test_that_the_daemon_is_waited_for_is_said_once_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    lines = watch.Lines(json.dumps, str)
    for _ in range(3):
        lines.wait("no daemon")
    lines.show([])
    lines.wait("no daemon")
    assert capsys.readouterr() == ("", "no daemon; waiting\n" * 2)


def test_into_a_pipe_go_lines(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = 0

    def look(facts: bool) -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        return [described(EVIL)] if looks == 1 else []

    client = Client(daemon.path)
    monkeypatch.setattr(client, "guests", look)
    watch.watch(client, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "\\x1b[31m\\u202e[bold]  responsive  agreed=3 advertised=3 in_use=3  first agreement of this connection",
        "\\x1b[31m\\u202e[bold]  forgotten",
    ]
    looks = 0
    watch.watch(client, as_json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == described(EVIL)
    assert second == {"name": EVIL, "forgotten": True}


# ---- Table ----


def test_a_terminal_gets_a_table_with_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch) as drawn, watch.Table() as table:
        table.show([described(EVIL), described("db", state="absent")])
        shown = drawn()
        table.wait("no daemon [bold]")
        later = drawn()
    assert "\\x1b[31m\\u202e[bold]" in shown
    assert "2 guests: 1 absent, 1 responsive" in shown
    assert "\x1b[32mresponsive" in shown
    assert "no daemon [bold]; waiting" in later
    assert "db" in later


def test_where_a_terminal_has_not_room_for_all_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    guests = [described(f"guest-{number}") for number in range(100)]
    guests[70] = described("guest-70", state="unresponsive")
    with a_terminal(monkeypatch) as drawn, watch.Table() as table:
        table.show(guests)
        shown = drawn()
        assert "100 guests: 99 responsive, 1 unresponsive; 76 of them have no room here" in shown
        assert "guest-70" in shown
        assert "guest-30 " not in shown
        assert len(shown.splitlines()) <= 30


def test_ctrl_c_ends_it_clean(place: Path) -> None:
    with FakeDaemon(place / "control.sock", described("web-1")) as daemon:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "host_agent.cli", "--control", daemon.path, "watch"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "30"}
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment)
        os.close(theirs)
        seen = b""

        def has_drawn() -> bool:
            nonlocal seen
            seen += os.read(ours, 4096)
            return b"1 guest: 1 responsive" in seen

        wait_for(has_drawn)
        wait_for(lambda: daemon.streams)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == Exit.OK
        # A terminal that nobody has open any more is an error to who reads from it.
        with contextlib.suppress(OSError):
            while read := os.read(ours, 4096):
                seen += read
        os.close(ours)
    assert b"Traceback" not in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
