"""Keeps one guest connected: attempts, the waits between them, and when to stop waiting.

A socket that refuses, and one that accepts and closes at once, are tried again less and less often; a message that was
heard, or news from discovery, starts the waits from the beginning. The first waits are short, and the first failures are
not told: a socket is found before its hypervisor listens on it. Why attempts fail is then said once, until one succeeds.

A connection on which nothing is heard is made anew now and then. Where a client leaves while the VM is paused, and the
guest writes before the next one comes, QEMU holds back for ever what the guest writes, until a client comes once more.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import grp
import os
import pwd
import random
import socket
import stat
from typing import Callable, Optional

from .channel import Channel, Surroundings
from .guest import Guest

#: The first wait, and the longest, in seconds. Each is twice the one before.
FIRST_WAIT = 0.01
LONGEST_WAIT = 10.0

#: That many attempts must fail before it is told; their waits add up to some seconds.
TOLERATED = 9

#: A wait is shortened by up to this share of it, so that guests of one host do not move in step.
JITTER = 0.25

#: A connection on which nothing was heard for this long is made anew, in seconds; each time twice as long, up to this.
FIRST_SILENCE = 15.0
LONGEST_SILENCE = 600.0


#: How many guests may be between their connection and their first message at once, and for how long one counts, in seconds.
GATE_WIDTH = 64
GATE_PATIENCE = 0.25


class Backoff:
    """Waits, each twice the one before. Pure.

    :param draw: gives a number from 0 to 1, evenly spread.
    """

    __slots__ = ("_draw", "_first", "_longest", "_next")

    def __init__(
        self,
        draw: Callable[[], float] = random.random,  # noqa: S311 - no secret
        first: float = FIRST_WAIT,
        longest: float = LONGEST_WAIT,
    ) -> None:
        self._draw = draw
        self._first = first
        self._longest = longest
        self._next = first

    def wait(self) -> float:
        """How long to wait before the next attempt, in seconds."""
        now, self._next = self._next, min(self._next * 2, self._longest)
        return now * (1 - JITTER * self._draw())

    def reset(self) -> None:
        """Start from the shortest wait."""
        self._next = self._first


class Gate:
    """Lets a limited number of guests answer their first question at once.

    A daemon that starts finds all guests of its host in one moment. If all were asked in that moment, all would collect and
    send everything in the next, with their host at its limit and everybody waiting for the last.

    :param width: how many may be inside.
    :param patience: who has not answered after so long, in seconds, makes room for the next.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, width: int = GATE_WIDTH, patience: float = GATE_PATIENCE) -> None:
        self._loop = loop
        self._width = width
        self._patience = patience
        self._inside: dict[Connector, asyncio.TimerHandle] = {}
        self._waiting: collections.OrderedDict[Connector, Callable[[], None]] = collections.OrderedDict()

    def enter(self, who: Connector, go: Callable[[], None]) -> None:
        """Call *go*, now or when there is room."""
        if who in self._inside or len(self._inside) < self._width:
            self._let_in(who, go)
        else:
            self._waiting[who] = go

    def leave(self, who: Connector) -> None:
        """*who* has its answer, or wants nothing any more."""
        self._waiting.pop(who, None)
        timer = self._inside.pop(who, None)
        if timer is not None:
            timer.cancel()
            self._admit()

    def close(self) -> None:
        """Let nobody in any more."""
        self._waiting.clear()
        for timer in self._inside.values():
            timer.cancel()
        self._inside.clear()

    def _let_in(self, who: Connector, go: Callable[[], None]) -> None:
        before = self._inside.pop(who, None)
        if before is not None:
            before.cancel()
        self._inside[who] = self._loop.call_later(self._patience, self.leave, who)
        go()

    def _admit(self) -> None:
        if self._waiting and len(self._inside) < self._width:
            # In a turn of its own: one that fails at once would otherwise let the next one in from within.
            self._loop.call_soon(self._admit_one)

    def _admit_one(self) -> None:
        if self._waiting and len(self._inside) < self._width:
            who, go = self._waiting.popitem(last=False)
            self._let_in(who, go)


class Connector:
    """Keeps *guest* connected to the port it was last seen at.

    :param gate: through which it goes to connect.
    :param backoff: the waits between attempts.
    :param silence: how long a connection may be silent before it is made anew.
    """

    __slots__ = (
        "_around",
        "_backoff",
        "_channel",
        "_failures",
        "_gate",
        "_guest",
        "_path",
        "_retry",
        "_silence",
        "_unheard",
    )

    def __init__(
        self,
        around: Surroundings,
        guest: Guest,
        gate: Gate,
        backoff: Optional[Backoff] = None,
        silence: Optional[Backoff] = None,
    ) -> None:
        self._around = around
        self._guest = guest
        self._gate = gate
        self._backoff = backoff or Backoff()
        self._silence = silence or Backoff(first=FIRST_SILENCE, longest=LONGEST_SILENCE)
        self._unheard: Optional[asyncio.TimerHandle] = None
        self._path: Optional[str] = None
        self._channel: Optional[Channel] = None
        self._retry: Optional[asyncio.TimerHandle] = None
        self._failures = 0

    def aim(self, path: str, uuid: Optional[str] = None) -> None:
        """The port is at *path*, perhaps a fresh one: connect, and at once if not connected to it yet."""
        if path != self._path:
            self._let_go("its port is at another place now")
        self._path = path
        self._backoff.reset()
        self._failures = 0
        self._guest.found(path, self._around.clock(), uuid)
        if self._channel is None:
            self._attempt()

    def stop(self, why: str) -> None:
        """Disconnect and stay so."""
        self._let_go(why)
        self._path = None

    def _attempt(self) -> None:
        self._cancel_retry()
        self._gate.enter(self, self._connect)

    def _connect(self) -> None:
        try:
            connection = _connected(self._path or "")
        except OSError as error:
            self._failed(error)
            return
        self._channel = Channel(self._around, self._guest, connection, self._heard, self._lost)
        self._unheard = self._around.loop.call_later(self._silence.wait(), self._stop_listening)
        self._channel.open()

    def _heard(self) -> None:
        """The guest said its first word."""
        self._cancel_unheard()
        self._silence.reset()
        self._gate.leave(self)

    def _stop_listening(self) -> None:
        """Connect anew where nothing was heard."""
        self._unheard = None
        self._let_go("nothing was heard on it")
        self._attempt()

    def _failed(self, error: OSError) -> None:
        self._gate.leave(self)
        self._failures += 1
        if self._failures == TOLERATED:
            self._guest.unreachable(_reason(error, self._path or ""), self._around.clock())
        self._retry_later()

    def _lost(self, worked: bool) -> None:
        self._channel = None
        self._cancel_unheard()
        self._gate.leave(self)
        if worked:
            self._backoff.reset()
            self._failures = 0
        self._retry_later()

    def _retry_later(self) -> None:
        self._cancel_retry()
        self._retry = self._around.loop.call_later(self._backoff.wait(), self._attempt)

    def _let_go(self, why: str) -> None:
        self._cancel_retry()
        self._cancel_unheard()
        self._gate.leave(self)
        if self._channel is not None:
            self._channel.close(why)
            self._channel = None

    def _cancel_unheard(self) -> None:
        if self._unheard is not None:
            self._unheard.cancel()
            self._unheard = None

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


def _connected(path: str) -> socket.socket:
    """A connected socket. Connecting to a Unix socket never takes time: it works or it fails at once."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _reason(error: OSError, path: str) -> str:
    if isinstance(error, BlockingIOError):
        return "its queue is full, another program is connected"
    reason = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{reason}: raise LimitNOFILE of the service, or fs.file-max"
    if isinstance(error, PermissionError):
        return f"{reason}, run as a user that may connect to it{_permissions(path)}"
    return reason


def _permissions(path: str) -> str:
    try:
        status = os.stat(path)
        owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return ""
    return f" (owner {owner}, group {group}, mode {stat.S_IMODE(status.st_mode):04o})"
