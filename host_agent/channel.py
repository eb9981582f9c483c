"""One open connection to a guest: a socket, one timer and flow control around its session.

Callbacks only, no task: what comes in goes through the session at once, then its events to the guest, then what it wants
written to the socket. Nothing here knows a rule of the protocol, or another guest.

Fairness: a guest is read in small pieces; one whose pieces are expensive, or that is in debt with its budget, is not read
for a while, so that its own queue fills and other guests do not notice. A guest that does not read is not written to: what
the socket does not take waits, and the session is told to queue nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Callable, Optional

from .alarm import Alarm
from .budget import Budget, Limits
from .guest import Guest
from .meter import Meter
from .poller import READ, WRITE, Poller

#: How much is read at once, in bytes. With more, the shortest of lines would add up to a debt that looks like silence.
PIECE = 4 * 1024

#: A piece that takes longer than this is expensive, in seconds …
PATIENCE = 0.004

#: … and the guest is then not read for this many times as long: it gets a tenth of the loop's time at most.
RESTRAINT = 9.0


class Surroundings:
    """What all channels of a daemon have in common."""

    __slots__ = ("clock", "limits", "loop", "meter", "poller")

    def __init__(self, loop: asyncio.AbstractEventLoop, poller: Poller, meter: Meter, limits: Limits) -> None:
        self.loop = loop
        #: The loop's clock, which some loops show coarsely and at a price.
        self.clock = time.monotonic
        self.poller = poller
        self.meter = meter
        self.limits = limits


class Channel:
    """The connection of *guest* over *connection*, a connected socket that does not block, which it owns.

    :param heard: called once, with the first message on it.
    :param lost: called when the connection ended by itself, after the guest has been told; with whether it carried a
        message.
    """

    __slots__ = (
        "_alarm",
        "_around",
        "_budget",
        "_calming",
        "_guest",
        "_heard",
        "_lost",
        "_number",
        "_restraint",
        "_session",
        "_socket",
        "_unsent",
    )

    def __init__(
        self,
        around: Surroundings,
        guest: Guest,
        connection: socket.socket,
        heard: Callable[[], None],
        lost: Callable[[bool], None],
    ) -> None:
        self._around = around
        self._guest = guest
        self._session = guest.session
        self._socket: Optional[socket.socket] = connection
        self._number = connection.fileno()
        self._heard: Optional[Callable[[], None]] = heard
        self._lost = lost
        self._alarm = Alarm(around.loop, self._ring)
        self._budget = Budget(around.limits)
        self._restraint: Optional[asyncio.TimerHandle] = None
        self._calming: Optional[asyncio.TimerHandle] = None
        self._unsent = b""

    def open(self) -> None:
        """Begin; ``lost`` may be called before it returns."""
        self._watch()
        if self._socket is not None:
            now = self._around.clock()
            self._guest.connected(now, self._catch_up)
            self._settle(now)

    def close(self, why: str) -> None:
        """End the connection from this side; ``lost`` is not called."""
        if self._socket is not None:
            self._finish(why)

    # ---- What comes in ----

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(_reason(error))
            return
        if data:
            self._receive(data)
        else:
            self._end("the other side closed the channel")

    def _receive(self, data: bytes) -> None:
        around, counters = self._around, self._session.counters
        now, lines = around.clock(), counters.lines
        self._session.receive_data(data, now)
        around.meter.bytes_received += len(data)
        self._settle(now)
        if self._heard is not None and self._guest.heard:
            first, self._heard = self._heard, None
            first()
        debt = self._budget.spend(counters.lines - lines, len(data), now)
        spent = around.clock() - now
        if debt or spent > PATIENCE:
            self._restrain(debt, spent, now)

    def _restrain(self, debt: float, spent: float, now: float) -> None:
        """Do not read for a while."""
        if self._socket is None:
            return
        if debt:
            self._guest.throttle(True)
            self._look_for_calm()
        self._restraint = self._around.loop.call_at(now + max(debt, spent + spent * RESTRAINT), self._read_on)
        self._watch()

    def _read_on(self) -> None:
        self._restraint = None
        self._watch()

    def _look_for_calm(self) -> None:
        """Call the guest throttled until it has kept to its rates for a while."""
        if self._calming is None:
            self._calming = self._around.loop.call_at(self._budget.calm_at(), self._calm)

    def _calm(self) -> None:
        self._calming = None
        if self._budget.is_calm(self._around.clock()):
            self._guest.throttle(False)
        else:
            self._look_for_calm()

    # ---- What goes out ----

    def _write(self, data: bytes) -> None:
        assert self._socket is not None  # noqa: S101 - an open channel has one
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._end(_reason(error))
            return
        self._around.meter.bytes_sent += sent
        blocked_before = bool(self._unsent)
        self._leave_unsent(data[sent:])
        if bool(self._unsent) != blocked_before:
            self._watch()
        if self._unsent:
            self._session.pause_writing()

    def _leave_unsent(self, data: bytes) -> None:
        self._around.meter.unsent += len(data) - len(self._unsent)
        self._unsent = data

    def _write_on(self) -> None:
        """The guest may be reading again; or there is something to read, or it is gone."""
        self._write(self._unsent)
        if self._socket is not None and not self._unsent:
            now = self._around.clock()
            self._session.resume_writing(now)
            self._settle(now)
        if self._restraint is None:
            self._read()

    # ---- Both ----

    def _watch(self) -> None:
        """Be called for what is wanted now."""
        try:
            if self._unsent:
                events = WRITE if self._restraint is not None else READ | WRITE
                self._around.poller.watch(self._number, events, self._write_on)
            elif self._restraint is None:
                self._around.poller.watch(self._number, READ, self._read)
            else:
                self._around.poller.ignore(self._number)
        except OSError as error:
            self._end(_reason(error))

    def _settle(self, now: float) -> None:
        """Do what must follow every call to the session."""
        happened = self._session.events()
        if happened:
            self._guest.absorb(happened, now)
        data = self._session.data_to_send()
        if data:
            self._write(self._unsent + data)
        if self._socket is not None:
            self._alarm.set(self._session.next_deadline())

    def _catch_up(self) -> None:
        """Somebody else called the session."""
        self._settle(self._around.clock())

    def _ring(self) -> None:
        now = self._around.clock()
        self._session.tick(now)
        self._settle(now)

    def _end(self, why: str) -> None:
        worked = self._guest.heard
        self._finish(why)
        self._lost(worked)

    def _finish(self, why: str) -> None:
        connection, self._socket = self._socket, None
        assert connection is not None  # noqa: S101 - a channel ends once
        self._leave_unsent(b"")
        self._around.poller.ignore(self._number)
        with contextlib.suppress(OSError):
            connection.close()
        self._alarm.cancel()
        # It knows this channel, which would else outlive its guest until garbage is looked for.
        del self._alarm
        for timer in (self._restraint, self._calming):
            if timer is not None:
                timer.cancel()
        self._guest.disconnected(why, self._around.clock())


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
