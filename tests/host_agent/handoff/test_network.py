from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from common.handoff import frames, refusals
from common.handoff.refusals import Code
from host_agent.config import Address, Peer
from host_agent.exits import Exit
from host_agent.handoff import network
from host_agent.handoff.network import CONNECTIONS, Connection, ConnectionLost, Doors, ListenFailed, Unreachable, dial
from host_agent.handoff.security import PLAIN_TEXT, Security, SecurityError
from tests.host_agent.handoff.certificates import Authority, openssl, trusting, with_peers
from tests.host_agent.handoff.namespaces import Host, two_hosts
from tests.host_agent.own_time import in_own_time
from tests.host_agent.parts import PATIENCE, ROOT, run, until

PLAIN = Security(PLAIN_TEXT)

#: So long waits who is to wait in vain, in seconds.
SHORT = 0.05

#: A transfer of a session is not larger.
LARGE = 8 * 1024 * 1024


class Visits:
    """Serves connections: echoes until the peer has ended, and keeps how each ended."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.ends: list[str] = []

    async def echo(self, connection: Connection) -> None:
        self.peers.append(connection.peer)
        try:
            while data := await connection.read(PATIENCE):
                await connection.write(data, PATIENCE)
            self.ends.append("")
        except ConnectionLost as error:
            self.ends.append(str(error))
            raise


@contextlib.asynccontextmanager
async def opened(security: Security, serve: Callable[[Connection], Awaitable[None]]) -> AsyncIterator[tuple[Doors, Peer]]:
    """Doors on this machine, and what a host calls them."""
    doors = Doors(asyncio.get_running_loop(), serve)
    await doors.open([Address("127.0.0.1", 0)], security)
    try:
        yield doors, Peer("b", address_of(doors))
    finally:
        await doors.close()


def address_of(doors: Doors) -> Address:
    host, _, port = doors.status()[0]["address"].rpartition(":")
    return Address(host, int(port))


async def echoed(peer: Peer, security: Security, data: bytes = b"a word") -> bytes:
    """What comes back, over a connection of its own."""
    connection = await dial(peer, security, PATIENCE)
    writing = asyncio.ensure_future(connection.write(data, PATIENCE))
    try:
        received = b""
        while len(received) < len(data):
            more = await connection.read(PATIENCE)
            if not more:
                break
            received += more
        await writing
        return received
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        connection.close()


async def refusal(peer: Peer, security: Security) -> str:
    """The sentence with which a call ends: while it is made, or when the first answer is read."""
    try:
        connection = await dial(peer, security, PATIENCE)
        await connection.write(frames.pack_request(frames.start(1)), PATIENCE)
        answer = await connection.read(PATIENCE)
    except (ConnectionLost, Unreachable) as error:
        return str(error)
    connection.close()
    return f"no refusal: {answer!r}"


@contextlib.asynccontextmanager
async def raw(peer: Peer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of who keeps to nothing."""
    reader, writer = await asyncio.open_connection(*peer.address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def stranger(say: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Peer]:
    """A server that is no host daemon."""
    server = await asyncio.start_server(say, "127.0.0.1", 0)
    try:
        yield Peer("b", Address(*server.sockets[0].getsockname()[:2]))
    finally:
        server.close()
        await server.wait_closed()


async def no_service(connection: Connection) -> None:
    raise AssertionError(f"{connection.peer} was let in")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(place: Path) -> Authority:
    return Authority(place)


@pytest.fixture(scope="module")
def other(place: Path) -> Authority:
    return Authority(place, "other")


@pytest.fixture(scope="module")
def source(authority: Authority) -> Security:
    return authority.issue("source", "DNS:host-a.example.org,IP:192.0.2.1")


@pytest.fixture(scope="module")
def destination(authority: Authority) -> Security:
    return authority.issue("destination")


@pytest.fixture(params=["tls", "plain-text"])
def both(request: pytest.FixtureRequest, source: Security, destination: Security) -> tuple[Security, Security]:
    """How source and destination are protected."""
    return (source, destination) if request.param == "tls" else (PLAIN, PLAIN)


# ---- Peers that are let in ----


def test_what_is_said_arrives_and_an_end_is_seen(both: tuple[Security, Security]) -> None:
    async def scenario() -> None:
        visits = Visits()
        async with opened(both[1], visits.echo) as (doors, peer):
            assert await echoed(peer, both[0]) == b"a word"
            await until(lambda: visits.ends)
            await until(lambda: not doors.status()[0]["connections"])
        assert visits.ends == [""]

    run(scenario())


def test_a_large_document_arrives_though_both_ends_write(both: tuple[Security, Security]) -> None:
    async def scenario() -> None:
        document = bytes(range(256)) * (LARGE // 256)
        async with opened(both[1], Visits().echo) as (_, peer):
            assert await echoed(peer, both[0], document) == document

    run(scenario())


def test_a_peer_is_called_by_the_configuration_else_by_its_certificate_else_by_its_address(
    source: Security, destination: Security
) -> None:
    async def scenario() -> None:
        visits = Visits()
        named = with_peers(destination, Peer("web", Address("192.0.2.9", 1)), Peer("a", Address("HOST-A.example.org", 1)))
        for security, caller in ((named, source), (destination, source), (PLAIN, PLAIN)):
            async with opened(security, visits.echo) as (_, peer):
                connection = await dial(peer, caller, PATIENCE)
                assert connection.peer == "b"
                await connection.write(b"x", PATIENCE)
                assert await connection.read(PATIENCE) == b"x"
                connection.close()
        assert visits.peers[:2] == ["a", "host-a.example.org"]
        assert re.fullmatch(r"127\.0\.0\.1:\d+", visits.peers[-1])

    run(scenario())


def test_an_open_door_tells_where_it_is_and_who_is_inside(destination: Security) -> None:
    async def scenario() -> None:
        visits = Visits()
        async with opened(PLAIN, visits.echo) as (doors, peer):
            connection = await dial(peer, PLAIN, PATIENCE)
            await until(lambda: visits.peers)
            assert doors.status() == [{"address": str(peer.address), "security": "plain-text", "connections": 1}]
            connection.close()

    run(scenario())


def test_a_certificate_that_is_replaced_counts_with_the_next_connection(
    source: Security, destination: Security, authority: Authority, place: Path
) -> None:
    async def scenario() -> None:
        expired = authority.issue("renewed", days=-1)
        async with opened(expired, Visits().echo) as (_, peer):
            assert "has expired" in await refusal(peer, source)
            authority.issue("renewed")
            assert await echoed(peer, source) == b"a word"

    run(scenario())


# ---- Certificates that are not accepted ----


def test_a_destination_without_a_right_certificate_is_named_by_the_source(
    source: Security, authority: Authority, other: Authority
) -> None:
    async def scenario(security: Security) -> str:
        async with opened(security, no_service) as (_, peer):
            return (await refusal(peer, source)).replace(str(peer.address), "ADDRESS")

    def sentence(security: Security) -> str:
        return run(scenario(security))

    the_certificate = "the certificate of b (ADDRESS) "
    expired = sentence(authority.issue("old-destination", days=-1))
    assert expired == f"{the_certificate}has expired, or its CA has: have a new one issued"
    wrong = sentence(trusting(other.issue("wrong-destination"), authority))
    assert wrong.startswith(f"{the_certificate}is not of the CA in {authority.certificate}: have one issued by that")
    assert sentence(authority.issue("elsewhere", "IP:192.0.2.2")).startswith(f"{the_certificate}is for another address: ")
    assert sentence(authority.issue("nameless", "")).startswith(f"{the_certificate}is for another ")
    assert sentence(authority.issue("client", usage="clientAuth")).startswith(f"{the_certificate}is not for this: ")


def test_a_certificate_for_another_name_is_told_from_one_for_another_address(authority: Authority, source: Security) -> None:
    async def scenario() -> None:
        async with opened(authority.issue("by-address", "DNS:host-b"), no_service) as (_, peer):
            called = Peer("b", Address("localhost", peer.address.port))
            assert " is for another name: have one issued with the right subjectAltName" in await refusal(called, source)

    run(scenario())


@pytest.mark.parametrize(
    ("made", "at_the_source", "at_the_destination"),
    [
        (
            "expired",
            "b refuses this host's certificate ({certificate}): it has expired, or the clock there is wrong",
            "the certificate of ADDRESS has expired, or its CA has: have a new one issued",
        ),
        (
            "wrong",
            "b refuses this host's certificate ({certificate}): it is not of the CA that is trusted there",
            "the certificate of ADDRESS is not of the CA in {ca}: have one issued by that",
        ),
        (
            "server",
            "b refuses this host's certificate ({certificate}): have one issued whose extended key usage",
            "the certificate of ADDRESS is not for this: have one issued",
        ),
    ],
)
def test_a_source_without_a_right_certificate_is_told_so_and_logged(
    made: str,
    at_the_source: str,
    at_the_destination: str,
    destination: Security,
    authority: Authority,
    other: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = {
        "expired": lambda: authority.issue("old-source", days=-1),
        "wrong": lambda: trusting(other.issue("wrong-source"), authority),
        "server": lambda: authority.issue("server", usage="serverAuth"),
    }[made]()

    async def scenario() -> None:
        async with opened(destination, no_service) as (_, peer):
            sentence = await refusal(peer, wrong)
            assert sentence.startswith(at_the_source.format(certificate=wrong.certificate))
            await until(lambda: caplog.messages)

    run(scenario())
    (line,) = caplog.messages
    expected = at_the_destination.format(ca=authority.certificate)
    assert re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", line).startswith(f"hand-off: {expected}")


def test_a_source_without_a_certificate_is_logged(
    source: Security, destination: Security, caplog: pytest.LogCaptureFixture
) -> None:
    class Without(Security):
        def client_context(self) -> Any:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(self.ca)
            return context

    async def scenario() -> None:
        async with opened(destination, no_service) as (_, peer):
            sentence = await refusal(peer, Without("tls", "none", "none", source.ca))
            assert sentence.startswith("b refuses this host's certificate (none): it was not shown: ")
            await until(lambda: caplog.messages)

    run(scenario())
    assert "shows no certificate: name one there, of this host's CA, in [handoff] certificate" in caplog.text


def test_a_source_whose_certificate_is_for_no_peer_gets_a_refusal_for_its_first_request(
    source: Security, destination: Security, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> bytes:
        expecting = with_peers(destination, Peer("c", Address("192.0.2.3", 7788)))
        async with opened(expecting, no_service) as (_, peer):
            connection = await dial(peer, source, PATIENCE)
            await connection.write(frames.pack_request(frames.start(1)), PATIENCE)
            answer = await connection.read(PATIENCE)
            assert await connection.read(PATIENCE) == b""
            connection.close()
            await until(lambda: caplog.messages)
            return answer

    (response,) = frames.ResponseReader().feed(run(scenario()))
    assert response.status is frames.Status.ERROR
    refused = refusals.unpack(response.payload)
    assert refused.code == Code.NOT_ADMITTED.value
    assert re.fullmatch(
        r"the certificate of 127\.0\.0\.1:\d+ is for host-a\.example\.org, 192\.0\.2\.1, "
        r"and no peer has that address here: name it in \[handoff\] peers here",
        refused.message,
    )
    assert refused.message in caplog.text


def test_a_source_whose_own_files_can_not_be_used_says_which(source: Security) -> None:
    async def scenario() -> None:
        with pytest.raises(Unreachable, match=r"^\[handoff\] certificate /none: No such file or directory; "):
            await dial(Peer("b", Address("127.0.0.1", 1)), Security("tls", "/none", source.key, source.ca), PATIENCE)

    run(scenario())


# ---- Those who do not speak TLS where it is spoken, and the reverse ----


def test_a_source_in_plain_text_is_told_that_tls_is_spoken(destination: Security, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> str:
        async with opened(destination, no_service) as (_, peer):
            sentence = await refusal(peer, PLAIN)
            await until(lambda: caplog.messages)
            return sentence

    assert run(scenario()) == "b speaks TLS, and this host does not: set [handoff] security to tls on both hosts"
    assert re.search(r"127\.0\.0\.1:\d+ does not speak TLS 1\.3 \(.*\): see that \[handoff\] security is tls", caplog.text)


def test_a_source_in_tls_is_told_that_only_plain_text_is_spoken(source: Security, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> str:
        visits = Visits()
        async with opened(PLAIN, visits.echo) as (_, peer):
            sentence = await refusal(peer, source)
            await until(lambda: caplog.messages)
            return sentence

    assert "does not speak TLS 1.3 (" in run(scenario())
    assert "speaks TLS, and this host does not: set [handoff] security to tls on both hosts" in caplog.text


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 5000, b"\xff" * 100_000, b"\x16\x03\x01\xff\xff" * 9]
)
def test_garbage_costs_only_its_own_connection(
    source: Security, destination: Security, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with opened(destination, Visits().echo) as (_, peer):
            async with raw(peer) as (reader, writer):
                writer.write(garbage)
                with contextlib.suppress(OSError):
                    await reader.read()
            assert await echoed(peer, source) == b"a word"

    run(scenario())
    (line,) = caplog.messages
    assert "does not speak TLS 1.3" in line or "breaks TLS off" in line


def test_a_destination_that_answers_garbage_does_not_speak_tls(source: Security) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        writer.close()

    async def scenario() -> None:
        async with stranger(garbage) as peer:
            assert "does not speak TLS 1.3 (" in await refusal(peer, source)

    run(scenario())


def test_a_destination_that_ends_the_connection_while_shaking_hands_is_named(source: Security) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write_eof()
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with stranger(leave) as peer:
            assert "ended the connection instead of shaking hands: see that" in await refusal(peer, source)

    run(scenario())


# ---- Those who stall, reset, or are not there ----


def test_nobody_there_is_told_from_a_wrong_name() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            nobody = Peer("b", Address(*taken.getsockname()))
            with pytest.raises(
                Unreachable, match=r"^b \(127\.0\.0\.1:\d+\): Connection refused: see that vmaccord-host runs"
            ):
                await dial(nobody, PLAIN, PATIENCE)
        with pytest.raises(Unreachable, match=r"^b \(host\.invalid:1\): .* not known: see that|^b .*resolution: see that"):
            await dial(Peer("b", Address("host.invalid", 1)), PLAIN, PATIENCE)

    run(scenario())


def test_a_destination_that_accepts_nobody_is_not_waited_for_longer_than_asked() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, contextlib.ExitStack() as filling:
            address = Address(*deaf.getsockname())
            for _ in range(2):
                one = filling.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(tuple(address))
            with pytest.raises(Unreachable, match=r" did not answer within 0\.05 s: see that vmaccord-host runs there"):
                await dial(Peer("b", address), PLAIN, SHORT)

    run(scenario())


def test_a_destination_that_does_not_shake_hands_is_not_waited_for_longer_than_asked(source: Security) -> None:
    async def scenario() -> None:
        unready = r"^b \(.*\) did not shake hands in time: see that \[handoff\] security"
        with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(Unreachable, match=unready):
            await dial(Peer("b", Address(*deaf.getsockname())), source, SHORT * 10)

    run(scenario())


def test_a_source_that_does_not_shake_hands_is_not_waited_for(
    source: Security, destination: Security, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "HANDSHAKE_LIMIT", SHORT)

    async def scenario() -> None:
        async with opened(destination, no_service) as (doors, peer):
            async with raw(peer) as (reader, writer):
                writer.write(b"\x16\x03\x01")
                assert await reader.read() == b""
            await until(lambda: not doors.status()[0]["connections"])

    run(scenario())
    assert "did not shake hands in time" in caplog.text


def test_who_says_nothing_is_not_waited_for_longer_than_asked(both: tuple[Security, Security]) -> None:
    async def scenario() -> None:
        async with opened(both[1], Visits().echo) as (_, peer):
            connection = await dial(peer, both[0], PATIENCE)
            with pytest.raises(ConnectionLost, match=r"^b said nothing for 0\.05 s: see whether that host is overloaded"):
                await connection.read(SHORT)
            with pytest.raises(ConnectionLost, match=r"^the connection with b was closed here$"):
                await connection.read(PATIENCE)
            with pytest.raises(ConnectionLost, match="was closed here"):
                await connection.write(b"x", PATIENCE)

    run(scenario())


def test_who_does_not_read_is_not_waited_for_longer_than_asked(both: tuple[Security, Security]) -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def hold(connection: Connection) -> None:
            await gone.wait()

        async with opened(both[1], hold) as (_, peer):
            connection = await dial(peer, both[0], PATIENCE)
            with pytest.raises(ConnectionLost, match=r"^b did not read for 0\.5 s: see whether"):
                await connection.write(bytes(4 * LARGE), SHORT * 10)
            gone.set()

    run(scenario())


def test_what_is_not_read_yet_is_left_to_the_kernel() -> None:
    async def scenario() -> None:
        gone, kept = asyncio.Event(), []

        async def hold(connection: Connection) -> None:
            kept.append(connection)
            await gone.wait()

        async with opened(PLAIN, hold) as (_, peer):
            connection = await dial(peer, PLAIN, PATIENCE)
            with pytest.raises(ConnectionLost):
                await connection.write(bytes(4 * LARGE), SHORT * 10)
            pipe: Any = kept[0]._inside
            assert 0 < len(pipe._received) < 2 * 1024 * 1024
            gone.set()

    run(scenario())


def reset(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_peer_that_resets_costs_only_its_own_connection(
    both: tuple[Security, Security], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        visits = Visits()
        async with opened(both[1], visits.echo) as (_, peer):
            connection = await dial(peer, both[0], PATIENCE)
            await connection.write(b"a word", PATIENCE)
            assert await connection.read(PATIENCE) == b"a word"
            transport = pipe_of(connection)._transport
            reset(transport.get_extra_info("socket"))
            transport.abort()
            await until(lambda: visits.ends)
            assert await echoed(peer, both[0]) == b"a word"
        assert visits.ends[0].endswith(": Connection reset by peer")

    run(scenario())
    assert "Connection reset by peer" in caplog.text


def pipe_of(connection: Connection) -> Any:
    inside: Any = connection._inside
    return getattr(inside, "_pipe", inside)


def test_a_peer_that_resets_while_shaking_hands_costs_only_its_own_connection(
    source: Security, destination: Security, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with opened(destination, Visits().echo) as (_, peer):
            with socket.create_connection(peer.address) as connected:
                connected.send(b"\x16\x03\x01")
                reset(connected)
            await until(lambda: caplog.messages)
            assert await echoed(peer, source) == b"a word"

    run(scenario())


def test_a_cut_is_an_end_in_tls_as_well(source: Security, destination: Security) -> None:
    async def scenario() -> None:
        visits = Visits()
        async with opened(destination, visits.echo) as (_, peer):
            connection = await dial(peer, source, PATIENCE)
            await until(lambda: visits.peers)
            pipe_of(connection).close()
            await until(lambda: visits.ends)
        assert visits.ends == [""]

    run(scenario())


def test_an_alert_is_found_by_who_writes_to_a_connection_that_broke(destination: Security, authority: Authority) -> None:
    async def scenario() -> None:
        expired = authority.issue("writer", days=-1)
        async with opened(destination, no_service) as (_, peer):
            connection = await dial(peer, expired, PATIENCE)
            await until(lambda: pipe_of(connection)._ended)

            async def write_on() -> None:
                while True:
                    await connection.write(bytes(16), PATIENCE)

            with pytest.raises(ConnectionLost, match=r"b refuses this host's certificate .* it has expired"):
                await write_on()

    run(scenario())


# ---- Doors ----


def test_who_comes_beyond_the_limit_waits_until_somebody_leaves() -> None:
    async def scenario() -> None:
        visits = Visits()
        async with opened(PLAIN, visits.echo) as (doors, peer):
            connections = [await dial(peer, PLAIN, PATIENCE) for _ in range(CONNECTIONS + 5)]
            await until(lambda: len(visits.peers) == CONNECTIONS)
            for connection in connections[CONNECTIONS:]:
                await connection.write(b"a word", PATIENCE)
            inside = connections[0]
            await inside.write(b"x", PATIENCE)
            assert await inside.read(PATIENCE) == b"x"
            assert (len(visits.peers), doors.status()[0]["connections"]) == (CONNECTIONS, CONNECTIONS)
            for connection in connections[:5]:
                connection.close()
            for connection in connections[CONNECTIONS:]:
                assert await connection.read(PATIENCE) == b"a word"
            for connection in connections[5:]:
                connection.close()
            await until(lambda: len(visits.ends) == len(connections))

    run(scenario())


def test_many_hosts_at_once_all_get_their_turn(source: Security, destination: Security) -> None:
    async def scenario() -> None:
        async with opened(destination, Visits().echo) as (_, peer):
            results = await asyncio.gather(*(echoed(peer, source, b"%d" % each) for each in range(60)))
        assert results == [b"%d" % each for each in range(60)]

    run(scenario())


def test_doors_that_are_closed_end_all_connections_also_those_that_just_begin() -> None:
    async def scenario() -> None:
        visits = Visits()
        async with opened(PLAIN, visits.echo) as (doors, peer):
            inside = await dial(peer, PLAIN, PATIENCE)
            await until(lambda: visits.peers)
            with socket.create_connection(peer.address):
                await until(lambda: len(doors._inside) == 2)
                await doors.close()
            assert await inside.read(PATIENCE) == b""
            inside.close()
            assert doors.status() == []
            with pytest.raises(Unreachable, match="Connection refused"):
                await dial(peer, PLAIN, PATIENCE)

    run(scenario())


def test_doors_are_moved_and_who_is_inside_stays() -> None:
    async def scenario() -> None:
        visits = Visits()
        async with opened(PLAIN, visits.echo) as (doors, peer):
            inside = await dial(peer, PLAIN, PATIENCE)
            await until(lambda: visits.peers)
            await doors.open([Address("127.0.0.1", 0), Address("::1", 0)], PLAIN)
            kept, fresh = doors.status()
            assert kept["address"] == str(peer.address)
            assert fresh["address"].startswith("[::1]:")
            other = Peer("c", Address("::1", int(fresh["address"].rpartition(":")[2])))
            assert await echoed(other, PLAIN) == b"a word"
            await doors.open([Address("::1", 0)], PLAIN)
            assert [each["address"] for each in doors.status()] == [fresh["address"]]
            assert await echoed(other, PLAIN) == b"a word"
            await inside.write(b"still here", PATIENCE)
            assert await inside.read(PATIENCE) == b"still here"
            inside.close()
            await doors.open([], PLAIN)
            assert doors.status() == []

    run(scenario())


def test_what_can_not_be_listened_at_leaves_everything_as_it_was(source: Security) -> None:
    async def scenario() -> None:
        async with opened(PLAIN, Visits().echo) as (doors, peer):
            before = doors.status()
            with socket.create_server(("127.0.0.1", 0)) as taken:
                occupied = Address(*taken.getsockname())
                in_use = rf"^\[handoff\] listen {occupied}: Address already in use; name an address of this host, and a port"
                with pytest.raises(ListenFailed, match=in_use) as caught:
                    await doors.open([Address("::1", 0), occupied], PLAIN)
            assert caught.value.status is Exit.BAD_CONFIGURATION
            with pytest.raises(ListenFailed, match="Cannot assign requested address"):
                await doors.open([Address("192.0.2.77", 0)], PLAIN)
            with pytest.raises(SecurityError, match=r"^\[handoff\] key /none: No such file"):
                await doors.open([Address("127.0.0.1", 0)], Security("tls", source.certificate, "/none", source.ca))
            assert doors.status() == before
            assert await echoed(peer, PLAIN) == b"a word"

    run(scenario())


def test_a_certificate_of_its_own_that_no_peer_will_accept_is_logged(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    expired = authority.issue("own", days=-1)

    async def scenario() -> None:
        async with opened(expired, no_service):
            pass

    run(scenario())
    assert f"[handoff] certificate {expired.certificate} has expired" in caplog.text


def test_files_that_became_unusable_cost_a_peer_its_connection(
    source: Security, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    destination = authority.issue("vanishing")

    async def scenario() -> None:
        async with opened(destination, no_service) as (_, peer):
            os.unlink(destination.key)
            assert "ended the connection instead of shaking hands" in await refusal(peer, source)

    run(scenario())
    assert f"hand-off: [handoff] key {destination.key}: No such file or directory" in caplog.text


def test_where_the_system_lets_nobody_in_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Exhausted:
        """A listening socket of a process without descriptors."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.errors = [OSError(errno.EMFILE, "x"), BlockingIOError()]

        def accept(self) -> Any:
            if self.errors:
                raise self.errors.pop(0)
            return self.real.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    async def scenario() -> None:
        async with opened(PLAIN, Visits().echo) as (doors, peer):
            for address, listening in list(doors._listening.items()):
                exhausted: Any = Exhausted(listening)
                doors._listening[address] = exhausted
            assert await echoed(peer, PLAIN) == b"a word"

    in_own_time(scenario())
    assert re.search(r"127\.0\.0\.1:0: Too many open files: nobody can come in for a moment", caplog.text)


def test_doors_close_while_they_wait_for_the_system(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with opened(PLAIN, no_service) as (doors, _):
            doors._respite = asyncio.get_running_loop().call_later(1.0, doors._recover)

    run(scenario())


def test_an_error_that_should_not_happen_is_logged_and_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(connection: Connection) -> None:
        raise ValueError("a mistake")

    async def scenario() -> None:
        async with opened(PLAIN, fail) as (_, peer):
            for _ in range(2):
                connection = await dial(peer, PLAIN, PATIENCE)
                assert await connection.read(PATIENCE) == b""
                connection.close()

    run(scenario())
    assert caplog.text.count("unexpected error in a hand-off, please report it: ValueError('a mistake')") == 2


def test_who_stays_outside_can_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def give_up(connection: Connection) -> None:
        raise ConnectionLost("not today")

    async def scenario() -> None:
        async with opened(PLAIN, give_up) as (_, peer):
            for _ in range(2):
                for _ in range(30):
                    connection = await dial(peer, PLAIN, 5.0)
                    assert await connection.read(5.0) == b""
                    connection.close()
                await asyncio.sleep(100.0)

    in_own_time(scenario())
    assert caplog.messages == ["hand-off: not today"] * 20


# ---- Two hosts ----


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of the documentation were run, as they stand."""
    openssl("version")
    page = (ROOT / "docs/handoff.md").read_text(encoding="utf-8")
    found = re.search(r"^## Certificates\n.*?^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    place = tmp_path_factory.mktemp("documented")
    assert len(found[1].splitlines()) == 5
    subprocess.run(["sh", "-e"], input=found[1], cwd=place, capture_output=True, text=True, check=True)
    return place


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as both_hosts:
        yield both_hosts


def host_of(place: Path, name: str) -> Security:
    """The host *name* of the documentation."""
    return Security("tls", f"{place}/{name}-cert.pem", f"{place}/{name}-key.pem", f"{place}/ca.pem")


def end(host: Host, what: str, address: str, security: Security) -> subprocess.Popen[str]:
    files = (security.certificate, security.key, security.ca)
    command = [*host.inside, sys.executable, "-m", "tests.host_agent.handoff.end", what, address, *files]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_the_certificates_of_the_documentation_are_right_and_their_keys_are_private(documented: Path) -> None:
    for name in ("host-a", "host-b"):
        assert list(host_of(documented, name).complaints()) == []


def test_two_hosts_speak_by_the_certificates_of_the_documentation_and_others_are_told_why_not(
    documented: Path, hosts: tuple[Host, Host], source: Security
) -> None:
    host_a, host_b = hosts
    address = f"{host_b.address}:7788"
    with end(host_b, "listen", address, host_of(documented, "host-b")) as listener:
        assert listener.stdout is not None
        try:
            assert listener.stdout.readline() == "ready\n"
            right = host_of(documented, "host-a")
            for security, sentence in (
                (dataclasses.replace(source, ca=right.ca), "b refuses this host's certificate ("),
                (source, f"the certificate of b ({address}) is not of the CA in "),
                (right, "a word\n"),
            ):
                with end(host_a, "dial", address, security) as caller:
                    assert caller.communicate(timeout=PATIENCE)[0].startswith(sentence)
            assert listener.communicate(timeout=PATIENCE)[0] == "served host-a.example.org\n"
        finally:
            listener.kill()
