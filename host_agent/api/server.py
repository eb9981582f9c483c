"""The control API on its listening socket: how many connections each user may hold, and how all of them end.

A control socket that is open to all users must not be a way to use up the daemon's descriptors: each user but root and the
daemon's own may hold a few connections only. What may be asked over a connection is decided elsewhere (``access``).
"""

from __future__ import annotations

import asyncio
import collections
import logging
import os
import socket
from typing import Callable, Optional, cast

from aiohttp import web

from . import access

_log = logging.getLogger(__name__)

#: Silent: what the library says of requests that are no HTTP would let any user fill the log.
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.disabled = True

#: How many connections one user may hold, …
LIMIT_OF_ONE = 64

#: … and all of them together, without root and the daemon's own user.
LIMIT = 1024

#: How long an answer that is under way may take to end when the daemon stops, in seconds.
FAREWELL = 1.0

#: At most one line on connections that were cut off in this many seconds.
_LOG_PERIOD = 60.0


class Server:
    """Answers on *listening*, a Unix socket, what *application* answers."""

    def __init__(self, application: web.Application, listening: socket.socket) -> None:
        self._runner = web.AppRunner(application, access_log=None, logger=_library_log)
        self._listening = listening
        self._connections = Connections(asyncio.get_running_loop().time)
        self._accepting: Optional[asyncio.AbstractServer] = None

    async def start(self) -> None:
        """Begin to answer."""
        await self._runner.setup()
        http = cast(web.Server, self._runner.server)
        loop = asyncio.get_running_loop()
        self._accepting = await loop.create_unix_server(lambda: _Door(self._connections, http), sock=self._listening)

    async def close(self) -> None:
        """Stop answering: what is under way is given a moment to end, then every connection is cut off."""
        http = self._runner.server
        if http is None:
            return
        if self._accepting is not None:
            self._accepting.close()
        await self._runner.shutdown()
        for each in http.connections:
            each.close()
        await http.shutdown(FAREWELL)
        self._connections.cut_off()
        await self._runner.cleanup()


class Connections:
    """The open ones, and who holds them.

    :param clock: seconds of any clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._privileged = frozenset({0, os.geteuid()})
        self._holders: dict[asyncio.Transport, int] = {}
        self._held: collections.Counter[int] = collections.Counter()
        self._silent_until = clock()

    def admit(self, transport: asyncio.Transport) -> bool:
        """Let *transport* in, until it is ``gone``; False: whoever opened it holds too many already."""
        uid, _ = access.credentials(transport.get_extra_info("socket"))
        if uid not in self._privileged:
            if self._held[uid] >= LIMIT_OF_ONE or sum(self._held.values()) >= LIMIT:
                self._complain(uid)
                return False
            self._held[uid] += 1
        self._holders[transport] = uid
        return True

    def gone(self, transport: asyncio.Transport) -> None:
        """*transport* is closed."""
        uid = self._holders.pop(transport)
        self._held -= collections.Counter((uid,))

    def cut_off(self) -> None:
        """Close them all, whatever still waits to be written."""
        for transport in list(self._holders):
            transport.abort()

    def _complain(self, uid: int) -> None:
        now = self._clock()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_PERIOD
            _log.warning("control socket: user %d, or all users together, hold too many connections: one was cut off", uid)


class _Door(asyncio.Protocol):
    """Lets one connection through to *http*, or not."""

    def __init__(self, connections: Connections, http: web.Server) -> None:
        self._connections = connections
        self._http = http
        self._inside: Optional[asyncio.Protocol] = None
        self._transport: Optional[asyncio.Transport] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._connections.admit(self._transport):
            self._transport.abort()
            return
        self._inside = self._http()
        self._inside.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inside is not None:
            self._inside.data_received(data)

    def connection_lost(self, error: Optional[Exception]) -> None:
        if self._inside is not None and self._transport is not None:
            self._connections.gone(self._transport)
            self._inside.connection_lost(error)

    def pause_writing(self) -> None:
        if self._inside is not None:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        if self._inside is not None:
            self._inside.resume_writing()
