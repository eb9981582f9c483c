"""Telling the service manager how the daemon is: the protocol of sd_notify(3), one datagram to a socket that it names.

Each constant and each function but ``tell`` is a state for ``tell``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

#: It serves, or serves again with the configuration that it has read.
READY = "READY=1"

#: It ends.
STOPPING = "STOPPING=1"

#: Its event loop runs.
ALIVE = "WATCHDOG=1"


def reloading() -> str:
    """It reads its configuration again; to be followed by ``READY``."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def more_time(seconds: float) -> str:
    """It may take so many *seconds* from now to end, whatever the service manager's own patience is."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}"


def status(text: str) -> str:
    """How it is, in one line for ``systemctl status``."""
    return f"STATUS={' '.join(text.split())}"


def tell(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Say *state* to the service manager, where there is one; what can't be said is not worth an error."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.sendto(state.encode(errors="replace"), address)
