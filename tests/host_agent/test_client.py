from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_agent import paths
from host_agent.client import Client, ClientError, DaemonUnreachable, NoSuchGuest, UnexpectedAnswer, find_control
from host_agent.exits import Exit

from .guests import make_socket
from .parts import NOBODY, another_user


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
                questions.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield questions
        thread.join()


def json_answer(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def test_a_daemon_that_does_not_run_is_unreachable(place: Path) -> None:
    with pytest.raises(DaemonUnreachable, match=r"no daemon at .*none.sock .*: start vmaccord-host") as caught:
        Client(str(place / "none.sock")).guests()
    assert caught.value.status is Exit.UNREACHABLE


def test_a_socket_on_which_nobody_listens_is_unreachable(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "dead.sock"))
    with pytest.raises(DaemonUnreachable, match="Connection refused"):
        Client(str(place / "dead.sock")).host()


def test_a_path_that_no_socket_can_have_is_unreachable() -> None:
    with pytest.raises(DaemonUnreachable, match="path too long"):
        Client("/" + "x" * 200).host()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_socket_of_another_user_is_unreachable(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "x.sock"))
        listening.listen(1)
        (place / "x.sock").chmod(0o600)
        place.chmod(0o755)
        advice = "permission denied; run as the user that vmaccord-host runs as"
        with another_user(), pytest.raises(DaemonUnreachable, match=advice):
            Client(str(place / "x.sock")).host()


def test_a_daemon_that_does_not_answer_is_unreachable(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "x.sock"))
        listening.listen(1)
        with pytest.raises(DaemonUnreachable, match="does not answer; look at its log"):
            Client(str(place / "x.sock"), timeout=0.01).host()


def test_the_first_default_place_with_a_socket_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(place / name) for name in ("runtime", "temporary")]
    monkeypatch.setattr(paths, "control_places", lambda: places)
    with pytest.raises(DaemonUnreachable, match=f"no daemon at {places[0]} or {places[1]}: start vmaccord-host"):
        find_control()
    make_socket(Path(places[1]))
    assert find_control() == places[1]
    Path(places[0]).touch()
    assert find_control() == places[1]
    Path(places[0]).unlink()
    make_socket(Path(places[0]))
    assert find_control() == places[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_socket_that_somebody_else_put_at_a_default_place_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "control_places", lambda: [str(place / "socket")])
    make_socket(place / "socket")
    os.chown(place / "socket", NOBODY, NOBODY)
    with pytest.raises(DaemonUnreachable, match="no daemon at"):
        find_control()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_finds_the_socket_of_the_service(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "control_places", lambda: [str(place / "socket")])
    monkeypatch.setattr(paths, "SERVICE_USER", "nobody")
    make_socket(place / "socket")
    os.chown(place / "socket", NOBODY, NOBODY)
    assert find_control() == str(place / "socket")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        json_answer("200 OK", b"<html>"),
        json_answer("200 OK", b"[1]"),
        json_answer("200 OK", b"\xff"),
        json_answer("500 Oops", b'{"detail": "\\u001b[31m"}'),
        json_answer("500 Oops", b"[]"),
        json_answer("404 Not Found", b'{"type": "other"}'),
    ],
)
def test_an_answer_that_is_not_the_daemons_is_unexpected(place: Path, answer: bytes) -> None:
    questions: list[Callable[[Client], object]] = [Client.host, Client.guests, lambda client: client.guest("web")]
    for number, ask in enumerate(questions):
        path = place / f"{number}.sock"
        with answering(path, answer), pytest.raises(ClientError) as caught:
            ask(Client(str(path)))
        assert isinstance(caught.value, UnexpectedAnswer)
        assert "\x1b" not in str(caught.value)


def test_a_list_in_place_of_the_guests_is_needed(place: Path) -> None:
    with answering(place / "x.sock", json_answer("200 OK", b"{}")), pytest.raises(UnexpectedAnswer):
        Client(str(place / "x.sock")).guests()


def test_an_unknown_guest_is_told_from_other_problems(place: Path) -> None:
    answer = json_answer("404 Not Found", b'{"type": "about:vmaccord/no-such-guest"}')
    with answering(place / "x.sock", answer), pytest.raises(NoSuchGuest, match="'vmaccord list' shows all") as caught:
        Client(str(place / "x.sock")).guest("web")
    assert caught.value.status is Exit.NO_SUCH_GUEST


@pytest.mark.parametrize("name", ["", "a/b", "a\0b"])
def test_a_name_that_no_guest_can_have_is_not_even_asked_for(name: str) -> None:
    with pytest.raises(NoSuchGuest):
        Client("/nonexistent").guest(name)


def test_a_name_is_quoted(place: Path) -> None:
    with answering(place / "x.sock", json_answer("200 OK", b'{"name": "x"}')) as questions:
        assert Client(str(place / "x.sock")).guest(".. ü?%") == {"name": "x"}
    assert questions[0].startswith(b"GET /v1/guests/%2E%2E%20%C3%BC%3F%25 HTTP/1.1\r\n")
