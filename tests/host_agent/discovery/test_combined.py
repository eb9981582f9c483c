from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Optional

import pytest

from host_agent.discovery import PORTS, Added, Event, Migration, Moving, Removed, Report, Source, Tell, ignore
from host_agent.discovery.combined import CombinedDiscovery, Directories, Fixed, Libvirt, Wanted
from host_agent.discovery.directory import DirectoryDiscovery
from host_agent.discovery.fixed import FixedDiscovery
from host_agent.discovery.libvirt import LibvirtDiscovery
from host_agent.exits import Failure
from tests.host_agent.guests import make_socket
from tests.host_agent.parts import run, until


class Slow:
    """A source that finds what a test says, and has settled when a test says so."""

    def __init__(self, report: Report, tell: Tell, moving: Moving, failure: Optional[Failure]) -> None:
        self.report = report
        self.tell = tell
        self.moving = moving
        self.answered = asyncio.Event()
        self.broken = asyncio.Event()
        self.starts = 0
        self.closed = 0
        self.runs = False
        self._failure = failure

    def open(self) -> None:
        if self._failure is not None:
            self.report(Added("half", "/half"))
            raise self._failure

    async def settled(self) -> None:
        await self.answered.wait()

    async def run(self) -> None:
        self.starts += 1
        self.runs = True
        try:
            await self.broken.wait()
            raise RuntimeError("a bug")
        finally:
            self.runs = False

    def close(self) -> None:
        assert not self.runs, "closed while it runs"
        self.closed += 1

    def status(self) -> dict[str, Any]:
        return {"libvirt": [{"uri": "slow"}]}


@dataclasses.dataclass(frozen=True)
class WantedSlow:
    """Such a source; *made* keeps each."""

    name: str
    made: dict[str, Slow] = dataclasses.field(compare=False)
    failure: Optional[Failure] = dataclasses.field(default=None, compare=False)
    rank: int = 1

    def make(self, report: Report, tell: Tell, moving: Moving) -> Source:
        self.made[self.name] = Slow(report, tell, moving, self.failure)
        return self.made[self.name]


class Combined:
    """A running combination, and what it reported."""

    def __init__(self, *wanted: Wanted) -> None:
        self.events: list[Event] = []
        self.told: list[tuple[str, Optional[str], dict[str, Any]]] = []
        self.moves: list[tuple[Migration, str, Optional[str]]] = []
        self.discovery = CombinedDiscovery(wanted, self.events.append, self._tell, lambda *move: self.moves.append(move))
        self.task: Optional[asyncio.Task[None]] = None

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Combined]:
        self.discovery.open()
        self.task = asyncio.ensure_future(self.discovery.run())
        await asyncio.sleep(0)
        try:
            yield self
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.discovery.close()

    def news(self) -> list[Event]:
        """What was reported since this was asked last."""
        news, self.events[:] = list(self.events), []
        return news

    def _tell(self, kind: str, guest: Optional[str] = None, **details: Any) -> None:
        self.told.append((kind, guest, details))


def fixed(**ports: str) -> Fixed:
    return Fixed(tuple(ports.items()))


def directories(*paths: Path) -> Directories:
    return Directories(tuple(map(str, paths)))


def sockets(place: Path, *names: str) -> dict[str, str]:
    """Sockets of VMs of these names, and their paths."""
    paths = {name: place / name / PORTS[1] for name in names}
    for path in paths.values():
        make_socket(path)
    return {name: str(path) for name, path in paths.items()}


def added(ports: dict[str, str]) -> list[Added]:
    return [Added(name, path) for name, path in sorted(ports.items())]


def test_what_all_sources_find_is_there_when_it_is_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = sockets(tmp_path, "db", "web")
        combined = Combined(directories(tmp_path), fixed(shop="/shop", web="/other"))
        combined.discovery.open()
        await combined.discovery.settled()
        assert combined.news() == [*added({"db": ports["db"]}), *added({"shop": "/shop", "web": "/other"})]
        assert combined.discovery.status() == {
            "directories": [str(tmp_path)],
            "libvirt": [],
            "fixed": {"shop": "/shop", "web": "/other"},
        }
        combined.discovery.close()

    run(scenario())


def test_changes_are_reported_while_it_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Combined(fixed(shop="/shop"), directories(tmp_path)).run() as combined:
            combined.news()
            ports = sockets(tmp_path, "web")
            await until(lambda: combined.events)
            assert combined.news() == added(ports)
            os.unlink(ports["web"])
            await until(lambda: combined.events)
            assert combined.news() == [Removed("web", ports["web"])]

    run(scenario())


def test_a_name_in_the_configuration_counts_more_than_what_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = sockets(tmp_path, "a-name-longer-than-t")["a-name-longer-than-t"]
        made: dict[str, Slow] = {}
        async with Combined(directories(tmp_path), WantedSlow("libvirt", made)).run() as combined:
            combined.news()
            full = Added("a-name-longer-than-twenty-characters", port, "u-1")
            made["libvirt"].report(full)
            assert combined.news() == [Removed("a-name-longer-than-t", port), full]
            combined.discovery.exchange([directories(tmp_path), WantedSlow("libvirt", made), fixed(short=port)])
            assert combined.news() == [Removed(full.name, port), Added("short", port)]

    run(scenario())


def test_a_source_that_stays_is_kept_running_and_only_differences_are_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        made: dict[str, Slow] = {}
        slow = WantedSlow("slow", made)
        async with Combined(slow, fixed(web="/1", db="/2")).run() as combined:
            source = made["slow"]
            source.report(Added("mail", "/3", "u-3"))
            source.answered.set()
            combined.news()
            combined.discovery.exchange([fixed(web="/1", db="/9"), WantedSlow("slow", made)])
            assert made["slow"] is source
            assert combined.news() == [Added("db", "/9")]
            combined.discovery.exchange([fixed(web="/1")])
            await until(lambda: source.closed)
            assert combined.news() == [Removed("db", "/9"), Removed("mail", "/3")]
            assert (source.starts, source.closed) == (1, 1)

    run(scenario())


def test_guests_that_old_and_new_sources_find_are_not_touched(tmp_path: Path) -> None:
    async def scenario() -> None:
        here, there = tmp_path / "here", tmp_path / "there"
        ports = sockets(here, "db", "web")
        there.mkdir()
        async with Combined(directories(here)).run() as combined:
            assert combined.news() == added(ports)
            combined.discovery.exchange([directories(there, here)])
            await until(lambda: combined.discovery.status()["directories"] == [str(there), str(here)])
            assert combined.news() == []
            more = sockets(there, "mail")
            await until(lambda: combined.events)
            assert combined.news() == added(more)

    run(scenario())


def test_what_an_old_source_found_stays_until_the_new_one_has_looked(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = sockets(tmp_path, "db", "web")
        made: dict[str, Slow] = {}
        async with Combined(directories(tmp_path)).run() as combined:
            assert combined.news() == added(ports)
            combined.discovery.exchange([WantedSlow("libvirt", made)])
            made["libvirt"].report(Added("web", ports["web"], "u-1"))
            assert combined.news() == [Added("web", ports["web"], "u-1")]
            late = sockets(tmp_path, "late")
            await until(lambda: combined.events)
            assert combined.news() == added(late)
            made["libvirt"].answered.set()
            await until(lambda: combined.events)
            assert combined.news() == [Removed("db", ports["db"]), Removed("late", late["late"])]
            assert combined.discovery.status()["directories"] == []

    run(scenario())


def test_a_source_that_is_wanted_again_before_it_went_was_never_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = sockets(tmp_path, "web")
        made: dict[str, Slow] = {}
        async with Combined(directories(tmp_path)).run() as combined:
            assert combined.news() == added(ports)
            combined.discovery.exchange([WantedSlow("libvirt", made)])
            await until(lambda: made["libvirt"].runs)
            combined.discovery.exchange([directories(tmp_path)])
            await until(lambda: made["libvirt"].closed)
            assert combined.news() == []
            assert combined.discovery.status()["directories"] == [str(tmp_path)]

    run(scenario())


def test_only_the_sources_that_are_wanted_in_the_end_are_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = sockets(tmp_path, "web")
        made: dict[str, Slow] = {}
        async with Combined(directories(tmp_path)).run() as combined:
            assert combined.news() == added(ports)
            combined.discovery.exchange([WantedSlow("one", made)])
            await until(lambda: made["one"].runs)
            combined.discovery.exchange([WantedSlow("two", made)])
            made["one"].answered.set()
            for _ in range(10):
                await asyncio.sleep(0)
            assert combined.news() == []
            made["two"].answered.set()
            await until(lambda: combined.events)
            assert combined.news() == [Removed("web", ports["web"])]

    run(scenario())


def test_what_a_source_says_after_it_went_is_not_heard() -> None:
    async def scenario() -> None:
        made: dict[str, Slow] = {}
        async with Combined(WantedSlow("slow", made)).run() as combined:
            combined.discovery.exchange([])
            await until(lambda: made["slow"].closed)
            made["slow"].report(Added("ghost", "/ghost"))
            assert combined.news() == []
            combined.discovery.exchange([WantedSlow("slow", made)])
            assert combined.news() == []

    run(scenario())


def test_a_new_source_that_can_not_work_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = sockets(tmp_path, "web")
        made: dict[str, Slow] = {}
        async with Combined(directories(tmp_path)).run() as combined:
            assert combined.news() == added(ports)
            impossible = WantedSlow("impossible", made, Failure("is not installed"))
            with pytest.raises(Failure, match="is not installed"):
                combined.discovery.exchange([fixed(db="/db"), impossible])
            assert made["impossible"].closed == 1
            more = sockets(tmp_path, "mail")
            await until(lambda: combined.events)
            assert combined.news() == added(more)
            combined.discovery.exchange([directories(tmp_path)])
            assert combined.news() == []
            assert combined.discovery.status()["fixed"] == {}

    run(scenario())


def test_an_error_of_a_source_is_raised_and_nothing_goes_on() -> None:
    async def scenario() -> None:
        made: dict[str, Slow] = {}
        combined = Combined(WantedSlow("one", made), WantedSlow("two", made))
        async with combined.run():
            assert combined.task is not None
            made["one"].broken.set()
            with pytest.raises(RuntimeError, match="a bug"):
                await combined.task
            assert not made["two"].runs

    run(scenario())


def test_of_sources_of_one_rank_the_first_one_counts() -> None:
    async def scenario() -> None:
        made: dict[str, Slow] = {}
        one, two = WantedSlow("one", made), WantedSlow("two", made)
        async with Combined(two, one, two).run() as combined:
            made["one"].report(Added("web", "/1"))
            made["two"].report(Added("web", "/2"))
            assert combined.news() == [Added("web", "/1"), Added("web", "/2")]
            combined.discovery.exchange([one, two])
            assert combined.news() == [Added("web", "/1")]

    run(scenario())


def test_what_sources_tell_is_passed_on() -> None:
    async def scenario() -> None:
        made: dict[str, Slow] = {}
        async with Combined(WantedSlow("one", made)).run() as combined:
            made["one"].tell("migration", "web", text="arrives")
            assert combined.told == [("migration", "web", {"text": "arrives"})]

    run(scenario())


def test_what_sources_say_of_migrations_is_passed_on() -> None:
    async def scenario() -> None:
        made: dict[str, Slow] = {}
        async with Combined(WantedSlow("one", made)).run() as combined:
            made["one"].moving(Migration.LEAVING, "web", "u-1")
            assert combined.moves == [(Migration.LEAVING, "web", "u-1")]

    run(scenario())


def test_nobody_needs_to_take_notice_of_migrations() -> None:
    async def scenario() -> None:
        made: dict[str, Slow] = {}
        discovery = CombinedDiscovery([WantedSlow("one", made)], _report_nothing, lambda *_, **__: None)
        discovery.open()
        made["one"].moving(Migration.LEFT, "web", None)
        discovery.close()

    run(scenario())


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (fixed(web="/1"), FixedDiscovery),
        (Libvirt("qemu:///system"), LibvirtDiscovery),
        (directories(Path("/none")), DirectoryDiscovery),
    ],
)
def test_the_configuration_s_words_become_sources(wanted: Wanted, kind: type) -> None:
    async def scenario() -> None:
        def tell(kind: str, guest: Optional[str] = None, **details: Any) -> None:
            raise AssertionError

        assert isinstance(wanted.make(_report_nothing, tell, ignore), kind)

    run(scenario())


def test_the_configuration_counts_most_and_directories_least() -> None:
    assert _in_order(directories(), Libvirt("qemu:///system"), fixed()) == [Fixed, Libvirt, Directories]


def _in_order(*wanted: Wanted) -> list[type]:
    return [type(each) for each in sorted(wanted, key=lambda each: each.rank)]


def _report_nothing(event: Event) -> None:
    raise AssertionError
