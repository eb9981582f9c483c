"""Asking a container engine that speaks Docker's interface over its Unix socket.

It is a program that we do not control: an answer is awaited for a short time, and its size is bounded.
"""

from __future__ import annotations

import http.client
import socket

#: Seconds that each step of the exchange may take; an engine that is started by the first question needs some.
PATIENCE = 10.0

#: An answer is not larger than this, in bytes.
ANSWER_LIMIT = 4 * 1024 * 1024


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(path: str, resource: str) -> bytes:
    """What the engine that listens at *path* says of *resource*.

    :raises OSError: it can't be reached, or does not answer in time.
    :raises ValueError: it does not answer with what was asked for.
    """
    connection = _Connection(path)
    try:
        connection.request("GET", resource)
        response = connection.getresponse()
        body = response.read(ANSWER_LIMIT + 1)
    except http.client.HTTPException as error:
        raise ValueError(f"{path} does not speak HTTP: {type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK or len(body) > ANSWER_LIMIT:
        raise ValueError(f"{path} answers with status {response.status} and {len(body)} bytes")
    return body
