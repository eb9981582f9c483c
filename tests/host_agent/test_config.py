from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest

from common import settings
from common.settings import SettingsError
from common.versions import Version
from host_agent import config, paths
from host_agent.config import Configuration


def load(*arguments: str, default_file: str = "/nonexistent/host.conf") -> Configuration:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    settings.add_options(parser, config.SETTINGS)
    return config.load(parser.parse_args(arguments), default_file)


def test_the_defaults_are_those_of_libvirt() -> None:
    loaded = load()
    assert loaded == Configuration(
        directory=("/var/lib/libvirt/qemu/channel/target", "/run/libvirt/qemu/channel"),
        control=paths.default_control(),
        state=None,
        max_api_version=Version.V3,
        unresponsive_after=15.0,
        forget_after=3600.0,
        log_level="info",
    )


def test_the_command_line_counts_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "host.conf"
    file.write_text("[host]\ndirectory =\n  /a\n  /b\n  /a\nmax-api-version = none\nforget-after = 7\n")
    loaded = load("--config", str(file), "--forget-after", "8")
    assert loaded.directory == ("/a", "/b")
    assert loaded.max_api_version is None
    assert loaded.forget_after == 8


def test_the_default_file_is_read_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "host.conf").write_text("[host]\nlog-level = debug\n")
    assert load(default_file=str(tmp_path / "host.conf")).log_level == "debug"
    assert load(default_file=str(tmp_path / "none.conf")).log_level == "info"


def test_an_empty_file_leaves_the_defaults() -> None:
    assert load("--config", os.devnull) == load()


def test_relative_paths_are_those_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load("--directory", "ports", "--control", "c.sock", "--state", "state")
    assert loaded.directory == (str(tmp_path / "ports"),)
    assert loaded.control == str(tmp_path / "c.sock")
    assert loaded.state == str(tmp_path / "state")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--state", "/x/state"),
        ("--max-api-version", "none", "--directory", "/a", "--directory", "/b c"),
        ("--unresponsive-after", "0.25", "--log-level", "error", "--control", "/x/ü"),
    ],
)
def test_what_is_shown_has_the_same_effect(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    loaded = load(*arguments)
    (tmp_path / "shown").write_text(loaded.show(), encoding="utf-8")
    assert load("--config", str(tmp_path / "shown")) == loaded


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[host]\ndirektory = /x\n", r"\[host\] direktory: unknown key; allowed: control, directory, "),
        ("[guest]\n", r"unknown section \[guest\]; allowed: \[host\]"),
        ("[host]\nmax-api-version = 4\n", r"max-api-version: '4' is not allowed; allowed: a number from 0 to 3, or none"),
        ("[host]\nmax-api-version =\n", "max-api-version: '' is not allowed"),
        ("[host]\nunresponsive-after = 0\n", "unresponsive-after: '0' is not allowed; allowed: a number of seconds"),
        ("[host]\nforget-after = inf\n", "forget-after: 'inf' is not allowed"),
        ("[host]\nlog-level = loud\n", "log-level: 'loud' is not allowed; allowed: error, warning, info, debug"),
        ("[host]\ncontrol =\n", "control: '' is not allowed"),
        ("[host]\ndirectory =\n", "directory: none is named"),
        ("[host]\nstate = a\0b\n", "state: .* is not allowed"),
        ("host\n", r"host.conf: line 1 stands before any section; begin the file with \[host\]"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_what_is_allowed(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "host.conf"
    file.write_text(text)
    with pytest.raises(SettingsError, match=problem):
        load("--config", str(file))


def test_a_wrong_option_is_an_error() -> None:
    with pytest.raises(SettingsError, match="--unresponsive-after: 'soon' is not allowed"):
        load("--unresponsive-after", "soon")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    def fails(content: Any) -> str:
        file = tmp_path / "host.conf"
        file.write_bytes(content)
        with pytest.raises(SettingsError) as caught:
            load("--config", str(file))
        return str(caught.value)

    assert "not UTF-8" in fails(b"\xff\xfe")
    assert "longer than" in fails(b"#" * (settings.FILE_LIMIT + 1))
    with pytest.raises(SettingsError, match="No such file or directory; name a readable file with --config"):
        load("--config", str(tmp_path / "none"))
