from __future__ import annotations

import threading

import pytest

from host_agent.cli.many import ask_all


def test_every_name_gets_its_answer_or_its_error() -> None:
    def ask(name: str) -> str:
        if name == "c":
            raise ValueError(name)
        return name.upper()

    answers = dict(ask_all(["a", "b", "c"], ask))
    assert (answers["a"], answers["b"]) == ("A", "B")
    assert isinstance(answers["c"], ValueError)


def test_nobody_is_asked_where_there_is_nobody() -> None:
    assert list(ask_all([], lambda name: pytest.fail("asked"))) == []


def test_so_many_are_asked_at_once_and_no_more() -> None:
    together = threading.Barrier(3)
    lock = threading.Lock()
    busy, most = 0, 0

    def ask(name: str) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        together.wait(30)
        with lock:
            busy -= 1

    assert len(list(ask_all([str(number) for number in range(9)], ask, width=3))) == 9
    assert most == 3


def test_one_that_takes_long_holds_up_no_other() -> None:
    released = threading.Event()

    def ask(name: str) -> None:
        if name == "slow":
            released.wait(30)

    answers = ask_all(["slow", "a", "b"], ask, width=2)
    assert {next(answers)[0], next(answers)[0]} == {"a", "b"}
    released.set()
    assert next(answers)[0] == "slow"
    assert list(answers) == []
