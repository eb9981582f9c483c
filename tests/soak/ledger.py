"""Every command of a soak as all sides saw it, and whether one was lost. Pure; instants are of the monotonic clock.

Three sides tell of a command: whoever sent it (a *call*), the guest (a *reply*) and the daemon's events. What must hold:

- a call has exactly one end, and only a daemon that is down may leave it without an answer;
- who was told that it is done was told so because the guest said so;
- a command is completed once, or timed out once, but not both; it may be completed late after that;
- what a guest completed on a connection that lasted is told as a completion, also where the daemon was restarted meanwhile;
  and what it completed while the daemon stopped is not taken for timed out by the next one;
- what is told as sent is told as completed or timed out as well, or its guest as forgotten.

Nobody can know of what happened in the last moments before a daemon was killed, or while the disk had no room until it
ended: what belongs there is excused, and counted.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from .guests import Reply

#: A completion is read, told and followed within so many seconds, where nothing ends meanwhile.
HOLD = 3.0

#: A daemon that is told to stop reads what came so many seconds before it closes a connection.
READ = 0.5

#: What was sent is in the state file after so many seconds.
SAVED = 3.0

#: How calls may end: ``SENT`` is one that waits for no completion. What is refused was never sent.
DONE, FAILED, SENT, TIMED_OUT, STOPPING, UNREACHABLE = "done", "failed", "sent", "timed-out", "stopping", "unreachable"


class Call(NamedTuple):
    """A command as its sender saw it.

    :ivar outcome: one of those above, or the kind of a refusal.
    """

    guest: str
    began_at: float
    ended_at: float
    outcome: str
    reply_id: Optional[str] = None
    text: str = ""


class Told(NamedTuple):
    """What an event said of a command, in the daemon's run of that name.

    :ivar kind: command, completion, late, timed-out or forgotten.
    """

    kind: str
    at: float
    run: str


class End(NamedTuple):
    """The time in which a daemon was down.

    :ivar clean: whether all that it knew is in the state file.
    """

    down_at: float
    up_at: float
    clean: bool


class Verdict(NamedTuple):
    """What a look at the ledger brought.

    :ivar wrong: what must not be, a sentence each.
    :ivar outcomes: how many calls ended how.
    :ivar commands: how many commands guests heard, …
    :ivar survived: … how many of them were completed by another run of the daemon than had sent them …
    :ivar excused: … and how many nobody can judge.
    """

    wrong: list[str]
    outcomes: collections.Counter[str]
    commands: int
    survived: int
    excused: int


class Ledger:
    """Takes what is told from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._told: collections.defaultdict[str, list[Told]] = collections.defaultdict(list)
        self._open_by_guest: collections.defaultdict[str, set[str]] = collections.defaultdict(set)
        self._ends: list[End] = []
        self._gaps: list[tuple[float, float]] = []

    def note_call(self, call: Call) -> None:
        """A call has ended."""
        with self._lock:
            self._calls.append(call)

    def note_event(self, kind: str, reply_id: str, guest: str, at: float, run: str) -> None:
        """An event told of the command *reply_id*; see ``Told``."""
        with self._lock:
            self._told[reply_id].append(Told(kind, at, run))
            if kind == "command":
                self._open_by_guest[guest].add(reply_id)

    def note_forgotten(self, guest: str, at: float, run: str) -> None:
        """A guest was forgotten, and what it had not answered."""
        with self._lock:
            for reply_id in self._open_by_guest.pop(guest, ()):
                self._told[reply_id].append(Told("forgotten", at, run))

    def note_renamed(self, old: str, new: str) -> None:
        """A guest is called otherwise, and keeps its commands."""
        with self._lock:
            self._open_by_guest[new] |= self._open_by_guest.pop(old, set())

    def note_end(self, end: End) -> None:
        """A daemon ended, and another one runs."""
        with self._lock:
            self._ends.append(end)

    def note_gap(self, since: float, until: float) -> None:
        """Events of that time were lost to those who follow them."""
        with self._lock:
            self._gaps.append((since, until))

    def settle(self, replies: Iterable[Reply]) -> Verdict:
        """Judge all that is told, at a moment when nothing is in flight; and begin anew."""
        with self._lock:
            by_id = {reply.reply_id: reply for reply in replies}
            wrong = [*self._judge_calls(by_id), *(text for each in by_id.values() for text in self._judge_heard(each))]
            excused, survived = 0, 0
            for reply_id in {*by_id, *self._told}:
                reply, told = by_id.get(reply_id), self._told.get(reply_id, [])
                faults = [*_judge_once(reply_id, told), *self._judge_lost(reply_id, reply, told)]
                if faults and self._is_excused(reply, told):
                    excused += 1
                else:
                    wrong += faults
                survived += _survived(told)
            outcomes = collections.Counter(call.outcome for call in self._calls)
            self._calls.clear()
            self._told.clear()
            self._open_by_guest.clear()
            self._ends.clear()
            self._gaps.clear()
        return Verdict(wrong, outcomes, len(by_id), survived, excused)

    # ---- What must hold ----

    def _judge_calls(self, replies: dict[str, Reply]) -> Iterator[str]:
        for call in self._calls:
            reply = replies.get(call.reply_id or "")
            if call.outcome == UNREACHABLE and not self._was_down(call.began_at, call.ended_at):
                yield f"a command to {call.guest} was not answered, and the daemon was there: {call.text}"
            if call.outcome == DONE and (reply is None or reply.answered_at is None):
                yield f"{call.reply_id}: told to be done by {call.guest}, which never said so"

    def _judge_heard(self, reply: Reply) -> Iterator[str]:
        if reply.heard > 1:
            yield f"{reply.reply_id}: sent to {reply.heard_by} {reply.heard} times"

    def _judge_lost(self, reply_id: str, reply: Optional[Reply], told: list[Told]) -> Iterator[str]:
        kinds = {each.kind for each in told}
        if reply is not None and self._is_lost(reply, told, kinds):
            ended = "lasted" if reply.ended_at is None else f"ended at {reply.ended_at:.2f}"
            yield (
                f"{reply_id}: a completion was lost: {reply.heard_by} heard at {reply.heard_at:.2f} and answered at "
                f"{reply.answered_at:.2f} on a connection that {ended}; told: {_shown(told)}{self._shown_ends()}"
            )
        answered_at_the_end = reply is not None and reply.answered_at is not None and self._clean_end(reply) is not None
        if "command" in kinds and not kinds & {"completion", "timed-out", "forgotten"} and not answered_at_the_end:
            yield f"{reply_id}: told as sent and never as ended; told: {_shown(told)}{self._shown_ends()}"

    def _is_lost(self, reply: Reply, told: list[Told], kinds: set[str]) -> bool:
        """Whether the guest completed it, and the daemon did not notice."""
        if reply.answered_at is None or not reply.sure or reply.answered_by != reply.heard_by:
            return False
        if kinds & {"completion", "late", "forgotten"}:
            return False
        given_up_at = next((each.at for each in told if each.kind == "timed-out"), None)
        if self._clean_end(reply) is not None and reply.ended_at is not None:
            lasted = reply.ended_at - reply.answered_at >= READ
            return lasted and given_up_at is not None and given_up_at > reply.answered_at
        if reply.ended_at is not None and reply.ended_at - reply.answered_at < HOLD:
            return False
        # Of one that comes late, only the run knows that gave it up.
        return not (given_up_at is not None and self._was_down(given_up_at, reply.answered_at))

    def _clean_end(self, reply: Reply) -> Optional[End]:
        """The end of the daemon by which the connection ended on which *reply* was sent."""
        at = reply.ended_at
        return next(
            (each for each in self._ends if each.clean and at is not None and each.down_at <= at <= each.up_at), None
        )

    # ---- What can't be known ----

    def _is_excused(self, reply: Optional[Reply], told: list[Told]) -> bool:
        instants = [each.at for each in told]
        if reply is not None:
            instants += [each for each in (reply.heard_at, reply.answered_at) if each is not None]
        begin, end = min(instants), max(instants)
        if any(begin - HOLD <= until and since <= end + HOLD for since, until in self._gaps):
            return True
        # Not saved: what was sent, or what was answered, just before a daemon ended that had no time for its last words.
        return any(
            not each.clean and any(each.down_at - SAVED <= instant <= each.up_at for instant in instants)
            for each in self._ends
        )

    def _was_down(self, began_at: float, ended_at: float) -> bool:
        return any(each.down_at <= ended_at and began_at <= each.up_at for each in self._ends)

    def _shown_ends(self) -> str:
        ends = ", ".join(f"{each.down_at:.2f} to {each.up_at:.2f}" for each in self._ends)
        return f"; the daemon was down from {ends}" if ends else ""


def _judge_once(reply_id: str, told: list[Told]) -> Iterator[str]:
    kinds = collections.Counter(each.kind for each in told)
    if kinds["completion"] + kinds["timed-out"] > 1 or kinds["completion"] + kinds["late"] > 1 or kinds["command"] > 1:
        yield f"{reply_id}: ended more than once: {_shown(told)}"


def _survived(told: list[Told]) -> bool:
    runs = {each.kind: each.run for each in told}
    return "command" in runs and runs.get("completion", runs["command"]) != runs["command"]


def _shown(told: list[Told]) -> str:
    return ", ".join(f"{each.kind} at {each.at:.2f} by {each.run[:6]}" for each in told) or "nothing"
