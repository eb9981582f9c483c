"""A system bus with a logind on it, for one test: a socket of our own, at which a thread answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

import jeepney

from guest_agent import logind

#: Signature and values; or the D-Bus name of an error.
Answer = Any

_BEGIN = b"BEGIN\r\n"
_OK = b"OK 00000000000000000000000000000000\r\n"


class Call(NamedTuple):
    """What was asked for."""

    path: str
    interface: str
    member: str
    arguments: tuple[Any, ...]


class Bus:
    """Listens below *root*, as the system bus of the machine whose root this is.

    :ivar calls: what was asked for so far, without the greeting.
    :ivar answers: by the name of a method, what gives its answer from its arguments; others are answered with nothing.
    :ivar greeting: what is said to who wants to come in.
    :ivar silent_on: names of methods that are never answered.
    :ivar hangs_up_on: names of methods at which the connection is closed.
    """

    def __init__(self, root: Path) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, Callable[[Call], Answer]] = {"Hello": lambda _: ("s", (":1.1",))}
        self.greeting = _OK
        self.silent_on: set[str] = set()
        self.hangs_up_on: set[str] = set()
        path = root / logind.BUS
        path.parent.mkdir(parents=True)
        (root / logind.SEATS).mkdir(parents=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, contextlib.suppress(ConnectionError):
                self._converse(client, self._admit(client))

    def _admit(self, client: socket.socket) -> bytes:
        """What the client said behind its greeting."""
        received = b""
        while b"\r\n" not in received:
            received += _read(client)
        client.sendall(self.greeting)
        while _BEGIN not in received:
            received += _read(client)
        return received.partition(_BEGIN)[2]

    def _converse(self, client: socket.socket, received: bytes) -> None:
        parser: Any = jeepney.Parser()
        parser.add_data(received)
        serial = 0
        while True:
            message = parser.get_next_message()
            if message is None:
                parser.add_data(_read(client))
                continue
            for answer in self._answers(message):
                serial += 1
                client.sendall(answer.serialise(serial))

    def _answers(self, message: jeepney.Message) -> list[jeepney.Message]:
        fields: Mapping[Any, Any] = message.header.fields
        names = jeepney.HeaderFields
        call = Call(fields[names.path], fields[names.interface], fields[names.member], message.body)
        if call.member != "Hello":
            self.calls.append(call)
        if call.member in self.hangs_up_on:
            raise ConnectionAbortedError
        if call.member in self.silent_on:
            return []
        answer = self.answers.get(call.member, _nothing)(call)
        if isinstance(answer, str):
            return [_SIGNAL, jeepney.new_error(message, answer, "s", ("no means no",))]
        return [_SIGNAL, jeepney.new_method_return(message, *answer)]


#: Something that nobody has asked for comes in between.
_SIGNAL = jeepney.new_signal(jeepney.DBusAddress("/", interface="org.example.Noise"), "Noise", "s", ("noise",))


def _nothing(_: Call) -> Answer:
    return None, ()


def _read(client: socket.socket) -> bytes:
    data = client.recv(4096)
    if not data:
        raise ConnectionResetError
    return data
