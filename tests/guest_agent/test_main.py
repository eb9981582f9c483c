"""The command: in this process where it ends at once, as a real process on a pty where it works."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from common import messages
from common.versions import Version, newest
from guest_agent import exits, main, options, port
from guest_agent.agent import Agent
from guest_agent.exits import Exit

from .conftest import CommandGuard
from .parts import NO_CONFIGURATION, AgentProcess, Host, Pty, wait_until

Start = Callable[..., AgentProcess]


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


@pytest.fixture
def arguments() -> list[str]:
    """What every agent gets: nothing of the machine's own configuration, and no lines but those that tell of the end."""
    return [*NO_CONFIGURATION, "--log-level", "error"]


def run(arguments: list[str]) -> int:
    """The command, which prints to the standard descriptors: its workers have no others."""
    with contextlib.ExitStack() as restored:
        restored.enter_context(contextlib.redirect_stdout(restored.enter_context(standard_stream(1))))
        restored.enter_context(contextlib.redirect_stderr(restored.enter_context(standard_stream(2))))
        return main.main(arguments)


def standard_stream(descriptor: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(descriptor, "wb", closefd=False), encoding="utf-8", write_through=True)


def failure(capfd: pytest.CaptureFixture[str]) -> str:
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("vmaccord-guest: ")
    return line


class Configured:
    """A configuration file, and a file that may be dropped in beside it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "guest.conf"
        self.file.write_text(f"[hooks]\ndirectory = {directory}/hooks.d\n", encoding="utf-8")
        self._dropped_in = directory / "guest.conf.d" / "50-test.conf"
        self._dropped_in.parent.mkdir()

    def drop_in(self, text: str) -> Path:
        self._dropped_in.write_text(text, encoding="utf-8")
        return self._dropped_in


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    return Configured(tmp_path)


# ---- What ends at once ----


def test_what_an_option_asks_for_is_done_and_that_was_all(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == Exit.OK
    assert capfd.readouterr().out.startswith("vmaccord-guest ")


def test_the_help_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == Exit.OK
    assert exits.epilog() in capfd.readouterr().out


def test_the_configuration_is_shown_as_a_file(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--show-config", "--heartbeat", "2"]) == Exit.OK
    shown = capfd.readouterr().out
    assert shown.startswith("[guest]\n")
    assert "heartbeat = 2\n" in shown


@pytest.mark.parametrize("wrong", [["--no-such-option"], ["--heartbeat"], ["--heart", "2"]])
def test_a_wrong_command_line_is_said_in_one_line(wrong: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(wrong) == Exit.USAGE
    assert failure(capfd).endswith("; see vmaccord-guest --help")


def test_nothing_that_is_imported_later_is_written_to_a_file(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert run([*arguments, "--show-config"]) == Exit.OK
    assert sys.dont_write_bytecode


def test_a_bad_value_is_a_bad_configuration(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--heartbeat", "often"]) == Exit.BAD_CONFIGURATION
    assert "--heartbeat: 'often' is not allowed" in failure(capfd)


def test_a_port_that_does_not_appear_is_said_with_what_to_do(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    status = run([*arguments, "--port", "/nonexistent/port", "--port-timeout", "0.1"])
    assert status == Exit.NO_PORT
    assert "give the VM a virtio-serial channel" in failure(capfd)


def test_a_port_that_is_no_device_is_said_with_what_to_do(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    status = run([*arguments, "--port", str(tmp_path / "file")])
    assert status == Exit.PORT_UNUSABLE
    assert "name a virtio-serial port" in failure(capfd)


def test_an_error_that_should_not_happen_is_one_sentence_that_says_where_and_no_secret(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise LookupError("open-sesame")

    monkeypatch.setattr(Agent, "run", fail)
    assert run(arguments) == Exit.UNEXPECTED
    line = failure(capfd)
    assert "unexpected error, please report it: LookupError at main.py:" in line
    assert re.search(r", test_main\.py:\d+$", line)
    assert "sesame" not in line


def test_a_worker_that_is_killed_over_the_configuration_is_an_error(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "begin", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    assert run(arguments) == Exit.UNEXPECTED
    assert failure(capfd) == "vmaccord-guest: reading the configuration was ended by signal 9"


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_somebody_who_interrupts_the_reading_of_the_configuration_is_obeyed_and_no_worker_lives_on(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    def begin(*_: object) -> None:
        try:
            wait_until(lambda: sleeps(os.getppid()), lambda: time.sleep(0.01))
            os.kill(os.getppid(), number)
            while True:
                time.sleep(0.01)
        finally:
            (tmp_path / "left").touch()

    monkeypatch.setattr(options, "begin", begin)
    assert run(arguments) == Exit.OK
    wait_until((tmp_path / "left").exists, lambda: None)
    assert capfd.readouterr().err == ""


def test_a_hang_up_while_the_configuration_is_read_has_it_read_again(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    really, asked = options.begin, []

    def begin(*arguments: Any) -> None:
        os.kill(os.getppid(), signal.SIGHUP)
        really(*arguments)

    monkeypatch.setattr(options, "begin", begin)
    monkeypatch.setattr(Agent, "reload", lambda _: asked.append(True))
    monkeypatch.setattr(Agent, "run", lambda _: None)
    assert run(arguments) == Exit.OK
    assert asked == [True]


@pytest.mark.parametrize("option", ["--show-config", "--check", "--version", "--help"])
def test_what_can_not_be_printed_is_said_in_one_sentence(command_guard: CommandGuard, option: str) -> None:
    command_guard.allowed.add(sys.executable)
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "guest_agent.main", *NO_CONFIGURATION, option],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
    assert ended.stderr == "vmaccord-guest: the standard output can't be written: No space left on device\n"
    assert ended.returncode == Exit.UNEXPECTED


def test_the_worker_that_read_the_configuration_leaves_no_descriptor_behind() -> None:
    before = os.listdir("/proc/self/fd")
    assert run(["--version"]) == Exit.OK
    assert os.listdir("/proc/self/fd") == before


def test_a_signal_that_comes_just_before_the_agent_waits_wakes_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def look(agent: Agent) -> None:
        found.append(signal.set_wakeup_fd(agent.wakeup_descriptor) == agent.wakeup_descriptor)

    monkeypatch.setattr(Agent, "run", look)
    assert run(arguments) == Exit.OK
    assert found == [True]


def test_signals_are_given_back(arguments: list[str]) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    run([*arguments, "--port", "/nonexistent/port", "--port-timeout", "0.1"])
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_agent_in_this_process(
    arguments: list[str], pty: Pty, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    really = port.open_port

    def open_port_then_stop(path: str) -> Any:
        os.kill(os.getpid(), number)
        return really(path)

    monkeypatch.setattr(port, "open_port", open_port_then_stop)
    assert run([*arguments, "--port", pty.path]) == Exit.OK


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
    host.until(in_use(newest()))
    os_info = host.until(lambda host: host.last(messages.OsInfo))
    assert (os_info.type, os_info.kernel) == ("linux", os.uname().release)
    host.until(lambda host: host.last(messages.ActiveUser) and host.last(messages.DisksUsage))
    heartbeat = host.last(messages.Heartbeat)
    assert heartbeat.memory_stat["mem_total"] > 0
    assert host.complaints == []
    assert agent.stop() == Exit.OK
    assert f"INFO API 0 → {newest()} in use: the host says so\n" in agent.said
    assert "Traceback" not in agent.said


def test_the_agent_follows_a_host_of_an_older_version(start_agent: Start, pty: Pty) -> None:
    _, host = start_on(start_agent, pty)
    host.connect()
    host.until(in_use(newest()))
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
    host.until(in_use(newest()))
    assert host.session.counters.dropped == {"malformed": 1}


def test_a_half_line_that_an_earlier_host_left_costs_nothing(start_agent: Start, pty: Pty) -> None:
    agent, host = start_on(start_agent, pty)
    host.until(lambda host: host.names)
    os.write(pty.master, b'{"__name__": "shutd')
    host.connect()
    host.until(in_use(newest()))
    assert agent.alive


def test_a_port_that_is_replaced_is_opened_again(start_agent: Start, tmp_path: Path, pty: Pty) -> None:
    link = tmp_path / "port"
    first = Pty()
    link.symlink_to(first.path)
    agent = start_agent("--port", str(link), "--heartbeat", "0.2")
    host = Host(first.master)
    host.connect()
    host.until(in_use(newest()))
    link.unlink()
    link.symlink_to(pty.path)
    first.close()
    host = Host(pty.master)
    host.connect()
    host.until(in_use(newest()))
    assert "session-startup" in host.names
    assert "the port vanished" in agent.said
    assert agent.stop() == Exit.OK


def test_an_agent_whose_host_does_not_read_lives_on_and_is_heard_later(start_agent: Start, pty: Pty) -> None:
    agent, host = start_on(start_agent, pty)
    host.connect()
    host.until(in_use(newest()))
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
    host.until(in_use(newest()))
    assert agent.stop(signal.SIGINT) == Exit.OK


def test_commands_of_the_host_reach_the_log_without_their_arguments(
    start_agent: Start, pty: Pty, configured: Configured
) -> None:
    agent, host = start_on(start_agent, pty, "--config", str(configured.file), "--log-level", "debug")
    host.connect()
    host.until(in_use(newest()))
    host.send(messages.Login(username="alice", password="open-sesame"))
    host.send(messages.LifecycleEvent(type="before_migration"), "r1")
    host.until(lambda host: host.last(messages.Completion))
    assert host.last(messages.Completion) == messages.Completion(reply_id="r1", done=True)
    host.until(lambda _: "login: failed" in agent.said)
    assert "alice" not in agent.said
    assert "sesame" not in agent.said


def test_a_port_that_is_missing_ends_the_process_with_one_sentence(start_agent: Start) -> None:
    agent = start_agent("--port", "/nonexistent/port", "--port-timeout", "0.1")
    assert agent.status() == Exit.NO_PORT
    assert agent.said.splitlines()[-1].startswith("vmaccord-guest: no port exists of: /nonexistent/port; ")
    assert "Traceback" not in agent.said


# ---- The configuration is read again ----


def reload(agent: AgentProcess, host: Host) -> None:
    """Have the configuration read again, and wait until that is done."""
    before = agent.said.count("configuration")
    agent.send(signal.SIGHUP)
    host.until(lambda _: agent.said.count("configuration") > before)


def test_a_version_that_is_lowered_is_agreed_on_when_the_configuration_is_read_again(
    start_agent: Start, pty: Pty, configured: Configured
) -> None:
    agent, host = start_on(start_agent, pty, "--config", str(configured.file))
    host.connect()
    host.until(in_use(newest()))
    configured.drop_in("[guest]\nmax-api-version = 1\n")
    reload(agent, host)
    host.until(in_use(Version.V1))
    host.names.clear()
    host.until(lambda host: host.names.count("heartbeat") >= 3)
    assert not {"os-info", "timezone", "containers"} & set(host.names)
    configured.drop_in("")
    reload(agent, host)
    host.until(in_use(newest()))
    assert host.complaints == []
    assert agent.stop() == Exit.OK


def test_a_configuration_that_is_wrong_is_refused_with_a_line_and_the_agent_goes_on(
    start_agent: Start, pty: Pty, configured: Configured
) -> None:
    agent, host = start_on(start_agent, pty, "--config", str(configured.file))
    host.connect()
    host.until(in_use(newest()))
    wrong = configured.drop_in("[guest]\nmax-api-version = 99\n")
    reload(agent, host)
    assert agent.said.splitlines()[-1] == (
        f"ERROR {wrong}: [guest] max-api-version: '99' is not allowed; allowed: a number from 0 to {newest()}, or none; "
        "the agent goes on as it was configured before"
    )
    host.names.clear()
    host.until(lambda host: host.names.count("heartbeat") >= 3)
    assert in_use(newest())(host)
    configured.drop_in("[guest]\nmax-api-version = 2\n")
    reload(agent, host)
    host.until(in_use(Version.V2))
    assert agent.stop() == Exit.OK


def test_a_command_that_is_forbidden_from_now_on_is_not_carried_out_any_more(
    start_agent: Start, pty: Pty, configured: Configured
) -> None:
    agent, _ = start_on(start_agent, pty, "--config", str(configured.file))
    host = Host(pty.master, Version.V3)
    host.connect()
    host.until(in_use(Version.V3))
    host.send(messages.Echo(more={"n": 1}))
    host.until(lambda host: host.last(messages.Echo))
    configured.drop_in("[commands]\nblock = echo, lifecycle-event\n")
    reload(agent, host)
    host.heard.clear()
    host.send(messages.Echo(more={"n": 2}))
    host.send(messages.LifecycleEvent(type="before_migration"), "r1")
    completion = host.until(lambda host: host.last(messages.Completion))
    assert (completion.reply_id, completion.done) == ("r1", False)
    assert host.last(messages.Echo) is None
    assert "echo: not carried out: " in agent.said


def test_a_host_of_the_newest_version_is_told_what_it_may_do_from_now_on(
    start_agent: Start, pty: Pty, configured: Configured
) -> None:
    agent, host = start_on(start_agent, pty, "--config", str(configured.file))
    host.connect()
    said = host.until(lambda host: host.session.capabilities)
    assert (said.commands["echo"], said.commands["exec"]) == (True, False)
    configured.drop_in("[commands]\nblock = echo\nenable = exec\n")
    reload(agent, host)
    said = host.until(lambda host: host.session.capabilities if host.session.capabilities != said else None)
    assert (said.commands["echo"], said.commands["exec"]) == (False, True)
    host.send(messages.Exec(argv=("echo", "open-sesame"), timeout=10.0), "r1")
    completion = host.until(lambda host: host.last(messages.Completion))
    assert (completion.reply_id, completion.done) == ("r1", True)
    assert completion.result["output"] == "open-sesame\n"
    assert "INFO exec: carrying it out: echo\n" in agent.said
    assert "sesame" not in agent.said


def test_another_port_is_used_from_now_on(start_agent: Start, pty: Pty, configured: Configured, tmp_path: Path) -> None:
    first = Pty()
    configured.drop_in(f"[guest]\nport = {first.path}\nheartbeat = 0.2\n")
    agent = start_agent("--config", str(configured.file))
    host = Host(first.master)
    host.connect()
    host.until(in_use(newest()))
    configured.drop_in(f"[guest]\nport = {pty.path}\nheartbeat = 0.2\n")
    reload(agent, host)
    host = Host(pty.master)
    host.connect()
    host.until(in_use(newest()))
    first.close()
    assert agent.stop() == Exit.OK


def test_the_service_manager_hears_when_the_agent_is_ready_reloads_and_stops(
    start_agent: Start, pty: Pty, configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        agent, host = start_on(start_agent, pty, "--config", str(configured.file))
        heard: list[str] = []

        def hears(line: str) -> Callable[[Host], bool]:
            def listen(_: Host) -> bool:
                try:
                    while True:
                        heard.extend(manager.recv(65536).decode().splitlines())
                except BlockingIOError:
                    return line in heard

            return listen

        host.until(hears("READY=1"))
        host.connect()
        host.until(hears(f"STATUS=API {newest()} in use"))
        assert "RELOADING=1" not in heard
        heard.clear()
        reload(agent, host)
        host.until(hears("READY=1"))
        assert heard.index("RELOADING=1") < heard.index("READY=1")
        assert agent.stop() == Exit.OK
        assert hears("STOPPING=1")(host)
