"""The emulated port behaves as the measured one does, as far as the demonstration needs it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
import select
import socket
from collections.abc import Iterator

import pytest

from host_agent.demo import emulator


class Watched:
    """A port with a queue of what it showed."""

    def __init__(self) -> None:
        self.shown: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.port = emulator.EmulatedPort(lambda what, line, at: self.shown.put((what, line)))

    def next(self) -> tuple[str, bytes]:
        return self.shown.get(timeout=30)


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    with watched.port:
        yield watched


def test_bytes_go_both_ways_and_each_line_is_shown(watched: Watched, tmp_path: pathlib.Path) -> None:
    watched.port.plug(tmp_path / "domain-1-web")
    with _guest(watched) as guest, _host(tmp_path / "domain-1-web") as host:
        assert watched.next() == (emulator.CONNECTED, b"")
        host.sendall(b"\nto the guest\n")
        assert _read(guest, 14) == b"\nto the guest\n"
        os.write(guest, b"to the host\n")
        assert host.recv(100) == b"to the host\n"
        assert {watched.next(), watched.next()} == {
            (emulator.TO_GUEST, b"to the guest"),
            (emulator.TO_HOST, b"to the host"),
        }


def test_a_move_cuts_the_host_off_and_leaves_the_guest_alone(watched: Watched, tmp_path: pathlib.Path) -> None:
    watched.port.plug(tmp_path / "a" / "web")
    with _guest(watched) as guest:
        with _host(tmp_path / "a" / "web") as host:
            assert watched.next() == (emulator.CONNECTED, b"")
            watched.port.unplug()
            assert host.recv(1) == b""
            assert watched.next() == (emulator.DISCONNECTED, b"")
        assert list((tmp_path / "a").iterdir()) == []
        watched.port.plug(tmp_path / "b" / "web")
        with _host(tmp_path / "b" / "web") as host:
            host.sendall(b"hello\n")
            assert _read(guest, 6) == b"hello\n"


def test_a_second_client_gets_its_turn_when_the_first_leaves(watched: Watched, tmp_path: pathlib.Path) -> None:
    watched.port.plug(tmp_path / "web")
    with _guest(watched) as guest, _host(tmp_path / "web") as first:
        assert watched.next() == (emulator.CONNECTED, b"")
        with _host(tmp_path / "web") as second:
            second.sendall(b"second\n")
            first.sendall(b"first\n")
            assert _read(guest, 6) == b"first\n"
            first.close()
            assert _read(guest, 7) == b"second\n"


def test_a_guest_that_does_not_read_stops_the_host_and_loses_nothing(watched: Watched, tmp_path: pathlib.Path) -> None:
    watched.port.plug(tmp_path / "web")
    with _guest(watched) as guest, _host(tmp_path / "web") as host:
        host.setblocking(False)
        sent = 0
        while select.select([], [host], [], 1)[1]:
            sent += host.send(b"x" * 1023 + b"\n")
        assert sent > 64 * 1024
        assert len(_read(guest, sent)) == sent


def _host(vm: pathlib.Path) -> socket.socket:
    host = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    host.settimeout(30)
    host.connect(str(vm / emulator.PORT_NAME))
    return host


@contextlib.contextmanager
def _guest(watched: Watched) -> Iterator[int]:
    """The guest's end, opened as an agent opens it."""
    descriptor = os.open(watched.port.guest_path, os.O_RDWR | os.O_NOCTTY)
    yield descriptor
    os.close(descriptor)


def _read(descriptor: int, size: int) -> bytes:
    received = b""
    while len(received) < size:
        assert select.select([descriptor], [], [], 30)[0]
        received += os.read(descriptor, size - len(received))
    return received
