"""One host, one guest, the channel between them, and everything that can happen to them.

A world is a value. ``Worlds`` makes the next ones. In the channel lie *chunks*, each a line as it was written; a fault
changes or removes the first one of a direction. Beside the peers' own states a world holds what an observer of the wire
would conclude: the version each side has been told, against which what it dares to write is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional

from common.versions import Version

from .machines import GuestMachine, HostMachine, Told, View, guest_view, host_view

#: Every maximum of a peer; None is a peer from before versions.
MAXIMA: tuple[Optional[Version], ...] = (None, *Version)

#: How many chunks one direction of the channel holds at most; a world with more is not walked further.
CHANNEL_LIMIT = 4

#: After so many deliveries without a heartbeat two peers talk for ever.
TALK_LIMIT = 100

_GARBAGE = b'{"__name__": "heartbeat", "apiVersion": \xff\n'


class Endless(Exception):
    """Two peers answer each other without end."""


class World(NamedTuple):
    """One state of everything."""

    host: Optional[int]
    guest: int
    up: tuple[bytes, ...] = ()
    down: tuple[bytes, ...] = ()
    #: The version that each side may speak, by what has been delivered to it.
    host_told: int = 0
    guest_told: int = 0
    #: Whether the guest knows that the host is away.
    noticed: bool = False
    #: Whether the guest has understood a refresh of this host, or has noticed that another one came.
    introduced: bool = False
    #: What the host that went away held; a deployed host hands it over.
    handed_over: int = 0


class Worlds:
    """The rules of what can follow from a world.

    :param hands_over: whether a host gets the version that the one before it held, as deployed hosts do.
    :param notices: whether the guest can notice that a host goes (deployed guests take no account of it).
    """

    def __init__(self, hosts: HostMachine, guests: GuestMachine, *, hands_over: bool = False, notices: bool = True) -> None:
        self.hosts = hosts
        self.guests = guests
        self._hands_over = hands_over
        self._notices = notices

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
        for supported in MAXIMA:
            step = self.guests.new(supported)
            yield f"agent {_name(supported)} starts", World(None, step.state)

    def successors(self, world: World) -> Iterator[tuple[str, World]]:
        """Everything that can happen next, with what to call it."""
        yield from self._deliveries(world)
        yield "a heartbeat period passes", self.period(world)
        yield from self._faults(world)
        yield from self._host_changes(world)
        yield from self._agent_changes(world)

    def deliver_up(self, world: World) -> World:
        """The host reads the first chunk of the guest."""
        assert world.host is not None
        chunk, *rest = world.up
        step = self.hosts.step(world.host, "receive", chunk)
        supported = self.host_view(world).supported
        return world._replace(
            host=step.state,
            up=tuple(rest),
            down=world.down + step.written,
            host_told=_last_told(step.told, supported, world.host_told),
        )

    def deliver_down(self, world: World) -> World:
        """The guest reads the first chunk of the host."""
        chunk, *rest = world.down
        step = self.guests.step(world.guest, "receive", chunk)
        supported = self.guest_view(world).supported
        return world._replace(
            guest=step.state,
            down=tuple(rest),
            up=self._write_up(world, step.written),
            guest_told=_last_told(step.told, supported, world.guest_told),
            introduced=world.introduced or step.told.refreshed,
        )

    def period(self, world: World, *, long: bool = False) -> World:
        """A heartbeat period passes; a *long* one also brings the facts that come once in a while."""
        guest = self.guests.step(world.guest, "period", long)
        host = None if world.host is None else self.hosts.step(world.host, "period").state
        return world._replace(host=host, guest=guest.state, up=self._write_up(world, guest.written))

    def settle(self, world: World) -> World:
        """Deliver until the channel is empty.

        :raises Endless: the two never stop talking.
        """
        for _ in range(TALK_LIMIT):
            if world.up and world.host is not None:
                world = self.deliver_up(world)
            elif world.down:
                world = self.deliver_down(world)
            else:
                return world
        raise Endless

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
        for supported in MAXIMA:
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
            host=None, up=(), down=(), host_told=0, introduced=False, handed_over=agreed if self._hands_over else 0
        )

    def _keeping(self, gone: World, world: World) -> World:
        """The guest reads what the host that goes had written; what it answers waits for the host that comes."""
        while world.down:
            world = self.deliver_down(world)
        return gone._replace(guest=world.guest, guest_told=world.guest_told, up=world.up)

    def _noticing(self, world: World) -> World:
        step = self.guests.step(world.guest, "host_gone")
        return world._replace(guest=step.state, guest_told=0, noticed=True)

    def _with_host(self, world: World, supported: Optional[Version]) -> World:
        host = self.hosts.new(supported, world.handed_over)
        if world.noticed:
            guest = self.guests.step(world.guest, "host_came")
            world = world._replace(guest=guest.state, up=guest.written)
        return world._replace(
            host=host.state,
            down=world.down + host.written,
            host_told=0,
            noticed=False,
            introduced=world.noticed,
            handed_over=0,
        )

    def _agent_changes(self, world: World) -> Iterator[tuple[str, World]]:
        for supported in MAXIMA:
            name = f"agent restarts as {_name(supported)}"
            yield name, self._with_agent(world._replace(down=()), supported)
            if world.down:
                yield f"{name}, what lay unread is delivered", self._with_agent(world, supported)

    def _with_agent(self, world: World, supported: Optional[Version]) -> World:
        step = self.guests.new(supported)
        world = world._replace(guest=step.state, guest_told=0, noticed=False, introduced=True)
        return world._replace(up=self._write_up(world, step.written))

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


def _last_told(told: Told, supported: Optional[Version], before: int) -> int:
    if not told.versions:
        return before
    last = told.versions[-1]
    return 0 if last is None or supported is None else min(last, int(supported))


def _name(supported: Optional[Version]) -> str:
    return "without versions" if supported is None else f"of API {supported}"


def _show(chunk: bytes) -> str:
    return ascii(chunk.decode("utf-8", "replace"))[1:-1]
