"""Telling the service manager how the agent is: the protocol of sd_notify(3), datagrams to a socket that it names."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import MutableMapping
from typing import Optional

_VARIABLE = "NOTIFY_SOCKET"
_ABSTRACT = "@"


class Notifier:
    """Tells the service manager, where there is one; what can't be told is not worth an error.

    :param environment: names the socket; it is taken out, so that no child tells anything.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address: Optional[str] = environment.pop(_VARIABLE, None)
        self._said = ""

    def ready(self) -> None:
        """The agent works, or works again after it was reloaded."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The agent reads its configuration again."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The agent ends."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """How it is, for ``systemctl status``; said when it changes."""
        if text != self._said:
            self._said = text
            self._tell(f"STATUS={text}")

    def _tell(self, lines: str) -> None:
        if not self._address:
            return
        import socket

        address = "\0" + self._address[1:] if self._address.startswith(_ABSTRACT) else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel,
        ):
            channel.sendto(lines.encode(), address)
