from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
from pathlib import Path

import pytest

from common import messages
from common.versions import Version
from host_agent import refusals
from host_agent.api import commands as api_commands
from host_agent.api.access import Peer, Role, Roles
from host_agent.commands import Answer as Completed
from host_agent.commands import TimedOut
from host_agent.handoff.outcomes import HandoffFailed
from tests.host_agent.api.parts import Answer, Daemon, Port, Served, served
from tests.host_agent.guests import CAPABILITIES
from tests.host_agent.parts import NEWEST, run, until

EVENT = {"type": "before_migration"}

TRANSFER = "0123456789abcdef0123456789abcdef"

#: What a guest says that lets the host do everything.
ALL = messages.Capabilities(dict.fromkeys(CAPABILITIES.commands, True), ())


def test_a_command_is_answered_when_its_completion_comes(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        async with served(place, daemon) as api:
            answer = await api.command(name="lifecycle-event", arguments=EVENT)
            assert answer.status == 200
            (asked,) = port.asked
            assert answer.json == {
                "guest": "web",
                "name": "lifecycle-event",
                "agreed": NEWEST,
                "reply_id": asked.reply_id,
                "completion": {"done": True, "output": "\ufffd[31m<b>ü"},
                "round_trip_s": answer.json["round_trip_s"],
            }
            assert answer.json["round_trip_s"] >= 0
            assert answer.body.isascii()

    run(scenario())


def test_a_command_without_a_completion_is_answered_at_once(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web", Version.V3)
        async with served(place, daemon) as api:
            answer = (await api.command(name="login", arguments={"username": "u", "password": "p"})).json
            assert [each.message for each in port.asked] == [messages.Login("u", "p")]
            assert (answer["reply_id"], answer["completion"], answer["round_trip_s"]) == (None, None, None)

    run(scenario())


def test_a_command_that_a_guest_of_a_later_version_carries_out_is_answered(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            for name, arguments in (("lock-screen", {}), ("load", {}), ("filesystem-freeze", {"thaw_after": 30})):
                answer = (await api.command(name=name, arguments=arguments)).json
                assert answer["completion"]["done"] is True
                assert answer["reply_id"]

    run(scenario())


def test_a_command_that_may_take_long_is_waited_for_longer(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web", capabilities=ALL)
        port.answers = False
        async with served(place, daemon) as api:
            long = {"name": "exec", "arguments": {"argv": ["true"], "timeout": 600}, "wait": False}
            for wanted in (long, {**long, "timeout": 20}):
                assert (await api.ask("/v1/guests/web/commands", "POST", wanted)).status == 200
            await api.command(name="load", wait=False)
            patience = [each.deadline - each.sent_at for each in port.guest.in_flight.values()]
            assert patience == pytest.approx([610.0, 20.0, 30.0])

    run(scenario())


def test_the_log_says_who_gave_a_dangerous_command_and_not_what_it_says(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name == api_commands.__name__]

    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web", capabilities=ALL)
        async with served(place, daemon) as api:
            await api.command(name="load")
            await api.command(name="set-password", arguments={"user": "me"})
            assert said() == []
            answer = await api.command(name="set-password", arguments={"user": "me", "password": "hunter2"})
            who = f"user {os.geteuid()} ({pwd.getpwuid(os.geteuid()).pw_name})"
            assert said() == [f"web: set-password sent by {who}, reply id {answer.json['reply_id']}"]
            assert len(port.asked) == 2

    run(scenario())
    assert "hunter2" not in caplog.text


def test_a_user_without_a_name_is_logged_by_number(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def nobody_known(_request: object) -> Peer:
        return Peer(2**31 - 7, frozenset())

    class Everybody(Roles):
        def role_of(self, peer: Peer) -> Role:
            return Role.OPERATOR

    async def scenario() -> None:
        daemon = Daemon(Everybody())
        Port(daemon, "web", capabilities=ALL)
        async with served(place, daemon, identify=nobody_known) as api:
            await api.command(name="file-read", arguments={"path": "/x"})

    run(scenario())
    assert "web: file-read sent by user 2147483641, reply id " in caplog.text


def test_a_completion_that_nobody_wants_to_wait_for_is_not_waited_for(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        async with served(place, daemon) as api:
            answer = (await api.command(name="lifecycle-event", arguments=EVENT, wait=False)).json
            assert answer["reply_id"]
            assert (answer["completion"], answer["round_trip_s"]) == (None, None)
            assert [each["reply_id"] for each in (await api.ask("/v1/guests/web")).json["commands"]] == [answer["reply_id"]]
            port.complete(port.asked[0])
            await until(lambda: not port.guest.in_flight)

    run(scenario())


def test_a_completion_that_does_not_come_is_a_problem(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        async with served(place, daemon) as api:
            answer = await api.command(name="lifecycle-event", arguments=EVENT, timeout=0.1)
            assert (answer.status, answer.problem) == (504, "timed-out")
            assert answer.json["reply_id"] == port.asked[0].reply_id
            assert "no answer to lifecycle-event within 0.1 s" in answer.json["detail"]

    run(scenario())


def test_a_client_that_hangs_up_does_not_wait_and_the_command_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_commands, "LOOK", 0.01)

    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        async with served(place, daemon) as api:
            tasks = len(asyncio.all_tasks())
            _, writer = await asyncio.open_unix_connection(api.control)
            body = json.dumps({"name": "lifecycle-event", "arguments": EVENT})
            head = "POST /v1/guests/web/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            await until(lambda: port.asked)
            writer.close()
            await writer.wait_closed()
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert len(port.guest.in_flight) == 1
            port.complete(port.asked[0])
            await until(lambda: not port.guest.in_flight)
            _, told = daemon.feed.since(0)
            assert [(each.kind, each.details["late"]) for each in told if each.kind == "completion"] == [
                ("completion", False)
            ]

    run(scenario())


def test_whoever_waits_when_the_daemon_stops_is_told_so(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        async with served(place, daemon) as api:
            asking = [asyncio.ensure_future(api.command(name="lifecycle-event", arguments=EVENT)) for _ in range(2)]
            await until(lambda: len(port.asked) == 2)
            await api.server.close()
            for answer in await asyncio.gather(*asking):
                assert (answer.status, answer.problem) == (503, "stopping")
                assert "whether lifecycle-event was carried out is not known" in answer.json["detail"]
            await daemon.commands.drain(0)

    run(scenario())


def test_commands_that_are_drained_end_with_a_problem(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        async with served(place, daemon) as api:
            asking = asyncio.ensure_future(api.command(name="lifecycle-event", arguments=EVENT))
            await until(lambda: port.asked)
            await daemon.commands.drain(0)
            assert (await asking).problem == "stopping"
            assert (await api.command(name="lock-screen")).problem == "stopping"

    run(scenario())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b"\xff", "no UTF-8 at byte 0"),
        (b"[]", "the body is no JSON object"),
        (b"null", "the body is no JSON object"),
        (b'{"name": "echo", "timeout": NaN}', "NaN is no JSON number"),
        (b'{"name": "echo", "timeout": -Infinity}', "-Infinity is no JSON number"),
        (b'{"name": "echo", "timeout": 1e999}', "a number out of range"),
        (b'{"name": "echo", "timeout": ' + b"9" * 5000 + b"}", "a number of more than 4000 digits"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"name": "echo", "arguments": ' + b'{"a":' * 33 + b"1" + b"}" * 34, "nest deeper than 32 levels"),
        (b"{}", "name is no text of 1 to 100 characters"),
        (b'{"name": ""}', "name is no text of 1 to 100 characters"),
        (b'{"name": 7}', "name is no text of 1 to 100 characters"),
        (b'{"name": "' + b"x" * 101 + b'"}', "name is no text of 1 to 100 characters"),
        (b'{"name": "echo", "arguments": []}', "arguments is no JSON object"),
        (b'{"name": "echo", "arguments": null}', "arguments is no JSON object"),
        (b'{"name": "echo", "timeout": true}', "timeout is no number of seconds from 0.1 to 3600"),
        (b'{"name": "echo", "timeout": "1"}', "timeout is no number of seconds from 0.1 to 3600"),
        (b'{"name": "echo", "timeout": 0}', "timeout is no number of seconds from 0.1 to 3600"),
        (b'{"name": "echo", "timeout": 3601}', "timeout is no number of seconds from 0.1 to 3600"),
        (b'{"name": "echo", "wait": 1}', "wait is neither true nor false"),
        (b'{"name": "echo", "follow": "yes"}', "follow is neither true nor false"),
        (
            b'{"name": "echo", "\\u001b[31m": 1}',
            "unknown member '\\\\x1b[31m'; allowed: name, arguments, timeout, wait, follow",
        ),
    ],
)
def test_a_body_that_says_nothing_sensible_is_refused(place: Path, body: bytes, sentence: str) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        async with served(place, daemon) as api:
            answer = await post(api, body, "application/json")
            assert (answer.status, answer.problem) == (400, "bad-request")
            assert sentence.replace("\\\\", "\\") in answer.json["detail"]
            assert answer.json["detail"].isprintable()
            assert port.asked == []

    run(scenario())


def test_the_deepest_arguments_that_a_line_may_hold_are_sent(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        async with served(place, daemon) as api:
            body = b'{"name": "echo", "arguments": ' + b'{"a":' * 32 + b"1" + b"}" * 33
            assert (await post(api, body, "application/json; charset=utf-8")).status == 200
            assert isinstance(port.asked[0].message, messages.Echo)

    run(scenario())


@pytest.mark.parametrize(
    "said", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", "a/b/c"]
)
def test_a_body_that_is_not_said_to_be_json_is_refused(place: Path, said: str) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        async with served(place, daemon) as api:
            answer = await post(api, b'{"name": "lock-screen"}', said)
            assert answer.problem == "bad-request"
            assert "send the header Content-Type: application/json" in answer.json["detail"]
            assert port.asked == []

    run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_refused(place: Path, chunked: bool) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web")
        async with served(place, daemon) as api:
            body = b'{"name": "echo", "arguments": {"a": "' + b"x" * 2**20 + b'"}}'
            headers = {"Content-Type": "application/json"}
            if chunked:
                headers["Transfer-Encoding"] = "chunked"
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            answer = await api.ask("/v1/guests/web/commands", "POST", body, headers)
            assert (answer.status, answer.problem) == (413, "too-large")

    run(scenario())


def test_what_must_not_be_sent_is_a_problem_that_says_why(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        old = Port(daemon, "old", Version.V1)
        new = Port(daemon, "new")
        daemon.registry.arrived("absent")
        async with served(place, daemon) as api:
            await until(lambda: old.guest.heard and new.guest.heard)

            answer = await api.command("old", name="lifecycle-event", arguments=EVENT)
            assert (answer.status, answer.problem) == (409, "version-too-low")
            members = {
                name: answer.json[name] for name in ("needed", "agreed", "guest_supports", "host_supports", "upgrade")
            }
            assert members == {"needed": 3, "agreed": 1, "guest_supports": 1, "host_supports": NEWEST, "upgrade": "guest"}

            answer = await api.command("new", name="exec", arguments={"argv": ["true"], "timeout": 1})
            assert (answer.status, answer.problem, answer.json["want"]) == (409, "disabled", "off")
            assert "name it in enable, and not in block, in [commands]" in answer.json["detail"]

            answer = await api.command("new", name="set-number-of-cpus", arguments={"count": 0})
            assert (answer.status, answer.problem, answer.json["argument"]) == (422, "invalid-arguments", "count")

            for name in ("refresh", "api-version", "heartbeat", "\x1b[31m"):
                answer = await api.command("new", name=name)
                assert (answer.status, answer.problem) == (404, "no-such-command")

            answer = await api.command("absent", name="lock-screen")
            assert (answer.status, answer.problem) == (503, "not-connected")
            assert old.asked == new.asked == []

    run(scenario())


def test_whoever_waits_is_told_where_the_guest_has_moved(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        async with served(place, daemon) as api:
            asking = asyncio.ensure_future(api.command(name="lifecycle-event", arguments=EVENT))
            await until(lambda: port.asked)
            daemon.commands.hand_over(port.guest, "host-b", TRANSFER)
            answer = await asking
            assert (answer.status, answer.problem) == (410, "moved")
            assert (answer.json["to"], answer.json["reply_id"]) == ("host-b", port.asked[0].reply_id)
            assert "web moved to host-b before it had answered lifecycle-event: look for" in answer.json["detail"]
            assert answer.json["detail"].endswith("; who sends with --follow is told of it here")
            assert daemon.handoffs.asked == []

            answer = await api.command(name="lifecycle-event", arguments=EVENT, follow=True)
            assert (answer.status, answer.problem, answer.json["to"]) == (410, "moved", "host-b")
            assert "reply_id" not in answer.json

    run(scenario())


def test_the_completion_is_asked_of_the_host_that_the_guest_has_moved_to(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        daemon.handoffs.answer = Completed(False, {"error": {"code": "failed", "message": "x"}}, 1.25)
        async with served(place, daemon) as api:
            asking = asyncio.ensure_future(api.command(name="lifecycle-event", arguments=EVENT, timeout=20, follow=True))
            await until(lambda: port.asked)
            daemon.commands.hand_over(port.guest, "host-b", TRANSFER)
            answer = (await asking).json
            assert answer["completion"] == {"done": False, "error": {"code": "failed", "message": "x"}}
            assert (answer["guest"], answer["round_trip_s"]) == ("web", 1.25)
            ((*followed, left),) = daemon.handoffs.asked
            assert followed == ["follow", "host-b", TRANSFER, port.asked[0].reply_id]
            assert 0 < left <= 20

    run(scenario())


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [(TimedOut(1.0), 504, "timed-out"), (HandoffFailed("unreachable-peer", "see to it"), 502, "unreachable-peer")],
)
def test_a_completion_that_can_not_be_followed_is_a_problem(place: Path, failure: Exception, status: int, kind: str) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        port.answers = False
        daemon.handoffs.failure = failure
        async with served(place, daemon) as api:
            asking = asyncio.ensure_future(api.command(name="lifecycle-event", arguments=EVENT, follow=True))
            await until(lambda: port.asked)
            daemon.commands.hand_over(port.guest, "host-b", TRANSFER)
            answer = await asking
            assert (answer.status, answer.problem) == (status, kind)
            assert answer.json.get("reply_id") == (port.asked[0].reply_id if kind == "timed-out" else None)

    run(scenario())


def test_every_reason_to_refuse_has_a_type_of_problem(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = ["version-too-low", "disabled", "not-connected", "unresponsive", "congested", "no-such-command"]
    reasons += ["invalid-arguments", "stopping", "busy", "moving", "moved"]

    async def scenario() -> None:
        daemon = Daemon()
        daemon.registry.arrived("web")
        async with served(place, daemon) as api:
            for reason in reasons:

                def refuse(*_: object, reason: str = reason) -> None:
                    raise refusals.Refused(reason, f"because of {reason}", more=1)

                monkeypatch.setattr(daemon.commands, "send", refuse)
                answer = await api.command(name="echo")
                assert answer.problem == reason
                assert (answer.json["detail"], answer.json["more"]) == (f"because of {reason}", 1)

    run(scenario())


def test_a_guest_is_asked_for_everything(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        async with served(place, daemon) as api:
            await until(lambda: port.guest.facts)
            port.guest.facts.clear()
            answer = await api.ask("/v1/guests/web/refresh", "POST")
            assert (answer.status, answer.json) == (200, {"guest": "web", "agreed": NEWEST})
            await until(lambda: "host-name" in port.guest.facts)
            assert (await api.ask("/v1/guests/web/refresh?now=yes", "POST")).problem == "bad-request"

            port.guest.moving = True
            assert (await api.ask("/v1/guests/web/refresh", "POST")).problem == "moving"
            port.guest.moving, port.guest.moved_to = False, "host-b"
            answer = await api.ask("/v1/guests/web/refresh", "POST")
            assert (answer.status, answer.problem, answer.json["to"]) == (410, "moved", "host-b")
            port.guest.moved_to = None

            port.guest.session.pause_writing()
            assert (await api.ask("/v1/guests/web/refresh", "POST")).problem == "congested"
            port.vanish()
            answer = await api.ask("/v1/guests/web/refresh", "POST", {})
            assert (answer.status, answer.problem) == (503, "not-connected")
            assert answer.json["detail"] == "web is not connected: try again when it is"

    run(scenario())


async def post(api: Served, body: bytes, said: str) -> Answer:
    headers = {"Content-Type": said} if said else {}
    return await api.ask("/v1/guests/web/commands", "POST", body, headers)
