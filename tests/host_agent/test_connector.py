from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent import connector as connector_module
from host_agent.connector import Backoff, Connector
from host_agent.guest import State

from .guests import SimulatedVm, hanging_up, make_socket, saying
from .parts import NOBODY, another_user, make_guest, run, until

HEARTBEAT = b'{"__name__":"heartbeat"}'


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


class CountingBackoff(Backoff):
    """Waits next to nothing, and counts."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.waits: list[float] = []
        self.resets = 0

    def wait(self) -> float:
        self.waits.append(super().wait())
        return 0.0

    def reset(self) -> None:
        self.resets += 1
        super().reset()


class PatientBackoff(Backoff):
    """Waits for ever."""

    def wait(self) -> float:
        return 1e6


@contextlib.asynccontextmanager
async def connector_for(backoff: Backoff) -> AsyncIterator[Connector]:
    connector = Connector(asyncio.get_running_loop(), make_guest(), backoff)
    try:
        yield connector
    finally:
        connector.stop("the test ends")
        await asyncio.sleep(0)


def test_it_connects_at_once_where_somebody_listens(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place, saying(HEARTBEAT)) as vm, connector_for(PatientBackoff()) as connector:
            connector.aim(str(vm.path))
            await until(lambda: connector._guest.state is State.RESPONSIVE)
            connector.aim(str(vm.path))
            assert connector._guest.state is State.RESPONSIVE
            assert vm.connections == 1

    run(scenario())


def test_refusals_are_tried_again_ever_later_and_said_once(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_socket(place / "port")

    async def scenario() -> None:
        backoff = CountingBackoff()
        async with connector_for(backoff) as connector:
            connector.aim(str(place / "port"))
            await until(lambda: len(backoff.waits) > 4)
            assert backoff.waits[:4] == [0.01, 0.02, 0.04, 0.08]
            assert connector._guest.state is State.CONNECTING

    run(scenario())
    assert caplog.messages == [f"web-1: can't connect to {place}/port: Connection refused; trying again"]


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), ("x" * 200, "AF_UNIX path too long")])
def test_every_reason_is_said_in_words(place: Path, caplog: pytest.LogCaptureFixture, name: str, reason: str) -> None:
    async def scenario() -> None:
        async with connector_for(CountingBackoff()) as connector:
            connector.aim(str(place / name))
            await until(lambda: caplog.messages)

    run(scenario())
    assert reason in caplog.messages[0]


def test_a_socket_that_is_listened_on_a_moment_later_is_no_reason_to_complain(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as hypervisor:
            hypervisor.bind(str(place / "port"))
            async with connector_for(Backoff()) as connector:
                connector.aim(str(place / "port"))
                assert connector._retry is not None
                hypervisor.listen()
                await until(lambda: connector._guest.state is State.CONNECTED)

    run(scenario())
    assert caplog.messages == []


def test_only_what_keeps_failing_for_a_tenth_of_a_second_is_told() -> None:
    backoff = Backoff(lambda: 1.0)
    assert sum(backoff.wait() for _ in range(connector_module.TOLERATED - 1)) > 0.1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_socket_of_another_user_is_told_with_its_owner_and_permissions(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = place / "port"
    make_socket(port)
    port.chmod(0o600)
    os.chown(place, NOBODY, NOBODY)

    async def scenario() -> None:
        async with connector_for(CountingBackoff()) as connector:
            connector.aim(str(port))
            await until(lambda: caplog.messages)
            os.chmod(place, 0)
            connector.aim(str(port))
            await until(lambda: caplog.messages[1:])

    with another_user():
        run(scenario())
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
            async with connector_for(CountingBackoff()) as connector:
                connector.aim(str(place / "port"))
                await until(lambda: caplog.messages)
                assert connector._guest.state is State.CONNECTING

    run(scenario())
    assert "its queue is full, another program is connected" in caplog.messages[0]


def test_a_socket_that_accepts_and_closes_does_not_reset_the_waits(place: Path) -> None:
    async def scenario() -> None:
        backoff = CountingBackoff()
        async with SimulatedVm(place / "vm", hanging_up) as vm, connector_for(backoff) as connector:
            connector.aim(str(vm.path))
            await until(lambda: len(backoff.waits) > 3)
            assert backoff.waits[:3] == [0.01, 0.02, 0.04]
            assert backoff.resets == 1

    run(scenario())


def test_a_channel_that_carried_a_message_resets_the_waits(place: Path) -> None:
    async def scenario() -> None:
        backoff = CountingBackoff()

        async def one_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEARTBEAT + b"\n")
            await reader.read(1)
            writer.close()
            await writer.wait_closed()

        async with SimulatedVm(place / "vm", one_message) as vm, connector_for(backoff) as connector:
            connector.aim(str(vm.path))
            await until(lambda: len(backoff.waits) > 3)
            assert backoff.waits[:3] == [0.01, 0.01, 0.01]

    run(scenario())


def test_news_from_discovery_end_a_long_wait(place: Path) -> None:
    async def scenario() -> None:
        async with connector_for(PatientBackoff()) as connector:
            path = place / "vm/com.redhat.rhevm.vdsm"
            connector.aim(str(path))
            async with SimulatedVm(place / "vm", saying(HEARTBEAT)):
                connector.aim(str(path))
                await until(lambda: connector._guest.state is State.RESPONSIVE)

    run(scenario())


def test_a_port_at_another_place_replaces_the_channel(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        old, new = SimulatedVm(place / "old", saying(HEARTBEAT)), SimulatedVm(place / "new", saying(HEARTBEAT))
        async with old, new, connector_for(PatientBackoff()) as connector:
            guest = connector._guest
            connector.aim(str(old.path))
            await until(lambda: guest.state is State.RESPONSIVE)
            connector.aim(str(new.path))
            assert guest.state is State.CONNECTING
            await until(lambda: guest.state is State.RESPONSIVE)
            assert guest.path == str(new.path)
            assert (old.connections, new.connections) == (1, 1)

    run(scenario())
    assert "web-1: disconnected: its port is at another place now" in caplog.messages


def test_a_stopped_connector_does_not_come_back(place: Path) -> None:
    async def scenario() -> None:
        backoff = CountingBackoff()
        async with SimulatedVm(place / "vm", saying(HEARTBEAT)) as vm, connector_for(backoff) as connector:
            connector.aim(str(vm.path))
            connector.stop("before it was open")
            await until(lambda: connector._opening is not None and connector._opening.done())
            assert connector._guest.session._open is False
            connector.aim(str(vm.path))
            await until(lambda: connector._guest.state is State.RESPONSIVE)
            connector.stop("its socket vanished")
            assert backoff.waits == []
            assert connector._guest.state is State.CONNECTING

    run(scenario())


def test_a_connection_on_which_nothing_is_heard_is_made_anew_and_one_that_is_heard_stays(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        heard, silence = asyncio.Event(), Backoff(lambda: 0.0, first=0.05, longest=600.0)

        async def silent_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if vm.connections > 3:
                writer.write(HEARTBEAT + b"\n")
                heard.set()
            while await reader.read(4096):
                pass

        async with SimulatedVm(place / "vm", silent_at_first) as vm:
            connector = Connector(asyncio.get_running_loop(), make_guest(), silence=silence)
            connector.aim(str(vm.path))
            await heard.wait()
            await until(lambda: connector._guest.state is State.RESPONSIVE and connector._unheard is None)
            assert silence.wait() == 0.05
            assert vm.connections >= 4
            connector.stop("the test ends")
            await asyncio.sleep(0)

    run(scenario())
    assert caplog.messages.count("web-1: disconnected: nothing was heard on it") == 1


def test_the_waits_are_the_promised_ones() -> None:
    assert (connector_module.FIRST_WAIT, connector_module.LONGEST_WAIT) == (0.01, 10.0)
    assert (connector_module.FIRST_SILENCE, connector_module.LONGEST_SILENCE) == (15.0, 600.0)
