"""The link: the port of the moment and the session that is spoken over it.

It opens the port, opens it again when it vanished, tells the session when the host goes and comes, carries bytes both
ways, and keeps what waits to be written bounded. What the session has to say about it is not looked at here.

Nothing blocks, and no call does more than a bounded amount of work: a host that floods starves no heartbeat.
"""

from __future__ import annotations

import contextlib
import selectors
from typing import Callable, Optional

from common.session import GuestSession

from .port import Port, PortBusy, PortMissing, PortUnusable, PortVanished
from .quiet import QuietLog

#: Seconds between two attempts to open the port.
RETRY_PERIOD = 1.0

#: While more than this many bytes wait, the session is asked for no more; until all of them are written.
PENDING_LIMIT = 64 * 1024

#: How much is kept of what can be read before the port shows a host, in bytes.
EARLY_LIMIT = 64 * 1024

#: How often the port is read in one turn; what is left is read in the next one.
READS_PER_TURN = 8


class Link:
    """Port and session, in step.

    :param open_port: opens the port or raises PortError.
    :param selector: where the port is waited for.
    :param patience: how long the port may be missing at start, in seconds.
    :param look_again: seconds after which the port is asked anew whether a host is there.
    """

    def __init__(
        self,
        session: GuestSession,
        open_port: Callable[[], Port],
        selector: selectors.BaseSelector,
        log: QuietLog,
        *,
        now: float,
        patience: float,
        look_again: float,
    ) -> None:
        #: Whether a host is connected, as far as anybody can tell.
        self.up = False
        #: Whether what waits to be written has grown too large.
        self.congested = False
        #: Another number after each time that something may have been dropped which waited to be written.
        self.channel = 0
        #: Seconds after which the port is asked anew whether a host is there.
        self.look_again = look_again
        self._session = session
        self._open_port = open_port
        self._selector = selector
        self._log = log
        self._port: Optional[Port] = None
        self._give_up_at: Optional[float] = now + patience
        self._retry_at = now
        self._look_at = now
        self._continue_at: Optional[float] = None
        self._failure = ""
        self._early = b""

    @property
    def open(self) -> bool:
        """Whether there is a port."""
        return self._port is not None

    @property
    def drained(self) -> bool:
        """Whether all that was handed over has been written."""
        return self._port is not None and self._port.pending == 0

    def begin_anew(self, session: GuestSession, now: float) -> None:
        """Go on with another *session*, as if the agent had been started anew."""
        self._session = session
        self.channel += 1
        if self._port is not None and self.up:
            self._port.drop_unbegun()
            self.congested = False
            session.opened(now)

    def change_port(self, now: float) -> None:
        """Let go of the port, if it is open, and open the one that is now the right one."""
        if self._port is not None:
            self._lose_port(self._port, f"{self._port.path}: the port was given up, others are configured", now)
        self._retry_at = now

    def advance(self, now: float, *, read: bool = True) -> None:
        """Open the port if that is due, notice the host come and go, and read some of what it sent.

        :param read: whether more of that is wanted now; what is not read waits in the port.
        :raises PortMissing: no port appeared for as long as it may be missing at start.
        :raises PortUnusable: the first port that appeared is unusable.
        """
        if self._port is None and now >= self._retry_at:
            self._try_to_open(now)
        if self._port is not None:
            try:
                self._exchange(self._port, now, READS_PER_TURN if read else 0)
            except PortVanished as vanished:
                self._lose_port(self._port, str(vanished), now)

    def flush(self, now: float) -> None:
        """Write what the session has to say, as far as the host reads."""
        lines = self._session.data_to_send()
        if self._port is None:
            return
        self._port.queue(lines)
        try:
            self._port.flush()
        except PortVanished as vanished:
            self._lose_port(self._port, str(vanished), now)
            return
        self._control_flow(self._port, now)
        self._port.watch_output(self._port.pending > 0 or not self.up)

    def next_deadline(self) -> Optional[float]:
        """When ``advance`` wants to be called, though nothing may happen at the port."""
        if self._port is None:
            return self._retry_at
        if self._continue_at is not None:
            return self._continue_at
        return None if self.up else self._look_at

    def close(self, seconds: float, clock: Callable[[], float]) -> None:
        """Write what is left, for at most *seconds*, and close the port."""
        if self._port is None:
            return
        self._port.queue(self._session.data_to_send())
        with contextlib.suppress(PortVanished):
            self._port.drain(seconds, clock)
        self._selector.unregister(self._port)
        self._port.close()
        self._port = None

    # ---- The port ----

    def _try_to_open(self, now: float) -> None:
        self._retry_at = now + RETRY_PERIOD
        try:
            port = self._open_port()
        except PortMissing as error:
            if self._give_up_at is not None and now >= self._give_up_at:
                raise
            self._say_failure(error)
        except PortUnusable as error:
            if self._give_up_at is not None:
                raise
            self._say_failure(error)
        except PortBusy as error:
            self._give_up_at = None
            self._say_failure(error)
        else:
            self._take(port, now)

    def _say_failure(self, error: Exception) -> None:
        if str(error) != self._failure:
            self._failure = str(error)
            self._log.warning("open", f"{error}; trying again every {RETRY_PERIOD:g} s")

    def _take(self, port: Port, now: float) -> None:
        self._port = port
        self._give_up_at = None
        self._failure = ""
        self._selector.register(port, selectors.EVENT_READ)
        self._log.info("port", f"{port.path}: port opened")
        self._look(port, now)
        if not self.up:
            self._log.info("host", "no host is connected yet")

    def _lose_port(self, port: Port, why: str, now: float) -> None:
        self._log.warning("port", f"{why}; looking for it every {RETRY_PERIOD:g} s")
        self._selector.unregister(port)
        port.close()
        self._port = None
        self._early = b""
        self.channel += 1
        self._retry_at = now + RETRY_PERIOD
        if self.up:
            self._end_session()

    # ---- The host ----

    def _look(self, port: Port, now: float) -> None:
        self._look_at = now + self.look_again
        if port.has_host():
            self._meet_host(port, now)

    def _meet_host(self, port: Port, now: float) -> None:
        self.up = True
        self._log.info("host", "a host is connected")
        if port.untouched:
            self._session.opened(now)
        else:
            self._session.host_came(now)
        early, self._early = self._early, b""
        self._session.receive_data(early, now)

    def _lose_host(self, port: Port, now: float) -> None:
        self._log.info("host", "the host is gone, waiting for the next one")
        port.drop_unbegun()
        self._end_session()
        # It may be back already, and nothing would tell.
        self._continue_at = now
        self._look(port, now)

    def _end_session(self) -> None:
        self.up = False
        self.congested = False
        self.channel += 1
        self._session.host_gone()

    # ---- Bytes ----

    def _exchange(self, port: Port, now: float, reads: int) -> None:
        port.acknowledge()
        self._continue_at = None
        if not self.up:
            self._look(port, now)
        if not reads:
            if self.up and not port.has_host():
                self._lose_host(port, now)
            return
        for _ in range(reads):
            received = port.receive()
            if not received:
                if received is not None and self.up:
                    self._lose_host(port, now)
                return
            if self.up:
                self._session.receive_data(received, now)
            else:
                # The kernel hands out a host's first bytes before it shows the host: they are kept until it does.
                self._early = (self._early + received)[:EARLY_LIMIT]
                self._look(port, now)
        self._continue_at = now

    def _control_flow(self, port: Port, now: float) -> None:
        if port.pending > PENDING_LIMIT and not self.congested:
            self.congested = True
            self._log.warning("congestion", "the host does not read: reports wait until it does")
            self._session.pause_writing()
        elif self.congested and not port.pending:
            self.congested = False
            self._continue_at = now
            self._log.info("congestion", "the host reads again")
            self._session.resume_writing(now)
