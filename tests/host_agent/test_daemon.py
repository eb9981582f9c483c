from __future__ import annotations

import argparse
import asyncio
import contextlib
import grp
import logging
import os
import signal
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common import settings
from common.messages import LifecycleEvent
from common.settings import SettingsError
from common.versions import Version
from host_agent import config, connector, descriptors, exits, journal
from host_agent.api.listener import ControlSocketError
from host_agent.client import (
    Client,
    ClientError,
    DaemonUnreachable,
    Disabled,
    NoSuchGuest,
    NotAllowed,
    Stopping,
    TimedOut,
    VersionTooLow,
)
from host_agent.config import Configuration, Port
from host_agent.daemon import Daemon
from host_agent.discovery.directory import DirectoryDiscovery
from host_agent.store import MisplacedStateFile

from .guests import Answers, SimulatedVm, deaf, flooding, hanging_up, make_socket, saying, speaking
from .parts import (
    NEWEST,
    PATIENCE,
    DaemonProcess,
    RunningDaemon,
    another_user,
    make_configuration,
    run,
    running,
    until,
    until_true,
    wait_for,
)

EVENT = {"type": "before_migration"}


def agreed_on(version: int) -> Any:
    return lambda guest: guest["api"]["agreed"] == guest["api"]["in_use"] == version


def offers(command: str) -> Any:
    return lambda guest: guest["capabilities"] and guest["capabilities"]["commands"][command]


def in_state(state: str) -> Any:
    return lambda guest: guest["channel"]["state"] == state


class OnDemand:
    """A guest that says lines when it is told to."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, *lines: bytes) -> None:
        self._lines.put_nowait(b"".join(line + b"\n" for line in lines))

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(await self._lines.get())


@pytest.mark.parametrize(
    ("host", "guest", "agreed"),
    [(5, 5, 5), (4, 5, 4), (5, 4, 4), (5, 3, 3), (3, 5, 3), (1, 3, 1), (3, 2, 2), (0, 5, 0), (5, 0, 0)],
)
def test_host_and_guest_agree_on_the_lower_maximum(place: Path, host: int, guest: int, agreed: int) -> None:
    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/domain-1-web", speaking(Version(guest)))
        async with vm, running(make_configuration(place, max_api_version=Version(host))) as daemon:
            described = await daemon.until_guest("web", agreed_on(agreed))
            assert described["api"]["advertised"] == guest
            assert described["api"]["supported"] == host

    run(scenario())


def test_a_guest_without_versions_is_spoken_to_at_0(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", speaking(None)), running(make_configuration(place)) as daemon:
            described = await daemon.until_guest("web", lambda guest: "heartbeat" in guest["facts"])
            assert described["api"] == {
                "agreed": 0,
                "supported": NEWEST,
                "advertised": None,
                "in_use": 0,
                "changes": 0,
                "last_reason": f"the guest sends no version: it supports no versions, this host up to API {NEWEST}",
                "last_change_s": described["api"]["last_change_s"],
            }

    run(scenario())


def test_a_host_without_versions_agrees_on_nothing(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web"), running(make_configuration(place, max_api_version=None)) as daemon:
            described = await daemon.until_guest("web", lambda guest: guest["api"]["in_use"] == 0)
            assert described["api"]["supported"] is None
            assert described["api"]["agreed"] == 0
            assert (await daemon.host())["api"] == {"supported": None, "versions": []}

    run(scenario())


def test_a_guest_is_described_in_exactly_this_form(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/domain-1-web") as vm, running(make_configuration(place)) as daemon:
            described = await daemon.until_guest("web", lambda guest: "timezone" in guest["facts"])
            assert list(described) == [
                "name", "uuid", "channel", "api", "heard_s", "handoff", "frozen", "commands", "history",
                "facts", "capabilities", "counters",
            ]  # fmt: skip
            assert (described["handoff"], described["frozen"]) == ({"state": "here", "peer": None}, None)
            assert described["uuid"] is None
            assert described["commands"] == []
            assert described["history"] == [
                {
                    "old": 0,
                    "new": NEWEST,
                    "reason": described["api"]["last_reason"],
                    "ago_s": described["history"][0]["ago_s"],
                }
            ]
            assert described["channel"] == {
                "path": str(vm.path),
                "state": "responsive",
                "since_s": described["channel"]["since_s"],
                "throttled": False,
            }
            assert described["facts"]["timezone"]["value"] == {"zone": "CET", "offset": 60}
            assert described["facts"]["timezone"]["age_s"] >= 0
            assert described["facts"]["heartbeat"]["value"]["apiVersion"] == NEWEST
            assert described["api"]["changes"] == 1
            assert described["api"]["last_change_s"] >= 0
            assert described["api"]["last_reason"].endswith(f"it supports up to API {NEWEST}, this host up to API {NEWEST}")
            assert described["heard_s"] >= 0
            assert described["counters"]["lines"] > 0
            assert await daemon.guest("web") is not None

    run(scenario())


def test_the_host_tells_what_it_is(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web"), running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            host = await daemon.host()
            assert list(host) == [
                "version", "host_id", "started_s", "api", "directories", "libvirt", "fixed", "guests", "descriptors",
                "state", "handoff", "you",
            ]  # fmt: skip
            assert host["api"] == {"supported": NEWEST, "versions": list(Version)}
            assert (host["directories"], host["libvirt"], host["fixed"]) == ([str(place / "ports")], [], {})
            assert host["guests"] == 1
            assert len(host["host_id"]) == 32
            assert host["started_s"] >= 0
            assert host["descriptors"]["limit"] > host["descriptors"]["used"] > 0
            assert host["state"] is None
            assert host["you"]["role"] == "operator"

    run(scenario())


def test_a_guest_that_comes_back_under_another_domain_id_keeps_its_facts(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with running(make_configuration(place)) as daemon:
            async with SimulatedVm(place / "ports/domain-1-web"):
                await daemon.until_guest("web", agreed_on(NEWEST))
            gone = await daemon.until_guest("web", in_state("absent"))
            assert gone["channel"]["path"] is None
            assert gone["api"]["agreed"] is gone["api"]["advertised"] is gone["api"]["in_use"] is None
            assert gone["facts"]["host-name"]["value"] == {"name": "web"}
            async with SimulatedVm(place / "ports/domain-2-web", speaking(Version.V2)) as vm:
                again = await daemon.until_guest("web", agreed_on(2))
                assert again["channel"]["path"] == str(vm.path)
                assert again["api"]["changes"] == 3
                assert len(await daemon.guests()) == 1

    run(scenario())
    said = [line for line in caplog.messages if line.startswith("web: ")]
    assert said[0] == f"web: connected: {place}/ports/domain-1-web/com.redhat.rhevm.vdsm"
    assert said[1].startswith(f"web: agreed 0 → {NEWEST}: ")
    assert said[2].startswith("web: disconnected: ")
    assert said[3] == f"web: connected: {place}/ports/domain-2-web/com.redhat.rhevm.vdsm"
    assert said[4].startswith(f"web: agreed {NEWEST} → 0: ")
    assert said[5].startswith("web: agreed 0 → 2: ")
    assert len(said) == 7


def test_a_hypervisor_that_goes_and_comes_at_the_same_socket_is_found_again(place: Path) -> None:
    async def scenario() -> None:
        async with running(make_configuration(place)) as daemon:
            first = SimulatedVm(place / "ports/web")
            async with first:
                await daemon.until_guest("web", agreed_on(NEWEST))
                await first.stop(keep_files=True)
                await daemon.until_guest("web", in_state("connecting"))
            (place / "ports/web/com.redhat.rhevm.vdsm").unlink(missing_ok=True)
            async with SimulatedVm(place / "ports/web", speaking(Version.V1)):
                await daemon.until_guest("web", agreed_on(1))

    run(scenario())


def test_a_guest_that_never_reads_disturbs_nobody(place: Path) -> None:
    async def scenario() -> None:
        bad, good = SimulatedVm(place / "ports/bad", deaf), SimulatedVm(place / "ports/good")
        async with bad, good, running(make_configuration(place)) as daemon:
            await daemon.until_guest("good", agreed_on(NEWEST))
            await daemon.until_guest("bad", lambda guest: guest["counters"]["lines"] > 1000)
            before = (await daemon.guest("good"))["counters"]["lines"]
            await daemon.until_guest("good", lambda guest: guest["counters"]["lines"] > before + 5)

    run(scenario())


def test_a_guest_that_floods_garbage_disturbs_nobody(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        bad, good = SimulatedVm(place / "ports/bad", flooding), SimulatedVm(place / "ports/good")
        async with bad, good, running(make_configuration(place)) as daemon:
            await daemon.until_guest("bad", lambda guest: guest["channel"]["throttled"])
            before = (await daemon.until_guest("good", agreed_on(NEWEST)))["counters"]["lines"]
            await daemon.until_guest("good", lambda guest: guest["counters"]["lines"] > before + 5)

    run(scenario())
    assert len([line for line in caplog.messages if line.startswith("bad: ")]) <= 5


def test_the_last_line_of_a_guest_that_was_cut_short_is_true(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(journal, "BURST", 1)
    monkeypatch.setattr(journal, "PERIOD", 0.2)

    async def change_mind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for version in (1, 2, 3):
            # Each is answered with a push before the next is sent: together they would be one change.
            writer.write(b'{"__name__":"heartbeat","apiVersion":%d}\n' % version)
            while b"api-version" not in await reader.readline():
                pass
        while await reader.read(4096):
            pass

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", change_mind), running(make_configuration(place)):
            await until(lambda: [line for line in caplog.messages if "web: agreed 2 → 3: " in line])

    run(scenario())
    assert [line for line in caplog.messages if "web: agreed" in line][-1].startswith("web: agreed 2 → 3: ")


def test_a_guest_that_closes_at_once_is_tried_again_and_told_of_once(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(connector, "FIRST_WAIT", 0.001)

    async def scenario() -> None:
        async with running(make_configuration(place)), SimulatedVm(place / "ports/web", hanging_up) as vm:
            await until(lambda: vm.connections >= 4)

    run(scenario())
    said = [line for line in caplog.messages if line.startswith("web: ")]
    assert [line.split(": ")[1] for line in said[:2]] == ["connected", "disconnected"]
    assert not [line for line in said[2:] if "connected" in line and "can't" not in line]


def test_an_unresponsive_guest_is_noticed_and_so_is_its_return(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        guest = OnDemand()
        configuration = make_configuration(place, unresponsive_after=0.05)
        async with SimulatedVm(place / "ports/web", guest), running(configuration) as daemon:
            assert await daemon.until_guest("web", in_state("connected"))
            guest.say(b'{"__name__":"heartbeat"}')
            await daemon.until_guest("web", in_state("unresponsive"))
            guest.say(b'{"__name__":"heartbeat"}')
            await until(lambda: "web: responsive again" in caplog.messages)

    run(scenario())
    assert "web: unresponsive: nothing heard for 0 s" in caplog.messages


def test_names_of_guests_may_hold_whatever_a_directory_name_may(place: Path) -> None:
    names = ["web 1", "ä€𝄞", "50%25", "a?b#c&d=e", "..", ".", 'qu"ote', "back\\slash", "+", ";x", "\u202eevil", "[red]x"]

    async def scenario() -> None:
        for number, name in enumerate(names):
            make_socket(place / f"ports/domain-{number}-{name}/ovirt-guest-agent.0")
        async with running(make_configuration(place)) as daemon:
            assert sorted(names) == [guest["name"] for guest in await daemon.guests()]
            for name in names:
                assert (await daemon.guest(name))["name"] == name
            for name in ("", "a/b", "a\0b", "web", "\udc80"):
                with pytest.raises(NoSuchGuest):
                    await daemon.guest(name)

    run(scenario())


def test_facts_survive_a_restart_of_the_daemon_and_agreements_do_not(place: Path) -> None:
    configuration = make_configuration(place, state=str(place / "state.sqlite"))

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web"), running(configuration) as daemon:
            await daemon.until_guest("web", lambda guest: "timezone" in guest["facts"])
        async with running(configuration) as daemon:
            (described,) = await daemon.guests()
            assert described["name"] == "web"
            assert described["channel"]["state"] == "absent"
            assert described["facts"]["timezone"]["value"] == {"zone": "CET", "offset": 60}
            assert described["facts"]["timezone"]["age_s"] >= 0
            assert described["facts"]["capabilities"]["value"]["commands"]["load"] is True
            assert described["capabilities"] is None
            assert described["heard_s"] >= 0
            (change,) = described["history"]
            assert (change["old"], change["new"]) == (0, NEWEST)
            assert change["reason"].startswith("first agreement of this connection: ")
            assert described["api"]["agreed"] is None
            assert described["api"]["changes"] == 0
            assert (await daemon.host())["state"] == {"path": configuration.state, "failing": None}

    run(scenario())


def test_a_guest_absent_for_long_is_forgotten_and_deleted(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    configuration = make_configuration(place, state=str(place / "state.sqlite"), forget_after=0.05)

    async def scenario() -> None:
        async with running(configuration) as daemon:
            async with SimulatedVm(place / "ports/web"):
                await daemon.until_guest("web", agreed_on(NEWEST))
            await until_true(lambda: nobody(daemon))
        async with running(make_configuration(place, state=str(place / "state.sqlite"))) as daemon:
            assert await daemon.guests() == []

    async def nobody(daemon: Any) -> bool:
        return not await daemon.guests()

    run(scenario())
    assert "web: forgotten" in caplog.messages


def test_a_second_daemon_does_not_take_the_control_socket(place: Path) -> None:
    async def scenario() -> None:
        async with running(make_configuration(place)) as daemon:
            with pytest.raises(ControlSocketError, match="in use by another daemon"):
                async with running(make_configuration(place)):
                    pytest.fail("it started")
            assert await daemon.guests() == []

    run(scenario())


def test_a_state_file_at_an_impossible_place_stops_the_start_and_leaves_no_socket(place: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(MisplacedStateFile, match="there is no directory"):
            async with running(make_configuration(place, state=str(place / "none/state.sqlite"))):
                pytest.fail("it started")
        assert not (place / "control.sock").exists()

    run(scenario())


def test_a_client_that_keeps_its_connection_does_not_hold_up_the_stop(place: Path) -> None:
    async def scenario() -> None:
        async with running(make_configuration(place)):
            reader, writer = await asyncio.open_unix_connection(str(place / "control.sock"))
            writer.write(b"GET /v1/guests HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()

    run(scenario())


def test_complaints_about_a_guest_are_warnings_with_its_name(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", saying(b"garbage \x1b[31m")), running(make_configuration(place)):
            await until(lambda: [each for each in caplog.records if each.levelno == logging.WARNING])

    run(scenario())
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.getMessage().startswith("web: dropped: not JSON")
    assert "\x1b" not in record.getMessage()


def test_a_service_that_dies_ends_the_daemon(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(make_configuration(place)):
            make_socket(place / "ports/web/ovirt-guest-agent.0")
            await until(lambda: not (place / "control.sock").exists())

    def breaks(*_: object) -> None:
        raise OSError("broken")

    monkeypatch.setattr(Daemon, "_follow", breaks)
    with pytest.raises(OSError, match="broken"):
        run(scenario())


def test_a_second_signal_ends_the_process_at_once(place: Path) -> None:
    async def scenario() -> None:
        async with running(make_configuration(place)):
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL

    try:
        run(scenario())
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- Commands ----


async def waiting_for(daemon: RunningDaemon, name: str, answers: Answers, **more: Any) -> asyncio.Future[Any]:
    """A client that waits for the answer of the guest *name*, which has been asked."""
    before = len(answers.asked)
    client = asyncio.ensure_future(daemon.send(name, "lifecycle-event", EVENT, **more))
    await until(lambda: len(answers.asked) > before or client.done())
    return client


def told(daemon: RunningDaemon, *kinds: str) -> list[tuple[str, Any, dict[str, Any]]]:
    return [(each.kind, each.guest, each.details) for each in daemon.daemon.feed.since(0)[1] if each.kind in kinds]


def test_a_guest_answers_a_command(place: Path) -> None:
    answers = Answers(output="all hooks ran")

    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/web", speaking(answers=answers))
        async with vm, running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            answer = await daemon.send("web", "lifecycle-event", EVENT)
            assert (answer.guest, answer.name, answer.agreed) == ("web", "lifecycle-event", NEWEST)
            assert answer.completion == {"done": True, "output": "all hooks ran"}
            assert answer.round_trip_s is not None
            assert answer.round_trip_s >= 0
            (asked,) = answers.asked
            assert (asked.message, asked.reply_id) == (LifecycleEvent("before_migration"), answer.reply_id)
            assert answer.reply_id == (await daemon.host())["host_id"][:16] + "-1"
            assert (await daemon.guest("web"))["commands"] == []

    run(scenario())


def test_a_command_in_flight_is_described(place: Path) -> None:
    answers = Answers(held=True)

    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/web", speaking(answers=answers))
        async with vm, running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            client = await waiting_for(daemon, "web", answers, timeout=60.0)
            (described,) = (await daemon.guest("web"))["commands"]
            assert described == {
                "reply_id": answers.asked[0].reply_id,
                "name": "lifecycle-event",
                "sent_s": described["sent_s"],
                "left_s": described["left_s"],
            }
            assert described["sent_s"] >= 0
            assert 0 < described["left_s"] <= 60
            answers.release()
            assert (await client).completion == {"done": True}

    run(scenario())


def test_a_refused_command_says_what_to_do(place: Path) -> None:
    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/web-1", speaking(Version.V1))
        async with vm, running(make_configuration(place)) as daemon:
            await daemon.until_guest("web-1", agreed_on(1))
            with pytest.raises(VersionTooLow) as refusal:
                await daemon.send("web-1", "lifecycle-event", EVENT)
            assert str(refusal.value) == (
                "web-1 agreed on API 1; lifecycle-event needs 3; its agent supports 1: upgrade vmaccord-guest-agent in web-1"
            )
            error = refusal.value
            assert (error.needed, error.agreed, error.guest_supports, error.host_supports) == (3, 1, 1, NEWEST)
            assert error.upgrade == "guest"
            assert told(daemon, "command") == []

    run(scenario())


@pytest.mark.parametrize("heard", [False, True])
def test_a_command_that_a_channel_took_along_is_sent_again_and_answered_once(place: Path, heard: bool) -> None:
    """Either the guest never got it, or it could not say its answer any more."""
    first = Answers(held=True, result={"load": [0.5, 0.5, 0.5]})
    second = first if heard else Answers(result={"load": [0.5, 0.5, 0.5]})

    async def scenario() -> None:
        async with running(make_configuration(place)) as daemon:
            async with SimulatedVm(place / "ports/domain-1-web", speaking(answers=first)) as vm:
                await daemon.until_guest("web", offers("load"))
                client = asyncio.ensure_future(daemon.send("web", "load", {}))
                await until(lambda: first.asked)
                await vm.stop()
            first.release()
            async with SimulatedVm(place / "ports/domain-2-web", speaking(answers=second)):
                assert (await client).completion == {"done": True, "result": {"load": [0.5, 0.5, 0.5]}}
            ((_, guest, details),) = told(daemon, "completion")
            assert (guest, details["name"], details["late"]) == ("web", "load", False)
            reply_id = details["reply_id"]
            assert {each["reply_id"] for _, _, each in told(daemon, "command", "resent")} == {reply_id}
            assert {each.reply_id for each in (*first.asked, *second.asked)} == {reply_id}
            assert len(second.asked) == 1

    run(scenario())


def test_a_guest_that_a_dangerous_command_is_turned_off_in_is_not_sent_it(place: Path) -> None:
    answers = Answers()

    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/web-1", speaking(answers=answers))
        async with vm, running(make_configuration(place)) as daemon:
            described = await daemon.until_guest("web-1", offers("load"))
            assert described["capabilities"]["commands"]["exec"] is False
            with pytest.raises(Disabled) as refusal:
                await daemon.send("web-1", "exec", {"argv": ["true"], "timeout": 1})
            assert refusal.value.want == "off"
            obstacle = (await daemon.guest("web-1"))["obstacles"]["exec"]
            assert (obstacle["kind"], obstacle["detail"]) == ("disabled", str(refusal.value))
            assert answers.asked == []

    run(scenario())


def test_a_completion_counts_only_from_the_guest_that_was_asked(place: Path) -> None:
    answers = Answers(held=True)

    async def scenario() -> None:
        lines: asyncio.Queue[bytes] = asyncio.Queue()

        async def forge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"__name__":"heartbeat","apiVersion":3}\n')
            writer.write(await lines.get())
            while await reader.read(4096):
                pass

        web, evil = SimulatedVm(place / "ports/web", speaking(answers=answers)), SimulatedVm(place / "ports/evil", forge)
        async with web, evil, running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            await daemon.until_guest("evil", in_state("responsive"))
            client = await waiting_for(daemon, "web", answers)
            reply_id = str(answers.asked[0].reply_id)
            lines.put_nowait(b'{"__name__":"completion","reply_id":"%s","done":false}\n' % reply_id.encode())
            await until_true(lambda: counted(daemon, "vmaccord_unknown_completions_total 1.0"))
            assert not client.done()
            answers.release()
            assert (await client).completion == {"done": True}
            ((_, guest, details),) = told(daemon, "completion")
            assert (guest, details["done"], details["late"]) == ("web", True, False)

    run(scenario())


async def counted(daemon: RunningDaemon, line: str) -> bool:
    return line in await asyncio.get_running_loop().run_in_executor(None, daemon.client.metrics)


def test_a_completion_that_comes_late_is_told_to_those_who_follow(place: Path) -> None:
    answers = Answers(held=True)

    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/web", speaking(answers=answers))
        async with vm, running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            with pytest.raises(TimedOut) as missed:
                await daemon.send("web", "lifecycle-event", EVENT, timeout=0.1)
            assert str(missed.value) == (
                "no answer to lifecycle-event within 0.1 s; it may still come: the events will tell"
            )
            reply_id = missed.value.reply_id
            assert told(daemon, "timed-out") == [("timed-out", "web", {"name": "lifecycle-event", "reply_id": reply_id})]
            answers.release()
            await until(lambda: told(daemon, "completion"))
            ((_, guest, details),) = told(daemon, "completion")
            assert (guest, details["reply_id"], details["late"]) == ("web", reply_id, True)

    run(scenario())


# ---- The end, and the next run ----


async def stop(process: DaemonProcess) -> int:
    """End *process* by SIGTERM, without holding up those who talk to it."""
    process.process.send_signal(signal.SIGTERM)
    return await asyncio.get_running_loop().run_in_executor(None, process.process.wait, PATIENCE)


def send_blocking(place: Path, name: str) -> Any:
    return Client(str(place / "control.sock")).send(name, "lifecycle-event", EVENT, timeout=60.0)


async def commanded(place: Path, process: DaemonProcess, answers: Answers) -> asyncio.Future[Any]:
    """A client of *process* that waits for the answer of the guest web, which has been asked."""
    await until(lambda: f"web: agreed 0 → {NEWEST}: " in process.log)
    client = asyncio.get_running_loop().run_in_executor(None, send_blocking, place, "web")
    await until(lambda: answers.asked or client.done())
    return client


def test_a_command_that_is_answered_while_the_daemon_stops_is_answered_to_its_client(place: Path, start_daemon: Any) -> None:
    answers = Answers(held=True)
    process = start_daemon("--drain", "60").wait_ready()

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", speaking(answers=answers)):
            client = await commanded(place, process, answers)
            ending = asyncio.ensure_future(stop(process))
            await until(lambda: "stopping" in process.log)
            with pytest.raises(Stopping, match="the daemon stops: nothing was sent; try again when it runs again"):
                await asyncio.get_running_loop().run_in_executor(None, send_blocking, place, "web")
            assert not client.done()
            assert not ending.done()
            answers.release()
            assert (await client).completion == {"done": True}
            assert await ending == 0
            assert len(answers.asked) == 1

    run(scenario())


def test_a_completion_that_comes_after_a_restart_finds_its_command(place: Path, start_daemon: Any) -> None:
    answers = Answers(held=True)
    state = str(place / "state.sqlite")
    process = start_daemon("--drain", "0.1", "--state", state).wait_ready()

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", speaking(answers=answers)) as vm:
            client = await commanded(place, process, answers)
            assert await stop(process) == 0
            with pytest.raises(Stopping, match="whether lifecycle-event was carried out is not known: look at the guest"):
                await client
            (asked,) = answers.asked
            await until(lambda: not vm.talking)
            async with running(make_configuration(place, state=state)) as daemon:
                ((reply_id, left),) = [
                    (each["reply_id"], each["left_s"]) for each in (await daemon.guest("web"))["commands"]
                ]
                assert reply_id == asked.reply_id
                assert 0 < left <= 60
                answers.release()
                await until(lambda: told(daemon, "completion"))
                assert told(daemon, "completion") == [
                    (
                        "completion",
                        "web",
                        {"name": "lifecycle-event", "reply_id": reply_id, "done": True, "late": False},
                    )
                ]
                assert (await daemon.guest("web"))["commands"] == []
            async with running(make_configuration(place, state=state)) as daemon:
                assert (await daemon.guest("web"))["commands"] == []

    run(scenario())
    assert "Traceback" not in process.log


def in_file(state: str) -> list[str]:
    """The reply ids of the commands in flight that the state file holds."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
            return [reply_id for (reply_id,) in connection.execute("SELECT reply_id FROM commands")]
    except sqlite3.OperationalError:
        return []


def test_what_was_in_flight_in_a_daemon_that_was_killed_is_found_too(place: Path, start_daemon: Any) -> None:
    answers = Answers(held=True)
    state = str(place / "state.sqlite")
    process = start_daemon("--state", state).wait_ready()

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", speaking(answers=answers)) as vm:
            client = await commanded(place, process, answers)
            await until(lambda: in_file(state) == [answers.asked[0].reply_id])
            process.kill()
            with pytest.raises(ClientError):
                await client
            # Said to the daemon that was killed, it would be lost.
            await until(lambda: not vm.talking)
            answers.release()
            async with running(make_configuration(place, state=state)) as daemon:
                await until(lambda: told(daemon, "completion"))
                ((_, guest, details),) = told(daemon, "completion")
                assert (guest, details["late"]) == ("web", False)
                assert details["reply_id"] == answers.asked[0].reply_id

    run(scenario())


# ---- Another configuration, by SIGHUP ----


class Files:
    """A configuration file and what a daemon would read from it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "host.conf"

    def write(self, text: str = "", limits: str = "", directory: str = "ports") -> None:
        self.path.write_text(
            f"[host]\ndirectory = {self.place / directory if directory else ''}\n"
            f"control = {self.place / 'control.sock'}\n{text}\n[limits]\n{limits}\n",
            encoding="utf-8",
        )

    def read(self) -> Configuration:
        parser = argparse.ArgumentParser()
        parser.add_argument("--config")
        settings.add_options(parser, config.SETTINGS)
        return config.load(parser.parse_args(["--config", str(self.path)]))

    def running(self) -> Any:
        return running(self.read(), self.read)


@pytest.fixture
def files(place: Path) -> Files:
    files = Files(place)
    files.write()
    return files


async def reload(daemon: RunningDaemon) -> str:
    """Send this process SIGHUP; what the daemon in it then says of its configuration."""
    before = len(told(daemon, "configuration"))
    signal.raise_signal(signal.SIGHUP)
    _, _, details = (await until(lambda: told(daemon, "configuration")[before:]))[0]
    return str(details["text"])


def test_another_highest_version_is_agreed_on_without_connecting_anew(files: Files, place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web-1") as vm, files.running() as daemon:
            await daemon.until_guest("web-1", agreed_on(NEWEST))
            files.write("max-api-version = 1")
            assert await reload(daemon) == "changed: max-api-version"
            described = await daemon.until_guest("web-1", agreed_on(1))
            assert (described["api"]["supported"], described["api"]["advertised"]) == (1, NEWEST)
            assert (await daemon.host())["api"] == {"supported": 1, "versions": [0, 1]}
            with pytest.raises(VersionTooLow) as refusal:
                await daemon.send("web-1", "lifecycle-event", EVENT)
            assert str(refusal.value) == (
                "web-1 agreed on API 1; lifecycle-event needs 3; this host supports 1: "
                "upgrade vmaccord-host-agent here, or raise its max-api-version"
            )
            files.write()
            assert await reload(daemon) == "changed: max-api-version"
            await daemon.until_guest("web-1", agreed_on(NEWEST))
            assert (await daemon.send("web-1", "lifecycle-event", EVENT)).completion == {"done": True}
            assert vm.connections == 1
            async with SimulatedVm(place / "ports/web-2"):
                await daemon.until_guest("web-2", agreed_on(NEWEST))

    run(scenario())


def test_a_command_in_flight_survives_another_configuration(files: Files, place: Path) -> None:
    answers = Answers(held=True)

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", speaking(answers=answers)) as vm, files.running() as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            client = await waiting_for(daemon, "web", answers)
            for text in ("max-api-version = 0", ""):
                files.write(text)
                await reload(daemon)
            await daemon.until_guest("web", agreed_on(NEWEST))
            answers.release()
            assert (await client).completion == {"done": True}
            assert vm.connections == 1

    run(scenario())


def test_another_span_of_silence_counts_for_open_channels(files: Files, place: Path) -> None:
    async def scenario() -> None:
        guest, heartbeat = OnDemand(), b'{"__name__":"heartbeat"}'
        files.write("unresponsive-after = 3600")
        async with SimulatedVm(place / "ports/web", guest) as vm, files.running() as daemon:
            guest.say(heartbeat)
            await daemon.until_guest("web", in_state("responsive"))
            files.write("unresponsive-after = 0.1")
            assert await reload(daemon) == "changed: unresponsive-after"
            guest.say(heartbeat)
            await daemon.until_guest("web", in_state("unresponsive"))
            files.write("unresponsive-after = 3600")
            await reload(daemon)
            guest.say(heartbeat)
            await daemon.until_guest("web", in_state("responsive"))
            assert vm.connections == 1

    run(scenario())


def fact(size: int) -> bytes:
    return b'{"__name__":"fqdn","fqdn":"%b"}' % (b"x" * size)


def test_another_limit_of_facts_counts_for_open_channels(files: Files, place: Path) -> None:
    async def scenario() -> None:
        guest = OnDemand()
        async with SimulatedVm(place / "ports/web", guest) as vm, files.running() as daemon:
            guest.say(fact(2000))
            await daemon.until_guest("web", lambda guest: "fqdn" in guest["facts"])
            files.write(limits="facts-size = 1024")
            assert await reload(daemon) == "changed: [limits] facts-size"
            guest.say(fact(3000))
            described = await daemon.until_guest("web", lambda guest: guest["counters"]["dropped"])
            assert described["counters"]["dropped"] == {"facts-too-large": 1}
            assert described["facts"]["fqdn"]["value"] == {"fqdn": "x" * 2000}
            assert vm.connections == 1

    run(scenario())


@pytest.mark.parametrize(("limit", "line"), [("message-rate = 1", fact(1)), ("byte-rate = 1024", fact(1000))])
def test_another_limit_of_rates_counts_for_open_channels(files: Files, place: Path, limit: str, line: bytes) -> None:
    async def scenario() -> None:
        guest = OnDemand()
        async with SimulatedVm(place / "ports/web", guest) as vm, files.running() as daemon:
            guest.say(*[line] * 30)
            before = await daemon.until_guest("web", lambda guest: guest["counters"]["lines"] == 30)
            assert not before["channel"]["throttled"]
            files.write(limits=limit)
            assert await reload(daemon) == f"changed: [limits] {limit.partition(' ')[0]}"
            guest.say(*[line] * 30)
            await daemon.until_guest("web", lambda guest: guest["channel"]["throttled"])
            assert told(daemon, "throttled") == [("throttled", "web", {})]
            assert vm.connections == 1

    run(scenario())


def test_another_group_may_use_the_control_socket_at_once(place: Path, start_daemon: Any) -> None:
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    place.chmod(0o755)
    control, file = place / "control.sock", place / "host.conf"
    group = grp.getgrgid(os.getegid()).gr_name
    file.write_text("", encoding="utf-8")
    process = start_daemon("--config", str(file)).wait_ready()
    client = Client(str(control))

    def allowed(**groups: str) -> tuple[int, str]:
        """The mode of the control socket, and what somebody of the group may do whose names are given."""
        before = process.log.count("configuration reloaded; ")
        file.write_text("\n".join(["[host]", *(f"{key}-group = {name}" for key, name in groups.items())]), encoding="utf-8")
        process.process.send_signal(signal.SIGHUP)
        wait_for(lambda: process.log.count("configuration reloaded; ") > before)
        mode = stat.S_IMODE(control.stat().st_mode)
        with another_user():
            try:
                return mode, client.host()["you"]["role"]
            except (NotAllowed, DaemonUnreachable) as error:
                return mode, type(error).__name__

    assert allowed() == (0o600, "DaemonUnreachable")
    assert allowed(viewer=group) == (0o666, "viewer")
    assert allowed(operator=group) == (0o666, "operator")
    assert allowed(operator="daemon") == (0o666, "NotAllowed")
    assert allowed() == (0o600, "DaemonUnreachable")
    assert client.host()["you"]["role"] == "operator"


def test_another_log_level_counts_at_once(files: Files) -> None:
    async def scenario() -> None:
        async with files.running() as daemon:
            assert logging.getLogger().level == logging.INFO
            files.write("log-level = error")
            assert await reload(daemon) == "changed: log-level"
            assert logging.getLogger().level == logging.ERROR

    run(scenario())


def test_sources_are_exchanged_while_guests_are_connected(files: Files, place: Path) -> None:
    async def scenario() -> None:
        web, db = SimulatedVm(place / "ports/web"), SimulatedVm(place / "more/db")
        async with web, db, files.running() as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            assert await names(daemon) == ["web"]
            files.path.write_text(
                f"[host]\ncontrol = {place / 'control.sock'}\ndirectory =\n  {place / 'ports'}\n  {place / 'more'}\n"
            )
            assert await reload(daemon) == "changed: directory"
            await daemon.until_guest("db", agreed_on(NEWEST))
            assert (await daemon.host())["directories"] == [str(place / "ports"), str(place / "more")]
            files.write(f"port = web={web.path}", directory="more")
            assert await reload(daemon) == "changed: directory, port"
            await until_true(lambda: has_sources(daemon, [str(place / "more")], {"web": str(web.path)}))
            await daemon.until_guest("db", agreed_on(NEWEST))
            await daemon.until_guest("web", agreed_on(NEWEST))
            assert (web.connections, db.connections) == (1, 1)
            files.write(directory="more")
            assert await reload(daemon) == "changed: port"
            await daemon.until_guest("web", in_state("absent"))
            await daemon.until_guest("db", agreed_on(NEWEST))
            assert (web.connections, db.connections) == (1, 1)

    run(scenario())


async def names(daemon: RunningDaemon) -> list[str]:
    return sorted(guest["name"] for guest in await daemon.guests())


async def has_sources(daemon: RunningDaemon, directories: list[str], fixed: dict[str, str]) -> bool:
    host = await daemon.host()
    return (host["directories"], host["fixed"]) == (directories, fixed)


def test_a_broken_file_changes_nothing_and_is_told_of(files: Files, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm, files.running() as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            files.write("max-api-version = 1\nunresponsive-after = soon")
            said = await reload(daemon)
            assert said == (
                f"stays as it was: {files.path}: [host] unresponsive-after: 'soon' is not allowed; "
                f"allowed: {settings.ALLOWED_SECONDS}"
            )
            assert f"the configuration {said}" in caplog.messages
            assert (await daemon.host())["api"]["supported"] == NEWEST
            files.path.unlink()
            assert (await reload(daemon)).endswith("; name a readable file with --config")
            files.write("max-api-version = 2")
            assert await reload(daemon) == "changed: max-api-version"
            await daemon.until_guest("web", agreed_on(2))
            assert vm.connections == 1

    run(scenario())


def test_a_source_that_can_not_work_here_leaves_everything_as_it_was(
    files: Files, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: DirectoryDiscovery) -> None:
        raise exits.Failure("no inotify")

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm, files.running() as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            monkeypatch.setattr(DirectoryDiscovery, "open", refuse)
            files.write("max-api-version = 1\nlog-level = error\noperator-group = daemon", directory="more")
            assert await reload(daemon) == "stays as it was: no inotify"
            host = await daemon.host()
            assert (host["directories"], host["api"]["supported"]) == ([str(place / "ports")], NEWEST)
            assert logging.getLogger().level == logging.INFO
            assert not daemon.daemon.roles.shared
            await daemon.until_guest("web", agreed_on(NEWEST))
            assert vm.connections == 1

    run(scenario())


def test_a_control_socket_that_is_gone_keeps_nothing_else_from_changing(
    files: Files, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm, files.running() as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            (place / "control.sock").unlink()
            files.write("max-api-version = 1\noperator-group = daemon")
            assert await reload(daemon) == "changed: operator-group, max-api-version"
            web = daemon.daemon.registry.find("web")
            assert web is not None
            await until(lambda: web.session.negotiation.in_use == 1)
            assert daemon.daemon.roles.shared
            assert vm.connections == 1

    run(scenario())
    assert f"control socket {place}/control.sock: No such file or directory; start the daemon again" in caplog.messages


def test_what_only_counts_at_the_start_waits_for_the_next_one(
    files: Files, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with files.running() as daemon:
            assert await reload(daemon) == "nothing changed"
            files.write(f"drain = 1\nstate = {place / 'state.sqlite'}")
            assert await reload(daemon) == "changed: drain; not before the next start: state"
            assert (await daemon.host())["state"] is None
            assert not (place / "state.sqlite").exists()
            assert await reload(daemon) == "nothing changed; not before the next start: state"

    run(scenario())
    assert "configuration reloaded; changed: drain; not before the next start: state" in caplog.messages


def test_files_that_are_changed_while_they_are_read_are_read_again(files: Files) -> None:
    gate, reading = threading.Event(), threading.Semaphore(0)
    reads: list[Configuration] = []

    def read() -> Configuration:
        was = files.read()
        reading.release()
        assert gate.wait(PATIENCE)
        reads.append(was)
        return was

    async def scenario() -> None:
        async with running(files.read(), read) as daemon:
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: reading.acquire(blocking=False))
            files.write("max-api-version = 1")
            for _ in range(3):
                daemon.daemon.reload()
            gate.set()
            await until(lambda: len(told(daemon, "configuration")) == 2)
            assert [details["text"] for _, _, details in told(daemon, "configuration")] == [
                "nothing changed",
                "changed: max-api-version",
            ]
            assert await reload(daemon) == "nothing changed"
            assert len(reads) == 3

    run(scenario())


def test_a_daemon_that_stops_reads_nothing_any_more(files: Files, place: Path) -> None:
    answers = Answers(held=True)
    reads: list[None] = []

    def read() -> Configuration:
        reads.append(None)
        return files.read()

    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/web", speaking(answers=answers))
        async with vm, running(files.read(), read) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            client = await waiting_for(daemon, "web", answers)
            daemon.daemon.stop()
            daemon.daemon.reload()
            with pytest.raises(Stopping):
                await daemon.send("web", "lifecycle-event", EVENT)
            answers.release()
            await client
        assert reads == []

    run(scenario())


def test_what_is_read_while_the_daemon_stops_is_not_waited_for(files: Files) -> None:
    gate, reading = threading.Event(), threading.Event()
    opened: list[bool] = []

    def read() -> Configuration:
        reading.set()
        opened.append(gate.wait(PATIENCE))
        raise SettingsError("nobody waits for this")

    async def scenario() -> None:
        async with running(files.read(), read) as daemon:
            daemon.daemon.reload()
            await until(reading.is_set)
        assert told(daemon, "configuration") == []
        gate.set()

    run(scenario())
    assert opened == [True]


def test_without_files_there_is_nothing_to_read_again(place: Path) -> None:
    async def scenario() -> None:
        async with running(make_configuration(place)) as daemon:
            signal.raise_signal(signal.SIGHUP)
            assert await daemon.guests() == []
            assert told(daemon, "configuration") == []

    run(scenario())


# ---- The service manager, and the machine ----


class ServiceManager:
    """Hears what daemons say at the socket that the environment names."""

    def __init__(self, address: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(address))
        self.socket.settimeout(PATIENCE)

    def next(self) -> str:
        """What was said next, other than that the daemon lives."""
        while True:
            said = self.socket.recv(1000).decode()
            if said != "WATCHDOG=1":
                return said

    def hear_signs_of_life(self, count: int) -> None:
        for _ in range(count):
            assert self.socket.recv(1000) == b"WATCHDOG=1"


@pytest.fixture
def manager(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    manager = ServiceManager(place / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with manager.socket:
        yield manager


def test_the_service_manager_is_told_how_the_daemon_is(place: Path, manager: ServiceManager, start_daemon: Any) -> None:
    file = place / "host.conf"
    file.write_text("", encoding="utf-8")
    process = start_daemon("--config", str(file), "--drain", "2.5")
    assert manager.next() == "READY=1"
    assert Client(str(place / "control.sock")).host()["guests"] == 0
    manager.hear_signs_of_life(3)
    for text in ("", "[host]\nmax-api-version = 99\n"):
        file.write_text(text, encoding="utf-8")
        before = time.monotonic_ns() // 1000
        process.process.send_signal(signal.SIGHUP)
        reloading, _, since = manager.next().partition("\nMONOTONIC_USEC=")
        assert reloading == "RELOADING=1"
        assert before <= int(since) <= time.monotonic_ns() // 1000
        assert manager.next() == "READY=1"
    manager.hear_signs_of_life(3)
    assert process.stop() == 0
    assert manager.next() == "STOPPING=1"
    assert manager.next() == "EXTEND_TIMEOUT_USEC=7500000"
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.next()


def test_a_daemon_that_can_not_start_is_never_ready(place: Path, manager: ServiceManager, start_daemon: Any) -> None:
    process = start_daemon("--state", str(place / "none/state.sqlite"))
    assert process.process.wait(PATIENCE) == exits.Exit.STATE_FILE
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.next()


def test_too_few_descriptors_are_told_of_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(descriptors, "RESERVE", 10**9)

    async def scenario() -> None:
        web, db = SimulatedVm(place / "ports/web"), SimulatedVm(place / "ports/db")
        async with web, db, running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            await daemon.until_guest("db", agreed_on(NEWEST))

    run(scenario())
    (said,) = [line for line in caplog.messages if "file descriptors" in line]
    assert said.startswith("1 guests need 1000000001 file descriptors")


def test_guests_that_the_configuration_names_are_found_without_a_directory(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with SimulatedVm(place / "elsewhere/vm") as vm:
            configuration = make_configuration(place, directory=(), port=(Port("web", str(vm.path)),))
            async with running(configuration) as daemon:
                await daemon.until_guest("web", agreed_on(NEWEST))
                host = await daemon.host()
                assert (host["directories"], host["fixed"]) == ([], {"web": str(vm.path)})

    run(scenario())
    assert f"ready: control socket {place}/control.sock; guests from the configuration" in caplog.messages


def test_a_libvirt_daemon_that_does_not_answer_is_waited_for(place: Path, start_daemon: Any) -> None:
    pytest.importorskip("libvirt")
    uri = f"qemu:///system?socket={place}/none"
    process = start_daemon("--libvirt", uri).wait_ready()
    assert f"; guests from {uri}, {place}/ports\n" in process.log
    client = Client(str(place / "control.sock"))
    (libvirt,) = client.host()["libvirt"]
    assert (libvirt["uri"], libvirt["connected"]) == (uri, False)
    assert "vmaccord_lost_sources 1.0" in client.metrics()
    assert process.stop() == 0


def test_metrics_tell_of_what_the_daemon_is_made_of(place: Path) -> None:
    answers = Answers(held=True)

    async def scenario() -> None:
        configuration = make_configuration(place, state=str(place / "state.sqlite"), max_api_version=None)
        async with SimulatedVm(place / "ports/web"), running(configuration) as daemon:
            await until_true(lambda: counted(daemon, 'vmaccord_guests{agreed="0",state="responsive"} 1.0'))
            assert await counted(daemon, "vmaccord_supported_api_version -1.0")
            assert await counted(daemon, "vmaccord_state_failing 0.0")
            assert await counted(daemon, "vmaccord_lost_sources 0.0")
            assert await counted(daemon, f"vmaccord_queue_events {daemon.daemon.feed.last}.0")
        vm = SimulatedVm(place / "ports/web", speaking(answers=answers))
        async with vm, running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(NEWEST))
            client = await waiting_for(daemon, "web", answers)
            assert await counted(daemon, "vmaccord_queue_commands 1.0")
            assert await counted(daemon, f"vmaccord_supported_api_version {NEWEST}.0")
            answers.release()
            await client
            assert await counted(daemon, "vmaccord_queue_commands 0.0")

    run(scenario())


# ---- The shipped daemon, as a process ----


def test_the_process_serves_a_guest_and_stops_clean(place: Path, start_daemon: Any) -> None:
    process = start_daemon().wait_ready()
    control = place / "control.sock"
    assert stat.S_IMODE(os.stat(control).st_mode) == 0o600

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/domain-1-web"):
            await until(lambda: f"web: agreed 0 → {NEWEST}: " in process.log)

    run(scenario())
    assert process.stop() == 0
    assert not control.exists()
    assert f"ready: control socket {control}; guests from {place / 'ports'}\n" in process.log
    assert "Traceback" not in process.log


def test_a_stale_socket_of_a_killed_daemon_is_replaced(place: Path, start_daemon: Any) -> None:
    start_daemon().wait_ready().kill()
    assert (place / "control.sock").exists()
    assert start_daemon().wait_ready().stop(signal.SIGINT) == 0


def test_a_second_process_is_refused_with_its_own_status(place: Path, start_daemon: Any) -> None:
    first = start_daemon().wait_ready()
    second = start_daemon()
    assert second.process.wait(30) == 6
    assert second.log == (
        f"vmaccord-host: control socket {place}/control.sock: in use by another daemon; "
        "stop that one or name another path with --control\n"
    )
    assert first.stop() == 0
