"""The descriptor that wakes the loop."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from guest_agent.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    made = Wakeup()
    yield made
    made.close()


def readable(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup], [], [], 0)[0])


def test_it_is_readable_from_a_call_until_it_is_cleared(wakeup: Wakeup) -> None:
    assert not readable(wakeup)
    wakeup.call()
    wakeup.call()
    assert readable(wakeup)
    wakeup.clear()
    assert not readable(wakeup)
    wakeup.clear()


def test_calls_without_end_neither_block_nor_fail(wakeup: Wakeup) -> None:
    for _ in range(70_000):
        wakeup.call()
    wakeup.clear()
    assert not readable(wakeup)
