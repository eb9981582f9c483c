"""Some hosts, the connections between their daemons, one guest, and everything that can happen while it is handed over.

A world is a value, as in ``world``. A *wire* is a connection: what the source has sent and what the destination has
answered, each unread; and whether each side still holds its end. One side can lose it long before the other does, so a
``Complete`` can be on its way while its source has given up and asks on another wire. Requests and responses are not cut
here: TLS and the frames see to it that they are whole or that the connection breaks.

What must hold in every world, with *owner* being the last host that has a transfer on disk as taken, or the first host:

- The owner has the guest; any other host that has it is in doubt. So there is exactly one owner.
- Whoever takes the guest for its own is the owner; so no two do.
- A transfer is taken from its owner only, and commands in flight are with the owner.
- No reply id is given twice, not even by daemons that take themselves for the same run.
- A host has agreed on nothing until it has talked with the guest, and then on the lower maximum.
- Once nothing breaks any more and the sources go on, exactly one host takes the guest for its own, and nobody is in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple, Optional

from common.handoff import frames
from common.handoff.destination import Work
from common.versions import Version

from .daemons import CLONED_RUN, Daemon, DaemonMachine, Release, Transfer, View, read_transfer
from .machines import GuestMachine, HostMachine, guest_view, host_view, our_guest, our_host
from .world import TALK_LIMIT

#: After so many steps in which nothing breaks the hosts never come to an end.
STEPS_LIMIT = 200


class Broken(AssertionError):
    """A world that must not be; with the way to it."""


class Wire(NamedTuple):
    """A connection."""

    source: int
    to: int
    requests: tuple[bytes, ...] = ()
    responses: tuple[bytes, ...] = ()
    source_holds: bool = True
    destination_holds: bool = True


class Channel(NamedTuple):
    """The guest, and the session of the host where its VM is.

    :ivar talked: whether they have talked since the host opened the channel.
    """

    at: int
    host: int
    guest: int
    written: tuple[bytes, ...]
    talked: bool = False


class World(NamedTuple):
    """One state of everything; *issued* are the reply ids that were given."""

    daemons: tuple[int, ...]
    wires: tuple[Optional[Wire], ...]
    channel: Channel
    begun: int = 0
    issued: tuple[str, ...] = ()


Next = Iterator[tuple[str, World]]


class Limits(NamedTuple):
    """How much happens: transfers, connections at once, commands, and whether the VM moves."""

    transfers: int = 1
    wires: int = 2
    commands: int = 0
    moves: bool = False


class Worlds:
    """The rules of what can follow from a world.

    :param releases: of the hosts; ``maxima``: the highest versions that they agree on.
    :param daemon_class: makes their daemons.
    """

    def __init__(
        self,
        releases: Iterable[Release],
        limits: Limits,
        *,
        maxima: Iterable[Version],
        guest: Version = Version.V4,
        daemon_class: type[Daemon] = Daemon,
        make_host: Callable[..., object] = our_host,
    ) -> None:
        self._releases = tuple(releases)
        self._limits = limits
        self._maxima = tuple(maxima)
        self._guest = guest
        self._daemon_class = daemon_class
        self._machine = DaemonMachine()
        self._hosts = HostMachine(make_host)
        self._guests = GuestMachine(our_guest)
        self._ends: dict[tuple[World, bool], World] = {}
        self._problems: dict[World, Optional[str]] = {}
        self._still = self._talk(self._open(self._guests.new(guest).state, 0, None))

    def first(self) -> World:
        """The first host has the guest, and has talked with it."""
        daemons = tuple(
            self._machine.state_of(self._daemon_class(number, release, number == 0, int(self._guest)))
            for number, release in enumerate(self._releases)
        )
        return World(daemons, (None,) * self._limits.wires, self._still)

    def view(self, world: World, host: int) -> View:
        """The daemon of *host*."""
        return self._machine.view(world.daemons[host])

    # ---- What can happen ----

    def successors(self, world: World) -> Next:
        """Everything that can happen next, with what to call it."""
        for number, wire in enumerate(world.wires):
            if wire is not None:
                yield from self._on_wire(world, number, wire)
        for host in range(len(world.daemons)):
            yield from self._at_source(world, host)
            yield f"daemon {host} is killed and started", self._restart(world, host)
            if self._can_begin(world, host) and len(world.issued) < self._limits.commands:
                yield f"{host} sends a command", self._send(world, host)
        if self._limits.moves:
            yield from self._of_vm(world)

    def owner(self, world: World) -> int:
        """Whose the guest is.

        :raises Broken: it was taken from somebody else.
        """
        taken = sorted(
            read_transfer(each) for host in range(len(world.daemons)) for each in self.view(world, host).disk.taken
        )
        owner = 0
        for transfer in taken:
            if transfer.source != owner:
                raise Broken(f"{transfer.to} has taken the guest from {transfer.source}, but it was {owner}'s")
            owner = transfer.to
        return owner

    def problem(self, world: World) -> Optional[str]:
        """What must not be in *world*, or None."""
        try:
            owner = self.owner(world)
        except Broken as broken:
            return str(broken)
        for host in range(len(world.daemons)):
            view = self.view(world, host)
            if view.acts and host != owner:
                return f"{host} takes the guest for its own, but it is {owner}'s"
        if not self.view(world, owner).disk.here:
            return f"the guest is {owner}'s, and {owner} does not have it"
        if not set(world.issued) <= set(self.view(world, owner).disk.in_flight) and self._keeps_commands:
            return f"{owner} does not wait for {world.issued}"
        if len(set(world.issued)) < len(world.issued):
            return f"a reply id was given twice: {world.issued}"
        return self._wrong_version(world.channel)

    def problem_in_the_end(self, world: World, again: bool) -> Optional[str]:
        """What must not be where it all ends when nothing breaks any more; who is in doubt hands over *again*, or asks.

        :raises Broken: it ends nowhere.
        """
        # Neither where the VM is nor how much has happened makes a difference.
        end = self._end_of(world._replace(channel=self._still, begun=0), again)
        if end not in self._problems:
            self._problems[end] = self.problem(end) or self._unsettled(end)
        return self._problems[end]

    def _end_of(self, world: World, again: bool) -> World:
        way: list[World] = []
        while (world, again) not in self._ends:
            way.append(world)
            following = self._go_on(world, again)
            if following is None:
                self._ends[world, again] = world
            elif len(way) > STEPS_LIMIT:
                raise Broken("it never ends")
            else:
                world = following
        end = self._ends[world, again]
        self._ends.update(((each, again), end) for each in way)
        return end

    def _unsettled(self, world: World) -> Optional[str]:
        """Why *world*, in which nothing is to be done any more, is no good end; or None."""
        owner, views = self.owner(world), [self.view(world, host) for host in range(len(world.daemons))]
        acting = [host for host, view in enumerate(views) if view.acts]
        doubting = [host for host, view in enumerate(views) if view.disk.doubt is not None]
        if acting == [owner] and not doubting:
            return None
        return f"{acting} take the guest for their own and {doubting} are in doubt; it is {owner}'s"

    # ---- Wires ----

    def _on_wire(self, world: World, number: int, wire: Wire) -> Next:
        pending = self.view(world, wire.to).work.get(number)
        if pending is not None:
            yield f"{wire.to} has done its work on wire {number}", self._worked(world, number, True)
            if pending is Work.TAKE:
                yield f"{wire.to} can't write its disk on wire {number}", self._worked(world, number, False)
        elif wire.requests and wire.destination_holds:
            yield f"{wire.to} reads {_name(wire.requests[0])} on wire {number}", self._read_request(world, number)
        if wire.responses and wire.source_holds:
            yield f"{wire.source} reads an answer on wire {number}", self._read_response(world, number)
        if wire.source_holds:
            yield f"{wire.source} loses wire {number}", self._source_loses(world, number)
        if wire.destination_holds:
            yield f"{wire.to} loses wire {number}", self._destination_loses(world, number)

    def _worked(self, world: World, number: int, saves: bool) -> World:
        return self._run(world, _wire(world, number).to, Daemon.worked, number, saves)

    def _read_request(self, world: World, number: int) -> World:
        wire = _wire(world, number)
        world = _with_wire(world, number, wire._replace(requests=wire.requests[1:]))
        return self._run(world, wire.to, Daemon.request, number, wire.requests[0])

    def _read_response(self, world: World, number: int) -> World:
        wire = _wire(world, number)
        world = _with_wire(world, number, wire._replace(responses=wire.responses[1:]))
        return self._run(world, wire.source, Daemon.response, number, wire.responses[0])

    def _source_loses(self, world: World, number: int) -> World:
        wire = _wire(world, number)
        world = _with_wire(world, number, wire._replace(responses=(), source_holds=False))
        return self._run(world, wire.source, Daemon.lost, number)

    def _destination_loses(self, world: World, number: int) -> World:
        wire = _wire(world, number)
        world = _with_wire(world, number, wire._replace(requests=(), destination_holds=False))
        return self._run(world, wire.to, Daemon.ended, number)

    # ---- Daemons ----

    def _at_source(self, world: World, host: int) -> Next:
        view, free = self.view(world, host), _free(world)
        if view.attempt is not None and view.attempt.prepared:
            yield f"{host} completes", self._run(world, host, Daemon.complete)
            yield f"{host} cancels", self._run(world, host, Daemon.cancel)
        elif view.attempt is None and view.disk.doubt is not None and free is not None:
            yield f"{host} asks on wire {free}", self._resume(world, host, free, False)
            yield f"{host} runs the hand-off again on wire {free}", self._resume(world, host, free, True)
        elif self._can_begin(world, host) and world.begun < self._limits.transfers and free is not None:
            for to in range(len(world.daemons)):
                if to != host:
                    yield f"{host} begins to hand over to {to} on wire {free}", self._begin(world, host, to, free)

    def _can_begin(self, world: World, host: int) -> bool:
        view = self.view(world, host)
        return view.acts and view.attempt is None

    def _begin(self, world: World, host: int, to: int, free: int) -> World:
        transfer = Transfer(world.begun, host, to)
        world = _with_wire(world._replace(begun=world.begun + 1), free, Wire(host, to))
        return self._run(world, host, Daemon.begin, transfer.id, free)

    def _resume(self, world: World, host: int, free: int, again: bool) -> World:
        doubt = self.view(world, host).disk.doubt
        assert doubt is not None
        world = _with_wire(world, free, Wire(host, read_transfer(doubt).to))
        return self._run(world, host, Daemon.again if again else Daemon.ask, free)

    def _send(self, world: World, host: int) -> World:
        before = self.view(world, host).disk.in_flight
        world = self._run(world, host, Daemon.send)
        added = sorted(set(self.view(world, host).disk.in_flight) - set(before)) or [before[-1]]
        return world._replace(issued=(*world.issued, *added))

    def _restart(self, world: World, host: int) -> World:
        for number, wire in enumerate(world.wires):
            if wire is not None and wire.source == host:
                wire = wire._replace(responses=(), source_holds=False)
            if wire is not None and wire.to == host:
                wire = wire._replace(requests=(), destination_holds=False)
            world = world._replace(wires=_replaced(world.wires, number, wire))
        # Another run than those before, as far as one of them gave a reply id.
        run = f"{host + 1:x}{len(world.issued):015x}" if world.issued else CLONED_RUN
        world = self._run(world, host, Daemon.restart, run)
        if world.channel.at == host:
            world = world._replace(channel=self._open(world.channel.guest, host, None))
        return world

    def _run(self, world: World, host: int, operation: Callable[..., None], *arguments: object) -> World:
        """Run *operation* on that daemon, and put on the wires what goes out."""
        stepped = self._machine.step(world.daemons[host], operation, *arguments)
        wires = world.wires
        for number, by_source, frame in stepped.out:
            wire = wires[number]
            if wire is None:
                continue
            if by_source:
                wire = _asked(wire, frame)
            elif wire.destination_holds:
                wire = _answered(wire, frame)
            wires = _replaced(wires, number, wire)
        world = world._replace(daemons=_replaced(world.daemons, host, stepped.state), wires=wires)
        return world._replace(wires=tuple(self._unless_gone(world, number) for number in range(len(wires))))

    def _unless_gone(self, world: World, number: int) -> Optional[Wire]:
        wire = world.wires[number]
        if wire is None or wire.source_holds or wire.destination_holds:
            return wire
        return wire if number in self.view(world, wire.to).work else None

    # ---- When nothing breaks ----

    def _go_on(self, world: World, again: bool) -> Optional[World]:
        """What happens next when nothing breaks any more; None: nothing."""
        for number, wire in enumerate(world.wires):
            if wire is not None:
                return self._go_on_with(world, number, wire)
        for host in range(len(world.daemons)):
            view = self.view(world, host)
            if view.disk.doubt is not None and view.attempt is None:
                return self._resume(world, host, 0, again)
        return None

    def _go_on_with(self, world: World, number: int, wire: Wire) -> World:
        view = self.view(world, wire.source)
        if number in self.view(world, wire.to).work:
            return self._worked(world, number, True)
        if wire.requests and wire.destination_holds:
            return self._read_request(world, number)
        if wire.responses and wire.source_holds:
            return self._read_response(world, number)
        if not wire.source_holds:
            return self._destination_loses(world, number)
        if not wire.destination_holds:
            return self._source_loses(world, number)
        if view.attempt is not None and view.attempt.wire == number and view.attempt.prepared:
            return self._run(world, wire.source, Daemon.complete)
        return self._source_loses(world, number)

    # ---- The guest ----

    def _of_vm(self, world: World) -> Next:
        channel = world.channel
        for host in range(len(world.daemons)):
            if host != channel.at:
                carried = self.view(world, host).carried
                yield f"the VM moves to {host}", world._replace(channel=self._open(channel.guest, host, carried))
        if not channel.talked:
            yield f"{channel.at} and the guest talk", world._replace(channel=self._talk(channel))

    def _open(self, guest: int, at: int, carried: Optional[int]) -> Channel:
        """The host opens the channel; what was *carried* to it is there for one that would make something of it."""
        step = self._hosts.new(self._maxima[at], carried or 0)
        return Channel(at, step.state, guest, step.written)

    def _talk(self, channel: Channel) -> Channel:
        """Deliver everything, let a heartbeat's period pass, and deliver everything."""
        at, host, guest, written, _ = channel
        host, guest = self._deliver(host, guest, (), written)
        beat = self._guests.step(guest, "period", False)
        host, guest = self._deliver(self._hosts.step(host, "period").state, beat.state, beat.written, ())
        return Channel(at, host, guest, (), True)

    def _deliver(self, host: int, guest: int, up: tuple[bytes, ...], down: tuple[bytes, ...]) -> tuple[int, int]:
        for _ in range(TALK_LIMIT):
            if up:
                step = self._hosts.step(host, "receive", up[0])
                host, up, down = step.state, up[1:], down + step.written
            elif down:
                step = self._guests.step(guest, "receive", down[0])
                guest, up, down = step.state, up + step.written, down[1:]
            else:
                return host, guest
        raise Broken("the host and the guest never stop talking")

    def _wrong_version(self, channel: Channel) -> Optional[str]:
        agreed = self._hosts.view(channel.host, host_view).speaks
        in_use = self._guests.view(channel.guest, guest_view).speaks
        expected = min(self._maxima[channel.at], self._guest) if channel.talked else 0
        if agreed == expected and (in_use == expected or not channel.talked):
            return None
        return f"at {channel.at} agreed is {agreed}, in use is {in_use}, expected is {int(expected)}"

    @property
    def _keeps_commands(self) -> bool:
        """Whether the sessions have place for commands."""
        return min(release.spec for release in self._releases) > 0


class Walk:
    """Breadth first through all worlds that can follow, until there are no new ones."""

    def __init__(self, worlds: Worlds) -> None:
        self._worlds = worlds
        self._ways: dict[World, tuple[Optional[World], str]] = {}

    def __len__(self) -> int:
        return len(self._ways)

    @property
    def worlds(self) -> Iterable[World]:
        """Those that have been visited."""
        return self._ways

    def run(self, depth: Optional[int] = None) -> None:
        """Visit all of them, or those at most *depth* happenings away.

        :raises Broken: one of them must not be.
        """
        frontier = [self._worlds.first()]
        self._ways[frontier[0]] = (None, "the first host has the guest")
        self._check(frontier[0])
        while frontier and depth != 0:
            following = []
            for world in frontier:
                for name, successor in self._worlds.successors(world):
                    if successor not in self._ways:
                        self._ways[successor] = (world, name)
                        self._check(successor)
                        following.append(successor)
            frontier = following
            depth = None if depth is None else depth - 1

    def _check(self, world: World) -> None:
        try:
            problem = self._worlds.problem(world) or self._bad_end(world)
        except Broken as broken:
            problem = str(broken)
        if problem:
            raise Broken(self._trace(world, problem))

    def _bad_end(self, world: World) -> Optional[str]:
        for again in (False, True):
            problem = self._worlds.problem_in_the_end(world, again)
            if problem:
                return f"once nothing breaks any more, {problem}"
        return None

    def _trace(self, world: World, problem: str) -> str:
        way: list[str] = []
        at: Optional[World] = world
        while at is not None:
            before, name = self._ways[at]
            disks = "  ".join(_show(self._worlds.view(at, host)) for host in range(len(at.daemons)))
            way.append(f"{name}\n       {disks}")
            at = before
        steps = (f"{number:3}. {step}" for number, step in enumerate(reversed(way), 1))
        return "\n".join([problem, *steps, f"  => {problem}"])


def _show(view: View) -> str:
    held = "in doubt" if view.disk.doubt is not None else "has it" if view.disk.here else "-"
    doing = "" if view.attempt is None else f", {view.attempt.goal.value}{'d' if view.attempt.prepared else ''}"
    return f"[{held}{doing}, has taken {len(view.disk.taken)}]"


def _wire(world: World, number: int) -> Wire:
    wire = world.wires[number]
    assert wire is not None
    return wire


def _with_wire(world: World, number: int, wire: Wire) -> World:
    return world._replace(wires=_replaced(world.wires, number, wire))


def _free(world: World) -> Optional[int]:
    return next((number for number, wire in enumerate(world.wires) if wire is None), None)


def _asked(wire: Wire, frame: Optional[bytes]) -> Wire:
    if frame is None:
        return wire._replace(responses=(), source_holds=False)
    return wire._replace(requests=(*wire.requests, frame)) if wire.destination_holds else wire


def _answered(wire: Wire, frame: Optional[bytes]) -> Wire:
    if frame is None:
        return wire._replace(requests=(), destination_holds=False)
    return wire._replace(responses=(*wire.responses, frame)) if wire.source_holds else wire


def _replaced(values: tuple, number: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:number], value, *values[number + 1 :])


def _name(frame: bytes) -> str:
    (request,) = frames.RequestReader().feed(frame)
    return request.command.name.capitalize()
