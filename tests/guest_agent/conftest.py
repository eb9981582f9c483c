"""What the tests of the guest agent share: no test runs a command of the machine, and none leaves a process behind."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from .parts import AgentProcess, Clock

_RUNS_COMMANDS = (
    "system",
    "popen",
    "posix_spawn",
    "posix_spawnp",
    "execv",
    "execve",
    "execvp",
    "execvpe",
    "spawnv",
    "spawnve",
)


#: Who listens there obeys.
_COMMANDING_SOCKETS = ("/run/dbus/", "/var/run/dbus/", "/run/systemd/")


class CommandGuard:
    """Fails a test that runs a command, or connects to who would; lets *allowed* programs through.

    What it caught stands in memory that forked children share, so that none of them does it unnoticed.
    """

    def __init__(self) -> None:
        self.allowed: set[str] = set()
        self._caught = mmap.mmap(-1, mmap.PAGESIZE)

    def check(self, argv: Any) -> None:
        program = argv if isinstance(argv, (str, bytes)) else next(iter(argv), "")
        if program not in self.allowed:
            self._catch(f"a test ran a command of the machine: {argv!r}")

    def check_address(self, address: Any) -> None:
        if isinstance(address, str) and address.startswith(_COMMANDING_SOCKETS):
            self._catch(f"a test connected to a service of the machine: {address}")

    def caught(self) -> list[str]:
        """What was caught since the last call, here and in forked children."""
        caught = self._caught[: self._caught.find(b"\0")].decode("utf-8", "replace")
        self._caught[:] = bytes(len(self._caught))
        return caught.splitlines()

    def _catch(self, what: str) -> None:
        noted = self._caught.find(b"\0")
        line = f"{what}\n".encode()[: len(self._caught) - noted - 1]
        self._caught[noted : noted + len(line)] = line
        pytest.fail(what)


@pytest.fixture(autouse=True)
def command_guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandGuard]:
    guard = CommandGuard()

    class GuardedPopen(subprocess.Popen[bytes]):
        def __init__(self, args: Any, *others: Any, **named: Any) -> None:
            guard.check(args)
            super().__init__(args, *others, **named)

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def check_and_call(*arguments: Any, **named: Any) -> Any:
            guard.check(arguments)
            return function(*arguments, **named)

        return check_and_call

    def connect(self: socket.socket, address: Any) -> None:
        guard.check_address(address)
        super(socket.socket, self).connect(address)

    monkeypatch.setattr(subprocess, "Popen", GuardedPopen)
    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in _RUNS_COMMANDS:
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    yield guard
    caught = guard.caught()
    if caught:
        pytest.fail("\n".join(caught))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start_agent(command_guard: CommandGuard, tmp_path: Path) -> Iterator[Any]:
    """Starts our own agent as a process, and only that."""
    command_guard.allowed.add(sys.executable)
    started: list[AgentProcess] = []

    def start(*arguments: str) -> AgentProcess:
        started.append(AgentProcess(tmp_path / f"stderr-{len(started)}", *arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()
