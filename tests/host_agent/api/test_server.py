from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from host_agent.api import access, server
from host_agent.api.access import Roles
from host_agent.api.application import make_application
from host_agent.api.server import Connections, Server
from tests.host_agent.api.parts import Daemon, served
from tests.host_agent.api.test_access import OPERATORS, only_root
from tests.host_agent.parts import NOBODY, PATIENCE, another_user, run


class Transport(asyncio.Transport):
    """A connection that *uid* has opened."""

    def __init__(self, uid: int) -> None:
        super().__init__({"socket": uid})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr(access, "credentials", lambda uid: (uid, uid))
    monkeypatch.setattr(server, "LIMIT_OF_ONE", 2)
    monkeypatch.setattr(server, "LIMIT", 3)
    return Connections(lambda: 5.0)


def test_one_user_holds_a_few_connections_only(connections: Connections, caplog: pytest.LogCaptureFixture) -> None:
    held = [Transport(4711), Transport(4711)]
    assert all(connections.admit(each) for each in held)
    assert not connections.admit(Transport(4711))
    assert not connections.admit(Transport(4711))
    assert caplog.text.count("user 4711, or all users together, hold too many connections: one was cut off") == 1
    assert connections.admit(Transport(4712))
    connections.gone(held[0])
    assert connections.admit(Transport(4711))


def test_all_users_together_hold_a_few_connections_only(connections: Connections) -> None:
    held = [Transport(uid) for uid in (1, 2, 3)]
    assert all(connections.admit(each) for each in held)
    assert not connections.admit(Transport(4))
    connections.gone(held[0])
    assert connections.admit(Transport(4))


def test_root_and_the_own_user_always_get_in(connections: Connections) -> None:
    held = [Transport(uid) for uid in (0, os.geteuid()) * 10]
    assert all(connections.admit(each) for each in held)
    assert connections.admit(Transport(4711))
    for each in held:
        connections.gone(each)


def test_all_are_cut_off_in_the_end(connections: Connections) -> None:
    held = [Transport(0), Transport(4711)]
    assert all(connections.admit(each) for each in held)
    connections.cut_off()
    assert all(each.aborted for each in held)


@only_root
def test_a_user_who_takes_all_connections_takes_them_from_nobody_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LIMIT_OF_ONE", 5)
    place.chmod(0o755)

    async def scenario() -> None:
        async with served(place, Daemon(Roles(OPERATORS))) as api:
            with another_user():
                held = [connect(api.control) for _ in range(5)]
                surplus = connect(api.control)
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(surplus, 1) == b""
            assert (await api.ask("/v1/host")).status == 200
            for each in (*held, surplus):
                each.close()

    run(scenario())


def connect(control: str) -> socket.socket:
    assert os.geteuid() == NOBODY
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(control)
    connection.setblocking(False)
    return connection


def test_idle_connections_end_at_once_when_the_daemon_stops(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FAREWELL", 10 * PATIENCE)

    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            idle = await api.connect("/v1/host")
            await idle.until('"operator"}}')
            fresh = await asyncio.open_unix_connection(api.control)
            assert (await api.ask("/v1/host")).status == 200
            await api.server.close()
            assert await idle.rest() == ""
            assert await fresh[0].read() == b""
            await idle.close()
            fresh[1].close()
            await fresh[1].wait_closed()

    run(scenario())


def test_what_never_started_can_be_closed_and_what_is_closed_as_well(place: Path) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            await Server(make_application(Daemon()), listening).close()
        async with served(place, Daemon()) as api:
            await api.server.close()

    run(scenario())


def test_what_can_not_listen_can_be_closed() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET) as listening:
            started = Server(make_application(Daemon()), listening)
            with pytest.raises(ValueError, match="UNIX"):
                await started.start()
            await started.close()

    run(scenario())
