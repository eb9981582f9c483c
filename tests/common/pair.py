"""A host session and a guest session back to back, with a small agent that answers what the guest session wants."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, Optional

from common import codec, events, messages, versions
from common.catalogue import CATALOGUE, Direction
from common.session import GuestSession, HostSession, Session
from common.versions import Version

from .samples import arguments_for

#: What both sides support unless a test says otherwise.
NEWEST = versions.newest()

#: How many bytes at each end of long data are cut one by one; the middle goes in the largest read that a guest can make.
_SINGLE = 100
_READ = 4096


class Cut(enum.Enum):
    """How bytes are cut on their way."""

    WHOLE = "whole"
    BYTES = "byte by byte"
    TAIL = "with a tail of the next line"

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """*data* in the pieces in which it arrives."""
        if self is Cut.WHOLE:
            yield data
        elif self is Cut.BYTES:
            yield from _single_bytes(data)
        else:
            yield from _with_tails(data)


class Pair:
    """Both sessions, the lossless channel between them, and a clock.

    :ivar now: the time on both sides, in seconds.
    :ivar host_lines: what the host has written, as (name, arguments), oldest first; ``guest_lines`` likewise.
    :ivar host_events: what the host session has reported; ``guest_events`` likewise.
    :ivar guest_is_deaf: what the host writes is lost.
    """

    def __init__(self, host: Optional[Version] = NEWEST, guest: Optional[Version] = NEWEST, *, cut: Cut = Cut.WHOLE) -> None:
        self.now = 0.0
        self.host = HostSession(host, "host-1")
        self.guest = GuestSession(guest, "agent-1")
        self.host_lines: list[tuple[str, dict[str, Any]]] = []
        self.guest_lines: list[tuple[str, dict[str, Any]]] = []
        self.host_events: list[events.Event] = []
        self.guest_events: list[events.Event] = []
        self.guest_is_deaf = False
        self._cut = cut

    def connect(self) -> None:
        """Both sides open the channel; whatever follows from that crosses it."""
        self.host.connected(self.now)
        self.guest.opened(self.now)
        self.exchange()

    def replace_host(self, supported: Optional[Version], *, noticed: bool) -> None:
        """Another host takes the channel over; the guest has *noticed* that, or not."""
        if noticed:
            self.guest.host_gone()
        self.host = HostSession(supported, "host-2")
        self.host.connected(self.now)
        if noticed:
            self.guest.host_came(self.now)
        self.exchange()

    def restart_agent(self, supported: Optional[Version]) -> None:
        """Another run of the agent opens the port, under an open connection of the host."""
        self.guest = GuestSession(supported, "agent-2")
        self.guest.opened(self.now)
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes both ways until both sides are silent."""
        while self._carry_to_guest() or self._carry_to_host():
            pass

    def wait(self, seconds: float) -> None:
        """Let time pass; each side is called when it asked for it."""
        end = self.now + seconds
        while True:
            deadlines = [self.guest.next_deadline(), self.host.next_deadline()]
            due = min([deadline for deadline in deadlines if deadline is not None and deadline <= end], default=None)
            self.now = end if due is None else max(self.now, due)
            self.host.tick(self.now)
            self.guest.tick(self.now)
            self.exchange()
            if due is None:
                return

    @property
    def versions(self) -> tuple[int, int]:
        """What is agreed on the host and in use in the guest."""
        return int(self.host.negotiation.agreed), int(self.guest.negotiation.in_use)

    @property
    def pushes(self) -> list[int]:
        """The versions that the host has pushed, oldest first."""
        return [arguments["apiVersion"] for name, arguments in self.host_lines if name == "api-version"]

    def facts(self) -> set[str]:
        """The names of the facts that the guest has written."""
        return {name for name, _ in self.guest_lines} & CATALOGUE.facts(up_to=max(Version))

    def forget(self) -> None:
        """Forget lines and events up to now."""
        for record in (self.host_lines, self.guest_lines, self.host_events, self.guest_events):
            record.clear()

    def _carry_to_guest(self) -> bool:
        self.host_events += self.host.events()
        data = self.host.data_to_send()
        self.host_lines += read_lines(data)
        if not self.guest_is_deaf:
            self._deliver(self.guest, data)
        return bool(data)

    def _carry_to_host(self) -> bool:
        self._answer()
        data = self.guest.data_to_send()
        self.guest_lines += read_lines(data)
        self._deliver(self.host, data)
        return bool(data)

    def _deliver(self, session: Session, data: bytes) -> None:
        for piece in self._cut.pieces(data):
            session.receive_data(piece, self.now)

    def _answer(self) -> None:
        for event in self.guest.events():
            self.guest_events.append(event)
            if isinstance(event, events.HeartbeatWanted):
                self.guest.send_heartbeat("512", {"mem_free": 512})
            elif isinstance(event, events.FactsWanted):
                self._report(event.names)

    def _report(self, names: frozenset[str]) -> None:
        for name in sorted(names):
            self.guest.send(message_to_host(name))


def read_lines(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The lines that a session wrote; every line it writes is a valid one, or the empty one before all others."""
    assert not data or data.endswith(b"\n")
    return [codec.decode(line) for line in data.split(b"\n") if line]


def message_to_host(name: str) -> messages.Message:
    """A valid message of that name."""
    row = CATALOGUE.find(Direction.TO_HOST, name)
    assert row is not None
    message, _ = row.message_class.from_arguments(arguments_for(row))
    return message


def _single_bytes(data: bytes) -> Iterator[bytes]:
    """One byte at a time, except in the middle of long data, where that would only take time."""
    end_begins = max(_SINGLE, len(data) - _SINGLE)
    position = 0
    while position < len(data):
        in_middle = _SINGLE <= position < end_begins
        size = min(_READ, end_begins - position) if in_middle else 1
        yield data[position : position + size]
        position += size


def _with_tails(data: bytes) -> Iterator[bytes]:
    """Each piece ends in the middle of a line."""
    start, line_start = 0, 0
    for line in data.split(b"\n"):
        middle = line_start + len(line) // 2
        yield data[start:middle]
        start = middle
        line_start += len(line) + 1
    yield data[start:]
