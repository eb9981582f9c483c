"""What the tests of the collectors share: the one program that a collector asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional, Union

import pytest

from guest_agent import processes


class Program:
    """Stands in for running programs: each call gets *answer*, or meets it if it is an error. Keeps what was run."""

    def __init__(self) -> None:
        self.answer: Union[bytes, processes.Finished, processes.ProgramError] = b""
        self.ran: list[list[str]] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        input: bytes = b"",  # noqa: A002 - as what it stands in for
        environment: Optional[Mapping[str, str]] = None,
        output_limit: int = processes.OUTPUT_LIMIT,
        errors_apart: bool = False,
    ) -> processes.Finished:
        assert deadline > 0
        assert not input
        assert not environment
        assert not errors_apart
        self.ran.append(list(argv))
        if isinstance(self.answer, processes.ProgramError):
            raise self.answer
        if isinstance(self.answer, processes.Finished):
            return self.answer._replace(output=self.answer.output[:output_limit])
        return processes.Finished(0, self.answer[:output_limit])


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def no_program() -> processes.Run:
    """Where no program may be run."""

    def run(argv: Sequence[str], **_: object) -> processes.Finished:
        pytest.fail(f"ran {argv}")

    return run
