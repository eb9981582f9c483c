from __future__ import annotations

import argparse
import grp
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from common import settings
from common.settings import SettingsError
from common.versions import Version, newest
from host_agent import config, paths
from host_agent.config import Address, Configuration, Peer, Port


def load(*arguments: str, default_file: str = "/nonexistent/host.conf") -> Configuration:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    settings.add_options(parser, config.SETTINGS)
    return config.load(parser.parse_args(arguments), default_file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "host.conf"


def drop_in(file: Path, name: str, text: str) -> Path:
    directory = Path(f"{file}.d")
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text, encoding="utf-8")
    return directory / name


def problem(*arguments: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*arguments)
    return str(caught.value)


def test_the_defaults_are_those_of_libvirt() -> None:
    loaded = load()
    assert loaded == Configuration(
        directory=("/var/lib/libvirt/qemu/channel/target", "/run/libvirt/qemu/channel"),
        libvirt=(),
        port=(),
        control=paths.default_control(),
        operator_group=None,
        viewer_group=None,
        state=None,
        max_api_version=newest(),
        unresponsive_after=15.0,
        forget_after=3600.0,
        drain=5.0,
        log_level="info",
        limits_message_rate=200,
        limits_byte_rate=1048576,
        limits_facts_size=262144,
        handoff_listen=(),
        handoff_peers=(),
        handoff_certificate="/etc/vmaccord/handoff/cert.pem",
        handoff_key="/etc/vmaccord/handoff/key.pem",
        handoff_ca="/etc/vmaccord/handoff/ca.pem",
        handoff_security="tls",
        handoff_allow_loss=False,
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
        ("--libvirt", "qemu:///system", "--libvirt", "test:///default"),
        ("--libvirt", "qemu:///system", "--directory", "/a", "--operator-group", "admin", "--viewer-group", "staff"),
        ("--port", "web 1=/x/web=1", "--port", "ü=/x/ü", "--directory", "", "--drain", "0.5"),
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
        ("[guest]\n", r"unknown section \[guest\]; allowed: \[host\], \[limits\], \[handoff\]"),
        ("[host]\nmessage-rate = 5\n", r"\[host\] message-rate: unknown key"),
        (
            "[limits]\nmessage-rate = 0\n",
            r"\[limits\] message-rate: '0' is not allowed; allowed: a whole number from 1 to 10",
        ),
        ("[limits]\nmessage-rate = ²\n", "message-rate: '²' is not allowed"),
        ("[limits]\nbyte-rate = 1023\n", "byte-rate: '1023' is not allowed; allowed: a whole number from 1024 to "),
        ("[limits]\nfacts-size = 1e6\n", "facts-size: '1e6' is not allowed"),
        ("[host]\ndrain = 0\n", "drain: '0' is not allowed"),
        (
            "[host]\nlibvirt = qemu\n",
            "libvirt: 'qemu' is not allowed; allowed: a URI without a host, such as qemu:///system",
        ),
        ("[host]\nlibvirt = qemu+ssh://root:secret@other/system\n", "libvirt: .* is not allowed; allowed: a URI without a"),
        ("[host]\nlibvirt = qemu:///sys tem\n", "libvirt: .* is not allowed"),
        ("[host]\nport = web\n", "port: 'web' is not allowed; allowed: NAME=PATH, with no / in the name"),
        ("[host]\nport = =/x\n", "port: '=/x' is not allowed"),
        ("[host]\nport = web=\n", "port: 'web=' is not allowed"),
        ("[host]\nport = a/b=/x\n", "port: 'a/b=/x' is not allowed"),
        ("[host]\nport = a\x07b=/x\n", r"port: 'a\\x07b=/x' is not allowed"),
        ("[host]\noperator-group = a b\n", "operator-group: 'a b' is not allowed; allowed: a group's name, or nothing"),
        ("[host]\nviewer-group = a:b\n", "viewer-group: 'a:b' is not allowed"),
        (
            "[host]\nmax-api-version = 9\n",
            f"max-api-version: '9' is not allowed; allowed: a number from 0 to {newest()}, or none",
        ),
        ("[host]\nmax-api-version =\n", "max-api-version: '' is not allowed"),
        ("[host]\nunresponsive-after = 0\n", "unresponsive-after: '0' is not allowed; allowed: a number of seconds"),
        ("[host]\nforget-after = inf\n", "forget-after: 'inf' is not allowed"),
        ("[host]\nlog-level = loud\n", "log-level: 'loud' is not allowed; allowed: error, warning, info, debug"),
        ("[host]\ncontrol =\n", "control: '' is not allowed"),
        (
            "[host]\ndirectory =\n",
            r"host.conf: \[host\] directory: none is named, nor any libvirt or port; name where guests",
        ),
        ("[host]\ndirectory =\nlibvirt =\nport =\n", r"host.conf: \[host\] directory: none is named"),
        ("[host]\nstate = a\0b\n", "state: .* is not allowed"),
        (
            "[handoff]\nlisten = 192.0.2.1\n",
            r"\[handoff\] listen: '192.0.2.1' is not allowed; allowed: an IP address of this host",
        ),
        ("[handoff]\nlisten = host-a:7788\n", "listen: 'host-a:7788' is not allowed"),
        ("[handoff]\nlisten = fd00::1:7788\n", "listen: 'fd00::1:7788' is not allowed"),
        ("[handoff]\nlisten = [fe80::1%eth0]:7788\n", "listen: .* is not allowed"),
        ("[handoff]\nlisten = [192.0.2.1]:7788\n", "listen: .* is not allowed"),
        ("[handoff]\nlisten = 192.0.2.1:0\n", "listen: '192.0.2.1:0' is not allowed"),
        ("[handoff]\nlisten = 192.0.2.1:65536\n", "listen: .* is not allowed"),
        ("[handoff]\nlisten = 192.0.2.1:²\n", "listen: .* is not allowed"),
        (
            "[handoff]\npeers = host-b:7788\n",
            "peers: 'host-b:7788' is not allowed; allowed: NAME=ADDRESS:PORT, with no / in",
        ),
        ("[handoff]\npeers = =host-b:7788\n", "peers: '=host-b:7788' is not allowed"),
        ("[handoff]\npeers = a/b=host-b:7788\n", "peers: .* is not allowed"),
        ("[handoff]\npeers = b=:7788\n", "peers: 'b=:7788' is not allowed"),
        ("[handoff]\npeers = b=host b:7788\n", "peers: 'b=host b:7788' is not allowed"),
        ("[handoff]\npeers = b=host..b:7788\n", "peers: .* is not allowed"),
        ("[handoff]\npeers = b=192.0.2.300:7788\n", "peers: 'b=192.0.2.300:7788' is not allowed"),
        (f"[handoff]\npeers = b={'x' * 64}:7788\n", "peers: .* is not allowed"),
        (f"[handoff]\npeers = b={'x.' * 127}x:7788\n", "peers: .* is not allowed"),
        ("[handoff]\ncertificate =\n", "certificate: '' is not allowed; allowed: a path"),
        ("[handoff]\nsecurity = none\n", "security: 'none' is not allowed; allowed: tls, plain-text"),
        ("[handoff]\nallow-loss = true\n", "allow-loss: 'true' is not allowed; allowed: yes, no"),
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


# ---- Where guests are ----


def test_where_only_libvirt_is_named_there_are_no_directories(file: Path) -> None:
    assert load("--libvirt", "qemu:///system").directory == ()
    file.write_text("[host]\nlibvirt = qemu:///system\n", encoding="utf-8")
    assert load("--config", str(file)).directory == ()
    file.write_text("[host]\nlibvirt = qemu:///system\ndirectory = /a\n", encoding="utf-8")
    assert load("--config", str(file)).directory == ("/a",)


def test_ports_are_served_besides_the_default_directories() -> None:
    loaded = load("--port", "web=/x")
    assert loaded.port == (Port("web", "/x"),)
    assert loaded.directory == load().directory


def test_no_directory_need_be_where_there_is_libvirt_or_a_port() -> None:
    assert load("--directory", "", "--port", "web=/x").directory == ()
    assert load("--directory", "", "--libvirt", "qemu:///system").directory == ()
    assert problem("--directory", "").startswith("--directory: none is named, nor any libvirt or port; ")


def test_a_port_is_a_name_and_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--port", "web-1 = /run/a=b c", "--port", "..=/x", "--port", "web-2=there", "--port", "..=/x")
    assert load(*arguments).port == (("web-1", "/run/a=b c"), ("..", "/x"), ("web-2", str(tmp_path / "there")))


@pytest.mark.parametrize("other", ["web=/y", "db=/x"])
def test_neither_a_name_nor_a_path_stands_for_two_ports(file: Path, other: str) -> None:
    file.write_text(f"[host]\nport =\n    web=/x\n    {other}\n", encoding="utf-8")
    assert problem("--config", str(file)) == (
        f"{file}: [host] port: 'web=/x' and '{other}' exclude each other; allowed: each name and each path once"
    )


def test_a_group_may_be_left_out_again() -> None:
    assert load("--operator-group", "adm").operator_group == "adm"
    assert load("--operator-group", "").operator_group is None


# ---- Hand-off ----

HANDOFF = """\
[handoff]
listen =
    192.0.2.1:7788
    [FD00:0:0::1]:7788
    192.0.2.1:7788
peers =
    host b = host-b.example.org:7788
    c=192.0.2.3:1
    d=[fd00::4]:65535
certificate = /x/cert
key = /x/key
ca = /x/ca
security = plain-text
allow-loss = yes
"""


def test_what_hand_offs_need_is_read_and_shown_so_that_it_has_the_same_effect(file: Path) -> None:
    file.write_text(HANDOFF, encoding="utf-8")
    loaded = load("--config", str(file))
    assert loaded.handoff_listen == (Address("192.0.2.1", 7788), Address("fd00::1", 7788))
    assert loaded.handoff_peers == (
        Peer("host b", Address("host-b.example.org", 7788)),
        Peer("c", Address("192.0.2.3", 1)),
        Peer("d", Address("fd00::4", 65535)),
    )
    assert (loaded.handoff_certificate, loaded.handoff_key, loaded.handoff_ca) == ("/x/cert", "/x/key", "/x/ca")
    assert (loaded.handoff_security, loaded.handoff_allow_loss) == ("plain-text", True)
    file.write_text(loaded.show(), encoding="utf-8")
    assert load("--config", str(file)) == loaded


@pytest.mark.parametrize("other", ["b=host-c:7788", "c=host-b:7788"])
def test_neither_a_name_nor_an_address_stands_for_two_peers(file: Path, other: str) -> None:
    file.write_text(f"[handoff]\npeers =\n    b=host-b:7788\n    {other}\n    b=host-b:7788\n", encoding="utf-8")
    assert problem("--config", str(file)) == (
        f"{file}: [handoff] peers: 'b=host-b:7788' and '{other}' exclude each other; "
        "allowed: each name and each address once"
    )


@pytest.mark.parametrize("key", ["listen = 192.0.2.1:7788", "peers = b=host-b:7788"])
def test_files_for_hand_offs_are_complained_of_only_where_there_are_hand_offs_in_tls(file: Path, key: str) -> None:
    file.write_text(f"[handoff]\n{key}\ncertificate = /none/cert\n", encoding="utf-8")
    missing = (
        "[handoff] certificate /none/cert: No such file or directory; put it there, readable for the user of vmaccord-host"
    )
    assert list(config.complaints(load("--config", str(file)))) == [missing]
    file.write_text("[handoff]\ncertificate = /none/cert\n", encoding="utf-8")
    assert list(config.complaints(load("--config", str(file)))) == []
    file.write_text(f"[handoff]\n{key}\nsecurity = plain-text\n", encoding="utf-8")
    assert list(config.complaints(load("--config", str(file)))) == []


def test_all_about_hand_offs_counts_in_a_running_daemon_at_once(file: Path) -> None:
    file.write_text(HANDOFF, encoding="utf-8")
    new = load("--config", str(file))
    names = ("listen", "peers", "certificate", "key", "ca", "security", "allow-loss")
    assert config.changes(load(), new) == (new, tuple(f"[handoff] {name}" for name in names), ())


# ---- Files that are dropped in ----


def test_files_that_are_dropped_in_are_read_by_name_and_the_last_one_counts(file: Path) -> None:
    drop_in(file, "20-b.conf", "[host]\ndrain = 20\nforget-after = 20\n")
    drop_in(file, "10-a.conf", "[host]\ndrain = 10\nlog-level = debug\n")
    drop_in(file, "30-c.conf", "[limits]\nmessage-rate = 30\n")
    file.write_text(
        "[host]\ndrain = 1\nmax-api-version = 1\nlog-level = error\n[limits]\nmessage-rate = 1\n", encoding="utf-8"
    )
    loaded = load("--config", str(file), "--forget-after", "7")
    assert (loaded.drain, loaded.forget_after, loaded.log_level) == (20.0, 7.0, "debug")
    assert (loaded.max_api_version, loaded.limits_message_rate) == (Version.V1, 30)


def test_a_list_that_is_dropped_in_replaces_the_one_before(file: Path) -> None:
    file.write_text("[host]\ndirectory =\n    /a\n    /b\n", encoding="utf-8")
    drop_in(file, "x.conf", "[host]\ndirectory = /c\n")
    assert load("--config", str(file)).directory == ("/c",)


def test_what_is_dropped_in_counts_without_the_file_beside_which_it_is(file: Path) -> None:
    drop_in(file, "x.conf", "[host]\ndrain = 7\n")
    assert load(default_file=str(file)).drain == 7


def test_only_files_that_end_in_conf_are_dropped_in(file: Path) -> None:
    for name in (".hidden.conf", "x.conf~", "x.conf.dpkg-dist", "README", "x.CONF"):
        drop_in(file, name, "no configuration")
    assert load(default_file=str(file)) == load()


def test_characters_that_mean_something_in_patterns_mean_nothing_in_the_name_of_the_file(tmp_path: Path) -> None:
    drop_in(tmp_path / "a.conf", "x.conf", "[host]\ndrain = 7\n")
    drop_in(tmp_path / "[ab]*.conf", "x.conf", "[host]\ndrain = 8\n")
    assert load(default_file=str(tmp_path / "[ab]*.conf")).drain == 8


def test_an_error_names_the_file_that_is_dropped_in(file: Path) -> None:
    wrong = drop_in(file, "50-wrong.conf", "[limits]\nbyte-rate = much\n")
    with pytest.raises(SettingsError, match=rf"^{wrong}: \[limits\] byte-rate: 'much' is not allowed"):
        load(default_file=str(file))
    wrong.unlink()
    wrong.mkdir()
    with pytest.raises(SettingsError, match=f"^{wrong}: Is a directory; make it readable, or remove it$"):
        load(default_file=str(file))


# ---- On this machine ----


def test_a_configuration_that_fits_this_machine_is_not_complained_of(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    arguments = ("--operator-group", group, "--viewer-group", group, "--state", str(tmp_path / "state"))
    assert list(config.complaints(load(*arguments))) == []
    assert list(config.complaints(load())) == []


def test_what_this_machine_does_not_have_is_complained_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    groups = ("--operator-group", "no-such-group", "--viewer-group", "neither-that")
    arguments = ("--libvirt", "qemu:///system", *groups, "--state", str(tmp_path / "none/state"))
    assert list(config.complaints(load(*arguments))) == [
        "libvirt: Python's libvirt is missing; install python3-libvirt (with pip: libvirt-python), or name directories",
        "operator-group: there is no group 'no-such-group'; make it with groupadd, or name another",
        "viewer-group: there is no group 'neither-that'; make it with groupadd, or name another",
        f"state: there is no directory '{tmp_path}/none'; make it, or name a file in another",
    ]


# ---- While the daemon runs ----


def test_what_has_not_changed_is_no_change() -> None:
    assert config.changes(load(), load()) == (load(), (), ())


def test_what_a_running_daemon_can_take_over_counts_at_once(file: Path) -> None:
    file.write_text(
        "[host]\ndirectory = /a\noperator-group = adm\ndrain = 7\n[limits]\nmessage-rate = 5\n", encoding="utf-8"
    )
    new = load("--config", str(file))
    assert config.changes(load(), new) == (new, ("directory", "operator-group", "drain", "[limits] message-rate"), ())


def test_what_it_can_not_take_over_waits_for_a_start_and_is_as_it_was() -> None:
    old = load("--control", "/a", "--state", "/a/state")
    new = load("--control", "/b", "--log-level", "debug")
    changed = config.changes(old, new)
    assert changed.now == ("log-level",)
    assert changed.at_start == ("control", "state")
    assert changed.configuration == load("--control", "/a", "--state", "/a/state", "--log-level", "debug")
    assert config.changes(changed.configuration, new).at_start == changed.at_start


def test_only_settings_wait_for_a_start() -> None:
    assert {setting.name for setting in config.SETTINGS} >= config.ONLY_AT_START
