"""Containers, asked of a server on a real socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from guest_agent.collectors import docker
from guest_agent.collectors.containers import containers
from tests.guest_agent.parts import GIVE_UP

Serve = Callable[[bytes], str]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Answers one request with the given bytes; returns the root in which Docker seems to run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    threads: list[threading.Thread] = []

    def serve(answer: bytes) -> str:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("run/docker.sock")
        listener.listen()
        threads.append(threading.Thread(target=answer_once, args=(listener, answer)))
        threads[-1].start()
        return os.curdir

    yield serve
    for thread in threads:
        thread.join(GIVE_UP)


def answer_once(listener: socket.socket, answer: bytes) -> None:
    with listener:
        connection, _ = listener.accept()
    with connection:
        request = connection.recv(65536)
        assert request.startswith(b"GET /containers/json HTTP/1.1\r\n")
        connection.settimeout(GIVE_UP)
        try:
            connection.sendall(answer)
        except OSError:
            return


def http(body: Any, status: str = "200 OK") -> bytes:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(encoded)}\r\n\r\n".encode() + encoded


def test_a_machine_without_docker_has_no_containers(tmp_path: Path) -> None:
    assert containers(str(tmp_path)).containers == ()


def test_running_containers_are_reported_with_their_members(serve: Serve) -> None:
    listed = {
        "Id": "abc",
        "Names": ["/web", "/other/web"],
        "Image": "nginx",
        "Command": "nginx -g",
        "Status": "Up 2 hours",
        "Ports": [],
    }
    assert containers(serve(http([listed]))).containers == (
        {"id": "abc", "names": ["/web", "/other/web"], "image": "nginx", "command": "nginx -g", "status": "Up 2 hours"},
    )


def test_members_of_wrong_types_become_empty(serve: Serve) -> None:
    root = serve(http([{"Id": 7, "Names": ["ok", 7]}, {"Names": "no"}, "no container"]))
    empty = {"id": "", "names": [], "image": "", "command": "", "status": ""}
    assert containers(root).containers == ({**empty, "names": ["ok"]}, empty)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http({}), "no list"),
        (http(b"garbage"), "Expecting value"),
        (http([], "500 Broken"), "status 500"),
        (http(b"x" * (docker.ANSWER_LIMIT + 1)), "bytes"),
        (b"garbage\r\n\r\n", "does not speak HTTP"),
        (b"", "Remote end closed|does not speak HTTP"),
    ],
)
def test_an_answer_that_is_none_is_an_error(serve: Serve, answer: bytes, expected: str) -> None:
    with pytest.raises((ValueError, OSError), match=expected):
        containers(serve(answer))


def test_a_docker_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(docker, "PATIENCE", 0.01)
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("run/docker.sock")
        listener.listen()
        with pytest.raises(OSError, match="timed out"):
            containers(os.curdir)


def test_a_socket_that_nobody_serves_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("run/docker.sock")
    with pytest.raises(ConnectionRefusedError):
        containers(os.curdir)
