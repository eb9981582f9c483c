"""Port and session in step."""

from __future__ import annotations

import selectors
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from common import codec, events, framing, messages, versions
from common.catalogue import CATALOGUE
from common.session import GuestSession
from common.versions import Version
from guest_agent import link as links
from guest_agent.link import Link
from guest_agent.port import READ_SIZE, Port, PortBusy, PortMissing, PortUnusable, PortVanished
from guest_agent.quiet import QuietLog

from .parts import Clock, FifoHost, ListLog, lines_of

LOOK_AGAIN = 5.0
REFRESH = codec.encode("refresh", {"apiVersion": 3, "hostId": "h"})
PUSH = codec.encode("api-version", {"apiVersion": 3})


class Bench:
    """A link over FIFOs, driven turn by turn."""

    def __init__(self, host: FifoHost, clock: Clock) -> None:
        self.host = host
        self.clock = clock
        self.log = ListLog()
        self.session = GuestSession(versions.newest(), "agent")
        self.selector = selectors.DefaultSelector()
        self.openings: list[Callable[[], Port]] = []
        self.ports: list[Port] = []
        self.events: list[events.Event] = []
        self.link = Link(
            self.session,
            self._open,
            self.selector,
            QuietLog(self.log, clock),
            now=clock(),
            patience=3.0,
            look_again=LOOK_AGAIN,
        )

    def turn(self) -> None:
        self.selector.select(0)
        self.link.advance(self.clock())
        self.events += self.session.events()
        self.link.flush(self.clock())

    def heard(self) -> list[str]:
        """The names of the lines that the host can read now."""
        return [name for name, _ in lines_of(self.host.read())]

    def _open(self) -> Port:
        port = self.openings.pop(0)() if self.openings else self.host.port()
        self.ports.append(port)
        return port


@pytest.fixture
def bench(tmp_path: Path, clock: Clock) -> Iterator[Bench]:
    made = Bench(FifoHost(tmp_path), clock)
    yield made
    made.link.close(0, clock)
    made.selector.close()


def failing(error: Exception) -> Callable[[], Port]:
    def fail() -> Port:
        raise error

    return fail


def connect(bench: Bench) -> None:
    bench.turn()
    bench.host.connect()
    bench.turn()
    assert bench.link.up


# ---- Opening ----


def test_a_port_that_never_appears_is_an_error_when_patience_ends(bench: Bench) -> None:
    bench.openings = [failing(PortMissing("no port"))] * 9
    for _ in range(3):
        bench.turn()
        assert bench.link.next_deadline() == bench.clock() + links.RETRY_PERIOD
        bench.clock.advance(links.RETRY_PERIOD)
    with pytest.raises(PortMissing):
        bench.turn()


def test_a_port_that_appears_late_is_opened(bench: Bench) -> None:
    bench.openings = [failing(PortMissing("no port"))]
    bench.turn()
    assert not bench.ports
    bench.turn()
    assert not bench.ports
    bench.clock.advance(links.RETRY_PERIOD)
    bench.turn()
    assert len(bench.ports) == 1


def test_an_unusable_port_is_an_error_at_once(bench: Bench) -> None:
    bench.openings = [failing(PortUnusable("no permission"))]
    with pytest.raises(PortUnusable):
        bench.turn()


def test_a_port_that_another_program_holds_is_waited_for_without_end(bench: Bench) -> None:
    bench.openings = [failing(PortBusy("held"))] * 100
    for _ in range(100):
        bench.turn()
        bench.clock.advance(links.RETRY_PERIOD)
    assert bench.log.messages == ["held; trying again every 1 s"]
    bench.turn()
    assert len(bench.ports) == 1


# ---- The host comes and goes ----


def test_without_a_host_nothing_is_said_and_the_port_is_asked_again_later(bench: Bench) -> None:
    bench.turn()
    assert not bench.link.up
    assert bench.session.next_deadline() is None
    assert bench.link.next_deadline() == bench.clock() + LOOK_AGAIN
    assert bench.events == []


def test_the_first_line_to_the_first_host_is_session_startup(bench: Bench) -> None:
    connect(bench)
    assert bench.heard()[0] == "session-startup"
    assert events.HeartbeatWanted() in bench.events
    assert bench.link.next_deadline() is None


def test_session_startup_is_said_once_for_each_opening(bench: Bench) -> None:
    connect(bench)
    assert bench.heard() == ["session-startup"]
    bench.host.disconnect()
    bench.turn()
    assert not bench.link.up
    bench.host.connect()
    bench.turn()
    bench.host.write(REFRESH)
    bench.turn()
    assert bench.heard() == []


def test_session_startup_is_said_to_the_second_host_where_the_first_could_not_get_it(bench: Bench) -> None:
    bench.turn()
    bench.host.connect()
    bench.link.advance(bench.clock())
    assert bench.link.up
    bench.host.disconnect()
    bench.turn()
    assert not bench.link.up
    bench.host.connect()
    bench.turn()
    assert bench.heard() == ["session-startup"]


def test_what_the_host_said_before_it_went_is_heard(bench: Bench) -> None:
    connect(bench)
    bench.host.write(codec.encode("echo", {"n": 1}))
    bench.host.disconnect()
    bench.turn()
    assert events.MessageReceived("echo", messages.Echo(more={"n": 1})) in bench.events
    assert not bench.link.up


def test_with_the_host_the_version_in_use_goes(bench: Bench) -> None:
    connect(bench)
    bench.host.write(REFRESH + PUSH)
    bench.turn()
    assert bench.session.allows("containers")
    bench.host.disconnect()
    bench.turn()
    assert not bench.session.allows("containers")


def test_what_a_host_says_while_it_connects_is_not_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.turn()
    bench.host.connect()
    bench.host.write(REFRESH + PUSH)
    port = bench.ports[0]
    looks = iter([False])
    really = port.has_host
    monkeypatch.setattr(port, "has_host", lambda: next(looks, None) is None and really())
    bench.turn()
    assert bench.link.up
    assert bench.session.allows("containers")


def test_what_a_host_says_before_the_port_shows_it_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.turn()
    bench.host.connect()
    bench.host.write(REFRESH + PUSH)
    port = bench.ports[0]
    really = port.has_host
    monkeypatch.setattr(port, "has_host", lambda: False)
    bench.turn()
    assert not bench.link.up
    monkeypatch.setattr(port, "has_host", really)
    bench.clock.advance(LOOK_AGAIN)
    bench.turn()
    assert bench.link.up
    assert bench.session.allows("containers")


def test_what_a_host_says_before_the_port_shows_it_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.turn()
    bench.host.connect()
    port = bench.ports[0]
    monkeypatch.setattr(port, "has_host", lambda: False)
    monkeypatch.setattr(port, "receive", lambda: b"x" * READ_SIZE)
    for _ in range(10):
        bench.turn()
    assert len(bench.link._early) == links.EARLY_LIMIT


def test_what_an_absent_host_left_behind_is_taken_without_an_answer(bench: Bench) -> None:
    bench.turn()
    bench.host.connect()
    bench.host.write(REFRESH)
    bench.host.disconnect()
    bench.turn()
    assert not bench.link.up
    assert bench.events == []


def test_a_host_that_is_back_at_once_is_noticed_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(bench)
    port = bench.ports[0]
    received: list[Optional[bytes]] = [b""]
    really = port.receive
    monkeypatch.setattr(port, "receive", lambda: received.pop() if received else really())
    bench.host.write(REFRESH)
    bench.turn()
    assert bench.link.up
    assert bench.link.next_deadline() == bench.clock()
    bench.turn()
    assert bench.session.negotiation.host_repairs


def test_the_coming_and_going_of_hosts_is_said(bench: Bench) -> None:
    connect(bench)
    bench.host.disconnect()
    bench.turn()
    bench.turn()
    assert bench.log.messages == [
        "fifo: port opened",
        "no host is connected yet",
        "a host is connected",
        "the host is gone, waiting for the next one",
    ]


# ---- The port goes ----


@pytest.fixture
def unplugged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    connect(bench)
    bench.heard()

    def fail() -> bytes:
        raise PortVanished("fifo: the port vanished (unplugged)")

    monkeypatch.setattr(bench.ports[0], "receive", fail)
    bench.host.disconnect()
    bench.turn()
    return bench


def test_a_vanished_port_is_looked_for_and_opened_again(unplugged: Bench) -> None:
    assert not unplugged.link.up
    assert "fifo: the port vanished (unplugged); looking for it every 1 s" in unplugged.log.messages
    assert unplugged.link.next_deadline() == unplugged.clock() + links.RETRY_PERIOD
    unplugged.turn()
    assert len(unplugged.ports) == 1
    unplugged.clock.advance(links.RETRY_PERIOD)
    connect(unplugged)
    assert unplugged.heard()[0] == "session-startup"


@pytest.mark.parametrize("error", [PortMissing("no port"), PortUnusable("no permission"), PortBusy("held")])
def test_once_it_had_a_port_the_agent_never_gives_up(unplugged: Bench, error: Exception) -> None:
    unplugged.openings = [failing(error)] * 1000
    for _ in range(1000):
        unplugged.clock.advance(links.RETRY_PERIOD)
        unplugged.turn()
    assert sum(str(error) in message for message in unplugged.log.messages) == 1
    unplugged.clock.advance(links.RETRY_PERIOD)
    unplugged.turn()
    assert len(unplugged.ports) == 2


def test_a_port_that_vanishes_while_it_is_written_is_looked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(bench)

    def fail() -> int:
        raise PortVanished("fifo: the port vanished (unplugged)")

    monkeypatch.setattr(bench.ports[0], "flush", fail)
    bench.turn()
    assert not bench.link.up
    assert bench.link.next_deadline() == bench.clock() + links.RETRY_PERIOD


def test_a_port_that_vanishes_at_the_end_is_no_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(bench)

    def fail(*_: Any) -> None:
        raise PortVanished("fifo: the port vanished (unplugged)")

    monkeypatch.setattr(bench.ports[0], "drain", fail)
    bench.link.close(1.0, bench.clock)
    bench.link.close(1.0, bench.clock)


# ---- Floods and jams ----


def test_a_flood_is_read_in_portions(bench: Bench) -> None:
    connect(bench)
    bench.host.write(b"x" * 60_000)
    bench.turn()
    assert bench.session.counters.bytes == links.READS_PER_TURN * READ_SIZE
    assert bench.link.next_deadline() == bench.clock()
    bench.turn()
    assert bench.session.counters.bytes == 60_000
    assert bench.link.next_deadline() is None


JAM = "x" * 10_000


def jam(bench: Bench) -> None:
    """Let the host read nothing until the agent notices."""
    while not bench.link.congested:
        bench.session.send(messages.HostName(name=JAM))
        bench.turn()


def test_a_host_that_does_not_read_is_sent_no_more_until_it_has_read_everything(bench: Bench) -> None:
    connect(bench)
    jam(bench)
    jammed = bench.ports[0].pending
    assert links.PENDING_LIMIT < jammed < 2 * links.PENDING_LIMIT
    bench.clock.advance(60)
    bench.session.tick(bench.clock())
    bench.host.write(REFRESH)
    bench.events.clear()
    bench.turn()
    assert bench.events == []
    assert bench.ports[0].pending == jammed
    received = b""
    while bench.link.congested:
        received += bench.host.read()
        bench.turn()
    assert bench.link.next_deadline() == bench.clock()
    bench.turn()
    assert events.HeartbeatWanted() in bench.events
    received += bench.host.read()
    assert {name for name, _ in lines_of(received)} == {"session-startup", "host-name"}


def test_a_jam_ends_with_the_host(bench: Bench) -> None:
    connect(bench)
    jam(bench)
    bench.host.disconnect()
    bench.turn()
    assert not bench.link.congested
    assert bench.ports[0].pending < framing.LINE_LIMIT
    bench.host.connect()
    bench.turn()
    bench.host.write(REFRESH)
    bench.turn()
    assert events.VersionChanged(Version.V0, Version.V3, events.Reason.PUSH, events.Reason.PUSH.value) not in bench.events
    assert events.HeartbeatWanted() in bench.events


def test_room_for_output_is_waited_for_only_while_output_waits(bench: Bench) -> None:
    connect(bench)
    assert not bench.ports[0]._watching_output
    jam(bench)
    assert bench.ports[0]._watching_output
    while bench.ports[0].pending:
        bench.host.read()
        bench.turn()
    assert not bench.ports[0]._watching_output


def test_what_was_handed_over_is_written_or_waits(bench: Bench) -> None:
    bench.turn()
    assert bench.link.drained
    connect(bench)
    assert bench.link.drained
    jam(bench)
    assert not bench.link.drained


# ---- Another configuration ----


def begin_anew(bench: Bench) -> None:
    bench.session = GuestSession(Version.V1, "agent anew")
    bench.link.begin_anew(bench.session, bench.clock())


def test_another_session_begins_under_the_same_port(bench: Bench) -> None:
    connect(bench)
    bench.host.write(REFRESH + PUSH)
    bench.turn()
    bench.heard()
    bench.events.clear()
    begin_anew(bench)
    bench.turn()
    assert bench.heard() == ["session-startup"]
    assert events.HeartbeatWanted() in bench.events
    bench.host.write(REFRESH + PUSH)
    bench.turn()
    assert bench.session.negotiation.in_use == Version.V1
    assert len(bench.ports) == 1


def test_another_session_begins_where_the_line_that_was_begun_ends(bench: Bench) -> None:
    connect(bench)
    jam(bench)
    received = bench.host.read()
    begin_anew(bench)
    assert not bench.link.congested
    assert bench.ports[0].pending < links.PENDING_LIMIT / 2
    while not bench.link.drained:
        bench.turn()
        received += bench.host.read()
    *_, before, last = lines_of(received)
    assert before == ("host-name", {"name": JAM})
    assert last == ("session-startup", {})


def test_another_session_waits_for_a_host_as_the_one_before(bench: Bench) -> None:
    begin_anew(bench)
    assert bench.session.data_to_send() == b""
    connect(bench)
    assert bench.heard() == ["session-startup"]
    assert bench.events[0] == events.FactsWanted(CATALOGUE.facts(up_to=Version.V0))


def test_another_port_is_opened_at_once(bench: Bench) -> None:
    connect(bench)
    bench.host.write(REFRESH + PUSH)
    bench.turn()
    bench.link.change_port(bench.clock())
    assert not bench.link.open
    assert not bench.session.allows("containers")
    assert bench.link.next_deadline() == bench.clock()
    bench.heard()
    bench.turn()
    bench.turn()
    assert len(bench.ports) == 2
    assert bench.heard() == ["session-startup"]
    assert "fifo: the port was given up, others are configured; looking for it every 1 s" in bench.log.messages


def test_another_port_is_looked_for_at_once_where_there_was_none(bench: Bench) -> None:
    bench.openings = [failing(PortMissing("no port"))]
    bench.turn()
    bench.link.change_port(bench.clock())
    bench.turn()
    assert len(bench.ports) == 1


def test_another_port_is_opened_at_once_though_no_host_was_at_the_old_one(bench: Bench) -> None:
    bench.turn()
    bench.link.change_port(bench.clock())
    bench.turn()
    assert len(bench.ports) == 2


# ---- What has been dropped, and what is not read ----


def test_each_time_that_lines_may_have_been_dropped_the_channel_has_another_number(bench: Bench) -> None:
    numbers = [bench.link.channel]
    connect(bench)
    bench.host.disconnect()
    bench.turn()
    numbers.append(bench.link.channel)
    connect(bench)
    begin_anew(bench)
    numbers.append(bench.link.channel)
    bench.link.change_port(bench.clock())
    numbers.append(bench.link.channel)
    assert len(set(numbers)) == 4


def test_what_is_not_wanted_now_waits_in_the_port(bench: Bench) -> None:
    connect(bench)
    bench.host.write(REFRESH + PUSH)
    bench.link.advance(bench.clock(), read=False)
    assert bench.session.negotiation.in_use == Version.V0
    assert bench.link.next_deadline() is None
    bench.turn()
    assert bench.session.negotiation.in_use > Version.V0


def test_a_host_that_goes_is_noticed_while_nothing_is_read(bench: Bench) -> None:
    connect(bench)
    bench.host.disconnect()
    bench.link.advance(bench.clock(), read=False)
    assert not bench.link.up
