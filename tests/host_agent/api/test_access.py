from __future__ import annotations

import asyncio
import grp
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

import pytest
from aiohttp.test_utils import make_mocked_request

from host_agent.api import access
from host_agent.api.access import Peer, Role, Roles
from host_agent.api.problems import Problem
from tests.host_agent.api.parts import Daemon, Port, Served, served
from tests.host_agent.parts import NOBODY, run

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

#: Two groups that every machine has.
OPERATORS, VIEWERS = grp.getgrgid(1).gr_name, grp.getgrgid(2).gr_name

#: Asks as another user.
ASKER = """
import http.client, json, os, socket, sys
control, method, path, uid, gid, groups, body = json.loads(sys.argv[1])
os.setgroups(groups)
os.setgid(gid)
os.setuid(uid)
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(control)
connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
answer = connection.getresponse()
print(json.dumps([answer.status, json.loads(answer.read() or "null")]))
"""


async def ask_as_nobody(
    api: Served, method: str, path: str, gid: int = NOBODY, groups: Iterable[int] = (), body: Optional[object] = None
) -> tuple[int, Any]:
    question = json.dumps([api.control, method, path, NOBODY, gid, list(groups), body])
    command = [sys.executable, "-I", "-c", ASKER, question]
    done = await asyncio.get_running_loop().run_in_executor(
        None, lambda: subprocess.run(command, stdout=subprocess.PIPE, check=True)
    )
    status, document = json.loads(done.stdout)
    return status, document


def test_root_and_the_own_user_command_and_others_are_strangers() -> None:
    roles = Roles()
    assert not roles.shared
    assert roles.role_of(Peer(0, frozenset({0}))) is Role.OPERATOR
    assert roles.role_of(Peer(os.geteuid(), frozenset({9}))) is Role.OPERATOR
    assert roles.role_of(Peer(4711, frozenset({0, 1, 2}))) is Role.STRANGER


def test_the_members_of_groups_have_their_role_and_the_higher_one_counts() -> None:
    roles = Roles(OPERATORS, VIEWERS)
    assert roles.shared
    assert roles.role_of(Peer(4711, frozenset({4711, 1}))) is Role.OPERATOR
    assert roles.role_of(Peer(4711, frozenset({4711, 2}))) is Role.VIEWER
    assert roles.role_of(Peer(4711, frozenset({1, 2}))) is Role.OPERATOR
    assert roles.role_of(Peer(4711, frozenset({4711}))) is Role.STRANGER


def test_a_group_that_does_not_exist_has_no_members() -> None:
    roles = Roles("no-such-group", "nor-this-one")
    assert roles.role_of(Peer(4711, frozenset(range(1000)))) is Role.STRANGER


@pytest.mark.parametrize(
    ("roles", "groups", "method", "sentence"),
    [
        (Roles(), (), "GET", "user 4711 may not ask this daemon; ask as root, or as the user that vmaccord-host runs as"),
        (
            Roles(OPERATORS, VIEWERS),
            (),
            "GET",
            f"user 4711 may not ask this daemon; ask as root, or as a member of the group {OPERATORS} or {VIEWERS}",
        ),
        (
            Roles(OPERATORS, VIEWERS),
            (2,),
            "POST",
            f"user 4711 may only look; ask as root, or as a member of the group {OPERATORS}",
        ),
        (Roles(None, VIEWERS), (2,), "PUT", "may only look; ask as root, or as the user that vmaccord-host runs as"),
    ],
)
def test_who_may_not_is_told_who_may(roles: Roles, groups: tuple[int, ...], method: str, sentence: str) -> None:
    with pytest.raises(Problem) as caught:
        roles.check(Peer(4711, frozenset(groups)), method)
    assert caught.value.kind == "not-allowed"
    assert sentence in str(caught.value)


@only_root
def test_the_kernel_says_who_asks(place: Path) -> None:
    place.chmod(0o755)

    async def scenario() -> None:
        daemon = Daemon(Roles(OPERATORS, VIEWERS))
        port = Port(daemon, "web")
        async with served(place, daemon) as api:
            refresh = "/v1/guests/web/refresh"
            status, document = await ask_as_nobody(api, "GET", "/v1/host")
            assert (status, document["type"]) == (403, "about:vmaccord/not-allowed")
            assert (await ask_as_nobody(api, "GET", "/v1/nothing"))[0] == 403

            status, document = await ask_as_nobody(api, "GET", "/v1/host", groups=[7, 2])
            assert status == 200
            assert document["you"]["role"] == "viewer"
            assert document["you"]["uid"] == NOBODY
            assert (await ask_as_nobody(api, "POST", refresh, groups=[2], body={}))[0] == 403

            for method, path in (
                ("POST", "/v1/guests/web/handoff"),
                ("DELETE", "/v1/guests/web/handoff"),
                ("POST", "/v1/guests/web/migration"),
                ("POST", "/v1/sessions"),
                ("POST", "/v1/handoffs/expected"),
            ):
                assert (await ask_as_nobody(api, method, path, groups=[2], body={}))[0] == 403
            assert daemon.handoffs.asked == []
            assert (await ask_as_nobody(api, "GET", "/v1/handoffs", groups=[2]))[0] == 200
            assert (await ask_as_nobody(api, "DELETE", "/v1/guests/web/handoff", groups=[1]))[0] == 200

            assert (await ask_as_nobody(api, "POST", refresh, groups=[1], body={}))[0] == 200
            assert (await ask_as_nobody(api, "POST", refresh, gid=1, body={}))[0] == 200
            assert len(port.asked) == 0
            body = {"name": "lock-screen"}
            assert (await ask_as_nobody(api, "POST", "/v1/guests/web/commands", groups=[2], body=body))[0] == 403
            assert (await ask_as_nobody(api, "POST", "/v1/guests/web/commands", groups=[1], body=body))[0] == 200
            assert len(port.asked) == 1

    run(scenario())


@only_root
def test_without_groups_the_socket_itself_keeps_others_out(place: Path) -> None:
    place.chmod(0o755)

    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            with pytest.raises(subprocess.CalledProcessError):
                await ask_as_nobody(api, "GET", "/v1/host")

    run(scenario())


@only_root
def test_roles_that_change_count_at_once(place: Path) -> None:
    place.chmod(0o755)

    async def scenario() -> None:
        daemon = Daemon(Roles(OPERATORS, VIEWERS))
        async with served(place, daemon) as api:
            assert (await ask_as_nobody(api, "GET", "/v1/host", groups=[2]))[0] == 200
            daemon.roles = Roles(OPERATORS)
            assert (await ask_as_nobody(api, "GET", "/v1/host", groups=[2]))[0] == 403

    run(scenario())


@only_root
def test_of_somebody_in_too_many_groups_those_of_the_database_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        groups = os.getgroups()
        try:
            os.setgroups([*groups, *range(20_000, 20_400)])
            ours, theirs = socket.socketpair()
        finally:
            os.setgroups(groups)
        with ours, theirs:
            peer = await access.peer_of(ours)
            assert peer.uid == 0
            assert 20_000 not in peer.groups
            assert frozenset(os.getgrouplist("root", 0)) <= peer.groups
            monkeypatch.setattr(access, "name_of", lambda uid: None)
            assert await access.peer_of(ours) == Peer(0, frozenset({0}))

    run(scenario())


def test_the_groups_of_a_peer_are_those_it_had_when_it_connected() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert await access.peer_of(ours) == Peer(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))

    run(scenario())


def test_nobody_is_let_in_over_a_connection_that_is_gone() -> None:
    class Closed(asyncio.Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            connection = socket.socket(socket.AF_UNIX)
            connection.close()
            return connection

    async def scenario() -> None:
        for transport in (None, asyncio.Transport(), Closed()):
            request = make_mocked_request("GET", "/")
            protocol: Any = request.protocol
            protocol.transport = transport
            with pytest.raises(Problem, match="the connection ended before it could be seen who asks"):
                await access.identify(request)

    run(scenario())


def test_the_numbers_of_users_and_groups_are_large_ones() -> None:
    class Connection:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("iII", 4711, 4_000_000_000, 4_000_000_001)

    connection: Any = Connection()
    assert access.credentials(connection) == (4_000_000_000, 4_000_000_001)


def test_a_user_without_a_name_has_none() -> None:
    assert access.name_of(0) == "root"
    assert access.name_of(3_999_999_999) is None


@only_root
def test_who_may_look_may_export_what_is_known(place: Path) -> None:
    place.chmod(0o755)

    async def scenario() -> None:
        daemon = Daemon(Roles(OPERATORS, VIEWERS))
        Port(daemon, "web")
        asker = ASKER.replace('json.loads(answer.read() or "null")', "answer.read().decode()")
        async with served(place, daemon) as api:
            for groups, status, begin in (([2], 200, "vmaccord-session 2\n"), ([], 403, '{"type"')):
                question = json.dumps([api.control, "GET", "/v1/guests/web/session", NOBODY, NOBODY, groups, None])
                ran = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-c", asker, question, stdout=subprocess.PIPE
                )
                out, _ = await ran.communicate()
                answered, text = json.loads(out)
                assert answered == status
                assert text.startswith(begin)

    run(scenario())
