"""Containers, asked of a server on a real socket or of the podman program."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from guest_agent import processes
from guest_agent.collectors import docker
from guest_agent.collectors.containers import containers
from tests.guest_agent.parts import GIVE_UP

from .conftest import Program

DOCKER = "run/docker.sock"
PODMAN = "run/podman/podman.sock"

WEB = {
    "Id": "abc",
    "Names": ["/web", "/other/web"],
    "Image": "nginx",
    "Command": "nginx -g",
    "Status": "Up 2 hours",
    "Ports": [],
}
REPORTED_WEB = {
    "id": "abc",
    "names": ["/web", "/other/web"],
    "image": "nginx",
    "command": "nginx -g",
    "status": "Up 2 hours",
}
EMPTY = {"id": "", "names": [], "image": "", "command": "", "status": ""}

Serve = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Short, as paths of sockets must be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/podman").mkdir(parents=True)
    return os.curdir


@pytest.fixture
def serve(root: str) -> Iterator[Serve]:
    """Answers one request with the given bytes, at the place of an engine."""
    threads: list[threading.Thread] = []

    def serve(answer: bytes, path: str = DOCKER) -> None:
        threads.append(threading.Thread(target=answer_once, args=(listen(path), answer)))
        threads[-1].start()

    yield serve
    for thread in threads:
        thread.join(GIVE_UP)


@pytest.fixture
def silent(root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """An engine that listens, and never answers."""
    monkeypatch.setattr(docker, "PATIENCE", 0.01)
    listeners: list[socket.socket] = []
    yield lambda path: listeners.append(listen(path))
    for listener in listeners:
        listener.close()


def listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    return listener


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


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


@pytest.fixture
def found(root: str, no_program: processes.Run) -> Callable[[], Any]:
    return lambda: containers(root, no_program).containers


# ---- Who is asked ----


def test_a_machine_without_engines_has_no_containers(found: Any) -> None:
    assert found() == ()


def test_running_containers_are_reported_with_their_members(serve: Serve, found: Any) -> None:
    serve(http([WEB]))
    assert found() == (REPORTED_WEB,)


def test_containers_of_docker_and_podman_are_reported(serve: Serve, found: Any) -> None:
    serve(http([WEB]))
    serve(http([{"Id": "def"}]), PODMAN)
    assert found() == (REPORTED_WEB, {**EMPTY, "id": "def"})


def test_podman_under_dockers_name_is_asked_once(serve: Serve, found: Any) -> None:
    Path(DOCKER).symlink_to("podman/podman.sock")
    serve(http([WEB]), PODMAN)
    assert found() == (REPORTED_WEB,)


def test_an_engine_may_answer_in_chunks(serve: Serve, found: Any) -> None:
    body = json.dumps([WEB]).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:], b""))
    serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert found() == (REPORTED_WEB,)


# ---- What is answered ----


def test_members_of_wrong_types_become_empty(serve: Serve, found: Any) -> None:
    serve(http([{"Id": 7, "Names": ["ok", 7], "Command": {"a": 1}}, {"Names": "one", "Status": []}, "no container"]))
    assert found() == ({**EMPTY, "names": ["ok"]}, {**EMPTY, "names": ["one"]})


def test_no_list_at_all_is_an_empty_one(serve: Serve, found: Any) -> None:
    serve(http(None))
    assert found() == ()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http({}), r"docker\.sock does not answer with a list"),
        (http(b"garbage"), r"docker\.sock does not answer in JSON"),
        (http(b"\xff\xff"), "does not answer in JSON"),
        (http(b"[" * 100_000), "does not answer in JSON"),
        (http([], "500 Broken"), "status 500"),
        (http([], "301 Moved\r\nLocation: http://192.0.2.1/"), "status 301"),
        (http(b"x" * (docker.ANSWER_LIMIT + 1)), "bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "does not speak HTTP: IncompleteRead|in JSON"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "does not speak HTTP"),
        (b"garbage\r\n\r\n", "does not speak HTTP"),
        (b"", "Remote end closed|does not speak HTTP"),
    ],
)
def test_an_answer_that_is_none_is_an_error(serve: Serve, found: Any, answer: bytes, expected: str) -> None:
    serve(answer)
    with pytest.raises((ValueError, OSError), match=expected):
        found()


@pytest.mark.parametrize("path", [DOCKER, PODMAN])
def test_an_engine_that_does_not_answer_is_not_waited_for(silent: Callable[[str], None], path: str, found: Any) -> None:
    silent(path)
    with pytest.raises(OSError, match="timed out"):
        found()


def test_a_socket_that_nobody_serves_is_an_error(found: Any) -> None:
    listen(DOCKER).close()
    with pytest.raises(ConnectionRefusedError):
        found()


def test_a_file_in_place_of_a_socket_is_an_error(found: Any) -> None:
    write(DOCKER, "")
    with pytest.raises(ConnectionRefusedError):
        found()


# ---- The podman program ----


@pytest.fixture
def podman(root: str) -> str:
    """Podman does not listen, and has containers."""
    write("usr/bin/podman", "")
    write("var/lib/containers/storage/overlay-containers/containers.json", '[{"id": "1"}]')
    return root


@pytest.mark.parametrize(
    "listed",
    [
        {"Id": "abc", "Names": ["web"], "Image": "nginx", "Command": ["nginx", "-g"], "Status": "", "State": "running"},
        {"ID": "abc", "Names": "web", "Image": "nginx", "Command": ["nginx", "-g"], "Status": "running"},
    ],
)
def test_podman_is_run_where_it_does_not_listen(listed: dict[str, Any], podman: str, program: Program) -> None:
    program.answer = json.dumps([listed]).encode()
    assert containers(podman, program.run).containers == (
        {"id": "abc", "names": ["web"], "image": "nginx", "command": "nginx -g", "status": "running"},
    )
    assert program.ran == [["podman", "--log-level", "error", "ps", "--format", "json"]]


@pytest.mark.parametrize("answer", [b"[]\n", b"null\n"])
def test_podman_may_know_that_none_is_running(answer: bytes, podman: str, program: Program) -> None:
    program.answer = answer
    assert containers(podman, program.run).containers == ()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (processes.Finished(125, b"Error: database is locked\n"), "podman ps ended with status 125; run it by hand"),
        (processes.Finished(-9, b"[]"), "podman ps was ended by signal 9"),
        (processes.Finished(0, b"[" + b" " * 5_000_000 + b"]"), "podman does not answer in JSON"),
        (processes.Finished(0, b"WARN[0000] text\n[]"), "podman does not answer in JSON"),
    ],
)
def test_a_podman_that_fails_or_floods_is_an_error(
    answer: processes.Finished, expected: str, podman: str, program: Program
) -> None:
    program.answer = answer
    with pytest.raises(ValueError, match=expected):
        containers(podman, program.run)


@pytest.mark.parametrize("error", [processes.ProgramMissing("no podman"), processes.ProgramTimedOut("podman hung")])
def test_a_podman_that_is_missing_or_hangs_is_an_error(error: processes.ProgramError, podman: str, program: Program) -> None:
    program.answer = error
    with pytest.raises(type(error)):
        containers(podman, program.run)
