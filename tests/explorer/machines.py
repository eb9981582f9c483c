"""Peers as pure step functions: (state, operation) → (state, chunks written, what was understood).

The real session runs for every *new* pair of state and operation; the result is kept, so that walking through millions of
worlds costs a look-up per step. A state is the pickled session without what the rules do not read (counters, complaints,
when something was last heard), its instants shifted so that now is 0.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from typing import Any, Callable, NamedTuple, Optional

from common import errors, events, messages, session
from common.catalogue import CATALOGUE, Catalogue, Direction, Row
from common.negotiation import BELIEF_LASTS, REPAIR_PERIOD
from common.versions import Version
from tests.common.samples import arguments_for

from .reference import ReferenceGuest, ReferenceHost

#: Seconds that one step of time lasts: the heartbeat's period.
PERIOD = 5.0


def _probes(direction: Direction) -> dict[Version, messages.Message]:
    """The first fact or command of each version that has one, as the tests of the table have it; 0 needs none."""
    probes: dict[Version, messages.Message] = {}
    for row in CATALOGUE.names(direction).values():
        if row.since > 0 and (row.is_fact or row.is_command) and row.since not in probes:
            probes[row.since] = row.message_class.from_arguments(arguments_for(row))[0]
    return probes


def _row(direction: Direction, message: messages.Message) -> Row:
    row = CATALOGUE.row_of(direction, message)
    assert row is not None
    return row


#: One fact and one command of each version, to see what a side dares to write.
PROBES = {direction: _probes(direction) for direction in Direction}

#: Commands that a guest's configuration turns on and off: one that needs no capability, and those of the probes that do.
SWITCHED: tuple[messages.Message, ...] = (
    messages.LockScreen(),
    *(probe for probe in PROBES[Direction.TO_GUEST].values() if _row(Direction.TO_GUEST, probe).needs_capability),
)


class Told(NamedTuple):
    """What a peer has understood in one step, as an observer who knows only the wire would put it."""

    #: The versions that the lines of the step announce, in order; None for a refresh, or a heartbeat without one.
    versions: tuple[Optional[int], ...] = ()
    refreshed: bool = False
    #: The run of the agent that a heartbeat comes from.
    agent: Optional[str] = None
    #: Whether the guest says that the commands of ``SWITCHED`` are turned on.
    capable: Optional[bool] = None


class Step(NamedTuple):
    """The outcome of one operation."""

    state: int
    written: tuple[bytes, ...]
    told: Told


class Watched:
    """Mixed into a session: notes what it understood."""

    noted: list[messages.Message]

    def _receive_message(self, received: Any, message: messages.Message, now: float) -> None:
        self.noted.append(message)
        super()._receive_message(received, message, now)  # type: ignore[misc]


class WatchedHost(Watched, session.HostSession):
    """Our host."""


class WatchedGuest(Watched, session.GuestSession):
    """Our guest.

    :ivar turned_on: whether its configuration has the commands of ``SWITCHED`` turned on.
    """

    turned_on = True


class Machine:
    """All states of one kind of peer, and the steps between them."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self._firsts: dict[tuple[object, ...], int] = {}
        self._pickles: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._steps: dict[tuple[int, str, object], Step] = {}
        self._views: dict[int, Any] = {}

    def state_of(self, peer: Any) -> int:
        """The number of *peer*'s state."""
        frozen = _freeze(peer)
        if frozen not in self._numbers:
            self._numbers[frozen] = len(self._pickles)
            self._pickles.append(frozen)
        return self._numbers[frozen]

    def first(self, arguments: tuple[object, ...]) -> int:
        """The state of a peer that has just been made with *arguments*."""
        if arguments not in self._firsts:
            self._firsts[arguments] = self.state_of(self._make(*arguments))
        return self._firsts[arguments]

    def peer(self, state: int) -> Any:
        """A peer in that state."""
        return _thaw(self._pickles[state])

    def view(self, state: int, look: Callable[[Any], Any]) -> Any:
        """What *look* sees of the peer in that state; *look* must always be the same."""
        if state not in self._views:
            self._views[state] = look(self.peer(state))
        return self._views[state]

    def step(self, state: int, operation: str, argument: object = None) -> Step:
        """Run *operation* on the peer in that state."""
        key = (state, operation, argument)
        if key not in self._steps:
            peer = self.peer(state)
            peer.noted = []
            getattr(self, f"_{operation}")(peer, argument)
            written = self._collect(peer)
            told = _told(peer.noted)
            del peer.noted
            self._steps[key] = Step(self.state_of(peer), written, told)
        return self._steps[key]

    def _receive(self, peer: Any, chunk: object) -> None:
        peer.receive_data(chunk, 0.0)

    def _collect(self, peer: Any) -> tuple[bytes, ...]:
        return tuple(line for line in peer.data_to_send().splitlines(keepends=True) if line)


class HostMachine(Machine):
    """Hosts: operations ``connected``, ``receive``, ``period``."""

    def new(self, supported: Optional[Version], handed_over: int) -> Step:
        """A host that has just opened the channel, after a move from one that had agreed on *handed_over*."""
        return self.step(self.first((supported, handed_over)), "connected")

    def _connected(self, peer: Any, _: object) -> None:
        peer.connected(0.0)

    def _period(self, peer: Any, _: object) -> None:
        _shift(peer, PERIOD)

    def _collect(self, peer: Any) -> tuple[bytes, ...]:
        peer.events()
        data = peer.data_to_send()
        # The newline belongs to the refresh: both are written at once, and so get lost together.
        head = (data[: data.index(b"\n", 1) + 1],) if data.startswith(b"\n") else ()
        return head + tuple(data[len(b"".join(head)) :].splitlines(keepends=True))


class GuestMachine(Machine):
    """Guests: operations ``opened``, ``host_gone``, ``host_came``, ``receive``, ``period``, ``reload``."""

    def new(self, supported: Optional[Version], turned_on: Optional[bool] = True) -> Step:
        """An agent that has just opened its port, with a configuration that has commands turned on, or off."""
        return self.step(self.first((supported, turned_on)), "opened")

    def _opened(self, peer: Any, _: object) -> None:
        peer.opened(0.0)

    def _host_gone(self, peer: Any, _: object) -> None:
        peer.host_gone()

    def _host_came(self, peer: Any, _: object) -> None:
        peer.host_came(0.0)

    def _period(self, peer: Any, long: object) -> None:
        """Heartbeat; a *long* period also brings the facts that come once in a while: the most telling one allowed."""
        peer.tick(PERIOD)
        if long:
            self._send_most_telling(peer, CATALOGUE.facts(up_to=max(Version)))
        _shift(peer, PERIOD)

    def _reload(self, peer: Any, _: object) -> None:
        """The configuration turns commands on or off, and the host is told where it can be."""
        peer.turned_on = not peer.turned_on
        self._send_most_telling(peer, frozenset({"capabilities"}))

    def _collect(self, peer: Any) -> tuple[bytes, ...]:
        for event in peer.events():
            if isinstance(event, events.HeartbeatWanted):
                peer.send_heartbeat(None, None)
            elif isinstance(event, events.FactsWanted):
                self._send_most_telling(peer, event.names)
        return tuple(line for line in super()._collect(peer) if b'"session-startup"' not in line)

    def _send_most_telling(self, peer: Any, wanted: frozenset[str]) -> None:
        """Of all facts that the guest would send, its capabilities, else the newest one: that says the most to the host."""
        rows = {_row(Direction.TO_HOST, message).name: message for message in PROBES[Direction.TO_HOST].values()}
        allowed = [message for name, message in rows.items() if name in wanted and peer.allows(name)]
        for message in sorted(allowed, key=lambda fact: isinstance(fact, messages.Capabilities))[-1:]:
            with contextlib.suppress(errors.SendRefused):
                peer.send(capabilities(peer.turned_on) if isinstance(message, messages.Capabilities) else message)


def capabilities(turned_on: bool) -> messages.Capabilities:
    """What a guest says that has the commands of ``SWITCHED`` turned on, or off."""
    names = [_row(Direction.TO_GUEST, message).name for message in SWITCHED]
    return messages.Capabilities(commands=dict.fromkeys(names, turned_on), features=())


def our_host(supported: Optional[Version], handed_over: int) -> session.HostSession:
    """A new session of our host; what another host had agreed means nothing to it."""
    return WatchedHost(supported, "H")


def our_guest(supported: Optional[Version], turned_on: bool) -> WatchedGuest:
    """A new session of our guest; runs of the agent with the same maximum pass for the same one."""
    guest = WatchedGuest(supported, f"A{supported}", heartbeat_period=PERIOD)
    guest.turned_on = turned_on
    return guest


def deployed_guest(supported: Optional[Version], _: object) -> ReferenceGuest:
    """A new model of the deployed guest, which no configuration changes."""
    return WatchedReferenceGuest(supported)


class WatchedReferenceHost(ReferenceHost):
    """The deployed host, noting what it understood."""

    noted: list[messages.Message]

    def _receive(self, name: str, arguments: Any) -> None:
        _note(self.noted, Direction.TO_HOST, name, arguments)
        super()._receive(name, arguments)


class WatchedReferenceGuest(ReferenceGuest):
    """The deployed guest, noting what it understood."""

    noted: list[messages.Message]

    def _receive(self, name: str, arguments: Any) -> None:
        _note(self.noted, Direction.TO_GUEST, name, arguments)
        super()._receive(name, arguments)


class View(NamedTuple):
    """What can be seen of a peer."""

    supported: Optional[Version]
    #: Agreed, or in use.
    speaks: int
    #: The newest version of which it would write a command, or a fact.
    dares: int
    #: Whether it holds half a line, to which the next one will be glued.
    holds_half: bool
    #: Whether a host takes the guest's word, or its silence, for what it uses.
    takes_for_granted: bool = False
    #: Whether a guest has the commands of ``SWITCHED`` turned on, as the host knows it or as it is; None: it does not know.
    capable: Optional[bool] = None
    #: Which of these commands a host would write.
    commands: frozenset[messages.Message] = frozenset()


def host_view(peer: Any) -> View:
    """A view of a host."""
    if isinstance(peer, ReferenceHost):
        return View(peer.supported, int(peer.agreed), _dares(peer, Direction.TO_GUEST), bool(peer.partial))
    state = peer.negotiation
    said = peer.capabilities
    return View(
        peer.supported,
        int(state.agreed),
        _dares(peer, Direction.TO_GUEST),
        bool(peer._splitter.pending),
        takes_for_granted=state.agreed == 0 or state.believed_at is not None,
        capable=None if said is None else said == capabilities(True),
        commands=frozenset(message for message in SWITCHED if _passes(peer, message)),
    )


def guest_view(peer: Any) -> View:
    """A view of a guest."""
    if isinstance(peer, ReferenceGuest):
        return View(peer.supported, int(peer.in_use), _dares(peer, Direction.TO_HOST), bool(peer.partial))
    return View(
        peer.supported,
        int(peer.negotiation.in_use),
        _dares(peer, Direction.TO_HOST),
        bool(peer._splitter.pending),
        capable=peer.turned_on,
    )


def _dares(peer: Any, direction: Direction) -> int:
    return max((int(since) for since, message in PROBES[direction].items() if _passes(peer, message)), default=0)


def _passes(peer: Any, message: messages.Message) -> bool:
    try:
        peer.send(message)
    except errors.SendRefused:
        return False
    return True


def _note(noted: list[messages.Message], direction: Direction, name: str, arguments: Any) -> None:
    row = CATALOGUE.find(direction, name)
    if row is not None:
        noted.append(row.message_class.from_arguments(arguments)[0])


def _told(noted: list[messages.Message]) -> Told:
    announced: list[Optional[int]] = []
    told = Told()
    for message in noted:
        if isinstance(message, messages.Refresh):
            told = told._replace(refreshed=True)
            announced.append(None)
        elif isinstance(message, (messages.ApiVersion, messages.Heartbeat)):
            announced.append(message.api_version)
        if isinstance(message, messages.Heartbeat):
            told = told._replace(agent=message.agent_id)
        elif isinstance(message, messages.Capabilities):
            told = told._replace(capable=message == capabilities(True))
    return told._replace(versions=tuple(announced))


# ---- States ----


class _Freezer(pickle.Pickler):
    """Keeps the catalogue out of the state: there is only one."""

    def persistent_id(self, value: Any) -> Optional[str]:
        return "catalogue" if isinstance(value, Catalogue) else None


class _Thawer(pickle.Unpickler):  # noqa: S301 - reads what this process has written
    def persistent_load(self, name: Any) -> Catalogue:
        return CATALOGUE


def _freeze(peer: Any) -> bytes:
    if isinstance(peer, session.Session):
        _forget_what_no_rule_reads(peer)
    buffer = io.BytesIO()
    freezer = _Freezer(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    freezer.fast = True  # equal states must be equal bytes, whatever objects they share
    freezer.dump(peer)
    return buffer.getvalue()


def _thaw(frozen: bytes) -> Any:
    return _Thawer(io.BytesIO(frozen)).load()


def _forget_what_no_rule_reads(peer: session.Session) -> None:
    peer.counters = session.Counters()
    peer._complaints = session._Complaints()
    if isinstance(peer, session.HostSession):
        peer.heard_at = None
        peer.responsive = False
        peer._invalid_said = False
        peer._reported = None
        peer._advertised_then = None
        peer._sends_version = False
        peer._agent_restarted = False


def _shift(peer: Any, seconds: float) -> None:
    """Let *seconds* pass, by moving every instant of *peer* into the past; one that is past all limits stays there."""
    if isinstance(peer, session.HostSession):
        state = peer.negotiation
        state.believed_at = _earlier(state.believed_at, seconds, BELIEF_LASTS)
        state.pushed_at = _earlier(state.pushed_at, seconds, REPAIR_PERIOD)
    elif isinstance(peer, session.GuestSession) and peer._heartbeat_at is not None:
        peer._heartbeat_at -= seconds


def _earlier(instant: Optional[float], seconds: float, limit: float) -> Optional[float]:
    return None if instant is None else max(instant - seconds, -limit - PERIOD)
