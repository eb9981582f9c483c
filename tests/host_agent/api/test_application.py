from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Callable

from aiohttp import web

from host_agent.api.application import make_application
from host_agent.api.listener import Listener
from host_agent.registry import Registry
from tests.host_agent.parts import make_guest, run

Ask = Callable[..., Any]


def ask_blocking(control: str, path: str, method: str) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(control)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, answer.headers.get_content_type(), json.loads(body) if body else None


@contextlib.asynccontextmanager
async def served(place: Path, registry: Registry) -> AsyncIterator[Ask]:
    listener = Listener(str(place / "control.sock"))
    runner = web.AppRunner(make_application(registry, lambda: {"version": "1"}, lambda: 7.0))
    await runner.setup()
    await web.SockSite(runner, listener.socket).start()

    async def ask(path: str, method: str = "GET") -> tuple[int, str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, ask_blocking, listener.path, path, method)

    try:
        yield ask
    finally:
        await runner.cleanup()
        listener.close()


def make_registry(*names: str) -> Registry:
    registry = Registry(lambda name: make_guest(name, now=5.0), 100.0)
    for name in names:
        registry.arrived(name)
    return registry


def test_the_host_and_its_guests_are_told_as_json(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, make_registry("web", "db")) as ask:
            assert await ask("/v1/host") == (200, "application/json", {"version": "1"})
            status, _, guests = await ask("/v1/guests")
            assert status == 200
            assert [guest["name"] for guest in guests] == ["db", "web"]
            assert guests[0]["channel"]["since_s"] == 2.0
            assert (await ask("/v1/guests/web"))[2] == guests[1]

    run(scenario())


def test_a_name_is_quoted_in_the_path(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, make_registry("a b", "ü", "%41", "..")) as ask:
            for path, name in (("a%20b", "a b"), ("%C3%BC", "ü"), ("%2541", "%41"), ("%2E%2E", "..")):
                assert (await ask(f"/v1/guests/{path}"))[2]["name"] == name

    run(scenario())


def test_what_is_not_there_is_a_problem_document(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, make_registry()) as ask:
            for path, method, status, kind in (
                ("/v1/guests/web", "GET", 404, "no-such-guest"),
                ("/v1/guests/%1B%5B31m", "GET", 404, "no-such-guest"),
                ("/v1/guests/a%2Fb", "GET", 404, ""),
                ("/v1/nothing", "GET", 404, "no-such-resource"),
                ("/", "GET", 404, "no-such-resource"),
                ("/v1/guests", "POST", 405, "method-not-allowed"),
            ):
                answer = await ask(path, method)
                assert answer[:2] == (status, "application/problem+json"), path
                assert answer[2]["type"].startswith(f"about:vmaccord/{kind}")
                assert "\x1b" not in answer[2]["detail"]

    run(scenario())
