from __future__ import annotations

import asyncio
import logging
import os
import pwd
from pathlib import Path
from typing import Any, Optional

import pytest

from common.handoff import Spec2, files
from host_agent.api import handoffs as api_handoffs
from host_agent.api import problems
from host_agent.commands import Answer as Answered
from host_agent.commands import Stopping, TimedOut
from host_agent.handoff.outcomes import HandoffFailed
from host_agent.refusals import Refused
from tests.host_agent.api.parts import Daemon, Port, served
from tests.host_agent.parts import run, until

UUID = "3f2a1b4c-0000-4000-8000-0123456789ab"

BYTES = {"Content-Type": "application/octet-stream"}

HANDOFF = "/v1/guests/web/handoff"


# ---- Over the network ----


def test_a_guest_is_handed_over(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            answer = await api.ask(HANDOFF, "POST", {"to": "host-c", "allow_loss": True})
            assert answer.json == {"guest": "web", "to": "host-c", "protocol": 1, "spec": 2, "lost": ["commands"]}
            for body in ({}, {"to": None, "allow_loss": False}):
                assert (await api.ask(HANDOFF, "POST", body)).json["to"] == "host-b"
            assert daemon.handoffs.asked == [("send", "web", "host-c", True), *[("send", "web", None, False)] * 2]

    run(scenario())


def test_a_hand_off_is_given_up_by_force_only_where_that_is_said(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            for query, force in (("", False), ("?force=no", False), ("?force=yes", True)):
                answer = await api.ask(HANDOFF + query, "DELETE")
                assert (answer.status, answer.json) == (200, {"guest": "web"})
                assert daemon.handoffs.asked.pop() == ("cancel", "web", force)
            assert (await api.ask(f"{HANDOFF}?force=perhaps", "DELETE")).problem == "bad-request"
            assert daemon.handoffs.asked == []

    run(scenario())


KINDS: list[tuple[str, int, dict[str, Any]]] = [
    ("handoff-off", 409, {}),
    ("no-such-peer", 404, {}),
    ("unreachable-peer", 502, {}),
    ("refused-by-peer", 502, {"code": "busy", "supported": [0, 1]}),
    ("would-lose", 409, {"names": ["commands"]}),
    ("in-doubt", 409, {"to": "host-b"}),
    ("not-awaited", 409, {}),
    ("not-moving", 409, {}),
    ("invalid-session", 422, {}),
    ("name-taken", 409, {}),
    ("not-saved", 503, {}),
    ("moving", 409, {}),
    ("moved", 410, {"to": "host-b"}),
]


@pytest.mark.parametrize(("kind", "status", "members"), KINDS)
def test_what_fails_is_a_problem_of_its_own(place: Path, kind: str, status: int, members: dict[str, Any]) -> None:
    assert members.keys() <= problems.TYPES[kind].members.keys()

    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        daemon.handoffs.failure = HandoffFailed(kind, "do this next", **members)
        async with served(place, daemon) as api:
            for method, path, body, headers in (
                ("POST", HANDOFF, {}, {}),
                ("DELETE", HANDOFF, None, {}),
                ("POST", "/v1/sessions", b"", BYTES),
            ):
                answer = await api.ask(path, method, body, headers)
                assert (answer.status, answer.problem, answer.json["detail"]) == (status, kind, "do this next")
                assert {name: answer.json[name] for name in members} == members

    run(scenario())


def test_what_is_under_way_is_listed(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            answer = await api.ask("/v1/handoffs")
            assert answer.json == daemon.handoffs.status()
            assert (await api.ask("/v1/handoffs?all=yes")).problem == "bad-request"

    run(scenario())


def test_a_guest_is_awaited_for_a_while(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            body = {"name": "new", "uuid": UUID.upper(), "patience": 30}
            answer = await api.ask("/v1/handoffs/expected", "POST", body)
            assert answer.json == {"name": "new", "uuid": UUID, "patience": 30.0}
            answer = await api.ask("/v1/handoffs/expected", "POST", {"name": "new", "uuid": None})
            assert answer.json == {"name": "new", "uuid": None, "patience": api_handoffs.USUAL}
            assert daemon.handoffs.asked == [("expect", "new", UUID, 30.0), ("expect", "new", None, api_handoffs.USUAL)]
            daemon.handoffs.failure = HandoffFailed("handoff-off", "no host is let in")
            answer = await api.ask("/v1/handoffs/expected", "POST", {"name": "new"})
            assert (answer.status, answer.problem) == (409, "handoff-off")

    run(scenario())


def test_who_hangs_up_does_not_end_a_hand_off(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        gate = daemon.handoffs.gate = asyncio.get_running_loop().create_future()
        daemon.handoffs.failure = HandoffFailed("in-doubt", "wait", to="host-b")
        async with served(place, daemon) as api:
            tasks = len(asyncio.all_tasks())
            _, writer = await asyncio.open_unix_connection(api.control)
            head = f"POST {HANDOFF} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
            writer.write(f"{head}{{}}".encode())
            await until(lambda: daemon.handoffs.asked)
            writer.close()
            await writer.wait_closed()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not gate.cancelled()
            assert len(asyncio.all_tasks()) > tasks
            gate.set_result(None)
            await until(lambda: len(asyncio.all_tasks()) <= tasks)

    run(scenario())


def test_whoever_waits_for_a_hand_off_when_the_daemon_stops_is_told_so(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        gate = daemon.handoffs.gate = asyncio.get_running_loop().create_future()
        async with served(place, daemon) as api:
            asking = asyncio.ensure_future(api.ask(HANDOFF, "POST", {}))
            await until(lambda: daemon.handoffs.asked)
            await api.server.close()
            answer = await asking
            assert (answer.problem, answer.status) == ("stopping", 503)
            assert "whether the hand-off was carried out is not known" in answer.json["detail"]
            assert not gate.cancelled()

    run(scenario())


# ---- Files ----


@pytest.mark.parametrize("spec", [None, 1, 2])
def test_a_guest_goes_into_a_file_and_out_of_it(place: Path, spec: Optional[int]) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web").guest.uuid = UUID
        other = Daemon()
        async with served(place, daemon) as api:
            answer = await api.ask(f"/v1/guests/web/session{'' if spec is None else f'?spec={spec}'}")
            assert (answer.status, answer.type) == (200, "application/octet-stream")
            assert answer.body.startswith(b"vmaccord-session %d\n" % (2 if spec is None else spec))
        async with served(place, other) as api:
            taken = await api.ask("/v1/sessions", "POST", answer.body, BYTES)
            assert (taken.status, taken.json) == (200, {"guest": "web", "uuid": UUID})
            found = other.registry.find("web")
            assert found is not None
            assert found.uuid == UUID

    run(scenario())


def test_an_older_reader_gets_less_only_where_that_is_allowed(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            for query in ("spec=0", "spec=0&allow-loss=no"):
                answer = await api.ask(f"/v1/guests/web/session?{query}")
                assert (answer.status, answer.problem) == (409, "would-lose")
                assert "facts.host-name" in answer.json["names"]
            assert (await api.ask("/v1/guests/web/session?spec=0&allow-loss=yes")).body.startswith(b"vmaccord-session 0\n")

    run(scenario())


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"vmaccord-session 2\n{", b"vmaccord-session 9\n{}\n"])
def test_a_file_that_is_no_session_is_a_problem(place: Path, content: bytes) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            answer = await api.ask("/v1/sessions", "POST", content, BYTES)
            assert (answer.status, answer.problem) == (422, "invalid-session")
            assert len(daemon.registry) == 0

    run(scenario())


def test_a_file_is_as_long_as_a_session_may_be_and_no_longer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = files.write(Spec2(name="web", facts={}))

    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            monkeypatch.setattr(files, "FILE_LIMIT", len(content))
            assert (await api.ask("/v1/sessions", "POST", content, BYTES)).status == 200
            answer = await api.ask("/v1/sessions", "POST", content + b"\n", BYTES)
            assert (answer.status, answer.problem) == (413, "too-large")
            assert f"longer than {len(content)} bytes; send an exported session" in answer.json["detail"]

    run(scenario())


def test_a_file_may_be_longer_than_other_bodies(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            content = b"x" * files.FILE_LIMIT
            assert (await api.ask("/v1/sessions", "POST", content, BYTES)).problem == "invalid-session"
            assert daemon.handoffs.asked == [("take_in", content)]

    run(scenario())


def test_a_body_that_is_not_said_to_be_bytes_is_refused(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        async with served(place, daemon) as api:
            for said in ("application/json", "application/x-www-form-urlencoded"):
                answer = await api.ask("/v1/sessions", "POST", b"x", {"Content-Type": said})
                assert answer.problem == "bad-request"
                assert "send the header Content-Type: application/octet-stream" in answer.json["detail"]
            assert daemon.handoffs.asked == []

    run(scenario())


# ---- Migrations ----


def test_a_guest_is_told_where_its_migration_stands(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            told = {"guest": "web", "stage": "begin", "completion": {"done": True, "result": {}}, "round_trip_s": 0.5}
            assert (await migrate(api, stage="begin", timeout=2.5)).json == told
            daemon.handoffs.answer = Answered(False, {}, 0.1)
            assert (await migrate(api, stage="begin")).json["completion"] == {"done": False}
            daemon.handoffs.answer = None
            nothing = {"completion": None, "round_trip_s": None}
            for stage in ("begin", "failed", "arrived"):
                assert (await migrate(api, stage=stage)).json == {"guest": "web", "stage": stage, **nothing}
            asked = [("begin", "web", 2.5), ("begin", "web", None), ("begin", "web", None)]
            assert daemon.handoffs.asked == [*asked, ("failed", "web"), ("arrived", "web")]

    run(scenario())


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Refused("not-connected", "x"), 503, "not-connected"),
        (TimedOut(2.5), 504, "timed-out"),
        (Stopping(), 503, "stopping"),
        (HandoffFailed("moved", "x", to="host-b"), 410, "moved"),
    ],
)
def test_a_guest_that_can_not_be_told_is_a_problem(place: Path, failure: Exception, status: int, kind: str) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        daemon.handoffs.failure = failure
        async with served(place, daemon) as api:
            answer = await migrate(api, stage="begin")
            assert (answer.status, answer.problem) == (status, kind)

    run(scenario())


# ---- What must be asked otherwise ----


@pytest.mark.parametrize(
    ("method", "path", "body", "sentence"),
    [
        ("POST", HANDOFF, {"to": ""}, "to is no text of 1 to 255 characters"),
        ("POST", HANDOFF, {"to": "x" * 256}, "to is no text of 1 to 255 characters"),
        ("POST", HANDOFF, {"to": 7}, "to is no text of 1 to 255 characters"),
        ("POST", HANDOFF, {"allow_loss": 1}, "allow_loss is neither true nor false"),
        ("POST", HANDOFF, {"host": "b"}, "unknown member 'host'; allowed: to, allow_loss"),
        ("POST", f"{HANDOFF}?to=b", {}, "unknown parameter 'to'; allowed: none"),
        ("POST", "/v1/handoffs/expected", {}, "name is no text of 1 to 255 characters"),
        ("POST", "/v1/handoffs/expected", {"name": "x", "uuid": "y"}, "uuid is no UUID; send one, or leave it out"),
        ("POST", "/v1/handoffs/expected", {"name": "x", "uuid": 7}, "uuid is no UUID; send one, or leave it out"),
        ("POST", "/v1/handoffs/expected", {"name": "x", "patience": 0}, "no number of seconds from 1 to 86400"),
        ("POST", "/v1/handoffs/expected", {"name": "x", "patience": None}, "no number of seconds from 1 to 86400"),
        ("POST", "/v1/guests/web/migration", {}, "stage is none of begin, failed, arrived; send one of them"),
        ("POST", "/v1/guests/web/migration", {"stage": ["begin"]}, "stage is none of begin, failed, arrived"),
        ("POST", "/v1/guests/web/migration", {"stage": "begin", "timeout": 4000}, "no number of seconds from 0.1 to 3600"),
        ("GET", "/v1/guests/web/session?spec=3", None, "spec 3 of a session is not known here; allowed: 0, 1, 2"),
        ("GET", "/v1/guests/web/session?spec=-1", None, "spec is '-1'; send a number"),
        ("GET", "/v1/guests/web/session?spec=%C2%B2", None, "spec is '²'; send a number"),
        ("GET", f"/v1/guests/web/session?spec={'1' * 5000}", None, "send a number"),
        ("GET", "/v1/guests/web/session?allow-loss=1", None, "allow-loss is '1'; allowed: yes, no"),
    ],
)
def test_a_question_that_says_nothing_sensible_is_refused(
    place: Path, method: str, path: str, body: Optional[object], sentence: str
) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            answer = await api.ask(path, method, body)
            assert (answer.status, answer.problem) == (400, "bad-request")
            assert sentence in answer.json["detail"]
            assert daemon.handoffs.asked == []

    run(scenario())


def test_a_guest_that_is_not_there_is_a_problem(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            for method, what in (("POST", "handoff"), ("DELETE", "handoff"), ("POST", "migration"), ("GET", "session")):
                answer = await api.ask(f"/v1/guests/web/{what}", method, {} if method == "POST" else None)
                assert (answer.status, answer.problem) == (404, "no-such-guest")

    run(scenario())


def test_the_log_says_who_changed_the_owner_of_a_guest(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    who = f"user {os.geteuid()} ({pwd.getpwuid(os.geteuid()).pw_name})"

    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            await api.ask(HANDOFF, "POST", {"to": "\x1b[31m"})
            await api.ask(HANDOFF, "POST", {})
            await api.ask(HANDOFF, "DELETE")
            await api.ask(f"{HANDOFF}?force=yes", "DELETE")
            await api.ask("/v1/sessions", "POST", files.write(Spec2(name="new\n", facts={})), BYTES)

    run(scenario())
    assert [each.getMessage() for each in caplog.records if each.name == api_handoffs.__name__] == [
        f"web: hand-off to \\x1b[31m asked for by {who}",
        f"web: hand-off to the peer that awaits it asked for by {who}",
        f"web: end of its hand-off asked for by {who}",
        f"web: end of its hand-off asked for by {who}, by force",
        f"new\\n: taken in from a file by {who}",
    ]


async def migrate(api: Any, **body: Any) -> Any:
    return await api.ask("/v1/guests/web/migration", "POST", body)
