"""One open connection to a guest: a socket, one timer and flow control around its session.

Callbacks only, no task: what comes in goes through the session at once, then its events to the guest, then what it wants
written to the socket. Nothing here knows a rule of the protocol, or another guest.

Fairness: a guest is read in small pieces, and one whose pieces are expensive is not read for a while, so that its own
queue fills and other guests do not notice. A guest that does not read is not written to: the session is told.
"""

from __future__ import annotations

import asyncio
from typing import Callable, Optional, cast

from .alarm import Alarm
from .guest import Guest

#: How much is read at once, in bytes.
PIECE = 16 * 1024

#: With more than this waiting to be written, in bytes, the session is told to pause.
WRITE_LIMIT = 64 * 1024

#: A piece that takes longer than this is expensive, in seconds …
PATIENCE = 0.002

#: … and the guest is then not read for this many times as long: it gets a tenth of the loop's time at most.
RESTRAINT = 9.0


class Channel(asyncio.BufferedProtocol):
    """The protocol of one connection.

    :param lost: called when the connection ended by itself, after the guest has been told; with whether it carried a
        message.
    """

    #: One for all channels: the loop fills it and hands it over in one go.
    _buffer = bytearray(PIECE)

    def __init__(self, loop: asyncio.AbstractEventLoop, guest: Guest, lost: Callable[[bool], None]) -> None:
        self._loop = loop
        self._guest = guest
        self._session = guest.session
        self._lost = lost
        self._alarm = Alarm(loop, self._ring)
        self._restraint: Optional[asyncio.TimerHandle] = None
        self._transport: Optional[asyncio.Transport] = None
        self._closed = False

    def close(self, why: str) -> None:
        """End the connection from this side; ``lost`` is not called."""
        if self._transport is not None and not self._closed:
            self._transport.abort()
            self._finish(why)
        self._closed = True

    # ---- Called by the loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)
        if self._closed:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)
        now = self._loop.time()
        self._guest.connected(now)
        self._settle(now)

    def connection_lost(self, error: Optional[Exception]) -> None:
        """The connection is gone."""
        if self._closed:
            return
        self._closed = True
        worked = self._guest.heard
        self._finish(_reason(error) if error else "the other side closed the channel")
        self._lost(worked)

    def eof_received(self) -> None:
        """The other side says no more: what still waits to be written would wait for ever."""
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the loop may put what comes in."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came in."""
        now = self._loop.time()
        self._session.receive_data(bytes(memoryview(self._buffer)[:nbytes]), now)
        self._settle(now)
        self._restrain(self._loop.time() - now)

    def pause_writing(self) -> None:
        """The guest does not read."""
        self._session.pause_writing()

    def resume_writing(self) -> None:
        """The guest reads again."""
        now = self._loop.time()
        self._session.resume_writing(now)
        self._settle(now)

    # ---- Own ----

    def _settle(self, now: float) -> None:
        """Do what must follow every call to the session."""
        if self._closed or self._transport is None:
            return
        self._guest.absorb(self._session.events(), now)
        data = self._session.data_to_send()
        if data:
            self._transport.write(data)
        self._alarm.set(self._session.next_deadline())

    def _ring(self) -> None:
        now = self._loop.time()
        self._session.tick(now)
        self._settle(now)

    def _restrain(self, spent: float) -> None:
        if spent > PATIENCE and self._transport is not None and not self._closed:
            self._transport.pause_reading()
            self._restraint = self._loop.call_later(spent * RESTRAINT, self._read_on)

    def _read_on(self) -> None:
        self._restraint = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _finish(self, why: str) -> None:
        self._alarm.cancel()
        if self._restraint is not None:
            self._restraint.cancel()
        self._guest.disconnected(why, self._loop.time())


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
