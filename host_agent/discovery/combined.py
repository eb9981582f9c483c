"""Several sources of ports as one, which can be exchanged while guests are connected.

A source is known by what it was made from: one that stays the same is kept running, whatever comes and goes around it. One
that is not wanted any more goes on, with the lowest rank, until every new one has looked at everything for the first time;
so a guest that the old and the new ones find does not notice the exchange. ``claims`` decides who counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Coroutine, Hashable, Iterable
from typing import Any, Callable, ClassVar, Optional, Protocol

from . import Added, Event, Moving, Report, Source, Tell, ignore
from .claims import Claims
from .directory import DirectoryDiscovery
from .fixed import FixedDiscovery
from .libvirt import LibvirtDiscovery


class Wanted(Hashable, Protocol):
    """A source as the configuration describes it, compared by value."""

    @property
    def rank(self) -> int:
        """The lower, the more it counts."""

    def make(self, report: Report, tell: Tell, moving: Moving) -> Source:
        """The source."""


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Names and the paths of their sockets."""

    rank: ClassVar[int] = 0
    ports: tuple[tuple[str, str], ...]

    def make(self, report: Report, tell: Tell, moving: Moving) -> Source:
        """The source."""
        return FixedDiscovery(self.ports, report)


@dataclasses.dataclass(frozen=True)
class Libvirt:
    """A libvirt daemon."""

    rank: ClassVar[int] = 1
    uri: str

    def make(self, report: Report, tell: Tell, moving: Moving) -> Source:
        """The source."""
        return LibvirtDiscovery(self.uri, report, tell, moving=moving)


@dataclasses.dataclass(frozen=True)
class Directories:
    """Directories that are looked at together."""

    rank: ClassVar[int] = 2
    paths: tuple[str, ...]

    def make(self, report: Report, tell: Tell, moving: Moving) -> Source:
        """The source."""
        return DirectoryDiscovery(self.paths, report)


class _Member:
    """A source at work."""

    def __init__(self, wanted: Wanted, take: Callable[[_Member, Event], None], tell: Tell, moving: Moving) -> None:
        self.source = wanted.make(functools.partial(take, self), tell, moving)
        self.task: Optional[asyncio.Task[None]] = None

    def end(self) -> None:
        """Stop the source, and close it when it has stopped."""
        assert self.task is not None  # noqa: S101 - only what runs is ended
        self.task.add_done_callback(lambda _: self.source.close())
        self.task.cancel()


class CombinedDiscovery:
    """Reports what the sources *wanted* find together.

    :param report: called with every event.
    :param tell: told what operators want to know besides.
    :param moving: called with what a source says of the migration of a VM.
    """

    def __init__(self, wanted: Iterable[Wanted], report: Report, tell: Tell, moving: Moving = ignore) -> None:
        self._wanted = _in_order(wanted)
        #: The sources that count, those that are about to go last.
        self._order: list[Wanted] = []
        self._report = report
        self._tell = tell
        self._moving = moving
        self._claims = Claims()
        self._members: dict[Wanted, _Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retiring: Optional[asyncio.Task[None]] = None
        #: While ``run`` runs: fails when a source does.
        self._broken: Optional[asyncio.Future[None]] = None

    def open(self) -> None:
        """Open every source, and report what is known at once.

        :raises Failure: one of them can't work on this machine.
        """
        self.exchange(self._wanted)

    def exchange(self, wanted: Iterable[Wanted]) -> None:
        """Have exactly these sources from now on, and report what that changes.

        :raises Failure: a new one can't work on this machine; everything stays as it was.
        """
        ordered = _in_order(wanted)
        self._open_new(ordered)
        self._wanted = ordered
        self._rank([*ordered, *(each for each in self._order if each not in ordered)])
        self._start()

    async def settled(self) -> None:
        """Return when every source has looked at everything for the first time."""
        for source in [self._members[each].source for each in self._wanted]:
            await source.settled()

    async def run(self) -> None:
        """Report changes until cancelled; an error of a source is raised."""
        self._broken = asyncio.get_running_loop().create_future()
        self._start()
        try:
            await self._broken
        finally:
            self._broken = None
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Close every source."""
        for member in self._members.values():
            member.source.close()

    def status(self) -> dict[str, Any]:
        """What the control API says of all sources, those that are about to go included."""
        whole: dict[str, Any] = {"directories": [], "libvirt": [], "fixed": {}}
        for each in self._order:
            for name, part in self._members[each].source.status().items():
                whole[name] = {**part, **whole[name]} if isinstance(part, dict) else [*whole[name], *part]
        return whole

    # ---- The sources ----

    def _open_new(self, wanted: Iterable[Wanted]) -> None:
        opened = []
        try:
            for each in wanted:
                if each not in self._members:
                    self._members[each] = _Member(each, self._take, self._tell, self._moving)
                    opened.append(each)
                    self._members[each].source.open()
        except BaseException:
            for each in opened:
                self._members.pop(each).source.close()
            raise

    def _rank(self, order: list[Wanted]) -> None:
        self._order = order
        self._report_all(self._claims.rank([self._members[each] for each in order]))

    def _start(self) -> None:
        """Run what does not run yet, and see to it that what is not wanted any more goes when it can be spared."""
        if self._broken is None:
            return
        for member in self._members.values():
            if member.task is None:
                member.task = self._spawn(member.source.run())
        if self._retiring is not None:
            self._retiring.cancel()
        self._retiring = self._spawn(self._retire())

    async def _retire(self) -> None:
        await self.settled()
        for each in self._order:
            if each not in self._wanted:
                self._members.pop(each).end()
        self._rank(self._wanted)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    # ---- What they find ----

    def _take(self, member: _Member, event: Event) -> None:
        if isinstance(event, Added):
            self._report_all(self._claims.put(member, event))
        else:
            self._report_all(self._claims.drop(member, event.name))

    def _report_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._report(event)


def _in_order(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Each once, those that count most first; of those that count the same, in the order of the configuration."""
    return sorted(dict.fromkeys(wanted), key=lambda each: each.rank)
