"""What the tests of commands share: a machine whose file system is a temporary directory, and what is run on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

from guest_agent import processes
from guest_agent.commands import Machine
from tests.guest_agent.parts import GIVE_UP

from .peer import Bus


class Ran(NamedTuple):
    """A program that was run, or is to be run *delay* seconds later."""

    argv: tuple[str, ...]
    input: bytes = b""
    delay: Optional[float] = None
    output_limit: int = processes.OUTPUT_LIMIT


class Programs:
    """Stands in for the programs of the machine.

    :ivar ran: what was run, in order.
    :ivar ends: by name, how a program ends; others end well.
    """

    def __init__(self) -> None:
        self.ran: list[Ran] = []
        self.ends: dict[str, processes.Finished] = {}
        self.missing: set[str] = set()

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        input: bytes = b"",  # noqa: A002 - as in processes.run
        environment: Optional[Mapping[str, str]] = None,
        output_limit: int = processes.OUTPUT_LIMIT,
        errors_apart: bool = False,
    ) -> processes.Finished:
        assert 0 < deadline <= GIVE_UP
        self._look_for(argv)
        self.ran.append(Ran(tuple(argv), input, output_limit=output_limit))
        end = self.ends.get(argv[0], processes.Finished(0, b""))
        return end._replace(output=end.output[:output_limit])

    def run_later(self, argv: Sequence[str], *, delay: float, deadline: float) -> None:
        assert 0 < deadline <= GIVE_UP
        self._look_for(argv)
        self.ran.append(Ran(tuple(argv), delay=delay))

    def _look_for(self, argv: Sequence[str]) -> None:
        if argv[0] in self.missing:
            raise processes.ProgramMissing(f"{argv[0]} was not found")


@pytest.fixture
def programs() -> Programs:
    return Programs()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "root"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def machine(root: Path, programs: Programs) -> Machine:
    """A machine that has nothing."""
    return Machine(
        login_helper=None,
        hooks_directory=str(root / "hooks.d"),
        hooks_deadline=GIVE_UP,
        deadline=GIVE_UP,
        root=str(root),
        run=programs.run,
        run_later=programs.run_later,
        owner=os.geteuid(),
    )


@pytest.fixture
def bus(root: Path) -> Iterator[Bus]:
    """The machine has a system bus and logind."""
    opened = Bus(root)
    yield opened
    opened.close()


def install(root: Path, *programs: str) -> None:
    """The machine has these programs, which can only be found."""
    (root / "usr" / "sbin").mkdir(parents=True, exist_ok=True)
    for program in programs:
        (root / "usr" / "sbin" / program).touch(0o755)
