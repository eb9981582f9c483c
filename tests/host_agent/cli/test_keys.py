from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli import keys
from host_agent.cli.arguments import BadArgument
from host_agent.cli.sending import GuestFailed
from host_agent.client import Client
from tests.host_agent.operators import EVIL

from .commanded import CommandedDaemon, done, failed

EVE, BOB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 eve@example.org", "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTI="


@pytest.fixture
def daemon(place: Path) -> Iterator[CommandedDaemon]:
    with CommandedDaemon(place / "control.sock") as running:
        running.said = {"ssh-keys": [done(keys=[EVE, BOB])]}
        yield running


def ask(daemon: CommandedDaemon, operation: str, *files: Path, as_json: bool = False) -> None:
    keys.ssh_keys(Client(daemon.path), "web-1", operation, "eve", [str(each) for each in files], None, as_json)


def test_keys_are_listed_one_a_line(daemon: CommandedDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    ask(daemon, "list")
    assert daemon.sent("ssh-keys")["arguments"] == {"user": "eve", "operation": "list"}
    assert capsys.readouterr().out == f"{EVE}\n{BOB}\n"
    ask(daemon, "list", as_json=True)
    assert json.loads(capsys.readouterr().out)["completion"]["result"] == {"keys": [EVE, BOB]}


def test_a_long_key_is_not_cut_and_a_hostile_one_is_obeyed_by_no_terminal(
    daemon: CommandedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    long = f"ssh-rsa {'A' * 5000}"
    daemon.said["ssh-keys"] = [done(keys=[long, f"{EVIL}\n", 7])]
    ask(daemon, "list")
    assert capsys.readouterr().out.splitlines() == [long, "\\x1b[31m\\u202e[bold]\\n"]


@pytest.mark.parametrize("said", [{"keys": []}, {"keys": "x"}, {}])
def test_that_there_are_none_is_said(
    daemon: CommandedDaemon, said: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.said["ssh-keys"] = [done(**said)]
    ask(daemon, "list")
    assert capsys.readouterr().out == "web-1: eve has no keys\n"


def test_keys_are_added_from_files_each_once(
    daemon: CommandedDaemon, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "a").write_text(f"# mine\n\n  {EVE}  \n{EVE}\r\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{BOB}\n{EVE}".encode()), encoding="utf-8"))
    daemon.said["ssh-keys"] = [done(added=2)]
    ask(daemon, "add", place / "a", Path("-"))
    assert daemon.sent("ssh-keys")["arguments"] == {"user": "eve", "operation": "add", "keys": [EVE, BOB]}
    assert capsys.readouterr().out == "web-1: eve: 2 keys added\n"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"removed": 1}, "1 key removed"),
        ({"removed": 0}, "0 keys removed"),
        ({"removed": "\x1b"}, "no number of keys removed"),
    ],
)
def test_keys_are_removed(
    daemon: CommandedDaemon, place: Path, result: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "a").write_text(EVE, encoding="utf-8")
    daemon.said["ssh-keys"] = [done(**result)]
    ask(daemon, "remove", place / "a")
    assert daemon.sent("ssh-keys")["arguments"]["operation"] == "remove"
    assert capsys.readouterr().out == f"web-1: eve: {said}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nGEHEIM\n", "file is a private key, which must stay where it is"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nGEHEIM\n", "file is a private key"),
        (b"-----BEGIN PRIVATE KEY-----\nGEHEIM\n", "file is a private key"),
        (f"{EVE}\n\nGEHEIM\n".encode(), "file, line 3: no public key; a line is TYPE BASE64"),
        (b'command="x" ssh-ed25519 GEHEIM\n', "file, line 1: no public key"),
        (b"\xff\n", "file: not UTF-8 text"),
        (b"# none\n", "no public key is given"),
    ],
)
def test_what_is_no_public_key_is_sent_nowhere_and_not_quoted(
    daemon: CommandedDaemon, place: Path, content: bytes, said: str
) -> None:
    (place / "file").write_bytes(content)
    with pytest.raises(BadArgument, match=said) as refused:
        ask(daemon, "add", place / "file")
    assert "GEHEIM" not in str(refused.value)
    assert daemon.asked == []


def test_a_guest_that_can_not_is_a_failure(daemon: CommandedDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.said["ssh-keys"] = [failed("failed", "there is no user eve")]
    with pytest.raises(GuestFailed, match=r"^web-1: ssh-keys failed: there is no user eve$"):
        ask(daemon, "list")
    assert capsys.readouterr().out == ""
