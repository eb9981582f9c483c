"""The guard against commands does its work."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import Callable

import pytest

from .conftest import CommandGuard


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as plug:
        plug.connect(path)


FORBIDDEN = [
    lambda: subprocess.run(["true"], check=False),
    lambda: subprocess.run("true", shell=True, check=False),  # noqa: S602
    lambda: subprocess.run([sys.executable, "-V"], check=False),
    lambda: os.system("true"),  # noqa: S605
    lambda: os.posix_spawn("/bin/true", ["true"], {}),
    lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
    lambda: _connect("/run/dbus/system_bus_socket"),
]


@pytest.mark.parametrize("forbidden", FORBIDDEN)
def test_a_test_that_commands_the_machine_fails(command_guard: CommandGuard, forbidden: Callable[[], None]) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"a test (ran a command|connected)"):
        forbidden()
    assert len(command_guard.caught()) == 1


@pytest.mark.parametrize("forbidden", FORBIDDEN)
def test_a_test_fails_whose_child_commands_the_machine(command_guard: CommandGuard, forbidden: Callable[[], None]) -> None:
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            forbidden()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(command_guard.caught()) == 1


def test_what_was_caught_is_told_once(command_guard: CommandGuard) -> None:
    for argument in ("first", "second"):
        with pytest.raises(pytest.fail.Exception):
            command_guard.check(["program", argument])
    assert [line[-11:] for line in command_guard.caught()] == ["', 'first']", ", 'second']"]
    assert command_guard.caught() == []


def test_more_than_can_be_noted_is_caught_as_well(command_guard: CommandGuard) -> None:
    for _ in range(3):
        with pytest.raises(pytest.fail.Exception):
            command_guard.check(["x" * 3000])
    assert command_guard.caught()


def test_an_allowed_program_is_let_through(command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
