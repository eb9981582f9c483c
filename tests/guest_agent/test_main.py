"""The command: in this process where it ends at once, as a real process on a pty where it works."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Callable

import pytest

from common import messages, versions
from common.versions import Version
from guest_agent import exits, main, port
from guest_agent.agent import Agent
from guest_agent.exits import Exit

from .parts import NO_CONFIGURATION, AgentProcess, Host, Pty, wait_until

Start = Callable[..., AgentProcess]


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


@pytest.fixture
def arguments() -> list[str]:
    """What every agent gets: nothing of the machine's own configuration."""
    return list(NO_CONFIGURATION)


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)


# ---- What ends at once ----


def test_the_version_names_the_release_and_its_api_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) is Exit.OK
    release, api = capsys.readouterr().out.splitlines()
    assert release == f"vmaccord-guest {metadata.version('vmaccord')}"
    assert api == f"guest API versions: 0-{versions.newest()}"


def test_a_release_that_is_not_installed_as_a_distribution_has_a_version_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", unknown)
    assert main.main(["--version"]) is Exit.OK
    assert capsys.readouterr().out.startswith("vmaccord-guest (version unknown)\n")


def test_the_help_lists_every_exit_status_and_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert exits.epilog() in text
    assert "--max-api-version" in text


def test_the_configuration_is_shown_as_a_file(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*arguments, "--show-config", "--heartbeat", "2"]) is Exit.OK
    shown = capsys.readouterr().out
    assert shown.startswith("[guest]\n")
    assert "heartbeat = 2\n" in shown


@pytest.mark.parametrize("wrong", [["--no-such-option"], ["--heartbeat"], ["--heart", "2"]])
def test_a_wrong_command_line_is_said_in_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(wrong)
    assert ended.value.code == Exit.USAGE
    line = failure(capsys)
    assert wrong[0] in line
    assert line.endswith("; see vmaccord-guest --help")


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vmaccord-guest: ")
    return line


def test_a_bad_value_is_a_bad_configuration(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*arguments, "--heartbeat", "often"]) is Exit.BAD_CONFIGURATION
    assert "--heartbeat: 'often' is not allowed" in failure(capsys)


def test_a_port_that_does_not_appear_is_said_with_what_to_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main.main([*arguments, "--port", "/nonexistent/port", "--port-timeout", "0.01"])
    assert status is Exit.NO_PORT
    assert "give the VM a virtio-serial channel" in failure(capsys)


def test_a_port_that_is_no_device_is_said_with_what_to_do(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    status = main.main([*arguments, "--port", str(tmp_path / "file")])
    assert status is Exit.PORT_UNUSABLE
    assert "name a virtio-serial port" in failure(capsys)


def test_an_error_that_should_not_happen_is_one_sentence_that_says_where_and_no_secret(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise LookupError("open-sesame")

    monkeypatch.setattr(Agent, "run", fail)
    assert main.main([*arguments, "--log-level", "debug"]) is Exit.UNEXPECTED
    line = failure(capsys)
    assert "unexpected error, please report it: LookupError at main.py:" in line
    assert re.search(r", test_main\.py:\d+$", line)
    assert "sesame" not in line


def test_signals_are_given_back(arguments: list[str]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    main.main([*arguments, "--port", "/nonexistent/port", "--port-timeout", "0.01"])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("terminal", [False, True])
def test_log_lines_carry_the_time_only_on_a_terminal(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **named: asked.update(named))
    monkeypatch.setattr(sys, "stderr", type("Stderr", (), {"isatty": lambda _: terminal})())
    main._set_up_logging("debug")
    assert asked["format"] == ("%(asctime)s " if terminal else "") + "%(levelname)s %(message)s"
    assert asked["level"] == "DEBUG"


def test_a_signal_stops_the_agent_in_this_process(arguments: list[str], pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    really = port.open_port

    def open_port_then_stop(path: str) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return really(path)

    monkeypatch.setattr(port, "open_port", open_port_then_stop)
    assert main.main([*arguments, "--port", pty.path]) is Exit.OK


# ---- A process on a pty ----


def start_on(start_agent: Start, pty: Pty, *more: str) -> tuple[AgentProcess, Host]:
    agent = start_agent("--port", pty.path, "--heartbeat", "0.2", *more)
    return agent, Host(pty.master)


def in_use(version: Version) -> Callable[[Host], bool]:
    return lambda host: host.session.negotiation.agreed == host.session.negotiation.in_use == version


def test_agent_and_host_agree_and_the_facts_of_that_version_arrive(start_agent: Start, pty: Pty) -> None:
    agent, host = start_on(start_agent, pty)
    host.until(lambda host: host.names[:1] == ["session-startup"])
    host.connect()
    host.until(in_use(Version.V3))
    os_info = host.until(lambda host: host.last(messages.OsInfo))
    assert (os_info.type, os_info.kernel) == ("linux", os.uname().release)
    host.until(lambda host: host.last(messages.Containers) and host.last(messages.DisksUsage))
    heartbeat = host.last(messages.Heartbeat)
    assert heartbeat.memory_stat["mem_total"] > 0
    assert host.complaints == []
    assert agent.stop() == Exit.OK
    assert "INFO API 0 → 3 in use: the host says so\n" in agent.said
    assert "Traceback" not in agent.said


def test_the_agent_follows_a_host_of_an_older_version(start_agent: Start, pty: Pty) -> None:
    _, host = start_on(start_agent, pty)
    host.connect()
    host.until(in_use(Version.V3))
    old = Host(pty.master, Version.V1)
    old.connect()
    old.until(in_use(Version.V1))
    old.names.clear()
    old.until(lambda host: host.names.count("heartbeat") >= 3)
    assert not {"os-info", "timezone", "containers"} & set(old.names)


def test_an_agent_from_before_versions_sends_no_version(start_agent: Start, pty: Pty) -> None:
    _, host = start_on(start_agent, pty, "--max-api-version", "none")
    host.connect()
    host.until(lambda host: host.names.count("heartbeat") >= 3)
    assert all(
        (each.api_version, each.api_version_in_use, each.agent_id) == (None, None, None)
        for each in host.heard
        if isinstance(each, messages.Heartbeat)
    )
    assert b"apiVersion" not in host.received


def test_a_half_line_that_an_earlier_agent_left_costs_nothing_that_matters(start_agent: Start, pty: Pty) -> None:
    pty.leave_behind(b'{"__name__": "host-na')
    _, host = start_on(start_agent, pty)
    host.connect()
    host.until(in_use(Version.V3))
    assert host.session.counters.dropped == {"malformed": 1}


def test_a_half_line_that_an_earlier_host_left_costs_nothing(start_agent: Start, pty: Pty) -> None:
    agent, host = start_on(start_agent, pty)
    host.until(lambda host: host.names)
    os.write(pty.master, b'{"__name__": "shutd')
    host.connect()
    host.until(in_use(Version.V3))
    assert agent.alive


def test_a_port_that_is_replaced_is_opened_again(start_agent: Start, tmp_path: Path, pty: Pty) -> None:
    link = tmp_path / "port"
    first = Pty()
    link.symlink_to(first.path)
    agent = start_agent("--port", str(link), "--heartbeat", "0.2")
    host = Host(first.master)
    host.connect()
    host.until(in_use(Version.V3))
    link.unlink()
    link.symlink_to(pty.path)
    first.close()
    host = Host(pty.master)
    host.connect()
    host.until(in_use(Version.V3))
    assert "session-startup" in host.names
    assert "the port vanished" in agent.said
    assert agent.stop() == Exit.OK


def test_an_agent_whose_host_does_not_read_lives_on_and_is_heard_later(start_agent: Start, pty: Pty) -> None:
    agent, host = start_on(start_agent, pty)
    host.connect()
    host.until(in_use(Version.V3))
    echo = messages.Echo(more={"text": "x" * 1000})

    def flood() -> None:
        host.send(echo)
        if select.select([], [pty.master], [], 0.05)[1]:
            os.write(pty.master, host.session.data_to_send())

    wait_until(lambda: "the host does not read" in agent.said, flood)
    assert agent.alive
    host.until(lambda _: "the host reads again" in agent.said)
    host.names.clear()
    host.until(lambda host: host.names.count("heartbeat") >= 2)
    host.until(in_use(Version.V3))
    assert agent.stop(signal.SIGINT) == Exit.OK


def test_commands_of_the_host_reach_the_log_without_their_arguments(start_agent: Start, pty: Pty) -> None:
    agent, host = start_on(start_agent, pty, "--log-level", "debug")
    host.connect()
    host.until(in_use(Version.V3))
    host.send(messages.Login(username="alice", password="open-sesame"))
    host.send(messages.LifecycleEvent(type="before_migration", reply_id="r1"))
    host.until(lambda host: host.last(messages.Completion))
    assert host.last(messages.Completion) == messages.Completion(reply_id="r1", done=True)
    assert "login: not carried out" in agent.said
    assert "sesame" not in agent.said


def test_a_port_that_is_missing_ends_the_process_with_one_sentence(start_agent: Start) -> None:
    agent = start_agent("--port", "/nonexistent/port", "--port-timeout", "0.1")
    assert agent.status() == Exit.NO_PORT
    assert agent.said.splitlines()[-1].startswith("vmaccord-guest: no port exists of: /nonexistent/port; ")
    assert "Traceback" not in agent.said
