from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.client.failures import ClientError, DaemonUnreachable, Disabled, UnexpectedAnswer
from host_agent.client.transport import Transport
from host_agent.exits import Exit
from tests.host_agent.parts import another_user

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"


@contextlib.contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Somebody who answers one question with these bytes; yields the questions."""
    questions: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                questions.append(read_question(connection))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield questions
        thread.join()


def read_question(connection: socket.socket) -> bytes:
    """A whole question: what it carries may come behind its head."""
    question = b""
    while b"\r\n\r\n" not in question:
        question += connection.recv(4096)
    length = re.search(rb"Content-Length: (\d+)", question)
    while length is not None and len(question.partition(b"\r\n\r\n")[2]) < int(length[1]):
        question += connection.recv(4096)
    return question


@contextlib.contextmanager
def silent(path: Path, answer: bytes = b"") -> Iterator[None]:
    """Somebody who says this much and then neither more nor hangs up."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        accepted: list[socket.socket] = []

        def serve() -> None:
            accepted.append(listening.accept()[0])
            accepted[0].sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            accepted[0].close()


def transport(path: Path, timeout: float = 10.0) -> Transport:
    return Transport(str(path), timeout)


def json_answer(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


# ---- Nobody answers ----


def test_a_daemon_that_does_not_run_is_unreachable(place: Path) -> None:
    with pytest.raises(DaemonUnreachable, match=r"no daemon at .*none.sock .*: start vmaccord-host") as caught:
        transport(place / "none.sock").ask("GET", "/")
    assert caught.value.status is Exit.UNREACHABLE


def test_a_socket_on_which_nobody_listens_is_unreachable(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "dead.sock"))
    with pytest.raises(DaemonUnreachable, match="Connection refused"):
        transport(place / "dead.sock").ask("GET", "/")


def test_a_path_that_no_socket_can_have_is_unreachable() -> None:
    with pytest.raises(DaemonUnreachable, match="path too long"):
        transport(Path("/" + "x" * 200)).ask("GET", "/")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_socket_of_another_user_is_unreachable(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "x.sock"))
        listening.listen(1)
        (place / "x.sock").chmod(0o600)
        place.chmod(0o755)
        advice = "permission denied; run as root or as the user that vmaccord-host runs as, or let it name a group of yours"
        with another_user(), pytest.raises(DaemonUnreachable, match=advice):
            transport(place / "x.sock").ask("GET", "/")


def test_a_daemon_that_does_not_answer_is_unreachable(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "x.sock"))
        listening.listen(1)
        with pytest.raises(DaemonUnreachable, match="does not answer; look at its log"):
            transport(place / "x.sock", timeout=0.01).ask("GET", "/")


# ---- Somebody answers ----


def test_an_answer_is_read_as_json(place: Path) -> None:
    with answering(place / "x.sock", json_answer("200 OK", b'{"a": 1}')) as questions:
        assert transport(place / "x.sock").ask("POST", "/x", {"b": 2}) == {"a": 1}
    assert questions[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert b"Content-Type: application/json\r\n" in questions[0]
    assert questions[0].endswith(b'\r\n\r\n{"b": 2}')


def test_bytes_are_carried_as_they_are(place: Path) -> None:
    with answering(place / "x.sock", json_answer("200 OK", b"{}")) as questions:
        assert transport(place / "x.sock").ask("POST", "/x", b"\x00\xff") == {}
    assert b"Content-Type: application/octet-stream\r\n" in questions[0]
    assert questions[0].endswith(b"\r\n\r\n\x00\xff")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        json_answer("200 OK", b"<html>"),
        json_answer("200 OK", b"\xff"),
        json_answer("200 OK", b"[" * 100_000),
        json_answer("500 Oops", b'{"detail": "\\u001b[31m"}'),
        json_answer("500 Oops", b"[]"),
        json_answer("502 Oops", b"<html>"),
        json_answer("404 Not Found", b'{"type": "other"}'),
    ],
)
def test_an_answer_that_is_not_the_daemons_is_unexpected(place: Path, answer: bytes) -> None:
    with answering(place / "x.sock", answer), pytest.raises(ClientError) as caught:
        transport(place / "x.sock").ask("GET", "/")
    assert isinstance(caught.value, UnexpectedAnswer)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"])
def test_a_daemon_that_ends_while_it_answers_is_unreachable(place: Path, answer: bytes) -> None:
    with answering(place / "x.sock", answer), pytest.raises(DaemonUnreachable, match="hung up before it had answered"):
        transport(place / "x.sock").ask("GET", "/")


def test_a_problem_is_the_error_that_it_stands_for(place: Path) -> None:
    body = b'{"type": "about:vmaccord/disabled", "detail": "turned off"}'
    with answering(place / "x.sock", json_answer("409 Conflict", body)), pytest.raises(Disabled, match="turned off"):
        transport(place / "x.sock").ask("GET", "/")


# ---- Streams ----


def test_a_stream_is_read_line_by_line_to_its_end(place: Path) -> None:
    with answering(place / "x.sock", STREAM + b"one\r\n\ntwo \xff\nhalf") as questions:
        stream = transport(place / "x.sock").stream("/s", {"Last-Event-ID": "7"}, 10.0)
        with contextlib.closing(stream):
            assert stream.content_type == "text/event-stream"
            assert [stream.read_line(100) for _ in range(5)] == ["one", "", "two \ufffd", None, None]
    assert b"Last-Event-ID: 7\r\n" in questions[0]


def test_a_stream_that_is_silent_for_too_long_is_over(place: Path) -> None:
    with silent(place / "x.sock", STREAM + b"one\n"):
        stream = transport(place / "x.sock").stream("/s", {}, 0.01)
        with contextlib.closing(stream):
            assert [stream.read_line(100), stream.read_line(100)] == ["one", None]


def test_a_line_that_is_too_long_is_refused(place: Path) -> None:
    with answering(place / "x.sock", STREAM + b"x" * 1000):
        stream = transport(place / "x.sock").stream("/s", {}, 10.0)
        with contextlib.closing(stream), pytest.raises(ValueError, match="longer than 100 bytes"):
            stream.read_line(100)


def test_a_stream_can_be_ended_by_another_thread(place: Path) -> None:
    with silent(place / "x.sock", STREAM + b"one\n"):
        stream = transport(place / "x.sock").stream("/s", {}, 30.0)
        read: list[object] = []
        began = threading.Event()

        def listen() -> None:
            read.append(stream.read_line(100))
            began.set()
            read.append(stream.read_line(100))

        thread = threading.Thread(target=listen)
        thread.start()
        began.wait()
        stream.interrupt()
        thread.join()
        stream.close()
    assert read == ["one", None]


def test_a_stream_that_is_refused_is_an_error(place: Path) -> None:
    body = b'{"type": "about:vmaccord/disabled", "detail": "turned off"}'
    with answering(place / "x.sock", json_answer("409 Conflict", body)), pytest.raises(Disabled):
        transport(place / "x.sock").stream("/s", {}, 10.0)
