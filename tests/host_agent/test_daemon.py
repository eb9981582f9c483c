from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from common.versions import Version
from host_agent import connector, journal
from host_agent.api.listener import ControlSocketError
from host_agent.client import NoSuchGuest
from host_agent.daemon import Daemon
from host_agent.store import MisplacedStateFile

from .guests import SimulatedVm, deaf, flooding, hanging_up, make_socket, saying, speaking
from .parts import make_configuration, run, running, until, until_true


def agreed_on(version: int) -> Any:
    return lambda guest: guest["api"]["agreed"] == guest["api"]["in_use"] == version


def in_state(state: str) -> Any:
    return lambda guest: guest["channel"]["state"] == state


@pytest.mark.parametrize(
    ("host", "guest", "agreed"),
    [(3, 3, 3), (1, 3, 1), (3, 2, 2), (0, 3, 0), (3, 0, 0)],
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
                "supported": 3,
                "advertised": None,
                "in_use": 0,
                "changes": 0,
                "last_reason": "the guest sends no version: it supports no versions, this host up to API 3",
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
            assert list(described) == ["name", "channel", "api", "heard_s", "facts", "counters"]
            assert described["channel"] == {
                "path": str(vm.path),
                "state": "responsive",
                "since_s": described["channel"]["since_s"],
            }
            assert described["facts"]["timezone"]["value"] == {"zone": "CET", "offset": 60}
            assert described["facts"]["timezone"]["age_s"] >= 0
            assert described["facts"]["heartbeat"]["value"]["apiVersion"] == 3
            assert described["api"]["changes"] == 1
            assert described["api"]["last_change_s"] >= 0
            assert described["api"]["last_reason"].endswith("it supports up to API 3, this host up to API 3")
            assert described["heard_s"] >= 0
            assert described["counters"]["lines"] > 0
            assert await daemon.guest("web") is not None

    run(scenario())


def test_the_host_tells_what_it_is(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web"), running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", agreed_on(3))
            host = await daemon.host()
            assert list(host) == ["version", "host_id", "api", "directories", "guests"]
            assert host["api"] == {"supported": 3, "versions": [0, 1, 2, 3]}
            assert host["directories"] == [str(place / "ports")]
            assert host["guests"] == 1
            assert len(host["host_id"]) == 32

    run(scenario())


def test_a_guest_that_comes_back_under_another_domain_id_keeps_its_facts(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with running(make_configuration(place)) as daemon:
            async with SimulatedVm(place / "ports/domain-1-web"):
                await daemon.until_guest("web", agreed_on(3))
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
    assert said[1].startswith("web: agreed 0 → 3: ")
    assert said[2].startswith("web: disconnected: ")
    assert said[3] == f"web: connected: {place}/ports/domain-2-web/com.redhat.rhevm.vdsm"
    assert said[4].startswith("web: agreed 3 → 0: ")
    assert said[5].startswith("web: agreed 0 → 2: ")
    assert len(said) == 7


def test_a_hypervisor_that_goes_and_comes_at_the_same_socket_is_found_again(place: Path) -> None:
    async def scenario() -> None:
        async with running(make_configuration(place)) as daemon:
            first = SimulatedVm(place / "ports/web")
            async with first:
                await daemon.until_guest("web", agreed_on(3))
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
            await daemon.until_guest("good", agreed_on(3))
            await daemon.until_guest("bad", lambda guest: guest["counters"]["lines"] > 1000)
            before = (await daemon.guest("good"))["counters"]["lines"]
            await daemon.until_guest("good", lambda guest: guest["counters"]["lines"] > before + 5)

    run(scenario())


def test_a_guest_that_floods_garbage_disturbs_nobody(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        bad, good = SimulatedVm(place / "ports/bad", flooding), SimulatedVm(place / "ports/good")
        async with bad, good, running(make_configuration(place)) as daemon:
            await daemon.until_guest("bad", lambda guest: guest["counters"]["bytes"] > 100_000)
            await daemon.until_guest("good", agreed_on(3))

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
        lines: asyncio.Queue[bytes] = asyncio.Queue()

        async def on_demand(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(await lines.get())

        configuration = make_configuration(place, unresponsive_after=0.05)
        async with SimulatedVm(place / "ports/web", on_demand), running(configuration) as daemon:
            assert await daemon.until_guest("web", in_state("connected"))
            lines.put_nowait(b'{"__name__":"heartbeat"}\n')
            await daemon.until_guest("web", in_state("unresponsive"))
            lines.put_nowait(b'{"__name__":"heartbeat"}\n')
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
            assert described["heard_s"] is not None
            assert described["api"]["agreed"] is None
            assert described["api"]["changes"] == 0

    run(scenario())


def test_a_guest_absent_for_long_is_forgotten_and_deleted(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    configuration = make_configuration(place, state=str(place / "state.sqlite"), forget_after=0.05)

    async def scenario() -> None:
        async with running(configuration) as daemon:
            async with SimulatedVm(place / "ports/web"):
                await daemon.until_guest("web", agreed_on(3))
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


# ---- The shipped daemon, as a process ----


def test_the_process_serves_a_guest_and_stops_clean(place: Path, start_daemon: Any) -> None:
    process = start_daemon().wait_ready()
    control = place / "control.sock"
    assert stat.S_IMODE(os.stat(control).st_mode) == 0o600

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/domain-1-web"):
            await until(lambda: "web: agreed 0 → 3: " in process.log)

    run(scenario())
    assert process.stop() == 0
    assert not control.exists()
    assert f"ready: control socket {control}; directories {place / 'ports'}" in process.log
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
