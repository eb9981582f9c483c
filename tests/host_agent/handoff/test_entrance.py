from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Iterator, Sequence
from typing import Callable, Optional

import pytest

from host_agent.config import Address
from host_agent.exits import Failure
from host_agent.feed import Feed
from host_agent.handoff.entrance import RETRY_PERIOD, Entrance
from host_agent.handoff.network import Connection, Doors
from host_agent.handoff.security import PLAIN_TEXT, TLS, Security
from tests.host_agent.parts import ManualLoop

from .hosts import free_address

PLAIN = Security(PLAIN_TEXT)
NO_FILES = Security(TLS, "/none", "/none", "/none")


class Place:
    """An entrance with doors on this machine."""

    def __init__(self, loop: ManualLoop) -> None:
        async def serve(connection: Connection) -> None:
            raise AssertionError(f"{connection.peer} was let in")

        self.loop = loop
        self.feed = Feed("run")
        self.doors = Doors(loop, serve)
        self.entrance = Entrance(loop, self.doors, self.feed)

    @property
    def listening(self) -> list[str]:
        return [each["address"] for each in self.doors.status()]

    @property
    def standing(self) -> tuple[list[str], Optional[str]]:
        """Where it listens, and why it does not."""
        return [each["address"] for each in self.doors.status()], self.entrance.failing

    def told(self) -> list[str]:
        assert {each.kind for each in self.feed.since(0)[1]} <= {"handoff"}
        return [str(each.details["text"]) for each in self.feed.since(0)[1]]


@pytest.fixture
def occupied() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def act(scenario: Callable[[Place], Awaitable[None]]) -> None:
    loop = ManualLoop()

    async def whole() -> None:
        place = Place(loop)
        try:
            await scenario(place)
        finally:
            await place.entrance.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.play(whole())


def address_of(taken: socket.socket) -> Address:
    return Address(*taken.getsockname())


def test_an_address_that_is_not_free_is_tried_again_until_it_is_and_both_are_said_once(
    occupied: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(place: Place) -> None:
        address = address_of(occupied)
        await place.entrance.open([address], PLAIN)
        for _ in range(3):
            assert place.entrance.failing == (
                f"[handoff] listen {address}: Address already in use; name an address of this host, and a port that is free"
            )
            assert place.listening == []
            await place.loop.advance(RETRY_PERIOD)
        occupied.close()
        await place.loop.advance(RETRY_PERIOD / 2)
        assert place.listening == []
        await place.loop.advance(RETRY_PERIOD / 2)
        assert place.standing == ([str(address)], None)
        assert [each.split(": ")[0] for each in place.told()] == ["no peer is let in", "peers are let in now"]

    act(scenario)
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]


def test_files_that_can_not_be_used_are_a_sentence_too() -> None:
    loop = asyncio.new_event_loop()

    async def whole() -> None:
        place = Place(loop)  # type: ignore[arg-type]
        await place.entrance.open([free_address()], NO_FILES)
        assert place.entrance.failing is not None
        assert place.entrance.failing.startswith("[handoff] certificate /none: No such file or directory; put it there")
        await place.entrance.close()

    loop.run_until_complete(whole())
    loop.close()


def test_where_nobody_is_to_come_in_nothing_is_said() -> None:
    async def scenario(place: Place) -> None:
        await place.entrance.open([], PLAIN)
        assert (place.standing, place.told()) == (([], None), [])

    act(scenario)


def test_a_change_that_can_not_be_leaves_all_as_it_was(occupied: socket.socket) -> None:
    async def scenario(place: Place) -> None:
        address = free_address()
        await place.entrance.open([address], PLAIN)
        with pytest.raises(Failure, match="Address already in use"):
            await place.entrance.change([address_of(occupied)], PLAIN)
        assert (place.standing, place.told()) == (([str(address)], None), [])

    act(scenario)


def test_a_change_ends_what_failed(occupied: socket.socket) -> None:
    async def scenario(place: Place) -> None:
        await place.entrance.open([address_of(occupied)], PLAIN)
        address = free_address()
        await place.entrance.change([address], PLAIN)
        assert place.standing == ([str(address)], None)
        occupied.close()
        await place.loop.advance()
        await place.loop.advance(RETRY_PERIOD)
        assert place.listening == [str(address)]

    act(scenario)


def test_what_fails_already_and_is_not_changed_stops_no_other_change(occupied: socket.socket) -> None:
    async def scenario(place: Place) -> None:
        wanted = [address_of(occupied)]
        await place.entrance.open(wanted, PLAIN)
        await place.entrance.change(wanted, PLAIN)
        assert place.entrance.failing is not None
        with pytest.raises(Failure, match="Address already in use"):
            await place.entrance.change([*wanted, free_address()], PLAIN)
        occupied.close()
        await place.entrance.change(wanted, PLAIN)
        assert place.standing == ([str(wanted[0])], None)

    act(scenario)


def test_an_attempt_that_is_just_made_does_not_undo_a_change(
    occupied: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(place: Place) -> None:
        before, after, gate = address_of(occupied), free_address(), asyncio.Event()
        await place.entrance.open([before], PLAIN)
        occupied.close()
        real = place.doors.open

        async def slow(addresses: Sequence[Address], security: Security) -> None:
            if before in addresses:
                await gate.wait()
            await real(addresses, security)

        monkeypatch.setattr(place.doors, "open", slow)
        await place.loop.advance()
        await place.loop.advance(RETRY_PERIOD)
        await place.entrance.change([after], PLAIN)
        gate.set()
        await place.loop.advance()
        assert place.standing == ([str(after)], None)

    act(scenario)
