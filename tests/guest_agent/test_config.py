"""Settings of the guest agent."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from common import settings, versions
from common.settings import SettingsError
from common.versions import Version
from guest_agent import config
from guest_agent.config import Configuration


def load(*arguments: str, default_file: str = "/nonexistent/guest.conf") -> Configuration:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    settings.add_options(parser, config.SETTINGS)
    return config.load(parser.parse_args(arguments), default_file)


def test_without_a_file_the_defaults_count() -> None:
    loaded = load()
    assert loaded.port == (
        "/dev/virtio-ports/com.redhat.rhevm.vdsm",
        "/dev/virtio-ports/ovirt-guest-agent.0",
    )
    assert loaded.max_api_version is versions.newest()
    assert (loaded.heartbeat, loaded.port_timeout, loaded.log_level) == (5.0, 3.0, "info")


def test_the_default_file_counts_where_it_exists(tmp_path: Path) -> None:
    file = tmp_path / "guest.conf"
    file.write_text("[guest]\nheartbeat = 7\nport =\n  /dev/hvc0\n  /dev/ttyS1\n", encoding="utf-8")
    loaded = load(default_file=str(file))
    assert loaded.heartbeat == 7
    assert loaded.port == ("/dev/hvc0", "/dev/ttyS1")


def test_a_file_that_was_asked_for_replaces_the_default_file(tmp_path: Path) -> None:
    default, asked_for = tmp_path / "default", tmp_path / "asked-for"
    default.write_text("[guest]\nheartbeat = 7\nlog-level = debug\n", encoding="utf-8")
    asked_for.write_text("[guest]\nheartbeat = 8\n", encoding="utf-8")
    loaded = load("--config", str(asked_for), default_file=str(default))
    assert (loaded.heartbeat, loaded.log_level) == (8.0, "info")


def test_an_option_counts_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "guest.conf"
    file.write_text("[guest]\nmax-api-version = 1\n", encoding="utf-8")
    assert load("--config", str(file)).max_api_version is Version.V1
    assert load("--config", str(file), "--max-api-version", "none").max_api_version is None


def test_a_repeated_option_gives_several_values() -> None:
    assert load("--port", "/dev/a", "--port", "/dev/b").port == ("/dev/a", "/dev/b")
    assert load("--application", "bash", "--application", "lib*").application == ("bash", "lib*")


def test_a_relative_path_is_one_from_where_the_agent_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("--port", "port").port == (str(tmp_path / "port"),)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "/with\0zero"),
        ("--max-api-version", "99"),
        ("--heartbeat", "0"),
        ("--port-timeout", "soon"),
        ("--log-level", "loud"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(option: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{option}: .*allowed: "):
        load(option, value)


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file or directory; name a readable file"):
        load("--config", str(tmp_path / "absent"))


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "guest.conf"
    file.write_bytes(b"[guest]\xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load("--config", str(file))


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "guest.conf"
    file.write_text("[guest]\nheartbeat = 7\n", encoding="utf-8-sig")
    assert load("--config", str(file)).heartbeat == 7


def test_an_empty_file_that_was_asked_for_keeps_the_default_file_out(tmp_path: Path) -> None:
    default = tmp_path / "default"
    default.write_text("[guest]\nheartbeat = 7\n", encoding="utf-8")
    assert load("--config", os.devnull, default_file=str(default)) == load()


def test_a_file_of_any_size_is_not_read_whole() -> None:
    with pytest.raises(SettingsError, match="longer than"):
        load("--config", "/dev/zero")


def test_what_is_shown_has_the_same_effect(tmp_path: Path) -> None:
    loaded = load("--port", "/dev/hvc0", "--max-api-version", "none", "--heartbeat", "2.5")
    file = tmp_path / "shown.conf"
    file.write_text(loaded.show(), encoding="utf-8")
    assert load("--config", str(file)) == loaded
