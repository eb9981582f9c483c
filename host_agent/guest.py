"""One guest: what the host knows of it. Pure state: no I/O, no clock; instants are seconds of the loop's monotonic clock.

A guest outlives its channels: its session, facts, commands and counters stay when a channel ends or its socket vanishes.
What was agreed does not: it belongs to one channel. Whatever a guest sends, what is kept of it is bounded: the lines of its
facts together, and how much of what happens to it is told.

A guest that comes from another host brings what was known of it there. That counts less than what is known here and is not
older; and what its last channel there said of the agent is shown only until host and guest have agreed here.
"""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional, Protocol

from common import events, messages
from common.catalogue import CATALOGUE, Direction
from common.handoff.spec2 import Capabilities, Spec2
from common.session import HostSession

from .budget import Budget, Limits
from .feed import Feed
from .journal import CallAt, Journal
from .known import UNKNOWN_TIME, Departure, Fact, Frozen, InFlight, VersionChange, share
from .meter import Meter, Standing

#: How many changes of the version are remembered.
HISTORY = 20

#: What guests cause is told at most this often, in happenings a second and guest, on average.
TELLING_RATE = 3.0

#: Of what a guest says of a command that it does not carry out, so much is told, in characters.
UNSUPPORTED_LENGTH = 200

#: A change that two hosts tell of is the same if they were so close, in seconds: clocks and ages are not exact.
SAME_MOMENT = 1.0


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


class Memory(Protocol):
    """Where what must survive a restart of the daemon is handed to; see ``store``."""

    def put_fact(self, guest: str, name: str, fact: Fact) -> None:
        """The guest said something."""

    def put_change(self, guest: str, change: VersionChange) -> None:
        """Host and guest agreed on another version."""

    def put_guest(self, guest: str, uuid: Optional[str]) -> None:
        """The UUID of the guest's VM is known."""

    def forget(self, guest: str) -> None:
        """Nothing is to be known of the guest any more."""


class Shared(NamedTuple):
    """What all guests of a daemon have in common.

    :ivar completed: called with a guest and what it says to be done.
    :ivar call_at: see ``Journal``.
    :ivar offered: called with a guest that says on its channel what it lets the host do.
    """

    meter: Meter
    feed: Feed
    limits: Limits
    memory: Optional[Memory] = None
    completed: Optional[Callable[[Guest, messages.Completion, float], None]] = None
    call_at: Optional[CallAt] = None
    offered: Optional[Callable[[Guest], None]] = None


class Guest:
    """A guest, by the *name* of its VM.

    :param session: its half of the protocol; who drives it hands its events to ``absorb``.
    """

    __slots__ = (
        "__weakref__",
        "_changed_at",
        "_changes",
        "_facts_size",
        "_futile",
        "_journal",
        "_reason",
        "_settle",
        "_shared",
        "_since",
        "_standing",
        "_telling",
        "carried",
        "channel",
        "departed",
        "departure",
        "facts",
        "frozen",
        "history",
        "in_flight",
        "moved_to",
        "moving",
        "moving_to",
        "name",
        "path",
        "session",
        "state",
        "throttled",
        "uuid",
    )

    def __init__(self, name: str, session: HostSession, now: float, shared: Shared) -> None:
        self.name = name
        self.uuid: Optional[str] = None
        self.session = session
        self.state = State.ABSENT
        self.path: Optional[str] = None
        #: The number of its channel, the present or else the latest one.
        self.channel = 0
        self.facts: dict[str, Fact] = {}
        self.history: tuple[VersionChange, ...] = ()
        self.in_flight: dict[str, InFlight] = {}
        #: Whether it sends too much and is read from slowly.
        self.throttled = False
        #: What is frozen in it, or was: see ``frozen_at``.
        self.frozen: Optional[Frozen] = None
        #: Whether it is just being handed over, to the host ``moving_to`` where that is known.
        self.moving = False
        self.moving_to: Optional[str] = None
        #: The hand-off of which the outcome is not known; who sets it keeps the guest moving until then.
        self.departure: Optional[Departure] = None
        #: The host that it was handed over to; None: it is this host's.
        self.moved_to: Optional[str] = None
        #: The hand-off that took it there, as long as that must be remembered.
        self.departed: Optional[str] = None
        #: What another host said beside facts and what is in flight.
        self.carried: Optional[Spec2] = None
        self._shared = shared
        self._since = now
        self._changes = 0
        self._reason: Optional[str] = None
        self._changed_at: Optional[float] = None
        self._facts_size = 0
        self._settle: Optional[Callable[[], None]] = None
        self._journal = Journal(name, shared.call_at)
        self._telling = Budget(_TELLING)
        self._futile = False
        self._standing = Standing(self.state.value, None)
        shared.meter.move(None, self._standing)

    # ---- What becomes of its channel ----

    def found(self, path: str, now: float, uuid: Optional[str] = None) -> None:
        """Its port is at *path*, perhaps a fresh one."""
        if path != self.path:
            self._shared.feed.tell("guest-found", self.name, path=path)
            if self.path is not None:
                self.moved_to = None
        self.path = path
        self.uuid = uuid or self.uuid
        self._futile = False
        if self.state is State.ABSENT:
            self._enter(State.CONNECTING, now)

    def vanished(self, now: float) -> None:
        """It has no port any more; its channel has been closed."""
        self.path = None
        self._shared.feed.tell("guest-gone", self.name)
        self._enter(State.ABSENT, now)

    def forgotten(self) -> None:
        """Nobody will ask about it any more."""
        self._shared.meter.forget(self.session.counters)
        self._shared.meter.move(self._standing, None)
        self._shared.feed.tell("guest-forgotten", self.name)

    def renamed(self, name: str) -> None:
        """Its VM is called *name* now."""
        self._shared.feed.tell("guest-renamed", name, old=self.name)
        self.name = name
        if self.departure is not None:
            self.departure = self.departure._replace(guest=name)
        self._journal.rename(name)

    def stay(self) -> None:
        """It is this host's, and not just being handed over."""
        self.moving, self.moving_to, self.departure, self.moved_to = False, None, None, None

    def move(self, to: str) -> None:
        """It is the host *to*'s, and nothing of it is known here any more; its commands in flight have been taken away."""
        self.stay()
        self.moved_to = to
        self.facts, self._facts_size = {}, 0
        self.history, self.frozen, self.carried = (), None, None
        if self._shared.memory is not None:
            self._shared.memory.forget(self.name)

    def unreachable(self, why: str, now: float) -> None:
        """Attempts to connect keep failing; to be told once for all in a row."""
        self._journal.say("unreachable", f"can't connect to {self.path}: {why}; trying again", now, logging.WARNING)

    def connected(self, now: float, settle: Optional[Callable[[], None]] = None) -> None:
        """A channel was opened; the session has what must be written on it.

        :param settle: does what must follow a call to the session from here.
        """
        self._settle = settle
        self.channel += 1
        self.session.connected(now)
        self._enter(State.CONNECTED, now)
        if not self._futile:
            self._say_connected(now)

    def disconnected(self, why: str, now: float) -> None:
        """The channel is gone. One that never carried a message is told of once, however often it comes and goes."""
        heard = self.heard
        self._settle = None
        self.session.disconnected()
        self.throttle(False)
        self._enter(State.CONNECTING, now, None if self._futile else why)
        if not self._futile:
            self._journal.say("channel", f"disconnected: {why}", now)
        self._futile = not heard

    @property
    def heard(self) -> bool:
        """Whether a message came on this channel."""
        return self.state is State.RESPONSIVE or self.state is State.UNRESPONSIVE

    def throttle(self, throttled: bool) -> None:
        """It is read from slowly, or as usual again."""
        if throttled != self.throttled:
            self.throttled = throttled
            self._shared.meter.throttlings += throttled
            self._shared.feed.tell("throttled" if throttled else "unthrottled", self.name)

    # ---- What it is told ----

    def send(self, message: messages.Message, reply_id: Optional[str] = None) -> None:
        """Write *message*; see the session's ``send``.

        :raises SendRefused: it must not be sent now.
        :raises EncodingError: it can't be put on a line.
        """
        self.session.send(message, reply_id)
        self._follow_up()

    def refresh(self, now: float) -> None:
        """Ask it for everything again.

        :raises SendRefused: it can't be asked now.
        """
        self.session.refresh(now)
        self._follow_up()

    def support(self, session_maximum: Any, now: float) -> None:
        """The host supports another version from now on."""
        self.session.support(session_maximum, now)
        self._follow_up()

    def be_patient(self, seconds: float) -> None:
        """Call it unresponsive after another time of silence from now on."""
        self.session.silence_limit = seconds
        self._follow_up()

    def _follow_up(self) -> None:
        if self._settle is not None:
            self._settle()

    # ---- What it says ----

    def absorb(self, happened: Iterable[events.Event], now: float) -> None:
        """Take what the session reports."""
        for event in happened:
            if isinstance(event, events.MessageReceived):
                self._take(event, now)
            elif isinstance(event, events.VersionChanged):
                self._note_version(event, now)
            elif isinstance(event, events.Responsive):
                self._note_life(now)
            elif isinstance(event, events.Unresponsive):
                text = f"nothing heard for {event.silence:.0f} s"
                self._enter(State.UNRESPONSIVE, now, text)
                self._journal.say("life", f"unresponsive: {text}", now, logging.WARNING)
            elif isinstance(event, events.AgentRestarted):
                self._journal.say("agent", "its agent was restarted", now)
                self.tell("agent-restarted", now)
            elif isinstance(event, events.Complaint):
                self._journal.say("complaint", event.text, now, logging.WARNING)
                self.tell("complaint", now, text=event.text)

    def restore(
        self, facts: dict[str, Fact], history: Iterable[VersionChange] = (), in_flight: Iterable[InFlight] = ()
    ) -> None:
        """Take what was known before this daemon ran. Never what was agreed: that belongs to a channel."""
        self.facts = dict(facts)
        self._facts_size = sum(len(fact.line) for fact in facts.values())
        self.history = tuple(history)[-HISTORY:]
        self.in_flight = {each.reply_id: each for each in in_flight}
        self._note_heard()

    def take_over(
        self,
        uuid: Optional[str],
        facts: Mapping[str, Fact],
        history: Iterable[VersionChange] = (),
        carried: Optional[Spec2] = None,
    ) -> None:
        """Take what another host knew of it, which is this host's from now on.

        :param carried: what else that said.
        """
        self.stay()
        self.uuid = self.uuid or uuid
        if self._shared.memory is not None:
            self._shared.memory.put_guest(self.name, self.uuid)
        for name, fact in facts.items():
            if name not in self.facts or self.facts[name].heard_at < fact.heard_at:
                self._put(name, fact)
        self._note_heard()
        self._take_over_history(history)
        self.carried = carried
        if self.state in _OPEN and self.session.negotiation.met:
            self._outdate_carried()

    def _take_over_history(self, history: Iterable[VersionChange]) -> None:
        new = [each for each in history if not any(_is_same(each, own) for own in self.history)]
        self.history = tuple(sorted((*self.history, *new), key=lambda each: each.at))[-HISTORY:]
        if self._shared.memory is not None:
            for change in new:
                self._shared.memory.put_change(self.name, change)

    def _outdate_carried(self) -> None:
        """The agent speaks for itself; what was counted before stays true."""
        if self.carried is not None:
            self.carried = Spec2(counters=self.carried.counters)

    def _note_heard(self) -> None:
        """It was heard when its latest fact came, if not later."""
        heard_at = max((fact.heard_at for fact in self.facts.values()), default=UNKNOWN_TIME)
        if heard_at > (UNKNOWN_TIME if self.session.heard_at is None else self.session.heard_at):
            self.session.heard_at = heard_at

    def _take(self, event: events.MessageReceived, now: float) -> None:
        message, name = event.message, event.name
        self._shared.meter.received[name] += 1
        if isinstance(message, messages.Fact):
            self._keep(name, event.line, now)
            if name == _CAPABILITIES:
                self._note_capabilities()
        elif isinstance(message, messages.Completion):
            if self._shared.completed is not None:
                self._shared.completed(self, message, now)
        elif isinstance(message, messages.Unsupported):
            self._note_unsupported(message, now)
        else:
            self.tell("notice", now, name=name)

    def _keep(self, name: str, line: bytes, now: float) -> None:
        """Keep the newest of each fact; one that takes more room than before only while there is room for all."""
        before = self.facts.get(name)
        if not self._put(name, Fact(line, now)):
            self._refuse_fact(name, now)
        elif name != _HEARTBEAT and before is not None and before.line != line:
            self.tell("fact", now, name=name)

    def _put(self, name: str, fact: Fact) -> bool:
        """Whether there is room for *fact*, which is then kept."""
        before = self.facts.get(name)
        size = self._facts_size + len(fact.line) - (len(before.line) if before is not None else 0)
        if size > max(self._shared.limits.facts_size, self._facts_size):
            return False
        self._facts_size = size
        self.facts[name] = fact
        if self._shared.memory is not None:
            self._shared.memory.put_fact(self.name, name, fact)
        return True

    def _refuse_fact(self, name: str, now: float) -> None:
        self.session.counters.dropped["facts-too-large"] += 1
        limit = self._shared.limits.facts_size
        text = f"{name} is not kept: its facts would exceed {limit} bytes; raise facts-size if they may"
        self._journal.say("size", text, now, logging.WARNING)

    def _note_capabilities(self) -> None:
        """Hold what it lets the host do only once for all guests that say the same."""
        if self.session.capabilities is not None:
            self.session.capabilities = share(self.session.capabilities)
            if self._shared.offered is not None:
                self._shared.offered(self)

    def _note_unsupported(self, message: messages.Unsupported, now: float) -> None:
        # What is no name of a command may be a piece of a line that was cut, and so a secret.
        name = message.name if CATALOGUE.find(Direction.TO_GUEST, message.name) else "(unknown)"
        reason = message.reason[:UNSUPPORTED_LENGTH]
        self._journal.say("unsupported", f"does not carry out {name}: {reason}", now, logging.WARNING)
        self.tell("unsupported", now, name=name, reason=reason)

    def _note_version(self, event: events.VersionChanged, now: float) -> None:
        why = sys.intern(event.why)  # the same for most guests
        change = VersionChange(now, int(event.old), int(event.new), why)
        if event.old != event.new:
            self._changes += 1
        self._reason = why
        self._changed_at = now
        self.history = (*self.history[1 - HISTORY :], change)
        self._outdate_carried()
        self._stand()
        self._shared.meter.changes[event.reason.value] += 1
        if self._shared.memory is not None:
            self._shared.memory.put_change(self.name, change)
        self._journal.say("version", f"agreed {event.old} → {event.new}: {event.why}", now)
        self.tell("version", now, old=change.old, new=change.new, reason=change.reason)

    def _note_life(self, now: float) -> None:
        if self.state is State.UNRESPONSIVE:
            self._journal.say("life", "responsive again", now)
        elif self._futile:
            self._futile = False
            self._say_connected(now)
        self._enter(State.RESPONSIVE, now)

    def _say_connected(self, now: float) -> None:
        self._journal.say("channel", f"connected: {self.path}", now)

    def _enter(self, state: State, now: float, why: Optional[str] = None) -> None:
        if state is not self.state and not self._futile:
            self.tell("state", now, state=state.value, why=why)
        self.state = state
        self._since = now
        self._stand()

    def _stand(self) -> None:
        agreed = int(self.session.negotiation.agreed) if self.state in _OPEN else None
        standing = Standing(self.state.value, agreed)
        if standing != self._standing:
            self._shared.meter.move(self._standing, standing)
            self._standing = standing

    def tell(self, kind: str, now: float, **details: Any) -> None:
        """Tell what the guest may cause as often as it likes, unless that was too often of late."""
        if not self._telling.owes(now):
            self._telling.spend(1, 0, now)
            self._shared.feed.tell(kind, self.name, **details)

    # ---- What is known ----

    def frozen_at(self, now: float) -> Optional[Frozen]:
        """What is frozen in it; None: nothing, or it has thawed by itself."""
        return self.frozen if self.frozen is not None and now < self.frozen.thaws_at else None

    @property
    def carried_capabilities(self) -> Optional[Capabilities]:
        """What it let another host do, until host and guest have agreed here; to be shown, nothing is decided by it."""
        return None if self.carried is None else self.carried.capabilities

    def describe(self, now: float, with_facts: bool = True) -> dict[str, Any]:
        """Everything, as the control API has it; what is unknown is None, ages are in seconds."""
        described = {
            "name": self.name,
            "uuid": self.uuid,
            "channel": {
                "path": self.path,
                "state": self.state.value,
                "since_s": _age(self._since, now),
                "throttled": self.throttled,
            },
            "api": self._describe_api(now),
            "heard_s": _age(self.session.heard_at, now),
            "handoff": self._describe_handoff(),
            "frozen": self._describe_frozen(now),
            "commands": [
                {
                    "reply_id": each.reply_id,
                    "name": each.name,
                    "sent_s": _age(each.sent_at, now),
                    "left_s": round(max(0.0, each.deadline - now), 3),
                }
                for each in self.in_flight.values()
            ],
            "history": [
                {"old": each.old, "new": each.new, "reason": each.reason, "ago_s": _age(each.at, now)}
                for each in reversed(self.history)
            ],
        }
        if with_facts:
            described["facts"] = {
                name: {"age_s": _age(fact.heard_at, now), "value": fact.arguments()} for name, fact in self.facts.items()
            }
            described["capabilities"] = self._describe_capabilities()
            described["counters"] = self.session.counters.as_mapping()
        return described

    def _describe_handoff(self) -> dict[str, Any]:
        if self.moved_to is not None:
            return {"state": "moved", "peer": self.moved_to}
        if self.departure is not None:
            return {"state": "in-doubt", "peer": self.departure.peer}
        return {"state": "moving" if self.moving else "here", "peer": self.moving_to}

    def _describe_frozen(self, now: float) -> Optional[dict[str, Any]]:
        frozen = self.frozen_at(now)
        if frozen is None:
            return None
        return {"mountpoints": list(frozen.mountpoints), "thaws_in_s": round(frozen.thaws_at - now, 3)}

    def _describe_capabilities(self) -> Optional[dict[str, Any]]:
        said = self.session.capabilities if self.state in _OPEN else None
        capabilities = said or self.carried_capabilities
        if capabilities is None:
            return None
        return {"commands": dict(capabilities.commands), "features": list(capabilities.features)}

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
            "last_reason": self._reason,
            "last_change_s": _age(self._changed_at, now),
        }


_HEARTBEAT = "heartbeat"
_CAPABILITIES = "capabilities"

_TELLING = Limits(message_rate=TELLING_RATE)


def _number(value: Optional[int]) -> Optional[int]:
    return None if value is None else int(value)


def _age(at: Optional[float], now: float) -> Optional[float]:
    return None if at is None or at == UNKNOWN_TIME else round(max(0.0, now - at), 3)


def _is_same(one: VersionChange, other: VersionChange) -> bool:
    return one[1:] == other[1:] and abs(one.at - other.at) < SAME_MOMENT
