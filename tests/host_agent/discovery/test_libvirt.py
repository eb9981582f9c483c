"""libvirt's own test driver, in this process, plays what it can; what it can't is played by a fake of the library."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

import pytest

from host_agent.connector import Backoff
from host_agent.demo.vm import packages
from host_agent.discovery import PORTS, Added, Event, Migration, Removed
from host_agent.discovery import libvirt as module
from host_agent.discovery.libvirt import LibvirtDiscovery, NoLibvirt, load
from host_agent.exits import Exit
from tests.host_agent.parts import PATIENCE, run, until
from tests.needs import or_left_out

from .fake_libvirt import Error, FakeLibvirt, domain_xml

LEGACY, CURRENT = PORTS
URI = "fake:///system"
TEST_URI = "test:///default"
REMEDY = "start libvirt's daemon, or correct the URI"


class Watched:
    """A running discovery, and what it reported."""

    def __init__(self, uri: str = URI) -> None:
        self.events: list[Event] = []
        self.told: list[tuple[str, Optional[str], dict[str, Any]]] = []
        #: Where migrations stand, and how many events had been reported by then.
        self.moves: list[tuple[Migration, str, Optional[str], int]] = []
        self.backoff = Backoff(lambda: 0.0, first=0.001, longest=0.01)
        self.discovery = LibvirtDiscovery(uri, self.events.append, self._tell, self.backoff, self._move)
        self.task: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def run(self, settled: bool = True) -> AsyncIterator[Watched]:
        self.discovery.open()
        self.task = asyncio.ensure_future(self.discovery.run())
        try:
            if settled:
                await asyncio.wait_for(self.discovery.settled(), PATIENCE)
            else:
                await asyncio.sleep(0)
            yield self
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.discovery.close()

    async def until_reported(self, *expected: Event) -> None:
        """Wait for as many events, and compare them; they are not seen again."""
        await until(lambda: len(self.events) >= len(expected))
        news, self.events[:] = list(self.events), []
        assert news == list(expected)

    @property
    def status(self) -> dict[str, Any]:
        [status] = self.discovery.status()["libvirt"]
        assert isinstance(status, dict)
        return status

    def told_of(self, kind: str) -> list[tuple[Optional[str], dict[str, Any]]]:
        return [(guest, details) for each, guest, details in self.told if each == kind]

    async def until_moved(self, *expected: Migration) -> None:
        """Wait for as many moves, and compare them; they are not seen again."""
        await until(lambda: len(self.moves) >= len(expected))
        news, self.moves[:] = list(self.moves), []
        assert [each[:3] for each in news] == [(each, "vm-u-1", "u-1") for each in expected]

    def texts(self) -> list[str]:
        """What was told of migrations, to people."""
        return [details["text"] for _, details in self.told_of("migration")]

    def _tell(self, kind: str, guest: Optional[str] = None, **details: Any) -> None:
        self.told.append((kind, guest, details))

    def _move(self, migration: Migration, name: str, uuid: Optional[str]) -> None:
        self.moves.append((migration, name, uuid, len(self.events)))


# ---- With libvirt's test driver ----


@pytest.fixture(scope="module")
def library() -> ModuleType:
    """Python's libvirt, with what its event loop keeps open as long as the process lives."""
    with or_left_out():
        try:
            library = load()
        except NoLibvirt:
            raise packages.Unavailable(
                "Python's libvirt is missing: apt-get install libvirt-dev pkg-config gcc, then pip install libvirt-python"
            ) from None
    turned = threading.Event()
    timer = library.virEventAddTimeout(0, lambda *_: turned.set(), None)
    assert turned.wait(PATIENCE)
    library.virEventRemoveTimeout(timer)
    return library


@pytest.fixture
def hypervisor(library: ModuleType) -> Iterator[Any]:
    """A connection that may change things; while it is open, the driver's machines stay."""
    connection = library.open(TEST_URI)
    yield connection
    connection.close()


def define(connection: Any, name: str, *channels: tuple[str, str]) -> Any:
    """A domain with these ports and their paths, not started."""
    devices = "".join(
        f"<channel type='unix'><source mode='bind' path='{path}'/><target type='virtio' name='{port}'/></channel>"
        for port, path in channels
    )
    return connection.defineXML(
        f"<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices>{devices}</devices></domain>"
    )


@pytest.mark.once
def test_running_domains_are_found_with_name_and_uuid(hypervisor: Any) -> None:
    async def scenario() -> None:
        web = define(hypervisor, "a-name-longer-than-twenty-characters", (CURRENT, "/new"), (LEGACY, "/old"))
        web.create()
        define(hypervisor, "off", (CURRENT, "/off"))
        define(hypervisor, "without").create()
        async with Watched(TEST_URI).run() as watched:
            await watched.until_reported(Added("a-name-longer-than-twenty-characters", "/old", web.UUIDString()))
            assert watched.status == {"uri": TEST_URI, "connected": True, "error": None}

    run(scenario())


@pytest.mark.once
def test_domains_are_followed_through_their_lives(hypervisor: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Watched(TEST_URI).run() as watched:
            web = define(hypervisor, "web", (CURRENT, "/1"))
            web.create()
            port = Added("web", "/1", web.UUIDString())
            await watched.until_reported(port)
            web.suspend()
            web.resume()
            web.destroy()
            await watched.until_reported(Removed("web", "/1"))
            web.rename("shop")
            web.create()
            shop = Added("shop", "/1", web.UUIDString())
            await watched.until_reported(shop)
            web.save(str(tmp_path / "saved"))
            await watched.until_reported(Removed("shop", "/1"))
            hypervisor.restore(str(tmp_path / "saved"))
            await watched.until_reported(shop)
            web.destroy()
            web.undefine()
            await watched.until_reported(Removed("shop", "/1"))

    run(scenario())


@pytest.mark.once
def test_two_discoveries_share_the_library_s_event_loop(hypervisor: Any) -> None:
    async def scenario() -> None:
        async with Watched(TEST_URI).run() as one, Watched(TEST_URI).run() as other:
            web = define(hypervisor, "web", (CURRENT, "/1"))
            web.create()
            for watched in (one, other):
                await watched.until_reported(Added("web", "/1", web.UUIDString()))

    run(scenario())


# ---- With a fake of the library ----


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    fake = FakeLibvirt()
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    return fake


def test_a_missing_library_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setitem(sys.modules, "libvirt", None)
        with pytest.raises(NoLibvirt, match=r"install python3-libvirt, or with pip vmaccord\[libvirt\]") as failure:
            Watched().discovery.open()
        assert failure.value.status is Exit.BAD_CONFIGURATION

    run(scenario())


def test_the_library_prints_nothing(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        async with Watched().run():
            assert fake.silenced

    run(scenario())


def test_a_port_that_is_plugged_in_and_out_is_noticed(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1")
        async with Watched().run() as watched:
            fake.run_domain("web", "u-1", "/1")
            fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, "u-1", "channel0")
            await watched.until_reported(Added("web", "/1", "u-1"))
            fake.run_domain("web", "u-1")
            fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, "u-1", "channel0")
            await watched.until_reported(Removed("web", "/1"))

    run(scenario())


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (FakeLibvirt.VIR_CONNECT_CLOSE_REASON_ERROR, "the connection broke"),
        (FakeLibvirt.VIR_CONNECT_CLOSE_REASON_EOF, "the daemon ended it"),
        (FakeLibvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE, "the daemon does not answer"),
        (99, "the connection ended"),
    ],
)
def test_while_the_daemon_is_away_guests_stay_and_then_only_the_difference_is_reported(
    fake: FakeLibvirt, reason: int, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        for number in "123":
            fake.run_domain(f"vm-{number}", f"u-{number}", f"/{number}")
        async with Watched().run() as watched:
            await watched.until_reported(*(Added(f"vm-{number}", f"/{number}", f"u-{number}") for number in "123"))
            first = fake.connection
            fake.end(reason, Error("no socket"))
            await until(lambda: fake.attempts > 5)
            assert watched.events == []
            await until(lambda: watched.status["error"] == f"can't be reached: no socket; {REMEDY}")
            assert not watched.status["connected"]
            del fake.domains["u-1"]
            fake.run_domain("vm-3", "u-3", "/new")
            fake.run_domain("vm-4", "u-4", "/4")
            fake.refuses = None
            await watched.until_reported(Removed("vm-1", "/1"), Added("vm-3", "/new", "u-3"), Added("vm-4", "/4", "u-4"))
            await until(lambda: watched.status["connected"])
            assert watched.status["error"] is None
            assert first.closed.is_set()
            await until(lambda: watched.backoff.wait() == 0.001)
            said = ["connected", f"connection lost: {why}; the guests known stay; trying again", "connected"]
            assert watched.told_of("discovery") == [(None, {"source": URI, "text": text}) for text in said]

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert [record.getMessage() for record in caplog.records] == [
        f"{URI}: connection lost: {why}; the guests known stay; trying again"
    ]


def test_a_daemon_that_starts_later_is_waited_for_and_that_is_told_once(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.refuses = Error("Failed to connect socket: No such file or directory")
        async with Watched().run(settled=False) as watched:
            await until(lambda: fake.attempts > 3)
            fake.run_domain("web", "u-1", "/1")
            fake.refuses = None
            await watched.until_reported(Added("web", "/1", "u-1"))
            await until(lambda: watched.status["connected"])
            text = f"can't be reached: Failed to connect socket: No such file or directory; {REMEDY}; trying again"
            assert [details["text"] for _, details in watched.told_of("discovery")] == [text, "connected"]

    run(scenario())


def test_the_ways_of_a_migration_are_told(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        async with Watched().run() as watched:
            life = FakeLibvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            for kind in ("STARTED", "RESUMED", "SUSPENDED", "STOPPED"):
                event = getattr(FakeLibvirt, f"VIR_DOMAIN_EVENT_{kind}")
                fake.connection.tell(life, "u-1", event, getattr(FakeLibvirt, f"VIR_DOMAIN_EVENT_{kind}_MIGRATED"))
                fake.connection.tell(life, "u-1", event, 0)
            await until(lambda: len(watched.told_of("migration")) == 4)
            assert watched.told_of("migration") == [
                ("vm-u-1", {"text": "arrives from another host"}),
                ("vm-u-1", {"text": "runs on this host now"}),
                ("vm-u-1", {"text": "is stopped here, to run on another host"}),
                ("vm-u-1", {"text": "has left for another host"}),
            ]

    run(scenario())


# ---- Migrations ----


def live(fake: FakeLibvirt, kind: str, reason: str) -> None:
    """Something happens in the life of a domain."""
    numbers = (getattr(FakeLibvirt, f"VIR_DOMAIN_EVENT_{name}") for name in (kind, f"{kind}_{reason}"))
    fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, "u-1", *numbers)


def send_memory(
    fake: FakeLibvirt, operation: Union[int, Exception] = FakeLibvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
) -> None:
    """A pass over the domain's memory begins."""
    fake.jobs["u-1"] = operation
    fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, "u-1", 1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are looked at all the time."""
    monkeypatch.setattr(module, "_JOB_PERIOD", 0.001)


def test_a_domain_that_leaves_is_followed_and_has_its_port_until_then(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            send_memory(fake)
            send_memory(fake)
            live(fake, "SUSPENDED", "MIGRATED")
            send_memory(fake)
            await watched.until_moved(Migration.BEGINS, Migration.LEAVING)
            del fake.domains["u-1"]
            live(fake, "STOPPED", "MIGRATED")
            await until(lambda: watched.events[1:])
            assert watched.moves == [(Migration.LEFT, "vm-u-1", "u-1", 1)]
            assert watched.texts() == [
                "is being sent to another host",
                "is stopped here, to run on another host",
                "has left for another host",
            ]

    run(scenario())


def test_a_domain_that_arrives_has_its_port_by_then(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        async with Watched().run() as watched:
            fake.run_domain("web", "u-1", "/1")
            live(fake, "STARTED", "MIGRATED")
            live(fake, "RESUMED", "MIGRATED")
            await until(lambda: len(watched.moves) == 2)
            assert watched.moves == [
                (Migration.INCOMING, "vm-u-1", "u-1", 1),
                (Migration.ARRIVED, "vm-u-1", "u-1", 1),
            ]
            assert watched.texts() == ["arrives from another host", "runs on this host now"]

    run(scenario())


def test_a_domain_that_does_not_arrive_is_told_of(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        async with Watched().run() as watched:
            fake.run_domain("web", "u-1", "/1")
            live(fake, "STARTED", "MIGRATED")
            live(fake, "STOPPED", "FAILED")
            await watched.until_moved(Migration.INCOMING, Migration.TURNED_BACK)
            assert watched.texts() == ["arrives from another host", "does not arrive: its migration failed"]

    run(scenario())


@pytest.mark.usefixtures("impatient")
def test_a_migration_that_is_cancelled_before_the_domain_stops_is_noticed_by_its_job(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            for _ in range(2):
                send_memory(fake)
                await watched.until_moved(Migration.BEGINS)
                del fake.jobs["u-1"]
                await watched.until_moved(Migration.FAILED)
            assert watched.texts() == ["is being sent to another host", "stays on this host: its migration failed"] * 2

    run(scenario())


@pytest.mark.usefixtures("impatient")
def test_a_job_that_can_not_be_told_decides_nothing(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            send_memory(fake, Error("its lock is held"))
            send_memory(fake)
            await watched.until_moved(Migration.BEGINS)
            send_memory(fake, Error("domain is not running"))
            live(fake, "STOPPED", "MIGRATED")
            await watched.until_moved(Migration.LEFT)

    run(scenario())


def test_a_domain_that_is_saved_does_not_leave(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            send_memory(fake, FakeLibvirt.VIR_DOMAIN_JOB_OPERATION_SAVE)
            live(fake, "SUSPENDED", "PAUSED")
            live(fake, "STARTED", "MIGRATED")
            await watched.until_moved(Migration.INCOMING)

    run(scenario())


@pytest.mark.usefixtures("impatient")
def test_a_connection_that_dies_while_a_job_is_looked_at_is_made_anew_and_the_job_followed(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            send_memory(fake)
            await watched.until_moved(Migration.BEGINS)
            fake.connection.alive = False
            fake.jobs["u-1"] = Error("the connection is closed")
            await until(lambda: fake.attempts > 1)
            del fake.jobs["u-1"]
            await watched.until_moved(Migration.FAILED)

    run(scenario())


def test_a_domain_that_was_about_to_leave_and_is_gone_when_the_daemon_is_back_has_left(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            send_memory(fake)
            live(fake, "SUSPENDED", "MIGRATED")
            await watched.until_moved(Migration.BEGINS, Migration.LEAVING)
            del fake.domains["u-1"]
            fake.end(FakeLibvirt.VIR_CONNECT_CLOSE_REASON_EOF)
            await watched.until_moved(Migration.LEFT)

    run(scenario())


def test_nobody_needs_to_take_notice_of_a_migration(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        watched = Watched()
        watched.discovery = LibvirtDiscovery(URI, watched.events.append, watched._tell)
        async with watched.run():
            live(fake, "STARTED", "MIGRATED")
            await until(watched.texts)

    run(scenario())


# ---- Trouble ----


def test_a_domain_that_can_not_be_looked_at_stays_as_it_was(fake: FakeLibvirt, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            await watched.until_reported(Added("web", "/1", "u-1"))
            fake.domains["u-1"] = Error("its lock is held")
            for _ in range(3):
                fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, "u-1", "channel0")
            fake.run_domain("db", "u-2", "/2")
            fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, "u-2", "channel0")
            await watched.until_reported(Added("db", "/2", "u-2"))
            assert fake.attempts == 1

    run(scenario())
    assert caplog.text.count("domain u-1: its lock is held") == 1


def test_a_connection_that_dies_while_a_domain_is_looked_at_is_made_anew(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.run_domain("web", "u-1", "/1")
        async with Watched().run() as watched:
            await watched.until_reported(Added("web", "/1", "u-1"))
            fake.domains["u-1"] = Error("the connection is closed")
            fake.connection.alive = False
            fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, "u-1", "channel0")
            await until(lambda: fake.attempts > 1)
            fake.run_domain("web", "u-1", "/2")
            fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, "u-1", "channel0")
            await watched.until_reported(Added("web", "/2", "u-1"))

    run(scenario())


def test_a_domain_whose_name_can_not_be_used_is_told_of_and_left_out(
    fake: FakeLibvirt, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        fake.run_domain("a\tb", "u-1", "/1")
        fake.run_domain("web", "u-2", "/2")
        async with Watched().run() as watched:
            await watched.until_reported(Added("web", "/2", "u-2"))

    run(scenario())
    assert "domain u-1: a name with control characters is no guest's name; rename the domain" in caplog.text


def test_a_driver_without_keep_alive_messages_will_do(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.keeps_not_alive = Error("not supported", FakeLibvirt.VIR_ERR_NO_SUPPORT)
        async with Watched().run() as watched:
            assert watched.status["connected"]

    run(scenario())


def test_a_connection_that_fails_at_once_is_closed_and_tried_again(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        fake.keeps_not_alive = Error("the connection broke")
        async with Watched().run(settled=False) as watched:
            await until(lambda: fake.attempts > 1)
            assert fake.connections[0].closed.is_set()
            fake.keeps_not_alive = None
            await until(lambda: watched.status["connected"])

    run(scenario())


def test_an_error_that_should_not_happen_ends_it(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        async with Watched().run() as watched:
            fake.domains["u-1"] = RuntimeError("a bug")
            fake.connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, "u-1", "channel0")
            with pytest.raises(RuntimeError, match="a bug"):
                await watched.task

    run(scenario())


def test_after_its_end_nothing_is_reported_and_the_connection_is_closed(fake: FakeLibvirt) -> None:
    async def scenario() -> None:
        looking, answer = threading.Event(), threading.Event()

        def describe() -> str:
            looking.set()
            assert answer.wait(PATIENCE)
            return domain_xml("web", "u-1", "/1")

        async with Watched().run() as watched:
            connection = fake.connection
            fake.domains["u-1"] = describe
            connection.tell(FakeLibvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, "u-1", "channel0")
            await until(looking.is_set)
        answer.set()
        await until(connection.closed.is_set)
        assert watched.events == []

    run(scenario())


def test_a_loop_that_has_ended_is_no_error(fake: FakeLibvirt) -> None:
    fake.refuses = Error("not yet")

    async def scenario() -> Watched:
        async with Watched().run(settled=False) as watched:
            await until(lambda: fake.attempts)
        return watched

    assert run(scenario()).events == []
