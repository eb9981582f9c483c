from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Optional

import pytest

from host_agent import connector as connector_module
from host_agent.channel import Surroundings
from host_agent.connector import TOLERATED, Backoff, Connector, Gate
from host_agent.guest import Guest, State
from host_agent.poller import Poller

from .guests import SimulatedVm, hanging_up, make_socket, saying
from .own_time import in_own_time, own_loop
from .parts import NOBODY, PATIENCE, ROOT, another_user, make_guest, make_shared, until

HEARTBEAT = b'{"__name__":"heartbeat"}'


# ---- Waits ----


def test_the_waits_are_the_promised_ones() -> None:
    assert (connector_module.FIRST_WAIT, connector_module.LONGEST_WAIT) == (0.01, 10.0)
    assert (connector_module.FIRST_SILENCE, connector_module.LONGEST_SILENCE) == (15.0, 600.0)


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.wait() for _ in range(10)] == [0.01 * 2**step for step in range(10)]
    assert backoff.wait() == backoff.wait() == 10.0
    backoff.reset()
    assert backoff.wait() == 0.01


def test_waits_are_shortened_at_random() -> None:
    draws = iter((0.0, 0.5, 1.0))
    backoff = Backoff(lambda: next(draws))
    assert [backoff.wait() for _ in range(3)] == pytest.approx([0.01, 0.0175, 0.03])
    assert all(0.0075 <= Backoff().wait() <= 0.01 for _ in range(100))


# ---- The gate ----


class Queue:
    """Guests that want to go through a gate, and who was let in when."""

    def __init__(self, width: int = 2) -> None:
        self.gate = Gate(own_loop(), width, patience=0.25)
        self.start = own_loop().now
        self.let_in: list[str] = []
        self.times: list[float] = []

    def enter(self, *names: Any) -> None:
        for name in names:
            self.gate.enter(name, lambda name=name: self._go(name))  # type: ignore[misc]

    def leave(self, *names: Any) -> None:
        for name in names:
            self.gate.leave(name)

    def _go(self, name: str) -> None:
        self.let_in.append(name)
        self.times.append(round(own_loop().now - self.start, 3))


def test_a_gate_lets_so_many_in_and_the_others_in_their_order_as_soon_as_there_is_room() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.enter("a", "b", "c", "d", "e")
        assert queue.let_in == ["a", "b"]
        queue.leave("b")
        await asyncio.sleep(0)
        assert queue.let_in == ["a", "b", "c"]
        queue.leave("a", "c")
        await asyncio.sleep(0)
        assert queue.let_in == ["a", "b", "c", "d", "e"]
        queue.leave("d", "e")
        queue.enter("f")
        assert queue.let_in[5:] == ["f"]

    in_own_time(scenario())


def test_who_does_not_answer_makes_room_after_a_while() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.enter("a", "b", "c", "d", "e")
        await asyncio.sleep(10)
        assert queue.let_in == ["a", "b", "c", "d", "e"]
        assert queue.times == [0.0, 0.0, 0.25, 0.25, 0.5]

    in_own_time(scenario())


def test_who_waits_and_wants_nothing_any_more_is_not_let_in() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.enter("a", "b", "c", "d")
        queue.leave("c", "nobody")
        await asyncio.sleep(10)
        assert queue.let_in == ["a", "b", "d"]

    in_own_time(scenario())


def test_who_waits_and_asks_again_keeps_its_place_in_the_queue() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.enter("a", "b", "c", "d")
        queue.enter("c")
        queue.leave("a")
        await asyncio.sleep(0)
        assert queue.let_in == ["a", "b", "c"]

    in_own_time(scenario())


def test_who_is_inside_may_go_again_and_has_its_time_anew() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.enter("a", "b", "c")
        await asyncio.sleep(0.2)
        queue.enter("a")
        queue.leave("b")
        await asyncio.sleep(0.1)
        assert queue.let_in == ["a", "b", "a", "c"]
        queue.enter("d")
        await asyncio.sleep(10)
        assert list(zip(queue.let_in, queue.times))[4:] == [("d", 0.45)]

    in_own_time(scenario())


def test_room_that_somebody_takes_in_the_meantime_is_not_given_away_twice() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.enter("a", "b", "c")
        queue.leave("a")
        queue.enter("d")
        await asyncio.sleep(0)
        assert queue.let_in == ["a", "b", "d"]
        await asyncio.sleep(10)
        assert queue.let_in == ["a", "b", "d", "c"]

    in_own_time(scenario())


def test_thousands_that_fail_at_once_take_their_turns_one_by_one() -> None:
    async def scenario() -> None:
        gate = Gate(own_loop(), 1)
        failed: list[int] = []

        def fail(who: Any) -> None:
            failed.append(who)
            gate.leave(who)

        gate.enter(-1, lambda: None)  # type: ignore[arg-type]
        for number in range(5000):
            who: Any = number
            gate.enter(who, lambda who=who: fail(who))  # type: ignore[misc]
        start = own_loop().now
        gate.leave(-1)  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert failed == list(range(5000))
        assert own_loop().now - start < 0.2

    in_own_time(scenario())


def test_a_gate_that_is_closed_lets_nobody_in_any_more() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.enter("a", "b", "c", "d")
        queue.leave("a")
        queue.gate.close()
        await asyncio.sleep(10)
        assert queue.let_in == ["a", "b"]

    in_own_time(scenario())


# ---- Connecting ----


class CountingBackoff(Backoff):
    """Waits as promised, and counts."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.waits: list[float] = []
        self.resets = 0

    def wait(self) -> float:
        self.waits.append(super().wait())
        return self.waits[-1]

    def reset(self) -> None:
        self.resets += 1
        super().reset()


class PatientBackoff(Backoff):
    """Waits for ever."""

    def wait(self) -> float:
        return 1e6


class Host:
    """What the connectors of a daemon have in common."""

    def __init__(self, width: int = connector_module.GATE_WIDTH) -> None:
        loop = own_loop()
        self.shared = make_shared()
        self.around = Surroundings(loop, Poller(loop), self.shared.meter, self.shared.limits)
        self.around.clock = loop.time
        self.gate = Gate(loop, width)
        self.connectors: list[Connector] = []
        self.guests: list[Guest] = []

    def connector(self, backoff: Optional[Backoff] = None, silence: Optional[Backoff] = None) -> tuple[Connector, Guest]:
        guest = make_guest(f"web-{len(self.guests) + 1}", shared=self.shared, now=own_loop().now)
        connector = Connector(self.around, guest, self.gate, backoff, silence)
        self.guests.append(guest)
        self.connectors.append(connector)
        return connector, guest

    def close(self) -> None:
        for connector in self.connectors:
            connector.stop("the test ends")
        self.gate.close()
        self.around.poller.close()


@contextlib.asynccontextmanager
async def hosting(width: int = connector_module.GATE_WIDTH) -> AsyncIterator[Host]:
    """A host; in the end nothing is left of its connectors, and nothing happens any more."""
    host = Host(width)
    try:
        yield host
    finally:
        for connector in host.connectors:
            connector.stop("the test ends")
        await asyncio.sleep(connector_module.GATE_PATIENCE)
    assert len(host.around.poller) == own_loop().timers() == 0
    host.close()


@contextlib.asynccontextmanager
async def connector_for(
    backoff: Optional[Backoff] = None, silence: Optional[Backoff] = None
) -> AsyncIterator[tuple[Connector, Guest]]:
    async with hosting() as host:
        yield host.connector(backoff, silence)


def test_it_connects_at_once_where_somebody_listens(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place, saying(HEARTBEAT)) as vm, connector_for(PatientBackoff()) as (connector, guest):
            connector.aim(str(vm.path), "uuid-1")
            assert guest.state is State.CONNECTED
            assert guest.uuid == "uuid-1"
            await until(lambda: guest.heard)
            connector.aim(str(vm.path))
            assert guest.heard
            assert vm.connections == 1

    in_own_time(scenario())


def test_refusals_are_tried_again_ever_later_and_said_once(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_socket(place / "port")

    async def scenario() -> None:
        backoff = CountingBackoff()
        async with connector_for(backoff) as (connector, guest):
            connector.aim(str(place / "port"))
            await asyncio.sleep(200)
            assert backoff.waits[:4] == [0.01, 0.02, 0.04, 0.08]
            assert len(backoff.waits) > TOLERATED * 2
            assert guest.state is State.CONNECTING

    in_own_time(scenario())
    assert caplog.messages == [f"web-1: can't connect to {place}/port: Connection refused; trying again"]


def test_failures_are_said_again_after_news_from_discovery(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with connector_for() as (connector, _):
            for count in (1, 2):
                connector.aim(str(place / "port"))
                await until(lambda count=count: len(caplog.messages) == count)  # type: ignore[misc]

    in_own_time(scenario())
    assert len(set(caplog.messages)) == 1


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), ("x" * 200, "AF_UNIX path too long")])
def test_every_reason_is_said_in_words(place: Path, caplog: pytest.LogCaptureFixture, name: str, reason: str) -> None:
    async def scenario() -> None:
        async with connector_for(CountingBackoff()) as (connector, _):
            connector.aim(str(place / name))
            await until(lambda: caplog.messages)

    in_own_time(scenario())
    assert reason in caplog.messages[0]


def test_a_socket_that_is_listened_on_a_moment_later_is_no_reason_to_complain(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as hypervisor:
            hypervisor.bind(str(place / "port"))
            async with connector_for() as (connector, guest):
                connector.aim(str(place / "port"))
                await asyncio.sleep(1)
                assert guest.state is State.CONNECTING
                hypervisor.listen()
                await until(lambda: guest.state is State.CONNECTED)

    in_own_time(scenario())
    assert caplog.messages == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_socket_of_another_user_is_told_with_its_owner_and_permissions(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = place / "port"
    make_socket(port)
    port.chmod(0o600)
    os.chown(place, NOBODY, NOBODY)

    async def scenario() -> None:
        async with connector_for(CountingBackoff()) as (connector, _):
            connector.aim(str(port))
            await until(lambda: caplog.messages)
            os.chmod(place, 0)
            connector.aim(str(port))
            await until(lambda: caplog.messages[1:])

    with another_user():
        in_own_time(scenario())
    advice = f"web-1: can't connect to {port}: Permission denied, run as a user that may connect to it"
    assert caplog.messages == [f"{advice} (owner root, group root, mode 0600); trying again", f"{advice}; trying again"]


def test_a_full_queue_is_a_failed_attempt(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(place / "port"))
            listening.listen(0)
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.connect(str(place / "port"))
            async with connector_for(CountingBackoff()) as (connector, guest):
                connector.aim(str(place / "port"))
                await until(lambda: caplog.messages)
                assert guest.state is State.CONNECTING

    in_own_time(scenario())
    assert "its queue is full, another program is connected" in caplog.messages[0]


def test_a_socket_that_accepts_and_closes_does_not_reset_the_waits(place: Path) -> None:
    async def scenario() -> None:
        backoff = CountingBackoff()
        async with SimulatedVm(place / "vm", hanging_up) as vm, connector_for(backoff) as (connector, _):
            connector.aim(str(vm.path))
            await until(lambda: len(backoff.waits) > 3)
            assert backoff.waits[:3] == [0.01, 0.02, 0.04]
            assert backoff.resets == 1

    in_own_time(scenario())


def test_a_channel_that_carried_a_message_resets_the_waits(place: Path) -> None:
    async def scenario() -> None:
        backoff = CountingBackoff()

        async def one_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEARTBEAT + b"\n")
            await reader.read(1)
            writer.close()
            await writer.wait_closed()

        async with SimulatedVm(place / "vm", one_message) as vm, connector_for(backoff) as (connector, _):
            connector.aim(str(vm.path))
            await until(lambda: len(backoff.waits) > 3)
            assert backoff.waits[:3] == [0.01, 0.01, 0.01]

    in_own_time(scenario())


def test_news_from_discovery_end_a_long_wait(place: Path) -> None:
    async def scenario() -> None:
        async with connector_for(PatientBackoff()) as (connector, guest):
            path = place / "vm/com.redhat.rhevm.vdsm"
            connector.aim(str(path))
            async with SimulatedVm(place / "vm", saying(HEARTBEAT)):
                connector.aim(str(path))
                await until(lambda: guest.state is State.RESPONSIVE)

    in_own_time(scenario())


def test_a_port_at_another_place_replaces_the_channel(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        old, new = SimulatedVm(place / "old", saying(HEARTBEAT)), SimulatedVm(place / "new", saying(HEARTBEAT))
        async with old, new, connector_for(PatientBackoff()) as (connector, guest):
            connector.aim(str(old.path))
            await until(lambda: guest.state is State.RESPONSIVE)
            connector.aim(str(new.path))
            assert guest.state is State.CONNECTED
            await until(lambda: guest.state is State.RESPONSIVE)
            assert guest.path == str(new.path)
            assert (old.connections, new.connections) == (1, 1)

    in_own_time(scenario())
    assert "web-1: disconnected: its port is at another place now" in caplog.messages


def test_a_stopped_connector_does_not_come_back_by_itself(place: Path) -> None:
    async def scenario() -> None:
        backoff = CountingBackoff()
        async with SimulatedVm(place / "vm", saying(HEARTBEAT)) as vm, connector_for(backoff) as (connector, guest):
            connector.aim(str(vm.path))
            connector.stop("before it said anything")
            await asyncio.sleep(100)
            assert guest.state is State.CONNECTING
            connector.aim(str(vm.path))
            await until(lambda: guest.state is State.RESPONSIVE)
            connector.stop("its socket vanished")
            await asyncio.sleep(100)
            assert guest.state is State.CONNECTING
            assert backoff.waits == []

    in_own_time(scenario())


def test_a_connector_that_is_stopped_while_it_waits_does_not_come_back(place: Path) -> None:
    async def scenario() -> None:
        backoff = Backoff()
        async with connector_for(backoff) as (connector, guest):
            path = place / "vm/com.redhat.rhevm.vdsm"
            connector.aim(str(path))
            connector.stop("its socket vanished")
            async with SimulatedVm(place / "vm", saying(HEARTBEAT)) as vm:
                await asyncio.sleep(100)
                assert vm.connections == 0
                assert guest.state is State.CONNECTING

    in_own_time(scenario())


def test_a_connection_on_which_nothing_is_heard_is_made_anew_and_one_that_is_heard_stays(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        silence, start, connected_at = Backoff(lambda: 0.0, 15.0, 600.0), own_loop().now, list[int]()

        async def silent_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected_at.append(round(own_loop().now - start))
            if vm.connections > 3:
                writer.write(HEARTBEAT + b"\n")
            while await reader.read(4096):
                pass

        async with SimulatedVm(place / "vm", silent_at_first) as vm, connector_for(silence=silence) as (connector, guest):
            connector.aim(str(vm.path))
            await asyncio.sleep(10_000)
            assert connected_at == [0, 15, 45, 105]
            assert guest.state is State.UNRESPONSIVE
            assert silence.wait() == 15.0

    in_own_time(scenario())
    assert caplog.messages.count("web-1: disconnected: nothing was heard on it") == 1


# ---- Many at once ----


@contextlib.asynccontextmanager
async def silent_vms(place: Path, count: int) -> AsyncIterator[list[SimulatedVm]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(SimulatedVm(place / f"vm-{number}", saying())) for number in range(count)]


def _connected(host: Host) -> list[bool]:
    return [guest.state is State.CONNECTED for guest in host.guests]


def test_of_all_guests_of_a_host_only_some_are_asked_at_once(place: Path) -> None:
    async def scenario() -> None:
        async with silent_vms(place, 5) as vms, hosting(width=2) as host:
            for vm in vms:
                connector, _ = host.connector()
                connector.aim(str(vm.path))
            assert _connected(host) == [True, True, False, False, False]
            await asyncio.sleep(0.24)
            assert _connected(host) == [True, True, False, False, False]
            await asyncio.sleep(0.02)
            assert _connected(host) == [True, True, True, True, False]
            await asyncio.sleep(0.25)
            assert _connected(host) == [True] * 5

    in_own_time(scenario())


def test_guests_that_answer_make_room_for_the_next_at_once(place: Path) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            vms = [
                await stack.enter_async_context(SimulatedVm(place / f"vm-{number}", saying(HEARTBEAT)))
                for number in range(20)
            ]
            host = await stack.enter_async_context(hosting(width=2))
            start = own_loop().now
            for vm in vms:
                connector, _ = host.connector()
                connector.aim(str(vm.path))
            await until(lambda: all(guest.state is State.RESPONSIVE for guest in host.guests))
            assert own_loop().now - start < connector_module.GATE_PATIENCE

    in_own_time(scenario())


@pytest.mark.parametrize("behaviour", [hanging_up, None], ids=["hang up", "refuse"])
def test_guests_that_fail_make_room_for_the_next_at_once(place: Path, behaviour: Any) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            bad = place / "bad/com.redhat.rhevm.vdsm"
            if behaviour is not None:
                await stack.enter_async_context(SimulatedVm(place / "bad", behaviour))
            good = await stack.enter_async_context(SimulatedVm(place / "good", saying(HEARTBEAT)))
            host = await stack.enter_async_context(hosting(width=1))
            for _ in range(10):
                connector, _ = host.connector(PatientBackoff())
                connector.aim(str(bad))
            connector, guest = host.connector(PatientBackoff())
            connector.aim(str(good.path))
            start = own_loop().now
            await until(lambda: guest.state is State.RESPONSIVE)
            assert own_loop().now - start < connector_module.GATE_PATIENCE

    in_own_time(scenario())


def test_a_guest_that_vanishes_before_its_turn_is_not_connected_to(place: Path) -> None:
    async def scenario() -> None:
        async with silent_vms(place, 3) as vms, hosting(width=1) as host:
            for vm in vms:
                connector, _ = host.connector()
                connector.aim(str(vm.path))
            host.connectors[1].stop("its socket vanished")
            host.connectors[0].stop("its socket vanished")
            await asyncio.sleep(0.01)
            assert _connected(host) == [False, False, True]
            await asyncio.sleep(10)
            assert [vm.connections for vm in vms] == [1, 0, 1]

    in_own_time(scenario())


def test_news_from_discovery_before_its_turn_change_where_a_guest_is_connected_to(place: Path) -> None:
    async def scenario() -> None:
        async with silent_vms(place, 3) as (first, old, new), hosting(width=1) as host:
            host.connector()[0].aim(str(first.path))
            connector, _ = host.connector()
            for vm in (old, old, new):
                connector.aim(str(vm.path))
            await asyncio.sleep(10)
            assert [vm.connections for vm in (first, old, new)] == [1, 0, 1]

    in_own_time(scenario())


# ---- Too few descriptors ----

_TOO_FEW_DESCRIPTORS = """
    import asyncio, logging, os, resource, socket, sys

    from host_agent.guest import State
    from tests.host_agent.own_time import in_own_time
    from tests.host_agent.parts import until
    from tests.host_agent.test_connector import connector_for

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    path = sys.argv[1]

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as hypervisor:
            hypervisor.bind(path)
            hypervisor.listen()
            async with connector_for() as (connector, guest):
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                taken = []
                try:
                    while True:
                        taken.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    pass
                connector.aim(path)
                await asyncio.sleep(60)
                assert guest.state is State.CONNECTING
                os.close(taken.pop())
                await until(lambda: guest.state is State.CONNECTED)
                for each in taken:
                    os.close(each)

    in_own_time(scenario())
"""


def test_without_a_free_descriptor_it_says_what_to_raise_and_connects_when_there_is_one(place: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_TOO_FEW_DESCRIPTORS), str(place / "port")],
        cwd=ROOT,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    advice = "raise LimitNOFILE of the service, or fs.file-max"
    assert ended.stdout.splitlines() == [
        f"web-1: can't connect to {place}/port: Too many open files: {advice}; trying again",
        f"web-1: connected: {place}/port",
        "web-1: disconnected: the test ends",
    ]
