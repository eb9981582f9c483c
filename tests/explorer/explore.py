"""The walk: breadth first through all worlds, checking each one. A violation prints as the shortest way to it.

*Safety*: no side would write a message newer than it has been told, and the host no command of which it has been told on
this agreement that the guest does not carry it out, nor one of which it must have been told. *Convergence*: from every world
in which both live, delivering everything and then as many heartbeats as promised makes agreed = in use = the lower maximum;
at 4 or more, one more period with facts makes what the host knows of the guest's commands what they are, and below 4 it
knows nothing of them. *Quiet*: then another heartbeat makes the host push nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Optional

from common import messages
from common.versions import Version

from .machines import SWITCHED
from .world import CHANNEL_LIMIT, Endless, World, Worlds

#: Within so many heartbeats each side has written something that ends a half line on the other.
HALVES_LIMIT = 3


#: Which of the commands that a configuration turns on and off a guest may be sent, by what it has said of them.
PERMITTED: dict[Optional[bool], frozenset[messages.Message]] = {
    None: frozenset({messages.LockScreen()}),
    False: frozenset(),
    True: frozenset(SWITCHED),
}


class Counterexample(AssertionError):
    """A world that must not be, with the way to it."""


@dataclasses.dataclass(frozen=True)
class Promise:
    """What a pair of peers promises.

    :ivar heartbeats: after how many heartbeats they agree, at the latest.
    :ivar host_is_safe: the host's commands are checked.
    :ivar guest_is_safe: the guest's facts are checked.
    :ivar quiet: once agreed the host pushes nothing; False for a guest that gives no proof of what it uses.
    :ivar introduces_itself: the host's refresh makes a guest that missed the move start anew, however much gets lost. It
        is not promised of a host that sends no host id: should its very refresh get lost, nothing tells the guest.
    :ivar patience: how many more heartbeats, with all facts, it may take a host that has reason to take for granted what a
        guest uses that does not say so.
    """

    heartbeats: int = 1
    host_is_safe: bool = True
    guest_is_safe: bool = True
    quiet: bool = True
    introduces_itself: bool = True
    patience: int = 0


@dataclasses.dataclass
class Walked:
    """How far a walk went."""

    worlds: int = 0
    steps: int = 0
    depth: int = 0


class Explorer:
    """Walks through the worlds of one pair of peers."""

    def __init__(self, worlds: Worlds, promise: Promise) -> None:
        self._worlds = worlds
        self._promise = promise
        self._ways: dict[World, tuple[Optional[World], str]] = {}
        self._converges: dict[World, Optional[str]] = {}

    def walk(self, depth: int, starts: Optional[Iterable[tuple[str, World]]] = None) -> Walked:
        """Visit every world that is at most *depth* happenings away from a start.

        :raises Counterexample: one of them breaks the promise.
        """
        walked = Walked(depth=depth)
        frontier = []
        for name, world in self._worlds.initial() if starts is None else starts:
            if world not in self._ways:
                self._ways[world] = (None, name)
                self._check(world)
                frontier.append(world)
        for _ in range(depth):
            following = []
            for world in frontier:
                if len(world.up) > CHANNEL_LIMIT or len(world.down) > CHANNEL_LIMIT:
                    continue
                for name, successor in self._worlds.successors(world):
                    walked.steps += 1
                    if successor not in self._ways:
                        self._ways[successor] = (world, name)
                        self._check(successor)
                        following.append(successor)
            frontier = following
        walked.worlds = len(self._ways)
        return walked

    def _check(self, world: World) -> None:
        problem = self._unsafe(world) or self._not_converging(world)
        if problem:
            raise Counterexample(self._trace(world, problem))

    def _unsafe(self, world: World) -> Optional[str]:
        fact = self._worlds.guest_view(world).dares
        if self._promise.guest_is_safe and fact > world.seen.guest_told:
            return f"the guest has been told {world.seen.guest_told}, and would send a fact of API {fact}"
        if world.host is None or not self._promise.host_is_safe:
            return None
        host, told = self._worlds.host_view(world), world.seen
        if host.dares > told.host_told:
            return f"the host has been told {told.host_told}, and would send a command of API {host.dares}"
        forbidden = host.commands - PERMITTED[told.capable]
        if forbidden:
            return f"the host has been told that commands are {_switched(told.capable)}, and would send {[*forbidden]}"
        return None

    def _not_converging(self, world: World) -> Optional[str]:
        """Why *world* does not come to agreement, or None."""
        if world.host is None:
            return None
        try:
            settled = self._worlds.settle(world)
            if settled not in self._converges:
                self._converges[settled] = self._follow(settled)
        except Endless:
            return "the two never stop talking"
        return self._converges[settled]

    def _follow(self, world: World) -> Optional[str]:
        if self._is_known_limit(world):
            return None
        world = self._losing_halves(world)
        for _ in range(self._promise.heartbeats):
            world = self._worlds.settle(self._worlds.period(world))
        world = self._wait_for_evidence(world)
        problem = self._disagreement(world)
        if problem:
            return f"after {self._promise.heartbeats} heartbeat(s) {problem}"
        return self._ignorance(world) or self._noise(world)

    def _losing_halves(self, world: World) -> World:
        """Let time pass until no side holds half a line: what is glued to it is lost, and counts as lost."""
        for _ in range(HALVES_LIMIT):
            if not self._worlds.host_view(world).holds_half and not self._worlds.guest_view(world).holds_half:
                break
            world = self._worlds.settle(self._worlds.period(world))
        return world

    def _wait_for_evidence(self, world: World) -> World:
        for _ in range(self._promise.patience):
            if not self._disagreement(world) or not self._worlds.host_view(world).takes_for_granted:
                break
            world = self._worlds.settle(self._worlds.period(world, long=True))
        return world

    def _is_known_limit(self, world: World) -> bool:
        silent = self._worlds.host_view(world).supported is None or not self._promise.introduces_itself
        return silent and not world.introduced

    def _disagreement(self, world: World) -> Optional[str]:
        host, guest = self._worlds.host_view(world), self._worlds.guest_view(world)
        expected = 0 if host.supported is None or guest.supported is None else min(host.supported, guest.supported)
        if host.speaks == guest.speaks == expected:
            return None
        return f"agreed is {host.speaks}, in use is {guest.speaks}, expected is {int(expected)}"

    def _ignorance(self, world: World) -> Optional[str]:
        """Why the host of an agreed world does not know what its guest carries out, or None."""
        host, guest = self._worlds.host_view(world), self._worlds.guest_view(world)
        if host.speaks >= Version.V4 and host.capable != guest.capable:
            world = self._worlds.settle(self._worlds.period(world, long=True))
            host, guest = self._worlds.host_view(world), self._worlds.guest_view(world)
        expected = guest.capable if host.speaks >= Version.V4 else None
        if host.capable == expected:
            return None
        return f"the host takes commands to be {_switched(host.capable)}, but they are {_switched(expected)}"

    def _noise(self, world: World) -> Optional[str]:
        if not self._promise.quiet:
            return None
        later = self._worlds.period(world)
        while later.up:
            later = self._worlds.deliver_up(later)
            pushes = [chunk for chunk in later.down if b'"api-version"' in chunk]
            if pushes:
                return f"in the agreed state the host pushes {pushes[0]!r}"
        return None

    def _trace(self, world: World, problem: str) -> str:
        way = []
        at: Optional[World] = world
        while at is not None:
            before, name = self._ways[at]
            way.append(f"{name}\n{self._picture(at)}")
            at = before
        steps = (f"{number:3}. {step}" for number, step in enumerate(reversed(way), 1))
        return "\n".join([problem, *steps, f"  => {problem}"])

    def _picture(self, world: World) -> str:
        guest = self._worlds.guest_view(world)
        in_use = f"guest in use {guest.speaks} (told {world.seen.guest_told}), commands {_switched(guest.capable)}"
        agreed = "no host"
        if world.host is not None:
            host = self._worlds.host_view(world)
            agreed = f"host agreed {host.speaks} (told {world.seen.host_told}), commands {_switched(host.capable)}"
        lines = [f"       {agreed} | {in_use}"]
        lines += [f"         guest → host  {chunk!r}" for chunk in world.up]
        lines += [f"         host → guest  {chunk!r}" for chunk in world.down]
        return "\n".join(lines)


def _switched(capable: Optional[bool]) -> str:
    return "unsaid" if capable is None else "on" if capable else "off"
