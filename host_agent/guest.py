"""One guest: what the host knows of it. Pure state: no I/O, no clock; instants are seconds of the loop's monotonic clock.

A guest outlives its channels: its session, facts and counters stay when a channel ends or its socket vanishes. What was
agreed does not: it belongs to one channel. Facts are kept as JSON text, which is compact whatever a guest sends, and is
what the control API and the store hand on.
"""

from __future__ import annotations

import enum
import json
import logging
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional

from common import events, messages
from common.session import HostSession

from .journal import CallAt, Journal

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class State(enum.Enum):
    """Where a guest's channel stands."""

    #: No socket of this guest is there.
    ABSENT = "absent"
    #: Its socket is there, and nobody answers on it yet.
    CONNECTING = "connecting"
    #: The channel is open; nothing was heard on it yet.
    CONNECTED = "connected"
    RESPONSIVE = "responsive"
    #: The channel is open, and the guest fell silent.
    UNRESPONSIVE = "unresponsive"


_OPEN = (State.CONNECTED, State.RESPONSIVE, State.UNRESPONSIVE)


class Fact(NamedTuple):
    """What a guest said last in one message: its arguments as JSON text, and when."""

    text: str
    heard_at: float


class Guest:
    """A guest, by the *name* of its VM.

    :param session: its half of the protocol; who drives it hands its events to ``absorb``.
    :param fact_changed: called with this name, the fact's name and the fact whenever one came in.
    :param call_at: see ``Journal``.
    """

    def __init__(
        self,
        name: str,
        session: HostSession,
        now: float,
        fact_changed: Optional[Callable[[str, str, Fact], None]] = None,
        call_at: Optional[CallAt] = None,
    ) -> None:
        self.name = name
        self.session = session
        self.state = State.ABSENT
        self.path: Optional[str] = None
        self.facts: dict[str, Fact] = {}
        self._since = now
        self._changes = 0
        self._last_reason: Optional[str] = None
        self._last_change_at: Optional[float] = None
        self._fact_changed = fact_changed
        self._journal = Journal(name, call_at)
        self._futile = False

    # ---- What becomes of its channel ----

    def found(self, path: str, now: float) -> None:
        """Its port is at *path*, perhaps a fresh one."""
        self.path = path
        self._futile = False
        if self.state is State.ABSENT:
            self._enter(State.CONNECTING, now)

    def vanished(self, now: float) -> None:
        """It has no port any more; its channel has been closed."""
        self.path = None
        self._enter(State.ABSENT, now)

    def unreachable(self, why: str, now: float) -> None:
        """Attempts to connect keep failing; to be told once for all in a row."""
        self._journal.say("unreachable", f"can't connect to {self.path}: {why}; trying again", now, logging.WARNING)

    def connected(self, now: float) -> None:
        """A channel was opened; the session has what must be written on it."""
        self._enter(State.CONNECTED, now)
        self.session.connected(now)
        if not self._futile:
            self._say_connected(now)

    def disconnected(self, why: str, now: float) -> None:
        """The channel is gone. One that never carried a message is told of once, however often it comes and goes."""
        heard = self.heard
        self._enter(State.CONNECTING, now)
        self.session.disconnected()
        if not self._futile:
            self._journal.say("channel", f"disconnected: {why}", now)
        self._futile = not heard

    @property
    def heard(self) -> bool:
        """Whether a message came on this channel."""
        return self.state in (State.RESPONSIVE, State.UNRESPONSIVE)

    # ---- What it says ----

    def absorb(self, happened: Iterable[events.Event], now: float) -> None:
        """Take what the session reports."""
        for event in happened:
            if isinstance(event, events.MessageReceived):
                self._fold(event, now)
            elif isinstance(event, events.VersionChanged):
                self._note_version(event, now)
            elif isinstance(event, events.Responsive):
                self._note_life(now)
            elif isinstance(event, events.Unresponsive):
                self._enter(State.UNRESPONSIVE, now)
                text = f"unresponsive: nothing heard for {event.silence:.0f} s"
                self._journal.say("life", text, now, logging.WARNING)
            elif isinstance(event, events.AgentRestarted):
                self._journal.say("agent", "its agent was restarted", now)
            elif isinstance(event, events.Complaint):
                self._journal.say("complaint", event.text, now, logging.WARNING)

    def restore(self, facts: dict[str, Fact]) -> None:
        """Take what it said before this daemon ran. Never what was agreed: that belongs to a channel."""
        self.facts = dict(facts)
        self.session.heard_at = max((fact.heard_at for fact in facts.values()), default=None)

    def _fold(self, event: events.MessageReceived, now: float) -> None:
        if not isinstance(event.message, messages.Fact):
            return
        fact = self.facts[event.name] = Fact(_encode(event.message.to_arguments()), now)
        if self._fact_changed is not None:
            self._fact_changed(self.name, event.name, fact)

    def _note_version(self, event: events.VersionChanged, now: float) -> None:
        if event.old != event.new:
            self._changes += 1
        self._last_reason = event.why
        self._last_change_at = now
        self._journal.say("version", f"agreed {event.old} → {event.new}: {event.why}", now)

    def _note_life(self, now: float) -> None:
        if self.state is State.UNRESPONSIVE:
            self._journal.say("life", "responsive again", now)
        elif self._futile:
            self._futile = False
            self._say_connected(now)
        self._enter(State.RESPONSIVE, now)

    def _say_connected(self, now: float) -> None:
        self._journal.say("channel", f"connected: {self.path}", now)

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self._since = now

    # ---- What is known ----

    def describe(self, now: float) -> dict[str, Any]:
        """Everything, as the control API has it; what is unknown is None, ages are in seconds."""
        return {
            "name": self.name,
            "channel": {"path": self.path, "state": self.state.value, "since_s": _age(self._since, now)},
            "api": self._describe_api(now),
            "heard_s": _age(self.session.heard_at, now),
            "facts": {
                name: {"age_s": _age(fact.heard_at, now), "value": json.loads(fact.text)}
                for name, fact in self.facts.items()
            },
            "counters": self.session.counters.as_mapping(),
        }

    def _describe_api(self, now: float) -> dict[str, Any]:
        supported = self.session.supported
        negotiation = self.session.negotiation
        is_open = self.state in _OPEN
        return {
            "agreed": int(negotiation.agreed) if is_open else None,
            "supported": None if supported is None else int(supported),
            "advertised": negotiation.advertised if is_open else None,
            "in_use": _number(negotiation.in_use) if is_open else None,
            "changes": self._changes,
            "last_reason": self._last_reason,
            "last_change_s": _age(self._last_change_at, now),
        }


def _number(value: Optional[int]) -> Optional[int]:
    return None if value is None else int(value)


def _age(at: Optional[float], now: float) -> Optional[float]:
    return None if at is None else round(max(0.0, now - at), 3)
