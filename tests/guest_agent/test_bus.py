"""Asking on the bus: what the tests of its users, commands and collectors, leave open."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from guest_agent.bus import Bus
from guest_agent.logind import BUS

from .commands import peer as peers

#: No test waits for so long.
DEADLINE = 30.0


def test_what_a_service_returns_is_told(tmp_path: Path) -> None:
    peer = peers.Bus(tmp_path)
    peer.answers["Add"] = lambda call: ("u", (sum(call.arguments),))
    with Bus(str(tmp_path / BUS), DEADLINE) as bus:
        assert bus.call("org.example.Sums", "/sums", "org.example.Adder", "Add", "uu", 2, 3) == (5,)
    peer.close()
    assert peer.calls == [peers.Call("/sums", "org.example.Adder", "Add", (2, 3))]


def test_a_bus_that_sends_garbage_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "bus"))
        listening.listen()
        with pytest.raises(OSError, match="sends what is no message"):
            _meet_a_babbler(listening, str(tmp_path / "bus"))


def _meet_a_babbler(listening: socket.socket, path: str) -> None:
    import threading

    def babble() -> None:
        client, _ = listening.accept()
        with client:
            client.recv(4096)
            client.sendall(b"OK 00000000000000000000000000000000\r\n")
            client.recv(4096)
            client.sendall(b"?" * 64)
            while client.recv(4096):
                pass

    thread = threading.Thread(target=babble)
    thread.start()
    try:
        Bus(path, DEADLINE)
    finally:
        thread.join()
