"""The guests of a soak: a fleet of the bench that can do more, and that keeps a record of what its host makes it do.

Guests are renamed, get other places, say single bad things, and complete commands late, also those of a host that has been
restarted since. What they say of commands is what the ledger believes; what no host may ever tell a guest is a *mistake*.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import os
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable, Optional

from common.framing import LINE_LIMIT
from tests.bench import processes, speech
from tests.bench.fleet import PORT_NAME, Fleet, Guest, name_of, serve

#: How often a completion that can't be written is tried again, in seconds.
_AGAIN = 0.2

#: So many mistakes are kept in full.
_MISTAKES = 20

#: From this version on there are completions.
COMPLETIONS_SINCE = 3

_draw = random.Random(9)

#: What a guest can say once, by name. What is no line makes the line after it another one.
SAYINGS = {
    "half": speech.heartbeat(0, speech.heartbeat_end(1, 3, 3))[:200],
    "overlong": b'{"__name__":"' + b"x" * LINE_LIMIT + b'"}\n',
    "burst": b"".join(speech.heartbeat(turn, speech.heartbeat_end(1, 3, 3)) for turn in range(300)),
    "garbage": b"".join(speech.GARBAGE),
    "noise": bytes(_draw.randrange(256) for _ in range(20_000)),
}


@dataclasses.dataclass
class Reply:
    """A command as its guest saw it; instants are those of the system's monotonic clock.

    :ivar heard_by: the guest's name then.
    :ivar answered_by: its name when it answered.
    :ivar ended_at: when the connection ended on which it answered.
    :ivar sure: nothing else that the guest did can have spoilt the answer.
    """

    reply_id: str
    heard_by: str
    heard_at: float
    heard: int = 1
    answered_by: Optional[str] = None
    answered_at: Optional[float] = None
    ended_at: Optional[float] = None
    sure: bool = True


@dataclasses.dataclass
class _Notes:
    """What the fleet knows of a guest besides.

    :ivar delay: how long its commands take, in seconds.
    :ivar spoilt: on this connection it said what can spoil a line.
    :ivar highest: the highest version that it announced on this connection; -1: none.
    :ivar offered: what its host offered last on this connection.
    """

    name: str
    domain: int = 1
    delay: float = 0.0
    spoilt: bool = False
    highest: int = -1
    offered: Optional[int] = None
    answered: list[Reply] = dataclasses.field(default_factory=list)
    owed: list[Reply] = dataclasses.field(default_factory=list)


class Residents(Fleet):
    """The guests. Who is asked to do something and is not there is left out."""

    commands = (*Fleet.commands, "rename", "move", "say", "delay", "return_all", "calm", "replies", "mistakes")

    def __init__(self, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(place, clock)
        self._notes: dict[int, _Notes] = {}
        self._replies: dict[str, Reply] = {}
        #: When to answer, and a number that decides between equals.
        self._due: list[tuple[float, int, Guest, Reply]] = []
        self._ticket = 0
        self._mistaken: list[str] = []

    # ---- What may be asked of it ----

    def add(self, first: int, count: int, **manner: Any) -> None:
        """Make the ports of those guests that have none, each under the name that it had."""
        for number in range(first, first + count):
            if number not in self._guests:
                notes = self._notes.setdefault(number, _Notes(name_of(number)))
                notes.highest = -1
                super().add(number, 1, **manner)
                self._relocate(self._guests[number], notes)

    def rename(self, first: int, count: int, suffix: str) -> None:
        """Have VMs called otherwise: the sockets move, with whoever is connected."""
        for guest in self._chosen(first, count):
            notes = self._notes[guest.number]
            notes.name = f"{name_of(guest.number)}{suffix}"
            self._relocate(guest, notes)

    def move(self, first: int, count: int) -> None:
        """Have the sockets moved to other directories, as a VM's are with each start."""
        for guest in self._chosen(first, count):
            notes = self._notes[guest.number]
            notes.domain += 1
            self._relocate(guest, notes)

    def say(self, first: int, count: int, what: str) -> None:
        """Say one of ``SAYINGS``."""
        for guest in self._chosen(first, count):
            self._spoil(guest)
            self._write(guest, SAYINGS[what])

    def delay(self, first: int, count: int, seconds: float) -> None:
        """Let commands take so long."""
        for guest in self._chosen(first, count):
            self._notes[guest.number].delay = seconds

    def behave(self, first: int, count: int, **changes: Any) -> None:
        """Change the manner of guests."""
        for guest in self._chosen(first, count):
            if changes.get("flood"):
                self._spoil(guest)
        super().behave(first, count, **changes)

    def return_all(self, first: int, count: int) -> None:
        """Let those that vanished come back."""
        self.add(first, count)

    def calm(self) -> None:
        """Let all guests behave. A line that was begun is ended, and is none."""
        for guest in self._order:
            self.behave(guest.number, 1, silent=False, deaf=False, garbage=False, flood=None, turns_every=0, answers=True)
            self._notes[guest.number].delay = 0.0
            self._announce(guest, guest.manner.version)
            if self._notes[guest.number].spoilt:
                self._write(guest, b"\n")

    def states(self) -> list[dict[str, Any]]:
        """What each guest is called, announces and uses now."""
        names = {name_of(number): notes.name for number, notes in self._notes.items()}
        return [{**state, "name": names[state["name"]]} for state in super().states()]

    def replies(self) -> list[dict[str, Any]]:
        """All commands that came since the last call. Those that are answered later are not told of again."""
        told, self._replies = self._replies, {}
        return [dataclasses.asdict(reply) for reply in told.values()]

    def report(self, reset: bool = False) -> dict[str, Any]:
        """As every fleet's, and how many commands are still to be answered."""
        pending = len(self._due) + sum(len(self._notes[guest.number].owed) for guest in self._order)
        return {**super().report(reset), "pending": pending}

    def mistakes(self) -> list[str]:
        """What the host told guests and must never have told, since the last call."""
        told, self._mistaken = self._mistaken, []
        return told

    # ---- The loop ----

    def turn(self, longest: Optional[float]) -> None:
        """Wait for something to do, no longer than *longest* seconds, and do it."""
        super().turn(longest)
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, _, guest, reply = heapq.heappop(self._due)
            self._complete(guest, reply, now)

    # ---- Ports ----

    def _chosen(self, first: int, count: int) -> Iterable[Guest]:
        return [self._guests[number] for number in range(first, first + count) if number in self._guests]

    def _relocate(self, guest: Guest, notes: _Notes) -> None:
        new = os.path.join(self._place, f"domain-{notes.domain}-{notes.name}")
        old = os.path.dirname(guest.path)
        if old != new:
            os.rename(old, new)
            guest.path = os.path.join(new, PORT_NAME)

    def _accept(self, guest: Guest, happened: int) -> None:
        notes = self._notes[guest.number]
        notes.highest, notes.offered, notes.spoilt = _rank(guest.announced), None, False
        if guest.manner.flood:
            self._spoil(guest)
        super()._accept(guest, happened)

    def _spoil(self, guest: Guest) -> None:
        """What it says from now on can spoil lines, and announce another version."""
        notes = self._notes[guest.number]
        notes.spoilt = True
        notes.highest = max(notes.highest, speech.NEWEST)

    def _hang_up(self, guest: Guest) -> None:
        notes = self._notes[guest.number]
        for reply in notes.answered:
            reply.ended_at = self._clock()
        notes.answered.clear()
        super()._hang_up(guest)

    def _vanish(self, guest: Guest) -> None:
        self._notes[guest.number].owed.clear()
        super()._vanish(guest)

    # ---- Commands ----

    def _hear_lifecycle_event(self, guest: Guest, message: dict[str, Any]) -> None:
        self._counts["commands"] += 1
        notes = self._notes[guest.number]
        reply_id = message["reply_id"]
        if min(notes.highest, _rank(notes.offered)) < COMPLETIONS_SINCE:
            self._note_mistake(
                f"{notes.name} was sent a command and announced {notes.highest} at most, with {notes.offered}"
            )
        known = self._replies.get(reply_id)
        if known is not None:
            known.heard += 1
            return
        reply = self._replies[reply_id] = Reply(reply_id, notes.name, self._clock())
        if guest.manner.answers:
            self._complete_later(guest, reply, notes.delay)

    def _complete_later(self, guest: Guest, reply: Reply, seconds: float) -> None:
        if not seconds:
            self._complete(guest, reply, self._clock())
            return
        self._ticket += 1
        heapq.heappush(self._due, (self._clock() + seconds, self._ticket, guest, reply))

    def _complete(self, guest: Guest, reply: Reply, now: float) -> None:
        """Answer, or as soon as that is possible; a VM that has been gone meanwhile knows nothing of it."""
        notes = self._notes[guest.number]
        if self._guests.get(guest.number) is not guest:
            return
        if guest.connection is None:
            notes.owed.append(reply)
        elif self._write(guest, speech.completion(reply.reply_id)):
            reply.answered_at, reply.answered_by = now, notes.name
            reply.sure = not notes.spoilt and not guest.waiting
            notes.answered.append(reply)
        else:
            self._complete_later(guest, reply, _AGAIN)

    def _hear_refresh(self, guest: Guest, message: dict[str, Any]) -> None:
        notes = self._notes[guest.number]
        notes.offered = message.get("apiVersion")
        super()._hear_refresh(guest, message)
        owed, notes.owed = notes.owed, []
        for reply in owed:
            self._complete_later(guest, reply, _AGAIN)

    # ---- Versions ----

    def _hear_push(self, guest: Guest, message: dict[str, Any]) -> None:
        notes = self._notes[guest.number]
        pushed = message["apiVersion"]
        if pushed > min(notes.highest, _rank(notes.offered)):
            self._note_mistake(
                f"{notes.name} was told to use {pushed}: it announced {notes.highest} at most, with {notes.offered}"
            )
        super()._hear_push(guest, message)

    def _change(self, guest: Guest, announced: Optional[int], in_use: int) -> None:
        notes = self._notes[guest.number]
        notes.highest = max(notes.highest, _rank(announced))
        super()._change(guest, announced, in_use)

    def _note_mistake(self, text: str) -> None:
        if len(self._mistaken) < _MISTAKES:
            self._mistaken.append(text)


def _rank(version: Optional[int]) -> int:
    return -1 if version is None else version


class Guests(processes.Fleet):
    """Residents in a process of their own."""

    def __init__(self, place: Path, core: int) -> None:
        super().__init__(place, core, "tests.soak.guests")

    def settle_replies(self) -> list[Reply]:
        """See ``Residents.replies``."""
        return [Reply(**each) for each in self.ask("replies")]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve(Residents, sys.argv[1:])
