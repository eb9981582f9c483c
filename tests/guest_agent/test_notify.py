"""Telling the service manager: over real datagram sockets."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent.notify import Notifier


class Manager:
    """Stands in for the service manager: hears what it is told."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)
        name = self._socket.getsockname()
        self.environment = {"NOTIFY_SOCKET": "@" + name[1:].decode() if isinstance(name, bytes) else name, "LANG": "C"}

    def heard(self) -> list[str]:
        """What was told since the last call."""
        told = []
        try:
            while True:
                told.append(self._socket.recv(65536).decode())
        except BlockingIOError:
            return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"\0vmaccord-test-{os.getpid()}")
    yield made
    made.close()


def test_the_manager_is_told_of_start_and_end(manager: Manager) -> None:
    notifier = Notifier(manager.environment)
    notifier.ready()
    notifier.stopping()
    assert manager.heard() == ["READY=1", "STOPPING=1"]


def test_the_manager_is_told_when_a_reload_began(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    Notifier(manager.environment).reloading()
    (told,) = manager.heard()
    match = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", told)
    assert match is not None
    assert before <= int(match.group(1)) <= time.monotonic_ns() // 1000


def test_the_status_is_told_when_it_changes(manager: Manager) -> None:
    notifier = Notifier(manager.environment)
    for text in ("waiting for a port", "waiting for a port", "API 3 in use", "waiting for a port"):
        notifier.status(text)
    assert manager.heard() == ["STATUS=waiting for a port", "STATUS=API 3 in use", "STATUS=waiting for a port"]


def test_no_child_is_told_of_the_manager(manager: Manager) -> None:
    Notifier(manager.environment)
    assert manager.environment == {"LANG": "C"}


def tell_all(notifier: Notifier) -> None:
    notifier.ready()
    notifier.reloading()
    notifier.status("well")
    notifier.stopping()


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@vmaccord-test-nobody-listens", "@", "/" + "x" * 300])
def test_where_nobody_listens_nothing_is_wrong(address: str) -> None:
    tell_all(Notifier({"NOTIFY_SOCKET": address}))


def test_where_there_is_no_manager_nothing_is_told() -> None:
    tell_all(Notifier({}))


def test_a_manager_that_does_not_read_is_not_waited_for(manager: Manager) -> None:
    notifier = Notifier(manager.environment)
    for number in range(5000):
        notifier.status(str(number))
    assert "STATUS=0" in manager.heard()
    notifier.status("heard again")
    assert manager.heard() == ["STATUS=heard again"]
