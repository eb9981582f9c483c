"""What the tests of the guest agent share: no test runs a command of the machine, and none leaves a process behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class CommandGuard:
    """Fails a test that runs a command; lets *allowed* through."""

    def __init__(self) -> None:
        self.allowed: set[str] = set()

    def check(self, argv: Any) -> None:
        program = argv if isinstance(argv, (str, bytes)) else next(iter(argv), "")
        if program not in self.allowed:
            pytest.fail(f"a test ran a command of the machine: {argv!r}")


@pytest.fixture(autouse=True)
def command_guard(monkeypatch: pytest.MonkeyPatch) -> CommandGuard:
    guard = CommandGuard()

    class GuardedPopen(subprocess.Popen[bytes]):
        def __init__(self, args: Any, *others: Any, **named: Any) -> None:
            guard.check(args)
            super().__init__(args, *others, **named)

    def refuse(*arguments: Any, **_: Any) -> None:
        guard.check(arguments)

    monkeypatch.setattr(subprocess, "Popen", GuardedPopen)
    for name in _RUNS_COMMANDS:
        monkeypatch.setattr(os, name, refuse)
    return guard


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
