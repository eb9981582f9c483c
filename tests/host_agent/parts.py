"""What the tests of the host agent are made of: a loop that must end clean, conditions, daemons."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional, TypeVar

from common.session import HostSession
from common.versions import Version, newest
from host_agent.budget import Limits
from host_agent.client import Answer, Client, DaemonUnreachable
from host_agent.config import Configuration
from host_agent.daemon import Daemon
from host_agent.feed import Feed
from host_agent.guest import Guest, Shared
from host_agent.meter import Meter

T = TypeVar("T")

#: What both sides support where a test does not care.
NEWEST = newest()

#: A condition that has not come true after so many seconds never will.
PATIENCE = 30.0

#: The user of nothing.
NOBODY = 65534

ROOT = Path(__file__).parents[2]


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run *scenario* in a loop of its own; it must leave no task behind."""

    async def whole() -> T:
        result = await asyncio.wait_for(scenario, PATIENCE * 2)
        # What was let go in the last moment is closed when the loop comes to it.
        for _ in range(3):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        return result

    return asyncio.run(whole())


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until *condition* is true; returns what it gave."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


async def until_true(condition: Callable[[], Awaitable[Any]]) -> Any:
    """As ``until``, for a condition that must be awaited."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = await condition()
        if result:
            return result
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


def make_session(supported: Optional[Version] = NEWEST) -> HostSession:
    return HostSession(supported, "host-1")


def make_shared(**changes: Any) -> Shared:
    """What guests have in common: a meter and a feed of their own, unless they are given."""
    return Shared(Meter(), Feed("run-1"), Limits())._replace(**changes)


def make_guest(
    name: str = "web-1",
    supported: Optional[Version] = NEWEST,
    now: float = 0.0,
    shared: Optional[Shared] = None,
) -> Guest:
    return Guest(name, make_session(supported), now, shared or make_shared())


def make_configuration(place: Path, **changes: Any) -> Configuration:
    """A daemon that looks for guests in ``place/ports``."""
    usual = Configuration(
        directory=(str(place / "ports"),),
        libvirt=(),
        port=(),
        control=str(place / "control.sock"),
        operator_group=None,
        viewer_group=None,
        state=None,
        max_api_version=NEWEST,
        unresponsive_after=15.0,
        forget_after=3600.0,
        drain=5.0,
        log_level="debug",
        limits_message_rate=200,
        limits_byte_rate=1024 * 1024,
        limits_facts_size=256 * 1024,
        handoff_listen=(),
        handoff_peers=(),
        handoff_certificate="/nonexistent",
        handoff_key="/nonexistent",
        handoff_ca="/nonexistent",
        handoff_security="plain-text",
        handoff_allow_loss=False,
    )
    return dataclasses.replace(usual, **changes)


class ManualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still unless it is moved."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def play(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Run *scenario*; no callback may fail meanwhile."""
        failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: failures.append(context))
        try:
            result = self.run_until_complete(scenario)
        finally:
            self.close()
        assert not failures, failures
        return result

    async def advance(self, seconds: float = 0.0) -> None:
        """Move the clock, and let what is due be done."""
        self.now += seconds
        for _ in range(5):
            await asyncio.sleep(0)


class RunningDaemon:
    """A daemon in this process, and a client of it that does not block the loop."""

    def __init__(self, configuration: Configuration, reload: Optional[Callable[[], Configuration]]) -> None:
        self.daemon = Daemon(configuration, reload)
        self.client = Client(configuration.control)

    async def host(self) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(None, self.client.host)

    async def guests(self) -> list[dict[str, Any]]:
        return await asyncio.get_running_loop().run_in_executor(None, self.client.guests)

    async def guest(self, name: str) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(None, self.client.guest, name)

    async def send(
        self, name: str, command: str, arguments: Mapping[str, Any], timeout: float = PATIENCE, wait: bool = True
    ) -> Answer:
        """Send a command as any client does."""
        call = functools.partial(self.client.send, name, command, arguments, timeout=timeout, wait=wait)
        return await asyncio.get_running_loop().run_in_executor(None, call)

    async def until_guest(self, name: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until the guest *name* is known and its description fulfils *condition*."""

        async def look() -> Optional[dict[str, Any]]:
            found = [each for each in await self.guests() if each["name"] == name]
            return found[0] if found and condition(found[0]) else None

        described: dict[str, Any] = await until_true(look)
        return described


@contextlib.asynccontextmanager
async def running(
    configuration: Configuration, reload: Optional[Callable[[], Configuration]] = None
) -> AsyncIterator[RunningDaemon]:
    """A daemon in this process, from its first answer to its clean end.

    :param reload: reads its configuration again.
    """
    log_level = logging.getLogger().level
    running_daemon = RunningDaemon(configuration, reload)
    task = asyncio.ensure_future(running_daemon.daemon.run())

    async def answers() -> bool:
        if task.done():
            task.result()
        try:
            return bool(await running_daemon.host())
        except DaemonUnreachable:
            return False

    try:
        await until_true(answers)
        yield running_daemon
    finally:
        running_daemon.daemon.stop()
        logging.getLogger().setLevel(log_level)
        await task


class DaemonProcess:
    """The shipped daemon as a process; its stderr goes to a file."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self.log_file = place / f"stderr-{len(list(place.glob('stderr-*')))}"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "host_agent.main", *arguments], stderr=log, stdout=log, cwd=ROOT
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def wait_ready(self) -> DaemonProcess:
        wait_for(lambda: "ready: " in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Where the tests run as root: be an ordinary user for a while, to whom permissions apply."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def wait_for(condition: Callable[[], Any]) -> None:
    """As ``until``, outside of a loop."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.005)
