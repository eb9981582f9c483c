from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.watchdog import Watchdog

PERIOD = 30.0


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still unless it is moved."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def play(self, scenario: Coroutine[Any, Any, None]) -> None:
        try:
            self.run_until_complete(scenario)
        finally:
            self.close()

    async def advance(self, seconds: float) -> None:
        """Move the clock, and let what is due be done."""
        self.now += seconds
        for _ in range(3):
            await asyncio.sleep(0)


class ServiceManager:
    """Somebody who waits for signs of life at a socket."""

    def __init__(self, address: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(address))
        self.socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": str(int(PERIOD * 1_000_000))}

    def signs(self) -> int:
        """How many signs of life were given since this was asked last."""
        count = 0
        while True:
            try:
                assert self.socket.recv(100) == b"WATCHDOG=1"
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def manager(place: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(place / "notify")
    with manager.socket:
        yield manager


def test_a_sign_of_life_is_given_at_once_and_twice_in_each_period(manager: ServiceManager) -> None:
    loop = Loop()

    async def scenario() -> None:
        watchdog = Watchdog(loop, manager.environment)
        watchdog.open()
        assert manager.signs() == 1
        await loop.advance(PERIOD / 2 - 1)
        assert manager.signs() == 0
        for _ in range(10):
            await loop.advance(PERIOD / 2)
            assert manager.signs() == 1
        watchdog.close()

    loop.play(scenario())


def test_a_loop_that_hangs_gives_none(manager: ServiceManager) -> None:
    loop = Loop()

    async def scenario() -> None:
        watchdog = Watchdog(loop, manager.environment)
        watchdog.open()
        assert manager.signs() == 1
        for _ in range(10):
            loop.now += PERIOD
            assert manager.signs() == 0
        await loop.advance(0)
        assert manager.signs() == 1
        watchdog.close()

    loop.play(scenario())


def test_one_that_is_closed_gives_none_and_leaves_no_timer(manager: ServiceManager) -> None:
    loop = Loop()

    async def scenario() -> None:
        watchdog = Watchdog(loop, manager.environment)
        watchdog.close()
        watchdog.open()
        watchdog.open()
        assert manager.signs() == 1
        watchdog.close()
        await loop.advance(PERIOD * 10)
        assert manager.signs() == 0
        watchdog.open()
        assert manager.signs() == 1
        watchdog.close()

    loop.play(scenario())


@pytest.mark.parametrize(
    "waits_not",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "²"},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": ""},
    ],
)
def test_nobody_is_told_who_does_not_wait_for_this_process(manager: ServiceManager, waits_not: dict[str, str]) -> None:
    loop = Loop()

    async def scenario() -> None:
        watchdog = Watchdog(loop, {"NOTIFY_SOCKET": manager.environment["NOTIFY_SOCKET"], **waits_not})
        watchdog.open()
        await loop.advance(1e9)
        assert manager.signs() == 0
        watchdog.close()

    loop.play(scenario())


def test_who_waits_for_this_process_is_told(manager: ServiceManager) -> None:
    loop = Loop()

    async def scenario() -> None:
        watchdog = Watchdog(loop, {**manager.environment, "WATCHDOG_PID": str(os.getpid())})
        watchdog.open()
        assert manager.signs() == 1
        watchdog.close()

    loop.play(scenario())


def test_an_impatient_service_manager_does_not_keep_the_loop_busy(manager: ServiceManager) -> None:
    loop = Loop()

    async def scenario() -> None:
        watchdog = Watchdog(loop, {**manager.environment, "WATCHDOG_USEC": "1"})
        watchdog.open()
        await loop.advance(0.005)
        assert manager.signs() == 1
        await loop.advance(0.005)
        assert manager.signs() == 1
        watchdog.close()

    loop.play(scenario())
