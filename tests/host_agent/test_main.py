from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import host_agent
from common.settings import SettingsError
from common.versions import Version, newest
from host_agent import config, daemon, main
from host_agent.config import Configuration
from host_agent.exits import Exit

from .parts import ROOT, DaemonProcess


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration file of this machine is read, and the loops of other tests are those of before."""
    monkeypatch.setattr(config.load, "__defaults__", ("/nonexistent/host.conf",))
    policy = asyncio.get_event_loop_policy()
    yield
    asyncio.set_event_loop_policy(policy)


@pytest.fixture(autouse=True, scope="module")
def pipe_of_uvloop() -> None:
    """uvloop opens a pipe for all its loops with the first one, and keeps it: so before descriptors are counted."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


def exits_with(status: Exit, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run and return the one line on stderr."""
    assert main.main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vmaccord-host: ")
    assert err.count("\n") == 1
    return err


def test_the_versions_of_everything_that_is_spoken_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        f"vmaccord-host {host_agent.release()}",
        f"guest API versions: 0-{int(max(Version))}",
        "hand-off protocol versions: 0-1",
        "session specs: 0-2",
    ]


def test_the_module_runs_as_a_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "host_agent.main", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"guest API versions: 0-{newest()}\n" in ran.stdout


def test_help_lists_options_and_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--help"])
    out = capsys.readouterr().out
    assert all(f"--{setting.name}" in out for setting in config.SETTINGS if not setting.section)
    assert all(f"{status.value}  {status.meaning}" in out for status in Exit)


def test_the_effective_configuration_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--show-config", "--max-api-version", "none", "--directory", "/x"]) == Exit.OK
    out = capsys.readouterr().out
    assert out.startswith("[host]\ndirectory =\n    /x\n")
    assert "max-api-version = none\n" in out


@pytest.mark.parametrize("arguments", [["--unknown"], ["--max-api"], ["--state"], ["extra"]])
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == Exit.USAGE
    err = capsys.readouterr().err
    assert err.startswith("vmaccord-host: ")
    assert err.endswith("see vmaccord-host --help\n")


def test_a_wrong_configuration_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "host.conf"
    file.write_text("[host]\nmax-api-version = 99\n")
    err = exits_with(Exit.BAD_CONFIGURATION, ["--config", str(file)], capsys)
    assert err == (
        f"vmaccord-host: {file}: [host] max-api-version: '99' is not allowed; "
        f"allowed: a number from 0 to {newest()}, or none\n"
    )
    assert "--forget-after" in exits_with(Exit.BAD_CONFIGURATION, ["--forget-after", "x"], capsys)
    assert "none.conf" in exits_with(Exit.BAD_CONFIGURATION, ["--config", str(tmp_path / "none.conf")], capsys)


def test_a_control_socket_that_cannot_be_made_is_one_sentence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = exits_with(Exit.CONTROL_SOCKET, ["--control", "/" + "x" * 120, "--directory", str(place)], capsys)
    assert "longer than 107 bytes" in err


@pytest.mark.parametrize("state", ["", "missing/state"])
def test_a_misplaced_state_file_is_one_sentence(
    place: Path, state: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arguments = ["--control", str(place / "c"), "--directory", str(place), "--state", str(place / state)]
    assert "vmaccord-host: state file " in exits_with(Exit.STATE_FILE, arguments, capsys)
    assert caplog.messages == []
    assert os.listdir(place) == []


def test_an_unexpected_error_is_one_sentence_and_a_traceback_only_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise sqlite3.Error("surprise")

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(main, "_run", fail)
    err = exits_with(Exit.UNEXPECTED, [], capsys)
    assert "unexpected error, please report it: Error('surprise'); --log-level debug shows more" in err
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.levelno == logging.DEBUG


class StoppedDaemon:
    """A daemon that ends at once, and tells with what and in which loop it was run."""

    ran: ClassVar[list[StoppedDaemon]] = []

    def __init__(self, configuration: Configuration, reload: Callable[[], Configuration]) -> None:
        self.configuration = configuration
        self.reload = reload
        self.loop = asyncio.get_running_loop()

    async def run(self) -> None:
        self.ran.append(self)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[StoppedDaemon]:
    monkeypatch.setattr(daemon, "Daemon", StoppedDaemon)
    monkeypatch.setattr(StoppedDaemon, "ran", [])
    return StoppedDaemon.ran


def test_a_daemon_that_was_stopped_ends_well(stopped: list[StoppedDaemon]) -> None:
    assert main.main(["--directory", "/x"]) == Exit.OK
    (ran,) = stopped
    assert ran.configuration.directory == ("/x",)


def test_a_running_daemon_can_read_its_configuration_again(tmp_path: Path, stopped: list[StoppedDaemon]) -> None:
    file = tmp_path / "host.conf"
    file.write_text("[host]\ndrain = 1\nforget-after = 1\n")
    assert main.main(["--config", str(file), "--drain", "9"]) == Exit.OK
    (ran,) = stopped
    file.write_text("[host]\ndrain = 2\nforget-after = 2\n")
    reloaded = ran.reload()
    assert (ran.configuration.forget_after, reloaded.forget_after, reloaded.drain) == (1, 2, 9)
    file.write_text("[host]\ndrain = soon\n")
    with pytest.raises(SettingsError, match="drain: 'soon' is not allowed"):
        ran.reload()


# ---- The event loop ----


def test_uvloop_is_used_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch, stopped: list[StoppedDaemon], caplog: pytest.LogCaptureFixture
) -> None:
    uvloop = pytest.importorskip("uvloop")
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("VMACCORD_LOOP", raising=False)
    assert main.main([]) == Exit.OK
    assert isinstance(stopped[0].loop, uvloop.Loop)
    assert f"event loop: uvloop {uvloop.__version__}" in caplog.messages


def test_asyncio_is_used_where_uvloop_is_not_there(
    monkeypatch: pytest.MonkeyPatch, stopped: list[StoppedDaemon], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("VMACCORD_LOOP", raising=False)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert main.main([]) == Exit.OK
    assert type(stopped[0].loop).__module__.startswith("asyncio.")
    assert "event loop: asyncio" in caplog.messages


def test_asyncio_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, stopped: list[StoppedDaemon]) -> None:
    monkeypatch.setenv("VMACCORD_LOOP", "asyncio")
    assert main.main([]) == Exit.OK
    assert type(stopped[0].loop).__module__.startswith("asyncio.")


def test_a_daemon_that_is_ended_for_hanging_tells_where_it_was(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon().wait_ready()
    resource.prlimit(daemon.process.pid, resource.RLIMIT_CORE, (0, 0))
    assert daemon.stop(signal.SIGABRT) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.log
    assert f"{ROOT}/host_agent/main.py" in daemon.log


# ---- What is asked of the configuration ----


def test_a_configuration_that_can_be_used_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--check", "--state", str(tmp_path / "state")]) == Exit.OK
    assert capsys.readouterr() == ("the configuration can be used\n", "")


def test_all_that_is_wrong_with_a_configuration_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--state", "/nonexistent/state", "--operator-group", "no-such-group"]
    assert main.main(["--check", *wrong]) == Exit.BAD_CONFIGURATION
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "vmaccord-host: operator-group: there is no group 'no-such-group'; make it with groupadd, or name another",
        "vmaccord-host: state: there is no directory '/nonexistent'; make it, or name a file in another",
    ]
    assert "--drain: 'x'" in exits_with(Exit.BAD_CONFIGURATION, ["--check", "--drain", "x"], capsys)
