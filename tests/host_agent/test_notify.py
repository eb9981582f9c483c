from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent import notify

from .parts import make_configuration, run, running


@contextlib.contextmanager
def service_manager(address: str) -> Iterator[socket.socket]:
    """Somebody who listens at *address*, and waits for nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.setblocking(False)
        yield listening


def test_the_service_manager_is_told(place: Path) -> None:
    with service_manager(str(place / "notify")) as manager:
        notify.tell(notify.READY, {"NOTIFY_SOCKET": str(place / "notify")})
        assert manager.recv(100) == b"READY=1"


def test_each_state_is_said_as_it_is_defined(place: Path) -> None:
    before = time.monotonic_ns() // 1000
    with service_manager(str(place / "notify")) as manager:
        states = (notify.ALIVE, notify.reloading(), notify.more_time(12.5), notify.status("5 guests,\n 3 agreed\udcff"))
        for state in states:
            notify.tell(state, {"NOTIFY_SOCKET": str(place / "notify")})
        assert manager.recv(100) == b"WATCHDOG=1"
        reloading, when = manager.recv(100).split(b"\n")
        assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=12500000"
        assert manager.recv(100) == b"STATUS=5 guests, 3 agreed?"
    assert reloading == b"RELOADING=1"
    assert before <= int(when.removeprefix(b"MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_its_socket_may_have_no_file() -> None:
    name = f"vmaccord-{uuid.uuid4().hex}"
    with service_manager(f"\0{name}") as manager:
        notify.tell(notify.STOPPING, {"NOTIFY_SOCKET": f"@{name}"})
        assert manager.recv(100) == b"STOPPING=1"


def test_without_a_service_manager_nobody_is_told(place: Path) -> None:
    notify.tell(notify.READY, {})
    notify.tell(notify.READY, {"NOTIFY_SOCKET": ""})
    notify.tell(notify.READY, {"NOTIFY_SOCKET": str(place / "missing")})


def test_a_service_manager_that_does_not_listen_delays_nothing(place: Path) -> None:
    with service_manager(str(place / "notify")) as manager:
        for _ in range(10_000):
            notify.tell(notify.READY, {"NOTIFY_SOCKET": str(place / "notify")})
        assert manager.recv(100) == b"READY=1"


def test_a_daemon_tells_when_it_answers_and_when_it_stops(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))

    async def scenario(manager: socket.socket) -> None:
        async with running(make_configuration(place)) as daemon:
            await daemon.host()
            assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"STOPPING=1"

    with service_manager(str(place / "notify")) as manager:
        run(scenario(manager))
