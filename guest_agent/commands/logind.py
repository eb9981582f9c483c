"""Asking logind (or elogind) to do something, over the system bus.

Asked over D-Bus and not by loginctl, because only there a shutdown can be set to the second, and because a session's
properties come as what they are and not as text. Every exchange has a deadline, the greeting of the bus included, which is
why jeepney's blocking connection is not used: that one waits for the greeting without end.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Optional

import jeepney
from jeepney.auth import BEGIN, Authenticator

from guest_agent.logind import BUS, SEATS, SERVICE

from . import CommandFailed, Machine

_MANAGER = jeepney.DBusAddress("/org/freedesktop/login1", SERVICE, f"{SERVICE}.Manager")

_CHUNK = 4096

#: A socket that is to wait no time at all would not wait for what is under way.
_LEAST_PATIENCE = 0.001


class Refused(CommandFailed):
    """logind answers with an error, whose D-Bus name is *error*."""

    def __init__(self, method: str, error: str, text: str) -> None:
        super().__init__(f"logind refuses {method}: {text or error}")
        self.error = error


def available(machine: Machine) -> Optional[str]:
    """Why logind can't be asked, in a sentence; None where it can."""
    if not os.path.exists(os.path.join(machine.root, BUS)):
        return f"this machine has no system bus (/{BUS}); install and start D-Bus and logind"
    if not os.path.exists(os.path.join(machine.root, SEATS)):
        return f"logind does not run on this machine (there is no /{SEATS}); install and start it"
    return None


class Logind:
    """A connection to logind; a context that closes it.

    :param deadline: seconds that all that is done with it may take.
    :raises CommandFailed: the bus can't be reached.
    """

    def __init__(self, machine: Machine, deadline: float) -> None:
        self._give_up_at = time.monotonic() + deadline
        self._parser = jeepney.Parser()
        self._serial = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._meet(os.path.join(machine.root, BUS))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Logind:
        """The connection stands already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._socket.close()

    def call(self, method: str, signature: Optional[str] = None, *arguments: Any) -> Sequence[Any]:
        """What logind returns for *method* of its manager.

        :raises Refused: it answers with an error.
        :raises CommandFailed: it does not answer.
        """
        return self._ask(jeepney.new_method_call(_MANAGER, method, signature, arguments))

    def session_property(self, path: str, name: str) -> Any:
        """The value of a property of the session at *path*.

        :raises Refused: logind answers with an error.
        :raises CommandFailed: it does not answer.
        """
        session = jeepney.DBusAddress(path, SERVICE, f"{SERVICE}.Session")
        ((_, value),) = self._ask(jeepney.Properties(session).get(name))
        return value

    def _meet(self, path: str) -> None:
        try:
            self._patient().connect(path)
            authenticator = Authenticator()
            for line in authenticator:
                self._patient().sendall(line)
                authenticator.feed(self._read())
            self._patient().sendall(BEGIN)
        except OSError as error:
            raise _unreachable(error) from None
        except jeepney.AuthenticationError:
            raise CommandFailed("the system bus does not let this agent in; run it as root") from None
        self._ask(jeepney.DBus().Hello())

    def _ask(self, message: jeepney.Message) -> Sequence[Any]:
        try:
            reply = self._exchange(message)
        except OSError as error:
            raise _unreachable(error) from None
        if reply.header.message_type is jeepney.MessageType.error:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            method = message.header.fields[jeepney.HeaderFields.member]
            raise Refused(method, reply.header.fields[jeepney.HeaderFields.error_name], text)
        body: Sequence[Any] = reply.body
        return body

    def _exchange(self, message: jeepney.Message) -> jeepney.Message:
        self._serial += 1
        self._patient().sendall(message.serialise(self._serial))
        while True:
            received = self._parser.get_next_message()
            if received is None:
                self._parser.add_data(self._read())
            elif received.header.fields.get(jeepney.HeaderFields.reply_serial) == self._serial:
                return received

    def _read(self) -> bytes:
        data = self._patient().recv(_CHUNK)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return data

    def _patient(self) -> socket.socket:
        """The socket, which now waits no longer than until the deadline."""
        self._socket.settimeout(max(self._give_up_at - time.monotonic(), _LEAST_PATIENCE))
        return self._socket


def _unreachable(error: OSError) -> CommandFailed:
    why = "no answer in time" if isinstance(error, socket.timeout) else error.strerror
    return CommandFailed(f"logind can't be asked, over /{BUS}: {why}")
