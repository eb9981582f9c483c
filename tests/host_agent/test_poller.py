from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Coroutine, Iterator
from typing import Any, Callable

import pytest

from host_agent.poller import BATCH, READ, WRITE, Poller

from . import parts
from .parts import until

Run = Callable[[Coroutine[Any, Any, None]], None]


def _in_uvloop(scenario: Coroutine[Any, Any, None]) -> None:
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(scenario)
    finally:
        loop.close()


@pytest.fixture(scope="module", autouse=True)
def _first_uvloop() -> None:
    """The first one in a process makes a pipe for signals that stays open; then no test is blamed for it."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


@pytest.fixture(params=[parts.run, _in_uvloop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario in each loop that the daemon may have."""
    runner: Run = request.param
    if runner is _in_uvloop:
        pytest.importorskip("uvloop")
    return runner


@contextlib.contextmanager
def polling() -> Iterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    try:
        yield poller
    finally:
        poller.close()


class Sockets:
    """Connected sockets: ``near`` is to be watched, on ``far`` sits the test."""

    def __init__(self, count: int) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        self.near = [near for near, _ in pairs]
        self.far = [far for _, far in pairs]
        for each in self.near:
            each.setblocking(False)

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.near + self.far:
            each.close()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_owner_of_what_can_be_read_is_called_and_nobody_else(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(2) as sockets:
            read: list[bytes] = []
            other: list[object] = []
            poller.watch(sockets.near[0].fileno(), READ, lambda: read.append(sockets.near[0].recv(10)))
            poller.watch(sockets.near[1].fileno(), READ, lambda: other.append(None))
            sockets.far[0].send(b"one")
            await until(lambda: read == [b"one"])
            sockets.far[0].send(b"two")
            await until(lambda: read == [b"one", b"two"])
            assert other == []
            assert len(poller) == 2

    run(scenario())


def test_what_is_not_read_is_called_for_again(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(1) as sockets:
            calls: list[None] = []
            poller.watch(sockets.near[0].fileno(), READ, lambda: calls.append(None))
            sockets.far[0].send(b"x")
            await until(lambda: len(calls) > 3)

    run(scenario())


def test_what_is_wanted_may_change_and_with_it_who_is_called(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(1) as sockets:
            number, calls = sockets.near[0].fileno(), list[str]()
            poller.watch(number, READ, lambda: calls.append("read"))
            await turns()
            assert calls == []
            poller.watch(number, WRITE, lambda: calls.append("write"))
            await until(lambda: calls)
            sockets.far[0].send(b"x")
            poller.watch(number, READ, lambda: calls.append("read again"))
            await until(lambda: "read again" in calls)
            assert "read" not in calls
            assert len(poller) == 1

    run(scenario())


@pytest.mark.parametrize("events", [READ, WRITE])
def test_an_end_is_news_whatever_is_wanted(run: Run, events: int) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(1) as sockets:
            near, calls = sockets.near[0], list[None]()
            with contextlib.suppress(BlockingIOError):
                while True:
                    near.send(b"x" * 65536)
            poller.watch(near.fileno(), events, lambda: calls.append(None))
            await turns()
            assert calls == []
            sockets.far[0].close()
            await until(lambda: calls)

    run(scenario())


def test_of_what_is_ignored_not_even_the_end_is_news_until_it_is_watched_again(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(2) as sockets:
            ignored, noticed = list[None](), list[None]()
            poller.watch(sockets.near[0].fileno(), READ | WRITE, lambda: ignored.append(None))
            poller.ignore(sockets.near[0].fileno())
            poller.ignore(sockets.near[0].fileno())
            poller.watch(sockets.near[1].fileno(), READ, lambda: noticed.append(None))
            sockets.far[0].close()
            sockets.far[1].close()
            await until(lambda: len(noticed) > 3)
            assert ignored == []
            assert len(poller) == 1
            poller.watch(sockets.near[0].fileno(), READ, lambda: ignored.append(None))
            await until(lambda: ignored)

    run(scenario())


def test_what_was_closed_already_can_still_be_ignored(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(1) as sockets:
            number = sockets.near[0].fileno()
            poller.watch(number, READ, lambda: None)
            sockets.near[0].close()
            poller.ignore(number)
            assert len(poller) == 0

    run(scenario())


def test_what_cannot_be_watched_is_an_error_and_is_not_watched(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, tempfile.TemporaryFile() as no_socket:
            with pytest.raises(OSError, match="not permitted"):
                poller.watch(no_socket.fileno(), READ, lambda: None)
            assert len(poller) == 0

    run(scenario())


def test_everybody_else_gets_a_turn_between_two_batches(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(BATCH * 2 + 10) as sockets:
            served: list[int] = []
            for number, near in enumerate(sockets.near):

                def serve(number: int = number, near: socket.socket = near) -> None:
                    near.recv(10)
                    served.append(number)

                poller.watch(near.fileno(), READ, serve)
            for far in sockets.far:
                far.send(b"x")
            per_turn: list[int] = []
            while len(served) < len(sockets.near):
                before = len(served)
                await asyncio.sleep(0)
                per_turn.append(len(served) - before)
            assert max(per_turn) <= BATCH
            assert sorted(served) == list(range(len(sockets.near)))

    run(scenario())


def test_who_is_always_ready_does_not_keep_others_from_their_turn(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(BATCH * 2) as sockets:
            calls = [0] * len(sockets.near)
            for number, near in enumerate(sockets.near):

                def count(number: int = number) -> None:
                    calls[number] += 1

                poller.watch(near.fileno(), READ, count)
            for far in sockets.far:
                far.send(b"x")
            await until(lambda: min(calls) > 2)
            assert max(calls) - min(calls) <= 2

    run(scenario())


def test_an_error_at_one_owner_is_told_and_costs_no_other_its_turn(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(3) as sockets:
            served: set[int] = set()

            def serve(number: int) -> None:
                sockets.near[number].recv(10)
                if number == 1:
                    raise RuntimeError("of this guest only")
                served.add(number)

            for number in range(3):
                poller.watch(sockets.near[number].fileno(), READ, lambda number=number: serve(number))  # type: ignore[misc]
                sockets.far[number].send(b"x")
            await until(lambda: served == {0, 2} and caplog.records)

    run(scenario())
    assert caplog.messages == ["unexpected error while serving a guest, please report it"]
    assert caplog.records[0].exc_info is not None


def test_who_is_let_go_in_the_same_batch_is_not_called_any_more(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(2) as sockets:
            calls: list[int] = []

            def serve(number: int) -> None:
                calls.append(number)
                for each in sockets.near:
                    poller.ignore(each.fileno())

            for number in range(2):
                poller.watch(sockets.near[number].fileno(), READ, lambda number=number: serve(number))  # type: ignore[misc]
                sockets.far[number].send(b"x")
            await until(lambda: calls)
            await turns()
            assert calls == [0]

    run(scenario())
    assert caplog.messages == []


def test_an_event_of_a_socket_that_was_closed_makes_the_one_with_its_number_look_and_find_nothing(run: Run) -> None:
    async def scenario() -> None:
        with polling() as poller, Sockets(2) as sockets:
            first, second = sockets.near
            number, found, calls = second.fileno(), list[str](), list[str]()

            def replace_second() -> None:
                first.recv(10)
                calls.append("first")
                poller.ignore(number)
                second.close()
                os.dup2(first.fileno(), number)
                poller.watch(number, READ, look)

            def look() -> None:
                try:
                    found.append(os.read(number, 10).decode())
                except BlockingIOError:
                    calls.append("nothing there")

            poller.watch(first.fileno(), READ, replace_second)
            poller.watch(number, READ, lambda: calls.append("closed"))
            for far in sockets.far:
                far.send(b"x")
            await until(lambda: calls)
            await turns()
            assert calls == ["first", "nothing there"]
            poller.ignore(first.fileno())
            sockets.far[0].send(b"news")
            await until(lambda: found == ["news"])
            poller.ignore(number)
            os.close(number)

    run(scenario())


def test_after_its_end_it_calls_nobody(run: Run) -> None:
    async def scenario() -> None:
        with Sockets(1) as sockets:
            calls: list[None] = []
            poller = Poller(asyncio.get_running_loop())
            poller.watch(sockets.near[0].fileno(), READ, lambda: calls.append(None))
            sockets.far[0].send(b"x")
            poller.close()
            await turns()
            assert calls == []
            assert len(poller) == 0

    run(scenario())
