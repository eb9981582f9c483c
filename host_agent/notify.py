"""Telling the service manager how the daemon is: the protocol of sd_notify(3), one datagram to a socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"


def tell(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Say *state* to the service manager, where there is one; what can't be said is not worth an error."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.sendto(state.encode(), address)
