from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import host_agent
from common.versions import Version
from host_agent import config, main
from host_agent.exits import Exit

from .parts import ROOT


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file of this machine is read."""
    monkeypatch.setattr(config.load, "__defaults__", ("/nonexistent/host.conf",))


def exits_with(status: Exit, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run and return the one line on stderr."""
    assert main.main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vmaccord-host: ")
    assert err.count("\n") == 1
    return err


def test_the_version_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["--version"])
    assert caught.value.code == 0
    lines = [f"vmaccord-host {host_agent.release()}", f"guest API versions: 0-{int(max(Version))}"]
    assert capsys.readouterr().out.splitlines() == lines


def test_the_module_runs_as_a_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "host_agent.main", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "guest API versions: 0-3\n" in ran.stdout


def test_help_lists_options_and_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--help"])
    out = capsys.readouterr().out
    assert all(f"--{setting.name}" in out for setting in config.SETTINGS)
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
        f"vmaccord-host: {file}: [host] max-api-version: '99' is not allowed; allowed: a number from 0 to 3, or none\n"
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
    async def fail(configuration: config.Configuration) -> None:
        raise sqlite3.Error("surprise")

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(main, "_run", fail)
    err = exits_with(Exit.UNEXPECTED, [], capsys)
    assert "unexpected error, please report it: Error('surprise'); --log-level debug shows more" in err
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.levelno == logging.DEBUG


def test_a_daemon_that_was_stopped_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []

    async def serve(configuration: config.Configuration) -> None:
        ran.append(configuration)

    monkeypatch.setattr(main, "_run", serve)
    assert main.main(["--directory", "/x"]) == Exit.OK
    assert ran[0].directory == ("/x",)
