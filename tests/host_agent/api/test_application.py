from __future__ import annotations

from pathlib import Path

import pytest

from tests.host_agent.api.parts import Daemon, Port, served
from tests.host_agent.parts import run


def test_the_host_is_told_and_who_asks(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            answer = await api.ask("/v1/host")
            assert (answer.status, answer.type) == (200, "application/json")
            assert answer.json["version"] == "1"
            assert answer.json["you"] == {"user": "root", "uid": 0, "role": "operator"}

    run(scenario())


def test_metrics_are_told_as_prometheus_reads_them(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            answer = await api.ask("/metrics")
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
            assert answer.body == b"# HELP vmaccord_guests Guests.\n"

    run(scenario())


def test_what_is_not_there_is_a_problem_document(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            for path, method, status, kind in (
                ("/v1/nothing", "GET", 404, "no-such-resource"),
                ("/", "GET", 404, "no-such-resource"),
                ("/v1/guests/", "GET", 404, "no-such-resource"),
                ("/v1/guests/%1B%5B31m/commands/x", "GET", 404, "no-such-resource"),
                ("/v1/guests", "POST", 405, "method-not-allowed"),
                ("/v1/host?x=1", "GET", 400, "bad-request"),
                ("/v1/guests/web?facts=no", "GET", 400, "bad-request"),
                ("/metrics?name=x", "GET", 400, "bad-request"),
                ("/openapi.json?x", "GET", 400, "bad-request"),
                ("/v1/guests/web/refresh", "GET", 405, "method-not-allowed"),
            ):
                answer = await api.ask(path, method)
                assert (answer.status, answer.problem) == (status, kind), path
                assert answer.json["detail"].isprintable()

    run(scenario())


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/guests", "GET, HEAD, OPTIONS"), ("/v1/events", "GET, HEAD, OPTIONS"), ("/v1/guests/x/commands", "OPTIONS, POST")],
)
def test_what_can_be_done_is_said_to_those_who_ask_and_to_those_who_do_something_else(
    place: Path, path: str, allowed: str
) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            answer = await api.ask(path, "OPTIONS")
            assert (answer.status, answer.body, answer.headers["Allow"]) == (204, b"", allowed)
            answer = await api.ask(path, "DELETE")
            assert (answer.problem, answer.headers["Allow"]) == ("method-not-allowed", allowed)

    run(scenario())


@pytest.mark.parametrize("path", ["/v1/host", "/v1/guests", "/v1/guests/web", "/v1/events", "/metrics", "/openapi.json"])
def test_the_head_of_an_answer_can_be_asked_for(place: Path, path: str) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            connection = await api.connect(path)
            whole = await connection.until("\r\n\r\n")
            await connection.close()
            head = await api.ask(path, "HEAD")
            assert (head.status, head.body) == (200, b"")
            assert f"Content-Type: {head.headers['Content-Type']}" in whole

    run(scenario())


def test_what_is_no_http_is_refused_and_fills_no_log(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            connection = await api.connect("/v1/host HTTP/1.1\r\n\x00garbage: \x01")
            assert "400 Bad Request" in await connection.rest()
            await connection.close()
            assert (await api.ask("/v1/host")).status == 200

    run(scenario())
    assert caplog.text == ""
