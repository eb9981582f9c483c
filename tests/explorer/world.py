"""One host, one guest, the channel between them, and everything that can happen to them.

A world is a value. ``Worlds`` makes the next ones. In the channel lie *chunks*, each a line as it was written; a fault
changes or removes the first one of a direction. Beside the peers' own states a world holds what an observer of the wire
would conclude, against which what a side dares to write is checked: the version each side has been told, and what the host
has been told that the guest carries out.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple, Optional

from common.versions import Version

from .machines import GuestMachine, HostMachine, Step, Told, View, guest_view, host_view

Maxima = tuple[Optional[Version], ...]

#: Every maximum of a peer; None is a peer from before versions.
MAXIMA: Maxima = (None, *Version)

#: Those of deployed peers.
OLD_MAXIMA: Maxima = tuple(version for version in MAXIMA if version is None or version <= 3)

#: How many chunks one direction of the channel holds at most; a world with more is not walked further.
CHANNEL_LIMIT = 4

#: After so many deliveries without a heartbeat two peers talk for ever.
TALK_LIMIT = 100

_GARBAGE = b'{"__name__": "heartbeat", "apiVersion": \xff\n'


class Endless(Exception):
    """Two peers answer each other without end."""


class Seen(NamedTuple):
    """What an observer of the wire would conclude from what has been delivered."""

    #: The version that each side has been told.
    host_told: int = 0
    guest_told: int = 0
    #: The run of the agent that the host has heard, and whether that one has its commands turned on; None: it has not said.
    agent: Optional[str] = None
    capable: Optional[bool] = None

    def by_host(self, told: Told, supported: Optional[Version]) -> Seen:
        """After the host has understood *told*."""
        if told.versions:
            version = _last_told(told, supported)
            restarted = self.agent is not None and told.agent != self.agent
            capable = None if restarted or version < Version.V4 else self.capable
            return Seen(version, self.guest_told, told.agent, capable)
        if told.capable is not None and self.host_told >= Version.V4:
            return Seen(self.host_told, self.guest_told, self.agent, told.capable)
        return self

    def by_guest(self, told: Told, supported: Optional[Version]) -> Seen:
        """After the guest has understood *told*."""
        return Seen(self.host_told, _last_told(told, supported), self.agent, self.capable) if told.versions else self

    def without_host(self) -> Seen:
        """After the host has gone."""
        return Seen(0, self.guest_told)

    def with_new_guest(self) -> Seen:
        """After the guest has begun anew."""
        return Seen(self.host_told, 0, self.agent, self.capable)


class World(NamedTuple):
    """One state of everything."""

    host: Optional[int]
    guest: int
    up: tuple[bytes, ...] = ()
    down: tuple[bytes, ...] = ()
    #: Whether the guest knows that the host is away.
    noticed: bool = False
    #: Whether the guest has understood a refresh of this host, or has noticed that another one came.
    introduced: bool = False
    #: What the host that went away held; a deployed host hands it over.
    handed_over: int = 0
    seen: Seen = Seen()


class Worlds:
    """The rules of what can follow from a world.

    :param host_maxima: the maxima of hosts; ``guest_maxima``: those of guests.
    :param hands_over: whether a host gets the version that the one before it held, as deployed hosts do.
    :param notices: whether the guest can notice that a host goes (deployed guests take no account of it).
    :param reloads: whether the guest's configuration can turn commands on and off.
    """

    def __init__(
        self,
        hosts: HostMachine,
        guests: GuestMachine,
        *,
        host_maxima: Maxima = MAXIMA,
        guest_maxima: Maxima = MAXIMA,
        hands_over: bool = False,
        notices: bool = True,
        reloads: bool = False,
    ) -> None:
        self.hosts = hosts
        self.guests = guests
        self.host_maxima = host_maxima
        self.guest_maxima = guest_maxima
        self._hands_over = hands_over
        self._notices = notices
        self._reloads = reloads
        self._settled: dict[World, World] = {}

    # ---- What can be seen of a world ----

    def host_view(self, world: World) -> View:
        """The host of a world that has one."""
        assert world.host is not None
        return self.hosts.view(world.host, host_view)  # type: ignore[no-any-return]

    def guest_view(self, world: World) -> View:
        """The guest."""
        return self.guests.view(world.guest, guest_view)  # type: ignore[no-any-return]

    # ---- What can happen ----

    def initial(self) -> Iterator[tuple[str, World]]:
        """An agent of every maximum, without a host."""
        for supported in self.guest_maxima:
            step = self.guests.new(supported)
            yield f"agent {_name(supported)} starts", World(None, step.state)

    def agreed(self) -> Iterator[tuple[str, World]]:
        """Each agent with each host, after they have said to each other what they say at first."""
        for (_, alone), supported in itertools.product(self.initial(), self.host_maxima):
            guest = self.guest_view(alone).supported
            world = self._with_host(alone, supported)
            while world.up or world.down:
                world = self.deliver_up(world) if world.up else self.deliver_down(world)
            yield f"agent {_name(guest)} has agreed with host {_name(supported)}", world

    def successors(self, world: World) -> Iterator[tuple[str, World]]:
        """Everything that can happen next, with what to call it."""
        yield from self._deliveries(world)
        yield "a heartbeat period passes", self.period(world)
        yield from self._faults(world)
        yield from self._host_changes(world)
        yield from self._agent_changes(world)
        if self._reloads:
            yield from self._configuration_changes(world)

    def deliver_up(self, world: World) -> World:
        """The host reads the first chunk of the guest."""
        step = self._reading_host(world)
        seen = world.seen.by_host(step.told, self.host_view(world).supported)
        return self._after_host(world, step, seen)

    def deliver_down(self, world: World) -> World:
        """The guest reads the first chunk of the host."""
        step = self._reading_guest(world)
        seen = world.seen.by_guest(step.told, self.guest_view(world).supported)
        return self._after_guest(world, step, seen)

    def period(self, world: World, *, long: bool = False) -> World:
        """A heartbeat period passes; a *long* one also brings the facts that come once in a while."""
        guest = self.guests.step(world.guest, "period", long)
        host = None if world.host is None else self.hosts.step(world.host, "period").state
        return world._replace(host=host, guest=guest.state, up=self._write_up(world, guest.written))

    def settle(self, world: World) -> World:
        """Deliver until the channel is empty, without an observer.

        :raises Endless: the two never stop talking.
        """
        way: list[World] = []
        world = World(*world[:-1])
        while world not in self._settled:
            if len(way) > TALK_LIMIT:
                raise Endless
            way.append(world)
            if world.up and world.host is not None:
                world = self._after_host(world, self._reading_host(world), world.seen)
            elif world.down:
                world = self._after_guest(world, self._reading_guest(world), world.seen)
            else:
                self._settled[world] = world
        settled = self._settled[world]
        self._settled.update(dict.fromkeys(way, settled))
        return settled

    def _reading_host(self, world: World) -> Step:
        assert world.host is not None
        return self.hosts.step(world.host, "receive", world.up[0])

    def _after_host(self, world: World, step: Step, seen: Seen) -> World:
        _, guest, up, down, noticed, introduced, handed_over, _ = world
        return World(step.state, guest, up[1:], down + step.written, noticed, introduced, handed_over, seen)

    def _reading_guest(self, world: World) -> Step:
        return self.guests.step(world.guest, "receive", world.down[0])

    def _after_guest(self, world: World, step: Step, seen: Seen) -> World:
        host, _, _, down, noticed, introduced, handed_over, _ = world
        up = self._write_up(world, step.written)
        return World(host, step.state, up, down[1:], noticed, introduced or step.told.refreshed, handed_over, seen)

    def _deliveries(self, world: World) -> Iterator[tuple[str, World]]:
        if world.up and world.host is not None:
            yield f"host reads {_show(world.up[0])}", self.deliver_up(world)
        if world.down:
            yield f"guest reads {_show(world.down[0])}", self.deliver_down(world)

    def _faults(self, world: World) -> Iterator[tuple[str, World]]:
        for fault, chunks in _faulty(world.up):
            yield f"guest → host: {fault}", world._replace(up=chunks)
        for fault, chunks in _faulty(world.down):
            yield f"host → guest: {fault}", world._replace(down=chunks)

    def _host_changes(self, world: World) -> Iterator[tuple[str, World]]:
        gone = world
        if world.host is not None:
            gone = self._without_host(world)
            yield "host goes, the guest does not notice", gone
            if self._notices:
                yield "host goes, the guest notices", self._noticing(gone)
        for supported in self.host_maxima:
            name = f"host {_name(supported)} connects"
            yield name, self._with_host(gone, supported)
            if world.host is not None and self._notices:
                yield f"{name} in its place, the guest notices", self._with_host(self._noticing(gone), supported)
            if world.host is not None:
                yield (
                    f"{name} in its place, what was under way is delivered first",
                    self._with_host(self._keeping(gone, world), supported),
                )

    def _without_host(self, world: World) -> World:
        agreed = self.host_view(world).speaks
        return world._replace(
            host=None,
            up=(),
            down=(),
            introduced=False,
            handed_over=agreed if self._hands_over else 0,
            seen=world.seen.without_host(),
        )

    def _keeping(self, gone: World, world: World) -> World:
        """The guest reads what the host that goes had written; what it answers waits for the host that comes."""
        while world.down:
            world = self.deliver_down(world)
        return gone._replace(guest=world.guest, up=world.up, seen=world.seen.without_host())

    def _noticing(self, world: World) -> World:
        step = self.guests.step(world.guest, "host_gone")
        return world._replace(guest=step.state, noticed=True, seen=world.seen.with_new_guest())

    def _with_host(self, world: World, supported: Optional[Version]) -> World:
        _, guest, up, down, noticed, _, handed_over, seen = world
        step = self.hosts.new(supported, handed_over)
        if noticed:
            came = self.guests.step(guest, "host_came")
            guest, up = came.state, came.written
        return World(step.state, guest, up, down + step.written, False, noticed, 0, seen)

    def _agent_changes(self, world: World) -> Iterator[tuple[str, World]]:
        turned_on = self.guest_view(world).capable
        for supported in self.guest_maxima:
            name = f"agent restarts as {_name(supported)}"
            step = self.guests.new(supported, turned_on)
            yield name, self._with_agent(world, step, ())
            if world.down:
                yield f"{name}, what lay unread is delivered", self._with_agent(world, step, world.down)

    def _with_agent(self, world: World, step: Step, down: tuple[bytes, ...]) -> World:
        up = self._write_up(world, step.written)
        seen = world.seen.with_new_guest()
        return World(world.host, step.state, up, down, False, True, world.handed_over, seen)

    def _configuration_changes(self, world: World) -> Iterator[tuple[str, World]]:
        step = self.guests.step(world.guest, "reload")
        word = "off" if self.guest_view(world).capable else "on"
        reloaded = world._replace(guest=step.state, up=self._write_up(world, step.written))
        yield f"the guest's configuration turns commands {word}", reloaded

    def _write_up(self, world: World, written: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What a guest writes without a host goes nowhere."""
        return world.up + written if world.host is not None else ()


def _faulty(chunks: tuple[bytes, ...]) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    if chunks:
        first, rest = chunks[0], chunks[1:]
        yield f"lost {_show(first)}", rest
        yield f"cut {_show(first)}", (first[: len(first) // 2], *rest)
        yield f"garbled {_show(first)}", (_GARBAGE, *rest)
        yield f"doubled {_show(first)}", (first, first, *rest)


def _last_told(told: Told, supported: Optional[Version]) -> int:
    last = told.versions[-1]
    return 0 if last is None or supported is None else min(last, int(supported))


def _name(supported: Optional[Version]) -> str:
    return "without versions" if supported is None else f"of API {supported}"


@functools.cache
def _show(chunk: bytes) -> str:
    return ascii(chunk.decode("utf-8", "replace"))[1:-1]
