"""Log lines, and who reads them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import tty
from collections.abc import Iterator
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import settings
from guest_agent import log
from guest_agent.log import PRIORITIES, Log
from guest_agent.worker import Report, Worker

from .parts import GIVE_UP, ListLog


def stderr_is_journal() -> dict[str, str]:
    """The environment that systemd makes when it connects our standard error output to the journal."""
    status = os.fstat(2)
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def have_done(act: Callable[[], object]) -> None:
    """Let a worker *act*: it may treat its standard descriptors as it likes."""

    def job(_: Report) -> None:
        act()

    worker = Worker(job)
    try:
        while worker.status is None:
            assert select.select([worker], [], [], GIVE_UP)[0], "waited in vain"
            worker.reports()
    finally:
        worker.kill()
        worker.close()
    assert worker.status == 0


# ---- Levels ----


def test_the_levels_are_those_of_the_configuration_the_most_important_first() -> None:
    assert tuple(PRIORITIES) == settings.LOG_LEVELS
    assert sorted(PRIORITIES.values()) == list(PRIORITIES.values())


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("error", ["ERROR e"]),
        ("warning", ["ERROR e", "WARNING w"]),
        ("info", ["ERROR e", "WARNING w", "INFO i"]),
        ("debug", ["ERROR e", "WARNING w", "INFO i", "DEBUG d"]),
    ],
)
def test_what_is_less_important_than_the_level_is_not_said(level: str, said: list[str]) -> None:
    kept = ListLog("error")
    kept.level = level
    kept.error("e")
    kept.warning("w")
    kept.info("i")
    kept.debug("d")
    assert kept.lines == said


# ---- Text ----


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("API 0 → 3 in use", "API 0 → 3 in use"),
        ("zürich \N{SNOWMAN}", "zürich \N{SNOWMAN}"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("line\u2028separator", r"line\u2028separator"),
        ("right \u202e to left", r"right \u202e to left"),
        ("half \ud800 a character", r"half \ud800 a character"),
    ],
)
def test_text_shows_no_control_character(text: str, shown: str) -> None:
    kept = ListLog()
    kept.info(text)
    assert kept.lines == [f"INFO {shown}"]


@given(st.text())
def test_whatever_a_text_is_it_is_one_line_that_can_be_written(text: str) -> None:
    kept: list[str] = []
    Log("info", kept.append).info(text)
    (line,) = kept
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable()
    line.encode()


# ---- Who reads ----


def test_the_journal_is_told_the_priority_and_no_time() -> None:
    lines: list[str] = []
    said = Log("debug", lines.append, journal=True, clock=True)
    said.error("e")
    said.warning("w")
    said.info("i")
    said.debug("<0>d")
    assert lines == ["<3>e\n", "<4>w\n", "<6>i\n", "<7><0>d\n"]


def test_other_readers_are_told_the_level_and_where_they_want_it_the_time() -> None:
    lines: list[str] = []
    Log("info", lines.append).info("plain")
    Log("info", lines.append, clock=True).info("timed")
    assert lines[0] == "INFO plain\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO timed\n", lines[1])


def test_standard_error_is_the_journal_where_systemd_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    log.standard_error("info", stderr_is_journal()).warning("watch →")
    assert capfd.readouterr().err == "<4>watch →\n"


@pytest.mark.parametrize("stream", [None, "", "1:2", "x", ":"])
def test_standard_error_is_no_journal_where_systemd_connected_something_else(
    capfd: pytest.CaptureFixture[str], stream: str
) -> None:
    environment = {} if stream is None else {"JOURNAL_STREAM": stream}
    said = log.standard_error("warning", environment)
    said.warning("watch")
    said.info("hidden")
    assert capfd.readouterr().err == "WARNING watch\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The end of somebody who reads, and the path of the terminal."""
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def test_a_person_at_a_terminal_is_told_the_time(terminal: tuple[int, str]) -> None:
    master, path = terminal

    def act() -> None:
        os.dup2(os.open(path, os.O_RDWR | os.O_NOCTTY), 2)
        log.standard_error("info", {}).info("hello")

    have_done(act)
    assert re.fullmatch(rb"[-\d]{10} [:\d]{8} INFO hello\n", os.read(master, 1000))


def test_whoever_shares_the_terminal_still_waits_for_it(terminal: tuple[int, str]) -> None:
    def act() -> None:
        os.dup2(os.open(terminal[1], os.O_RDWR | os.O_NOCTTY), 2)
        log.standard_error("info", {}).info("hello")
        assert os.get_blocking(2)

    have_done(act)


def test_a_terminal_that_can_not_be_opened_anew_is_used_as_it_is(
    terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "ttyname", lambda _: "/nonexistent/terminal")

    def act() -> None:
        os.dup2(os.open(terminal[1], os.O_RDWR | os.O_NOCTTY), 2)
        log.standard_error("info", {}).info("hello")

    have_done(act)
    assert os.read(terminal[0], 1000).endswith(b" INFO hello\n")


def test_lines_that_can_not_be_written_disturb_nobody() -> None:
    def act() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        log.standard_error("info", {}).info("no space")
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        os.close(read_end)
        log.standard_error("info", {}).info("nobody reads")
        os.close(2)
        log.standard_error("info", {"JOURNAL_STREAM": "1:2"}).info("no such descriptor")

    have_done(act)


def test_lines_for_which_there_is_no_room_are_counted_and_that_is_said_later() -> None:
    lines: list[str] = []
    room = [False]
    said = Log("info", lines.append, has_room=lambda: room[0])
    for _ in range(3):
        said.info("lost")
    said.debug("not wanted anyway")
    room[0] = True
    said.info("again")
    said.info("and on")
    assert lines == ["WARNING 3 lines lost: their reader had no room for them\n", "INFO again\n", "INFO and on\n"]


# ---- Held back ----


class Held(ListLog):
    """A log whose lines are held back until a test lets go of them."""

    def __init__(self) -> None:
        super().__init__("info")
        self.holding = True
        self.holds_back = lambda: self.holding


def test_lines_are_held_back_and_said_later_in_their_order() -> None:
    kept = Held()
    kept.info("first")
    kept.debug("not wanted anyway")
    kept.warning("second")
    kept.catch_up()
    assert kept.lines == []
    kept.holding = False
    kept.catch_up()
    assert kept.lines == ["INFO first", "WARNING second"]
    kept.catch_up()
    assert len(kept.lines) == 2


def test_a_line_that_may_be_said_is_said_behind_those_that_were_held_back() -> None:
    kept = Held()
    kept.info("first")
    kept.holding = False
    kept.info("second")
    assert kept.lines == ["INFO first", "INFO second"]


def test_of_too_many_lines_the_last_are_held_back() -> None:
    kept = Held()
    for number in range(log.HELD_LIMIT + 5):
        kept.info(f"line {number} {'x' * 1_000_000}")
    kept.close()
    assert kept.lines[0] == f"WARNING 5 lines lost: more than {log.HELD_LIMIT} were held back"
    assert [line.split()[2] for line in kept.lines[1:]] == [str(number) for number in range(5, log.HELD_LIMIT + 5)]
    assert max(map(len, kept.lines)) < 5000
    kept.info("and on")
    assert kept.lines[-1] == "INFO and on"


def fill(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 512)
    os.set_blocking(descriptor, True)


def a_pipe() -> tuple[int, int]:
    return os.pipe()


def a_socket() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def a_terminal() -> tuple[int, int]:
    master, slave = os.openpty()
    tty.setraw(slave)
    return master, slave


@pytest.mark.parametrize("made", [a_pipe, a_socket, a_terminal])
def test_a_reader_that_hangs_does_not_hold_up_who_logs(made: Callable[[], tuple[int, int]]) -> None:
    def act() -> None:
        reader, writer = made()
        os.dup2(writer, 2)
        said = log.standard_error("info", {})
        fill(2)
        for _ in range(1000):
            said.info("lost" * 1000)
        os.set_blocking(reader, False)
        read = b""
        while not read.endswith(b"again\n"):
            with contextlib.suppress(BlockingIOError):
                while True:
                    read += os.read(reader, 65536)
            said.info("again")
        assert b" lines lost: " in read

    have_done(act)


def test_a_line_of_any_length_is_cut_to_what_a_pipe_takes_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    log.standard_error("info", {}).info("é" * 10_000)
    said = capfd.readouterr().err
    assert said.startswith("INFO éé")
    assert said.endswith("é\n")
    assert select.PIPE_BUF - 4 < len(said.encode()) <= select.PIPE_BUF


def test_a_worker_in_which_a_log_fails_would_have_failed() -> None:
    with pytest.raises(AssertionError):
        have_done(lambda: Log("info", lambda _: 1 / 0).info("fails"))
