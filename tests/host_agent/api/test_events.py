from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from host_agent.api import server
from host_agent.client import sse
from host_agent.feed import LIMIT, Happening
from tests.host_agent.api.parts import RUN, Connection, Daemon, served
from tests.host_agent.conftest import open_descriptors
from tests.host_agent.parts import run, until

#: What ends the header of an answer in chunks.
HEADER_END = "\r\n\r\n"


class Follower:
    """A client that follows what happens."""

    def __init__(self, connection: Connection, header: str) -> None:
        self.connection = connection
        self.header = header
        self.parser = sse.Parser()

    async def next(self) -> tuple[str, str, dict[str, Any]]:
        """Id, kind and data of the next event."""
        while True:
            sent = self.parser.feed(await self.line())
            if sent is not None:
                return sent.id or "", sent.kind, json.loads(sent.text)

    async def line(self) -> str:
        """The next line; what belongs to the chunks around it is left out."""
        while True:
            line = (await self.connection.until("\n")).removesuffix("\n")
            if not line.endswith("\r"):
                return line

    async def until_idle(self) -> list[tuple[str, str, dict[str, Any]]]:
        """All events up to the comment that says that there are no more."""
        found = []
        while not self.parser.idle:
            sent = self.parser.feed(await self.line())
            if sent is not None:
                found.append((sent.id or "", sent.kind, json.loads(sent.text)))
        return found


async def follow(api: Any, query: str = "", last_id: str = "") -> Follower:
    connection = await api.connect(f"/v1/events{query}", f"Last-Event-ID: {last_id}\r\n" if last_id else "")
    return Follower(connection, await connection.until(HEADER_END))


def test_what_happens_is_told_as_it_happens(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        daemon.feed.tell("guest-found", "old")
        async with served(place, daemon) as api:
            follower = await follow(api)
            assert "200 OK" in follower.header
            assert "Content-Type: text/event-stream" in follower.header
            assert "Cache-Control: no-store" in follower.header
            assert await follower.until_idle() == []
            assert follower.parser.last_id == f"{RUN}-1"

            daemon.feed.tell("state", "web", state="responsive", why="ü\n\n\x1b")
            id_, kind, data = await follower.next()
            assert (id_, kind) == (f"{RUN}-2", "state")
            assert list(data) == ["at", "guest", "state", "why"]
            assert (data["guest"], data["state"], data["why"]) == ("web", "responsive", "ü\n\n\x1b")
            daemon.feed.tell("discovery", source="x", text="y")
            assert (await follower.next())[2]["guest"] is None
            await follower.connection.close()

    run(scenario())


def test_a_stream_goes_on_where_another_one_broke_off(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        for number in range(5):
            daemon.feed.tell("fact", "web", name=str(number))
        async with served(place, daemon) as api:
            follower = await follow(api, last_id=f"{RUN}-2")
            assert [each[2]["name"] for each in await follower.until_idle()] == ["2", "3", "4"]
            await follower.connection.close()
            follower = await follow(api, last_id=f"{RUN}-5")
            assert await follower.until_idle() == []
            await follower.connection.close()

    run(scenario())


def test_who_comes_back_too_late_is_told_how_much_is_lost(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon(kept=3)
        for number in range(1, 11):
            daemon.feed.tell("fact", "web", name=str(number))
        async with served(place, daemon) as api:
            follower = await follow(api, last_id=f"{RUN}-2")
            lost, *others = await follower.until_idle()
            assert lost == (f"{RUN}-7", "lost", {"count": 5})
            assert [each[2]["name"] for each in others] == ["8", "9", "10"]
            await follower.connection.close()

    run(scenario())


def test_who_followed_another_run_is_told_that_and_everything_of_this_one(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon(kept=3)
        async with served(place, daemon) as api:
            follower = await follow(api, last_id="fedcba-17")
            assert await follower.until_idle() == [(f"{RUN}-0", "lost", {"count": None})]
            await follower.connection.close()
            for number in range(1, 11):
                daemon.feed.tell("fact", "web", name=str(number))
            follower = await follow(api, last_id="fedcba-17")
            lost, *others = await follower.until_idle()
            assert lost == (f"{RUN}-7", "lost", {"count": None})
            assert len(others) == 3
            await follower.connection.close()

    run(scenario())


def test_only_one_guest_is_told_of_to_those_who_want_that(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            follower = await follow(api, "?guest=w%C3%BC")
            assert await follower.until_idle() == []
            for name in ("db", "wü", "db", None, "wü"):
                daemon.feed.tell("state", name)
            assert [(await follower.next())[0] for _ in range(2)] == [f"{RUN}-2", f"{RUN}-5"]
            await follower.connection.close()

    run(scenario())


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("?recent=0", []),
        ("?recent=2", [5, 6]),
        (f"?recent={LIMIT}", [1, 2, 3, 4, 5, 6]),
        ("?recent=2&guest=web", [3, 5]),
        ("?recent=2&guest=nobody", []),
    ],
)
def test_the_latest_events_can_be_told_first(place: Path, query: str, numbers: list[int]) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        for name in ("web", "db", "web", "db", "web", "db"):
            daemon.feed.tell("state", name)
        async with served(place, daemon) as api:
            follower = await follow(api, query)
            assert [each[0] for each in await follower.until_idle()] == [f"{RUN}-{number}" for number in numbers]
            daemon.feed.tell("state", "web")
            if "nobody" not in query:
                assert (await follower.next())[0] == f"{RUN}-7"
            await follower.connection.close()

    run(scenario())


@pytest.mark.parametrize(
    ("query", "last_id"),
    [
        ("?recent=-1", ""),
        (f"?recent={LIMIT + 1}", ""),
        ("?recent=1e3", ""),
        ("?recent=%C2%B2", ""),
        ("?recent=" + "9" * 5000, ""),
        ("?recent=1&recent=2", ""),
        ("?follow=yes", ""),
        ("", "x"),
        ("", "-1"),
        ("", f"{RUN}-"),
        ("", f"{RUN}-x"),
        ("", f"{RUN}--1"),
        ("", f"{RUN}-1"),
        ("", f"{RUN}-" + "9" * 5000),
    ],
)
def test_a_wish_that_says_nothing_sensible_is_refused(place: Path, query: str, last_id: str) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            answer = await api.ask(f"/v1/events{query}", headers={"Last-Event-ID": last_id} if last_id else {})
            assert (answer.status, answer.problem) == (400, "bad-request")
            assert len(answer.json["detail"]) < 400

    run(scenario())


def test_a_stream_on_which_nothing_happens_shows_that_it_lives_and_where_it_is(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon, keep_alive=0.01) as api:
            follower = await follow(api, "?guest=web")
            for _ in range(3):
                follower.parser.idle = False
                assert await follower.until_idle() == []
            daemon.feed.tell("state", "db")
            while follower.parser.last_id != f"{RUN}-1":
                follower.parser.idle = False
                assert await follower.until_idle() == []
            await follower.connection.close()

    run(scenario())


def test_a_client_that_does_not_read_holds_up_nobody_and_learns_what_it_missed(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon(kept=10)
        async with served(place, daemon) as api:
            slow = await follow(api)
            quick = await follow(api)
            assert await slow.until_idle() == []
            assert await quick.until_idle() == []
            for number in range(1, 61):
                daemon.feed.tell("complaint", "web", text="x" * 100_000)
                assert (await quick.next())[0] == f"{RUN}-{number}"
            told = [await slow.next()]
            while told[-1][0] != f"{RUN}-60":
                told.append(await slow.next())
            lost = sum(data["count"] for _, kind, data in told if kind == "lost")
            assert lost > 0
            assert lost + sum(kind == "complaint" for _, kind, _ in told) == 60
            await slow.connection.close()
            await quick.connection.close()

    run(scenario())


def test_a_backlog_is_told_in_pieces_between_which_others_are_served(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = 0
    looked_in: list[int] = []

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        daemon = Daemon(kept=5000)
        for _ in range(5000):
            daemon.feed.tell("state", "web")
        since = daemon.feed.since

        def look(number: int) -> tuple[int, list[Happening]]:
            looked_in.append(turn)
            return since(number)

        monkeypatch.setattr(daemon.feed, "since", look)
        async with served(place, daemon) as api:
            counting = asyncio.ensure_future(count())
            follower = await follow(api, "?guest=db", last_id=f"{RUN}-0")
            assert await follower.until_idle() == []
            counting.cancel()
            await follower.connection.close()

    run(scenario())
    assert len(set(looked_in)) == len(looked_in) >= 10


def test_streams_end_when_the_daemon_stops(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            follower = await follow(api)
            assert await follower.until_idle() == []
            await api.server.close()
            assert (await follower.connection.rest()).endswith("0\r\n\r\n")
            await follower.connection.close()

    run(scenario())


def test_a_client_that_does_not_read_is_cut_off_when_the_daemon_stops(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FAREWELL", 0.01)

    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            before = len(open_descriptors())
            slow = await follow(api)
            assert await slow.until_idle() == []
            for _ in range(60):
                daemon.feed.tell("complaint", "web", text="x" * 100_000)
            await asyncio.sleep(0)
            await api.server.close()
            # The client has a socket more, and the server that it listened on one less.
            await until(lambda: len(open_descriptors()) == before)
            await slow.connection.close()

    run(scenario())


def test_a_client_that_goes_leaves_nothing_behind(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon, keep_alive=0.01) as api:
            tasks = len(asyncio.all_tasks())
            follower = await follow(api)
            await follower.connection.close()
            await until(lambda: len(asyncio.all_tasks()) <= tasks)

    run(scenario())
