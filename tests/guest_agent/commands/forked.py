"""Doing something in a worker, where it may become somebody else without the tests becoming that, too."""

from __future__ import annotations

import os
import select
from typing import Any, Callable

import pytest

from guest_agent.worker import Report, Worker
from tests.guest_agent.parts import GIVE_UP, wait_until

#: A user who may do nothing, and owns nothing.
NOBODY = 65534

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def in_worker(job: Callable[[], Any]) -> Any:
    """What *job* returns, a plain value."""
    values: list[Any] = []

    def report_all(report: Report) -> None:
        report(job())

    worker = Worker(report_all)
    try:
        wait_until(lambda: worker.status is not None, lambda: _take(worker, values))
    finally:
        worker.kill()
        worker.close()
    assert worker.status == 0
    (value,) = values
    return value


def become_nobody() -> None:
    """For good, as far as this process is concerned."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    assert os.getresuid() == (NOBODY, NOBODY, NOBODY)


def _take(worker: Worker, values: list[Any]) -> None:
    select.select([worker], [], [], GIVE_UP)
    values += worker.reports()
