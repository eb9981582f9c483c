from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.catalogue import CATALOGUE
from common.messages import Capabilities
from common.versions import Version
from host_agent.api import guests as api_guests
from host_agent.guest import Guest
from tests.host_agent.api.parts import Daemon, Port, served
from tests.host_agent.guests import CAPABILITIES
from tests.host_agent.parts import NEWEST, run, until


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
            assert one.keys() - {"obstacles"} == answer.json[1].keys()
            assert one["api"]["agreed"] == NEWEST

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
            assert whole.keys() - brief.keys() == {"facts", "capabilities", "counters"}
            for query in ("facts=maybe", "facts=no&facts=no", "facts", "fact=no"):
                assert (await api.ask(f"/v1/guests?{query}")).problem == "bad-request"

    run(scenario())


def test_the_list_can_be_of_those_that_can_be_sent_a_command(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        everything = Capabilities(dict.fromkeys(CAPABILITIES.commands, True), ())
        ports = [Port(daemon, "old", Version.V3), Port(daemon, "new"), Port(daemon, "able", capabilities=everything)]
        daemon.registry.arrived("absent")

        async def able(query: str) -> list[str]:
            return [each["name"] for each in (await api.ask(f"/v1/guests?{query}")).json]

        async with served(place, daemon) as api:
            await until(lambda: all(port.guest.session.capabilities for port in ports[1:]) and ports[0].guest.facts)
            assert await able("can=lock-screen") == ["able", "new", "old"]
            assert await able("can=load&facts=no") == ["able", "new"]
            assert await able("can=exec") == ["able"]
            assert await able("facts=no") == ["able", "absent", "new", "old"]
            for query in ("can=refresh", "can=heartbeat", "can=reboot", "can=", "can=exec&can=exec"):
                assert (await api.ask(f"/v1/guests?{query}")).problem == "bad-request"

    run(scenario())


def test_a_guest_is_told_with_what_keeps_each_command_from_it(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        daemon.registry.arrived("absent")
        async with served(place, daemon) as api:
            await until(lambda: port.guest.session.capabilities)
            obstacles = (await api.ask("/v1/guests/web")).json["obstacles"]
            assert obstacles.keys() == {row.name for row in CATALOGUE.commands}
            assert {name for name, why in obstacles.items() if why is not None} == {
                row.name for row in CATALOGUE.commands if row.dangerous
            }
            assert obstacles["exec"] == {
                "kind": "disabled",
                "detail": (await api.command(name="exec", arguments={"argv": ["x"], "timeout": 1})).json["detail"],
            }
            absent = (await api.ask("/v1/guests/absent")).json["obstacles"]
            assert {why["kind"] for why in absent.values()} == {"not-connected"}

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


def test_a_list_of_thousands_does_not_hold_up_the_loop(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_guests, "_BATCH", 10)

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
            for query, fewest in (("facts=no", 10), ("facts=no&can=exec", 290)):
                connection = await api.connect(f"/v1/guests?{query}", "Connection: close\r\n")
                await connection.until("[")
                before = turns
                text = await connection.rest()
                await connection.close()
                assert ("guest-2999" in text) is (query == "facts=no")
                assert turns - before >= fewest
            counting.cancel()

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
