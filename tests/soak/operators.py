"""Those who use the control API during a soak: operators, one who follows the events, and clients that behave badly.

Each is a thread that takes one turn after another. What a turn finds wrong is a *fault*. The crew rests while it is looked
at what became of everything.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from host_agent import client as api
from host_agent.client import Client, ClientError, Event, Events
from host_agent.feed import LIMIT

from .ledger import DONE, FAILED, SENT, STOPPING, TIMED_OUT, UNREACHABLE, Call, Ledger
from .subject import Subject

#: A daemon that does not answer for so long hangs, in seconds.
HANG = 30.0

#: Who finds no daemon tries again after so many seconds.
_PAUSE = 0.2

_LIFECYCLES = ("before_migration", "after_migration", "before_hibernation", "after_hibernation")

#: What no client should send, and the end of the world for some servers.
_GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/guests/%ff%00%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/guests/g00001/commands HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/guests/g00001/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n" + b"[" * 40_000,
    b'POST /v1/guests/g00001/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\n{"name": "x", "wait": 5}',
    b"POST /v1/guests/g00001/commands HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno chunk\r\n",
    b"POST /v1/guests/g00001/refresh HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n\xff\xfe{}{}{}!",
    b"GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: nonsense\r\n\r\n",
    b"DELETE /v1/host HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 500 + b"\r\n",
)


class Faults:
    """What went wrong in any thread; so many of them are kept."""

    def __init__(self, limit: int = 50) -> None:
        self._limit = limit
        self._texts: list[str] = []
        self._lock = threading.Lock()
        self.count = 0

    def add(self, texts: Iterable[str]) -> None:
        """Keep *texts*, a sentence each."""
        with self._lock:
            for text in texts:
                self.count += 1
                if len(self._texts) < self._limit:
                    self._texts.append(text)

    @property
    def texts(self) -> list[str]:
        """The first of them."""
        return list(self._texts)


class Crew:
    """Threads that take turns, and rest together. Use as a context manager: they end with it."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._state = threading.Condition()
        self._resting = True
        self._ended = False
        self._busy = 0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        with self._state:
            self._ended = True
            self._state.notify_all()
        for thread in self._threads:
            thread.join()

    def employ(self, name: str, turn: Callable[[], None]) -> None:
        """Have *turn* called again and again."""
        thread = threading.Thread(target=self._work, args=(turn,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def work(self) -> None:
        """Let them take turns."""
        with self._state:
            self._resting = False
            self._state.notify_all()

    def rest(self, patience: float) -> bool:
        """Let them end their turns and rest; whether they did within *patience* seconds."""
        with self._state:
            self._resting = True
            return self._state.wait_for(lambda: not self._busy, patience)

    def _work(self, turn: Callable[[], None]) -> None:
        while self._admit():
            try:
                turn()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                self._faults.add([f"{threading.current_thread().name}: {error!r}"])
            finally:
                with self._state:
                    self._busy -= 1
                    self._state.notify_all()

    def _admit(self) -> bool:
        with self._state:
            self._state.wait_for(lambda: self._ended or not self._resting)
            self._busy += not self._ended
            return not self._ended


class Operator:
    """Commands guests: whichever, and whatever it is up to. Half of its commands it does not wait for.

    :param timeouts: how long it waits for a completion, in seconds; one of these.
    :param names: gives the names that guests have now.
    """

    def __init__(
        self,
        draw: random.Random,
        timeouts: Sequence[float],
        subject: Subject,
        names: Callable[[], list[str]],
        ledger: Ledger,
    ) -> None:
        self._draw = draw
        self._timeouts = timeouts
        self._subject = subject
        self._names = names
        self._ledger = ledger

    def turn(self) -> None:
        """Send one command, and note what became of it."""
        names = self._names()
        guest = names[self._draw.randrange(len(names))]
        kind = self._draw.choice(_LIFECYCLES)
        wait = self._draw.random() < 0.5
        timeout = self._draw.choice(self._timeouts) if wait else max(self._timeouts)
        began_at = time.monotonic()
        outcome, reply_id, text = self._send(guest, kind, timeout, wait)
        ended_at = time.monotonic()
        self._ledger.note_call(Call(guest, began_at, ended_at, outcome, reply_id, text))
        time.sleep(self._draw.uniform(0.0, 0.1) + (_PAUSE if outcome in (STOPPING, UNREACHABLE) else 0.0))

    def _send(self, guest: str, kind: str, timeout: float, wait: bool) -> tuple[str, Optional[str], str]:
        try:
            answer = self._subject.client.send(guest, "lifecycle-event", {"type": kind}, timeout=timeout, wait=wait)
        except api.TimedOut as error:
            return TIMED_OUT, error.reply_id, ""
        except api.Stopping:
            return STOPPING, None, ""
        except api.Problem as error:
            return error.kind, None, str(error)
        except ClientError as error:
            return UNREACHABLE, None, str(error)
        if not wait:
            return SENT, answer.reply_id, ""
        return (FAILED if answer.failed else DONE), answer.reply_id, ""


class Follower(threading.Thread):
    """Follows all events, over all runs of the daemon, into *ledger*.

    :ivar position: the run and the number of the last event.
    """

    def __init__(self, client: Client, ledger: Ledger, faults: Faults) -> None:
        super().__init__(name="follower", daemon=True)
        self.position = ("", 0)
        self.count = 0
        self._events: Events = client.events(recent=LIMIT, patience=HANG)
        self._ledger = ledger
        self._faults = faults
        self._heard_at = time.monotonic()
        self._ended = False

    def run(self) -> None:
        """Follow until the end."""
        try:
            for event in self._events:
                self._take(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            if not self._ended:
                self._faults.add([f"the stream of events ended: {error!r}"])

    def end(self) -> None:
        """Follow no longer."""
        self._ended = True
        self._events.close()
        self.join()

    def _take(self, event: Event) -> None:
        now = time.monotonic()
        run, _, number_text = (event.id or "-0").rpartition("-")
        number = int(number_text)
        self._look_for_gap(event, run, number, now)
        self.position = (run, number)
        self._heard_at = now
        self.count += 1
        reply_id = event.details.get("reply_id")
        guest = event.guest or ""
        if event.kind == "guest-forgotten":
            self._ledger.note_forgotten(guest, now, run)
        elif event.kind == "guest-renamed":
            self._ledger.note_renamed(event.details["old"], guest)
        elif reply_id is not None:
            kind = "late" if event.kind == "completion" and event.details.get("late") else event.kind
            self._ledger.note_event(kind, reply_id, guest, now, run)

    def _look_for_gap(self, event: Event, run: str, number: int, now: float) -> None:
        before_run, before = self.position
        expected = before + 1 if run == before_run else 1
        if event.kind == "lost":
            # Of a run that is over, what was told last may be lost; of this one, nothing if it is told from the start.
            if run == before_run or number:
                self._ledger.note_gap(self._heard_at, now)
        elif before_run and number != expected:
            self._faults.add(
                [f"event {number} of run {run} came after {before} of {before_run}, and nothing told of a loss"]
            )


class Prober:
    """Asks the daemon how it is, again and again.

    :ivar waits: how long it took to answer, in seconds.
    :ivar peaks: the most descriptors, threads and KiB seen.
    """

    def __init__(self, subject: Subject, faults: Faults) -> None:
        self.waits: list[float] = []
        self.peaks: tuple[int, ...] = (0, 0, 0)
        self._subject = subject
        self._faults = faults
        self._client = Client(str(subject.control), timeout=HANG)

    def turn(self) -> None:
        """Ask once."""
        began_at = time.monotonic()
        try:
            self._client.host()
            level = self._subject.level()
        except (ClientError, OSError) as error:
            if not self._subject.is_down(began_at):
                self._faults.add([f"the daemon did not answer: {error}"])
            time.sleep(0.1)
            return
        wait = time.monotonic() - began_at
        if not self._subject.is_down(began_at):
            self.waits.append(wait)
        self.peaks = tuple(map(max, zip(self.peaks, level[1:])))
        time.sleep(0.1)


class Nuisance:
    """A client that no daemon deserves; which one, chance decides.

    :param names: gives the names that guests have now.
    """

    def __init__(self, draw: random.Random, subject: Subject, names: Callable[[], list[str]], faults: Faults) -> None:
        self._draw = draw
        self._subject = subject
        self._names = names
        self._faults = faults

    def turn(self) -> None:
        """Be one."""
        # The daemon may be down, or cut it off at any time.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5.0)
            connection.connect(str(self._subject.control))
            self._draw.choice((self._hang_up, self._read_slowly, self._send_garbage, self._send_half, self._reset))(
                connection
            )
        time.sleep(self._draw.uniform(0.0, 0.2))

    def _hang_up(self, connection: socket.socket) -> None:
        """Send a command, and be gone before it is answered."""
        names = self._names()
        body = b'{"name":"lifecycle-event","arguments":{"type":"before_migration"},"timeout":1}'
        name = names[self._draw.randrange(len(names))]
        head = f"POST /v1/guests/{name}/commands HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(self._draw.choice((0.0, 0.05)))

    def _read_slowly(self, connection: socket.socket) -> None:
        """Want much, and read a little of it."""
        what = self._draw.choice(("/v1/events?recent=5000", "/v1/guests", "/metrics"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.sendall(f"GET {what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for _ in range(self._draw.randrange(30)):
            connection.recv(100)
            time.sleep(0.05)

    def _send_garbage(self, connection: socket.socket) -> None:
        sent = self._draw.choice(_GARBAGE)
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(65536).startswith((b"HTTP/1.1 500", b"HTTP/1.0 500")):
            self._faults.add([f"the daemon answered {sent[:60]!r} with status 500"])

    def _send_half(self, connection: socket.socket) -> None:
        """Begin a question, and never end it."""
        connection.sendall(b"POST /v1/guests/g00001/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(self._draw.uniform(0.0, 1.0))

    def _reset(self, connection: socket.socket) -> None:
        """Go with an error instead of an end."""
        connection.sendall(b"GET /v1/guests HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(self._draw.uniform(0.0, 0.02))
