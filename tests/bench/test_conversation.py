from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.conversation import Conversation

pytestmark = pytest.mark.once


@contextlib.contextmanager
def serving(path: Path, *pieces: bytes) -> Iterator[list[bytes]]:
    """A server that takes one connection, answers each question with the next of *pieces*, and hangs up."""
    questions: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for piece in pieces:
                    questions.append(connection.recv(65536))
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield questions
        thread.join()


def test_one_connection_carries_many_questions(tmp_path: Path) -> None:
    path = tmp_path / "control"
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 404 No\r\ncontent-length:  4\r\n\r\nnull"]
    with serving(path, *answers) as questions, Conversation(str(path)) as conversation:
        assert conversation.ask("GET", "/v1/host") == (200, b"{}")
        assert conversation.ask("POST", "/v1/guests", {"name": "echo"}) == (404, b"null")
    assert questions[0].startswith(b"GET /v1/host HTTP/1.1\r\n")
    assert questions[1].endswith(b'Content-Length: 16\r\n\r\n{"name": "echo"}')


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b""])
def test_an_answer_without_an_end_is_an_error(answer: bytes, tmp_path: Path) -> None:
    path = tmp_path / "control"
    with serving(path, answer), Conversation(str(path)) as conversation, pytest.raises(OSError, match=r"length|closed"):
        conversation.ask("GET", "/")
