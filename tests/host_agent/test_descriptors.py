from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from host_agent.descriptors import RESERVE, Descriptors

from .parts import ROOT

#: Lowers its limits to those of the command line, and prints what the daemon makes of it.
STARTED_WITH = """
import resource, sys
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from host_agent.descriptors import Descriptors
print(Descriptors().limit, resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The tests that come after have the limit that they began with."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(("soft", "hard"), [(64, 300), (300, 300)])
def test_the_limit_is_raised_to_the_hard_limit(soft: int, hard: int) -> None:
    command = [sys.executable, "-c", STARTED_WITH, str(soft), str(hard)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{hard} ({hard}, {hard})\n"


def test_a_limit_that_can_not_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert Descriptors().limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_limit_that_is_too_low_is_said_once() -> None:
    limited = Descriptors()
    limited.limit = RESERVE + 100
    assert limited.enough_for(0) is None
    assert limited.enough_for(100) is None
    assert limited.enough_for(101) == (
        f"101 guests need {RESERVE + 101} file descriptors and this process may have {RESERVE + 100}: some will not be "
        "connected; raise the hard limit (LimitNOFILE= in the unit, ulimit -Hn in a shell) and restart"
    )
    assert limited.enough_for(5000) is None


def test_what_is_open_is_counted() -> None:
    limited = Descriptors()
    before = limited.used()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    try:
        assert limited.used() == before + 5
    finally:
        for each in opened:
            os.close(each)
    assert limited.used() == before
