"""A fleet of simulated guests: one process, one thread, one epoll loop, thousands of ports on Unix sockets.

The sockets lie as libvirt lays them out, ``PLACE/domain-1-g00042/ovirt-guest-agent.0``. Each guest speaks API 3 as our
agent does: a refresh is answered with facts and a heartbeat, a push with the facts that have become allowed and a
heartbeat, ``lifecycle-event`` with its completion; and between these come heartbeats, spread evenly over all guests.

What a guest does otherwise is its *manner*, a value of independent members that may be changed at any time.

Whoever drives a fleet in another process (see ``processes``) sends commands, one JSON object a line, and gets one object
each in return. ``Fleet.commands`` lists them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Callable, ClassVar, Optional

import ujson

from . import speech

PORT_NAME = "ovirt-guest-agent.0"

#: How many bytes a Unix socket's path may have.
_PATH_LIMIT = 107

#: Descriptors that are no guest's.
SPARE = 64

#: A rhythm that has fallen behind by more than this starts anew, in seconds.
_LAG_LIMIT = 1.0

#: How much is read at once, in bytes.
_PIECE = 65536


@dataclasses.dataclass(frozen=True)
class Manner:
    """How a guest behaves.

    :ivar version: what it supports and announces; None: it knows no versions.
    :ivar turns_to: another version, which it announces in place of the first one …
    :ivar turns_every: … after so many heartbeats, and after as many more back; 0: never.
    :ivar facts: whether it has any.
    :ivar silent: it says nothing at all.
    :ivar deaf: it does not read.
    :ivar garbage: before each heartbeat comes a line that is no message.
    :ivar flood: what it writes over and over, a key of ``speech.FLOODS``.
    :ivar answers: whether it completes commands.
    """

    version: Optional[int] = 3
    turns_to: Optional[int] = None
    turns_every: int = 0
    facts: bool = True
    silent: bool = False
    deaf: bool = False
    garbage: bool = False
    flood: Optional[str] = None
    answers: bool = True


class Guest:
    """One guest: its port and what it knows of its host."""

    __slots__ = (
        "announced",
        "beats",
        "connection",
        "end",
        "facts",
        "flooded",
        "in_use",
        "listener",
        "manner",
        "news",
        "number",
        "path",
        "rest",
        "run",
        "told_at",
        "waiting",
    )

    def __init__(self, number: int, path: str, manner: Manner) -> None:
        self.number = number
        self.path = path
        self.manner = manner
        self.listener: Optional[socket.socket] = None
        self.connection: Optional[socket.socket] = None
        self.announced = manner.version
        self.in_use = 0
        self.run = 0
        self.beats = 0
        #: Whether it has still to tell its host a version, and when it told the one that the host has not answered yet.
        self.news = False
        self.told_at: Optional[float] = None
        #: What it could not write yet, what of a line has come in, and how far in its flood it is.
        self.waiting = b""
        self.rest = b""
        self.flooded = 0
        #: By the version that they came with.
        self.facts: list[bytes] = []
        self.end = b""
        self.collect()
        self.renew_end()

    def collect(self) -> None:
        """Find its facts."""
        versions = range(speech.NEWEST + 1) if self.manner.facts else ()
        self.facts = [speech.facts(self.number, above=version - 1, up_to=version) for version in versions]

    def renew_end(self) -> None:
        """What its heartbeats say of versions has changed."""
        self.end = speech.heartbeat_end(self.number, self.announced, self.in_use, self.run)

    @property
    def name(self) -> str:
        """What the host calls it."""
        return name_of(self.number)

    @property
    def agreed(self) -> bool:
        """Whether it was told what is to be expected of a host that knows all versions."""
        return self.connection is not None and self.in_use == self.announced


class Fleet:
    """All guests, below the directory *place*. ``turn`` does what there is to do.

    :param clock: the monotonic clock that counts.
    """

    #: The methods that may be asked for in another process.
    commands: ClassVar[tuple[str, ...]] = (
        *("add", "remove", "hang_up", "restart", "behave", "rate"),
        *("report", "latencies", "states", "stop"),
    )

    def __init__(self, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._epoll = select.epoll()
        self._guests: dict[int, Guest] = {}
        self._order: list[Guest] = []
        self._by_descriptor: dict[int, tuple[Callable[..., None], Guest]] = {}
        self._period: Optional[float] = None
        self._at_once = 1
        self._next_beat = 0.0
        self._cursor = 0
        self._turn = 0
        self._agreed = 0
        self._connected = 0
        self._keeps_listeners = True
        self._counts = dict.fromkeys(("heartbeats", "behind", "commands", "pushes", "connections", "flooded"), 0)
        self._latencies: list[float] = []
        self._all_agreed: Optional[float] = None
        self._control: Optional[socket.socket] = None
        self._asked = b""
        self._stopped = False

    # ---- What may be asked of it ----

    def add(self, first: int, count: int, **manner: Any) -> None:
        """Make the ports of *count* guests, from number *first* on."""
        self._make_room(len(self._guests) + count)
        for number in range(first, first + count):
            guest = Guest(number, os.path.join(self._place, f"domain-1-{name_of(number)}", PORT_NAME), Manner(**manner))
            os.makedirs(os.path.dirname(guest.path))
            self._listen(guest)
            self._guests[number] = guest
        self._order = list(self._guests.values())

    def remove(self, first: int, count: int) -> None:
        """Let guests vanish, ports and all."""
        for guest in self._chosen(first, count):
            self._vanish(guest)
        self._order = list(self._guests.values())

    def hang_up(self, first: int, count: int) -> None:
        """End connections; the ports stay."""
        for guest in self._chosen(first, count):
            self._lost(guest)

    def restart(self, first: int, count: int) -> None:
        """Restart agents: their connections stay, and they know nothing of their host."""
        for guest in self._chosen(first, count):
            guest.run += 1
            self._change(guest, guest.announced, 0)
            self._say_all(guest)

    def behave(self, first: int, count: int, **changes: Any) -> None:
        """Change the manner of guests."""
        for guest in self._chosen(first, count):
            guest.manner = dataclasses.replace(guest.manner, **changes)
            if "version" in changes:
                self._announce(guest, guest.manner.version)
            if "facts" in changes:
                guest.collect()
            self._watch(guest)

    def rate(self, heartbeats: float, at_once: int = 1) -> None:
        """Let all guests together send so many heartbeats a second; 0: none of their own accord.

        :param at_once: how many of them go out together.
        """
        self._at_once = at_once
        self._period = at_once / heartbeats if heartbeats else None
        self._next_beat = self._clock()

    def report(self, reset: bool = False) -> dict[str, Any]:
        """What has happened: counts, instants of the monotonic clock, and how many guests are in which state.

        :param reset: begin to count anew.
        """
        report = {
            **self._counts,
            "guests": len(self._guests),
            "connected": self._connected,
            "agreed": self._agreed,
            "now": self._clock(),
            "all_agreed": self._all_agreed,
        }
        if reset:
            self._counts = dict.fromkeys(self._counts, 0)
            self._all_agreed = None
        return report

    def latencies(self) -> list[float]:
        """How long each guest waited from telling a version to being told what was agreed, in seconds, since the last call.

        A guest that still waits counts with the time that it has waited so far.
        """
        now = self._clock()
        answered, self._latencies = self._latencies, []
        return answered + [now - guest.told_at for guest in self._order if guest.told_at is not None]

    def states(self) -> list[dict[str, Any]]:
        """What each guest announces and uses now."""
        return [
            {
                "name": guest.name,
                "connected": guest.connection is not None,
                "announced": guest.announced,
                "in_use": guest.in_use,
            }
            for guest in self._order
        ]

    def stop(self) -> None:
        """Let ``run`` return."""
        self._stopped = True

    # ---- The loop ----

    def run(self, control: socket.socket) -> None:
        """Do what *control* asks for, until it asks to stop or is gone."""
        self._control = control
        control.setblocking(False)
        self._epoll.register(control, select.EPOLLIN)
        while not self._stopped:
            self.turn(None)

    def turn(self, longest: Optional[float]) -> None:
        """Wait for something to do, no longer than *longest* seconds, and do it."""
        now = self._clock()
        if self._period is not None:
            if now >= self._next_beat:
                self._beat(now)
                longest = 0.0
            else:
                rest = self._next_beat - now
                longest = rest if longest is None else min(rest, longest)
        # epoll waits for whole milliseconds, select for microseconds.
        if longest is None or longest == 0.0 or select.select([self._epoll], [], [], longest)[0]:
            for descriptor, happened in self._epoll.poll(0 if longest is not None else None, 256):
                # One that was closed a moment ago is not there any more.
                known = self._by_descriptor.get(descriptor)
                if known is not None:
                    known[0](known[1], happened)
                elif self._control is not None and descriptor == self._control.fileno():
                    self._obey(self._control)

    def close(self) -> None:
        """Close and remove everything."""
        for guest in self._order:
            self._vanish(guest)
        self._epoll.close()

    def _obey(self, control: socket.socket) -> None:
        try:
            self._answer(control, control.recv(_PIECE))
        except ConnectionError:
            self._stopped = True

    def _answer(self, control: socket.socket, data: bytes) -> None:
        self._stopped = not data
        *lines, self._asked = (self._asked + data).split(b"\n")
        for line in lines:
            arguments = json.loads(line)
            name = self.commands[self.commands.index(arguments.pop("do"))]
            result = getattr(self, name)(**arguments)
            control.setblocking(True)
            control.sendall(json.dumps(result).encode() + b"\n")
            control.setblocking(False)

    # ---- Ports ----

    def _make_room(self, total: int) -> None:
        """See to it that *total* guests can be connected."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if total + SPARE > limit:
            sys.exit(f"{total + SPARE} open files are needed and {limit} are allowed: raise the hard limit (ulimit -Hn)")
        if self._keeps_listeners and 2 * total + SPARE > limit:
            # One that is connected does without its listener, and makes its port anew when the connection is gone.
            self._keeps_listeners = False
            for guest in self._order:
                if guest.connection is not None:
                    self._stop_listening(guest)

    def _chosen(self, first: int, count: int) -> Iterable[Guest]:
        return [self._guests[number] for number in range(first, first + count)]

    def _listen(self, guest: Guest) -> None:
        """Make the port. One that is there already is replaced in one go."""
        if len(os.fsencode(guest.path)) + 1 > _PATH_LIMIT:
            sys.exit(f"{guest.path} is too long for a socket: name a shorter place")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(guest.path + "~")
        listener.listen(1)
        listener.setblocking(False)
        os.rename(guest.path + "~", guest.path)
        guest.listener = listener
        self._by_descriptor[listener.fileno()] = (self._accept, guest)
        # Like the real one it has one client at a time.
        self._epoll.register(listener, select.EPOLLIN | select.EPOLLONESHOT)

    def _stop_listening(self, guest: Guest) -> None:
        if guest.listener is not None:
            del self._by_descriptor[guest.listener.fileno()]
            guest.listener.close()
            guest.listener = None

    def _accept(self, guest: Guest, _happened: int) -> None:
        assert guest.listener is not None
        connection, _ = guest.listener.accept()
        connection.setblocking(False)
        if not self._keeps_listeners:
            self._stop_listening(guest)
        guest.connection = connection
        self._connected += 1
        self._count_agreed(guest)
        self._by_descriptor[connection.fileno()] = (self._serve, guest)
        self._epoll.register(connection, _interests(guest))
        self._counts["connections"] += 1

    def _lost(self, guest: Guest) -> None:
        """The connection is gone: wait for the next one."""
        if guest.connection is None:
            return
        self._hang_up(guest)
        if guest.listener is not None:
            self._epoll.modify(guest.listener, select.EPOLLIN | select.EPOLLONESHOT)
        else:
            self._listen(guest)

    def _hang_up(self, guest: Guest) -> None:
        if guest.connection is not None:
            self._agreed -= guest.agreed
            self._connected -= 1
            del self._by_descriptor[guest.connection.fileno()]
            guest.connection.close()
            guest.connection = None
            guest.in_use = 0
            guest.renew_end()
        guest.waiting = guest.rest = b""
        guest.told_at = None

    def _watch(self, guest: Guest) -> None:
        if guest.connection is not None:
            self._epoll.modify(guest.connection, _interests(guest))

    def _vanish(self, guest: Guest) -> None:
        self._hang_up(guest)
        self._stop_listening(guest)
        os.unlink(guest.path)
        os.rmdir(os.path.dirname(guest.path))
        del self._guests[guest.number]

    # ---- What a guest says ----

    def _beat(self, now: float) -> None:
        """It is the next guests' turn to send a heartbeat."""
        assert self._period is not None
        if now - self._next_beat > _LAG_LIMIT:
            self._counts["behind"] += int((now - self._next_beat) / self._period) * self._at_once
            self._next_beat = now
        self._next_beat += self._period
        for _ in range(self._at_once if self._order else 0):
            self._cursor = (self._cursor + 1) % len(self._order)
            self._take_turn(self._order[self._cursor])

    def _take_turn(self, guest: Guest) -> None:
        """Send the heartbeat that is due; a guest that floods has other things to say."""
        manner = guest.manner
        if guest.connection is None or manner.silent or manner.flood:
            return
        guest.beats += 1
        # The number puts guests out of step.
        if manner.turns_every and (guest.beats + guest.number) % manner.turns_every == 0:
            self._announce(guest, manner.turns_to if guest.announced == manner.version else manner.version)
        if manner.garbage:
            self._write(guest, speech.GARBAGE[guest.beats % len(speech.GARBAGE)])
        self._send_heartbeat(guest)

    def _send_heartbeat(self, guest: Guest) -> None:
        self._turn += 1
        if self._write(guest, speech.heartbeat(self._turn, guest.end)):
            self._counts["heartbeats"] += 1
            if guest.news:
                guest.news = False
                guest.told_at = self._clock()

    def _say_all(self, guest: Guest) -> None:
        """Say everything that may be said at version 0, as an agent does that is asked to."""
        guest.news = True
        if not guest.manner.silent:
            self._write(guest, b"".join(guest.facts[:1]))
            self._send_heartbeat(guest)

    def _write(self, guest: Guest, data: bytes) -> bool:
        """Write *data*, and what does not fit later; False: something waits already and *data* is dropped."""
        if guest.waiting or guest.connection is None or not data:
            return False
        try:
            sent = guest.connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(data):
            guest.waiting = data[sent:]
            self._watch(guest)
        return True

    def _serve(self, guest: Guest, happened: int) -> None:
        if happened & select.EPOLLOUT:
            self._write_on(guest)
        if happened & ~select.EPOLLOUT:
            self._read(guest)

    def _write_on(self, guest: Guest) -> None:
        """There is room again: the rest of a line first, then the flood."""
        waiting, guest.waiting = guest.waiting, b""
        if waiting:
            self._write(guest, waiting)
            if not guest.waiting:
                self._watch(guest)
        elif guest.manner.flood and guest.connection is not None:
            flood = memoryview(speech.FLOODS[guest.manner.flood])
            try:
                sent = guest.connection.send(flood[guest.flooded :])
            except OSError:
                return
            guest.flooded = (guest.flooded + sent) % len(flood)
            self._counts["flooded"] += sent

    # ---- What a guest is told ----

    def _read(self, guest: Guest) -> None:
        if guest.connection is None:
            return
        try:
            data = guest.connection.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(guest)
            return
        *lines, guest.rest = (guest.rest + data).split(b"\n")
        for line in lines:
            if line:
                message = ujson.loads(line)
                hear = _HEARD.get(message["__name__"])
                if hear is not None:
                    getattr(self, hear)(guest, message)

    def _hear_refresh(self, guest: Guest, message: dict[str, Any]) -> None:
        self._change(guest, guest.announced, 0)
        self._say_all(guest)

    def _hear_push(self, guest: Guest, message: dict[str, Any]) -> None:
        self._counts["pushes"] += 1
        if guest.told_at is not None:
            self._latencies.append(self._clock() - guest.told_at)
            guest.told_at = None
        before = guest.in_use
        self._change(guest, guest.announced, min(message["apiVersion"], guest.announced or 0))
        if not guest.manner.silent:
            self._write(guest, b"".join(guest.facts[before + 1 : guest.in_use + 1]))
            self._send_heartbeat(guest)

    def _hear_lifecycle_event(self, guest: Guest, message: dict[str, Any]) -> None:
        self._counts["commands"] += 1
        if guest.manner.answers and "reply_id" in message:
            self._write(guest, speech.completion(message["reply_id"]))

    def _hear_echo(self, guest: Guest, message: dict[str, Any]) -> None:
        self._counts["commands"] += 1
        if guest.manner.answers:
            self._write(guest, ujson.dumps(message).encode() + b"\n")

    # ---- Versions ----

    def _announce(self, guest: Guest, version: Optional[int]) -> None:
        self._change(guest, version, 0)
        guest.news = True

    def _change(self, guest: Guest, announced: Optional[int], in_use: int) -> None:
        self._agreed -= guest.agreed
        guest.announced, guest.in_use = announced, in_use
        guest.renew_end()
        self._count_agreed(guest)

    def _count_agreed(self, guest: Guest) -> None:
        self._agreed += guest.agreed
        if self._all_agreed is None and self._agreed == len(self._guests):
            self._all_agreed = self._clock()


def name_of(number: int) -> str:
    """What guest *number* is called."""
    return f"g{number:05d}"


def _interests(guest: Guest) -> int:
    """What its connection is watched for."""
    reading = 0 if guest.manner.deaf else select.EPOLLIN
    return reading | (select.EPOLLOUT if guest.waiting or guest.manner.flood else 0)


#: By the name of a message: what hears it.
_HEARD = {
    "refresh": "_hear_refresh",
    "api-version": "_hear_push",
    "lifecycle-event": "_hear_lifecycle_event",
    "echo": "_hear_echo",
}


def serve(kind: type[Fleet], arguments: Sequence[str]) -> None:
    """Play a fleet of that *kind* for whoever started this process with these *arguments*, PLACE and DESCRIPTOR.

    The fleet is below PLACE and obeys the socket DESCRIPTOR.
    """
    place, descriptor = arguments
    fleet = kind(place)
    with socket.socket(fileno=int(descriptor)) as control:
        fleet.run(control)
    fleet.close()


if __name__ == "__main__":
    serve(Fleet, sys.argv[1:])
