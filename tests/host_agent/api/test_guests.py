from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from host_agent.guest import Guest
from tests.host_agent.api.parts import Daemon, Port, served
from tests.host_agent.parts import run, until


def test_guests_are_told_by_name(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        web = Port(daemon, "web")
        Port(daemon, "db")
        async with served(place, daemon) as api:
            await until(lambda: web.guest.facts)
            answer = await api.ask("/v1/guests")
            assert (answer.status, answer.type) == (200, "application/json")
            assert [guest["name"] for guest in answer.json] == ["db", "web"]
            assert answer.json[1]["facts"]["host-name"]["value"] == {"name": "web.example.org"}
            one = (await api.ask("/v1/guests/web")).json
            assert one.keys() == answer.json[1].keys()
            assert one["api"]["agreed"] == 3

    run(scenario())


def test_no_guests_are_an_empty_list(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            assert (await api.ask("/v1/guests")).json == []

    run(scenario())


def test_the_list_can_do_without_facts_and_counters(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            whole = (await api.ask("/v1/guests?facts=yes")).json[0]
            brief = (await api.ask("/v1/guests?facts=no")).json[0]
            assert whole.keys() - brief.keys() == {"facts", "counters"}
            for query in ("facts=maybe", "facts=no&facts=no", "facts", "fact=no"):
                assert (await api.ask(f"/v1/guests?{query}")).problem == "bad-request"

    run(scenario())


def test_a_name_is_quoted_in_the_path(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        quoted = {"a b": "a%20b", "ü": "%C3%BC", "%41": "%2541", "..": "%2E%2E", "\udcff": "%FF", "a+b": "a+b", "'": "'"}
        for name in quoted:
            daemon.registry.arrived(name)
        async with served(place, daemon) as api:
            for name, path in quoted.items():
                assert (await api.ask(f"/v1/guests/{path}")).json["name"] == name
            assert {each["name"] for each in (await api.ask("/v1/guests")).json} == set(quoted)

    run(scenario())


@pytest.mark.parametrize("name", ["web", "%1B%5B31m", "a%2Fb", "%00", "x" * 5000])
def test_a_guest_that_is_not_there_is_a_problem(place: Path, name: str) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            for method, path in (("GET", ""), ("POST", "/commands"), ("POST", "/refresh")):
                answer = await api.ask(f"/v1/guests/{name}{path}", method)
                assert (answer.status, answer.problem) == (404, "no-such-guest")
                assert answer.json["detail"].isprintable()
                assert len(answer.json["detail"]) < 400

    run(scenario())


def test_a_list_of_thousands_does_not_hold_up_the_loop(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        for number in range(3000):
            daemon.registry.arrived(f"guest-{number:04}")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with served(place, daemon) as api:
            counting = asyncio.ensure_future(count())
            connection = await api.connect("/v1/guests?facts=no", "Connection: close\r\n")
            await connection.until("[")
            before = turns
            text = await connection.rest()
            counting.cancel()
            await connection.close()
            assert "guest-2999" in text
            assert turns - before >= 10

    run(scenario())


def test_a_guest_that_is_forgotten_while_the_list_is_told_is_left_out(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        for number in range(2000):
            daemon.registry.left(f"guest-{number:04}", daemon.clock() - 7200)
        async with served(place, daemon) as api:
            connection = await api.connect("/v1/guests", "Connection: close\r\n")
            await connection.until("guest-0000")
            daemon.registry.tick(daemon.clock())
            rest = await connection.rest()
            assert "guest-1999" not in rest
            assert rest.endswith("]\r\n0\r\n\r\n")
            await connection.close()
            assert (await api.ask("/v1/guests")).json == []

    run(scenario())


def test_a_list_that_breaks_off_is_no_whole_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def describe(guest: Guest, now: float, with_facts: bool = True) -> dict[str, object]:
        if guest.name == "z":
            raise ZeroDivisionError
        return {"name": guest.name * 70_000}

    async def scenario() -> None:
        daemon = Daemon()
        for name in "az":
            daemon.registry.arrived(name)
        monkeypatch.setattr(Guest, "describe", describe)
        async with served(place, daemon) as api:
            connection = await api.connect("/v1/guests")
            assert "200 OK" in await connection.until("aaa")
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await connection.until("0\r\n\r\n")
            await connection.close()

    run(scenario())
    assert "ZeroDivisionError" in caplog.text
