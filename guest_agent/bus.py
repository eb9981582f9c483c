"""Asking on the system bus, and waiting for the answer: for workers only.

Every exchange has a deadline, the greeting of the bus included, which is why jeepney's blocking connection is not used: that
one waits for the greeting without end.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any, Optional

import jeepney
from jeepney.auth import BEGIN, Authenticator

#: The interface of an object's properties.
PROPERTIES = "org.freedesktop.DBus.Properties"

_CHUNK = 4096

#: A socket that is to wait no time at all would not wait for what is under way.
_LEAST_PATIENCE = 0.001


class Refused(ValueError):
    """Who was asked answers with an error.

    :ivar error: its D-Bus name.
    :ivar why: what is said beside that, possibly nothing.
    """

    def __init__(self, method: str, error: str, why: str) -> None:
        super().__init__(f"{method} is refused: {why or error}")
        self.error = error
        self.why = why


class Bus:
    """A connection to the system bus; a context that closes it.

    :param path: where the bus listens.
    :param deadline: seconds that all that is done with it may take.
    :raises OSError: the bus can't be reached, does not let us in, or does not answer in time.
    """

    def __init__(self, path: str, deadline: float) -> None:
        self._give_up_at = time.monotonic() + deadline
        self._parser: Any = jeepney.Parser()
        self._serial = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._meet(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Bus:
        """The connection stands already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._socket.close()

    def call(
        self, service: str, path: str, interface: str, method: str, signature: Optional[str] = None, *arguments: Any
    ) -> tuple[Any, ...]:
        """What *service* returns for *method* of its object *path*.

        :raises Refused: it answers with an error.
        :raises OSError: it does not answer in time.
        """
        address = jeepney.DBusAddress(path, service, interface)
        return self._ask(jeepney.new_method_call(address, method, signature, arguments))

    def _meet(self, path: str) -> None:
        try:
            self._patient().connect(path)
            authenticator = Authenticator()
            for line in authenticator:
                self._patient().sendall(line)
                authenticator.feed(self._read())
            self._patient().sendall(BEGIN)
        except jeepney.AuthenticationError:
            raise PermissionError(errno.EACCES, "the system bus does not let this agent in; run it as root") from None
        except socket.timeout:
            raise _late() from None
        self._ask(jeepney.DBus().Hello())

    def _ask(self, message: Any) -> tuple[Any, ...]:
        try:
            reply = self._exchange(message)
        except socket.timeout:
            raise _late() from None
        body: tuple[Any, ...] = reply.body
        if reply.header.message_type is jeepney.MessageType.error:
            why = body[0] if body and isinstance(body[0], str) else ""
            fields = jeepney.HeaderFields
            raise Refused(message.header.fields[fields.member], reply.header.fields[fields.error_name], why)
        return body

    def _exchange(self, message: Any) -> Any:
        self._serial += 1
        self._patient().sendall(message.serialise(self._serial))
        while True:
            received = self._next_message()
            if received is None:
                self._parser.add_data(self._read())
            elif received.header.fields.get(jeepney.HeaderFields.reply_serial) == self._serial:
                return received

    def _next_message(self) -> Any:
        try:
            return self._parser.get_next_message()
        except Exception as error:  # noqa: BLE001 - jeepney stumbles over what is no message in many ways
            raise OSError(errno.EPROTO, f"the system bus sends what is no message ({type(error).__name__})") from None

    def _read(self) -> bytes:
        data = self._patient().recv(_CHUNK)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return data

    def _patient(self) -> socket.socket:
        """The socket, which now waits no longer than until the deadline."""
        self._socket.settimeout(max(self._give_up_at - time.monotonic(), _LEAST_PATIENCE))
        return self._socket


def _late() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, "no answer in time")
