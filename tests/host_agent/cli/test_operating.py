"""The operator's command on a real daemon with simulated guests, as operators type it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest

from common import events, messages
from common.session import GuestSession
from common.versions import Version
from host_agent.client import Client, Event
from host_agent.exits import Exit
from tests.host_agent.guests import Behaviour, SimulatedVm, make_socket, saying, speaking
from tests.host_agent.parts import ROOT, make_configuration, run, running, until

LIFECYCLE = ("lifecycle-event", "type=before_migration")


def obeying(more: Optional[Mapping[str, Any]], supported: Version = Version.V3) -> Behaviour:
    """A guest that answers each lifecycle event with these members of a completion; None: with nothing at all."""

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        session = GuestSession(supported, "agent-1", heartbeat_period=5.0)
        session.opened(clock())
        while True:
            for event in session.events():
                if isinstance(event, events.HeartbeatWanted):
                    session.send_heartbeat("512", {})
                elif more and isinstance(event, events.MessageReceived) and event.name == "lifecycle-event":
                    session.send(messages.Completion.from_arguments({"reply_id": event.reply_id, **more})[0])
            writer.write(session.data_to_send())
            data = await reader.read(4096)
            if not data:
                return
            session.receive_data(data, clock())

    return obey


class Typed(NamedTuple):
    """What came of a command line."""

    status: int
    out: str
    err: str


async def typed(place: Path, *words: str) -> Typed:
    """Type ``vmaccord`` with these *words*."""
    command = [sys.executable, "-m", "host_agent.cli", "--control", str(place / "control.sock"), *words]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Typed(process.returncode, out.decode(), err.decode())


async def asked(question: Callable[..., Any], *values: Any) -> Any:
    """The answer to a question that blocks."""
    return await asyncio.get_running_loop().run_in_executor(None, question, *values)


def is_agreed(guest: dict[str, Any]) -> bool:
    return bool(guest["api"]["agreed"])


def test_a_command_is_carried_out(place: Path) -> None:
    async def scenario() -> list[Typed]:
        behaviour = obeying({"done": True, "said": ["\x1b[31m"]})
        async with SimulatedVm(place / "ports/web-1", behaviour), running(make_configuration(place)) as daemon:
            await daemon.until_guest("web-1", is_agreed)
            return [
                await typed(place, "send", "web-1", *LIFECYCLE),
                await typed(place, "send", "web-1", *LIFECYCLE, "--json"),
                await typed(place, "send", "web-1", *LIFECYCLE, "--no-wait"),
                await typed(place, "send", "web-1", "lock-screen"),
                await typed(place, "refresh", "web-1"),
            ]

    done, as_json, not_waited_for, without_completion, refreshed = run(scenario())
    assert done.status == Exit.OK
    assert done.out.startswith("web-1: lifecycle-event done in ")
    assert "\ufffd[31m" in done.out
    assert json.loads(as_json.out)["completion"]["done"] is True
    assert not_waited_for == Typed(Exit.OK, "web-1: lifecycle-event sent at API 3\n", "")
    assert without_completion == Typed(Exit.OK, "web-1: lock-screen sent at API 3\n", "")
    assert refreshed == Typed(Exit.OK, "web-1: asked, at API 3\n", "")


def test_every_way_in_which_a_command_fails_has_its_status(place: Path) -> None:
    ports = place / "ports"

    async def scenario() -> dict[str, Typed]:
        async with (
            SimulatedVm(ports / "old", speaking(Version.V1)),
            SimulatedVm(ports / "unwilling", obeying({"done": False, "reason": "2 hooks failed"})),
            SimulatedVm(ports / "slow", obeying(None)),
            SimulatedVm(ports / "mute", saying()),
            running(make_configuration(place)) as daemon,
        ):
            for name in ("old", "unwilling", "slow"):
                await daemon.until_guest(name, is_agreed)
            await daemon.until_guest("mute", lambda guest: guest["channel"]["state"] == "connected")
            names = ("old", "unwilling", "slow", "mute", "none")
            return {name: await typed(place, "send", "--timeout", "0.1", name, *LIFECYCLE) for name in names}

    came = run(scenario())
    assert {name: each.status for name, each in came.items()} == {
        "old": Exit.REFUSED_BY_VERSION,
        "unwilling": Exit.GUEST_FAILED,
        "slow": Exit.TIMED_OUT,
        "mute": Exit.UNRESPONSIVE,
        "none": Exit.NO_SUCH_GUEST,
    }
    assert {each.out for each in came.values()} == {""}
    assert came["old"].err == (
        "vmaccord: old agreed on API 1; lifecycle-event needs 3; its agent supports 1: upgrade vmaccord-guest-agent in old\n"
    )
    assert came["unwilling"].err == "vmaccord: unwilling: lifecycle-event failed: 2 hooks failed\n"


@pytest.mark.parametrize(("host", "guest"), [(Version.V3, Version.V1), (Version.V1, Version.V3), (Version.V5, Version.V4)])
def test_what_is_told_of_commands_before_they_are_sent_is_what_becomes_of_them(
    place: Path, host: Version, guest: Version
) -> None:
    commands = {"lock-screen": [], "lifecycle-event": LIFECYCLE[1:], "load": []}

    async def scenario() -> tuple[dict[str, Any], dict[str, Typed]]:
        configuration = make_configuration(place, max_api_version=host)
        async with SimulatedVm(place / "ports/web-1", speaking(guest)), running(configuration) as daemon:
            await daemon.until_guest("web-1", is_agreed)
            told = json.loads((await typed(place, "messages", "--guest", "web-1", "--json")).out)
            sent = {name: await typed(place, "send", "--no-wait", "web-1", name, *words) for name, words in commands.items()}
            return {each["name"]: each for each in told}, sent

    told, sent = run(scenario())
    assert {name: told[name]["sendable"] for name in commands} == {name: not each.status for name, each in sent.items()}
    assert sent["load"].status == Exit.REFUSED_BY_VERSION
    for name, each in sent.items():
        if each.status:
            assert each.err == f"vmaccord: {told[name]['obstacle']}\n"


def test_a_guest_that_does_not_answer_is_refused_as_was_told(place: Path) -> None:
    make_socket(place / "ports/dead/com.redhat.rhevm.vdsm")

    async def scenario() -> list[tuple[Typed, Typed]]:
        async with SimulatedVm(place / "ports/mute", saying()), running(make_configuration(place)) as daemon:
            found = []
            await daemon.until_guest("mute", lambda guest: guest["channel"]["state"] == "connected")
            for name in ("mute", "dead"):
                await daemon.until_guest(name, lambda guest: guest["channel"]["state"] != "absent")
                told = await typed(place, "messages", "--guest", name, "--json")
                found.append((told, await typed(place, "send", name, "lock-screen")))
            return found

    for told, sent in run(scenario()):
        obstacles = {each["name"]: each["obstacle"] for each in json.loads(told.out)}
        assert sent == Typed(Exit.UNRESPONSIVE, "", f"vmaccord: {obstacles['lock-screen']}\n")


def test_only_those_are_listed_that_can_be_sent_a_command(place: Path) -> None:
    ports = place / "ports"

    async def scenario() -> dict[str, Typed]:
        async with (
            SimulatedVm(ports / "new", speaking()),
            SimulatedVm(ports / "old", speaking(Version.V3)),
            running(make_configuration(place)) as daemon,
        ):
            await daemon.until_guest("new", lambda guest: guest["capabilities"])
            await daemon.until_guest("old", is_agreed)
            return {name: await typed(place, "list", "--can", name) for name in ("lock-screen", "load", "exec")}

    came = run(scenario())
    listed = {name: [line.split()[0] for line in each.out.splitlines()[1:]] for name, each in came.items()}
    assert listed == {"lock-screen": ["new", "old"], "load": ["new"], "exec": []}
    assert came["exec"].err == "no guest may be sent exec now; 'vmaccord messages --guest GUEST' says why not\n"


def test_all_guests_are_commanded_at_once(place: Path) -> None:
    ports = place / "ports"

    async def scenario() -> tuple[Typed, Typed]:
        async with (
            SimulatedVm(ports / "a", obeying({"done": True})),
            SimulatedVm(ports / "b", obeying({"done": True})),
            running(make_configuration(place)) as daemon,
        ):
            for name in ("a", "b"):
                await daemon.until_guest(name, is_agreed)
            together = await typed(place, "send", "--all", *LIFECYCLE, "--json")
            async with SimulatedVm(ports / "old", speaking(Version.V1)):
                await daemon.until_guest("old", is_agreed)
                return together, await typed(place, "send", "--all", *LIFECYCLE)

    together, several = run(scenario())
    assert together.status == Exit.OK
    assert [(each["guest"], each["answer"]["completion"]["done"]) for each in json.loads(together.out)] == [
        ("a", True),
        ("b", True),
    ]
    assert several.status == Exit.SEVERAL
    assert [line.split()[:2] for line in several.out.splitlines()[1:]] == [["a", "done"], ["b", "done"], ["old", "refused"]]


def test_what_happens_is_followed_over_a_restart_of_the_daemon(place: Path) -> None:
    client = Client(str(place / "control.sock"))
    seen: list[Event] = []

    async def scenario() -> None:
        configuration = make_configuration(place)
        stream = client.events(recent=0)

        def listen() -> None:
            for event in stream:
                seen.append(event)

        async with SimulatedVm(place / "ports/web-1"):
            async with running(configuration) as daemon:
                following = asyncio.get_running_loop().run_in_executor(None, listen)
                await daemon.until_guest("web-1", is_agreed)
                await until(lambda: stream._parser.last_id is not None)
                await typed(place, "send", "web-1", "lock-screen")
                await until(lambda: any(event.kind == "command" for event in seen))
            first_run = len(seen)
            async with running(configuration) as daemon:
                await daemon.until_guest("web-1", is_agreed)
                await until(lambda: any(event.kind == "version" for event in seen[first_run:]))
                stream.close()
                await following

    run(scenario())
    kinds = [event.kind for event in seen]
    assert "lost" in kinds[kinds.index("command") :]
    assert {event.guest for event in seen} <= {"web-1", None}


def test_the_guests_are_watched(place: Path) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with running(make_configuration(place)) as daemon:
            command = [sys.executable, "-m", "host_agent.cli", "--control", str(place / "control.sock"), "watch", "--json"]
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
            assert process.stdout is not None
            lines: list[dict[str, Any]] = []
            async with SimulatedVm(place / "ports/web-1"):
                await daemon.until_guest("web-1", is_agreed)
                while not lines or not lines[-1]["api"]["agreed"]:
                    lines.append(json.loads(await process.stdout.readline()))
            while lines[-1]["channel"]["state"] != "absent":
                lines.append(json.loads(await process.stdout.readline()))
            process.send_signal(2)
            assert await process.wait() == Exit.OK
            return lines

    lines = run(scenario())
    assert {line["name"] for line in lines} == {"web-1"}
    assert "facts" not in lines[0]


def test_the_doctor_understands_what_a_real_daemon_says(place: Path) -> None:
    make_socket(place / "ports/domain-1-near/ovirt-guest-agent.1")

    async def scenario() -> tuple[Typed, Typed, dict[str, Any]]:
        configuration = make_configuration(place, state=str(place / "state"))
        async with SimulatedVm(place / "ports/old", speaking(Version.V1)), running(configuration) as daemon:
            await daemon.until_guest("old", is_agreed)
            return await typed(place, "doctor", "--json"), await typed(place, "doctor", "none"), await daemon.host()

    visit, missed, host = run(scenario())
    findings = json.loads(visit.out)
    assert visit.status == Exit.OK
    assert {(each["check"], each["guest"]) for each in findings if each["level"] != "ok"} == {
        ("agent-older", "old"),
        ("port-name", "near"),
    }
    assert {"release", "role", "state", "descriptors", "directory"} <= {each["check"] for each in findings}
    assert host["you"]["uid"] == os.geteuid()
    assert missed.status == Exit.TROUBLE
    assert "the daemon knows no guest called none" in missed.out


def test_a_hostile_guest_is_shown_and_not_obeyed(place: Path) -> None:
    name = json.dumps({"__name__": "host-name", "name": "\u202e[bold]\u009b31m"}).encode()

    async def scenario() -> Typed:
        async with SimulatedVm(place / "ports/web", saying(name)), running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", lambda guest: guest["facts"])
            return await typed(place, "show", "web")

    shown = run(scenario())
    assert (shown.status, shown.err) == (Exit.OK, "")
    assert "    name: \\u202e[bold]" in shown.out
    assert "\x1b" not in shown.out


def test_everything_else_that_a_client_asks_a_real_daemon_answers(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web-1"), running(make_configuration(place)) as daemon:
            await daemon.until_guest("web-1", is_agreed)
            assert "vmaccord" in await asked(daemon.client.metrics)
            assert (await asked(daemon.client.openapi))["openapi"].startswith("3.")
            (brief,) = await asked(daemon.client.guests, False)
            assert "facts" not in brief
            told = await typed(place, "events", "--json")
            assert {json.loads(line)["guest"] for line in told.out.splitlines()} <= {"web-1", None}
            assert told.status == Exit.OK
            marked = await typed(place, "messages", "--guest", "web-1")
            assert " yes " in marked.out

    run(scenario())
