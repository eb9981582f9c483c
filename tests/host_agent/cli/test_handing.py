from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.handoff import Spec0, Spec2, documents, files
from common.handoff.spec1 import Command, Fact, Frozen
from host_agent.cli import handing
from host_agent.cli.arguments import BadArgument
from host_agent.cli.sending import GuestFailed
from host_agent.client import Client, InDoubt, InvalidSession, WouldLose
from host_agent.exits import Exit
from tests.host_agent.operators import EVIL, FakeDaemon, described, problem
from tests.host_agent.parts import another_user

SPEC = Spec2(
    name="web-1",
    uuid="3f2a1b4c-0000-4000-8000-0123456789ab",
    facts={"host-name": Fact({"name": EVIL}, 3.0)},
    commands=(Command("0123456789abcdef-7", "filesystem-freeze", 12.5),),
    frozen=Frozen(30.0, ("/srv",)),
)


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "control.sock", described("web-1")) as running:
        yield running


@pytest.fixture
def client(daemon: FakeDaemon) -> Client:
    return Client(daemon.path)


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Makes *content* standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


# ---- Over the network ----


def test_who_has_the_guest_now_is_told(client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    handing.send(client, "web-1", "host-b", False, as_json=False)
    assert capsys.readouterr() == ("web-1: handed over to host-b (protocol 1, session spec 2)\n", "")
    handed = {"guest": "web-1", "to": EVIL, "protocol": 0, "spec": 0, "lost": ["commands", EVIL]}
    daemon.answers["web-1/handoff"] = (200, handed)
    handing.send(client, "web-1", None, True, as_json=False)
    out, err = capsys.readouterr()
    assert out == "web-1: handed over to \\x1b[31m\\u202e[bold] (protocol 0, session spec 0)\n"
    assert err == "web-1: not carried: commands, \\x1b[31m\\u202e[bold]\n"
    handing.send(client, "web-1", None, True, as_json=True)
    assert json.loads(capsys.readouterr().out) == handed


def test_a_hand_off_in_doubt_is_an_error(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers["web-1/handoff"] = problem("in-doubt", 409, "it is asked again", to="host-b")
    with pytest.raises(InDoubt, match="it is asked again") as caught:
        handing.send(client, "web-1", None, False, as_json=False)
    assert caught.value.status is Exit.HANDOFF_FAILED


def test_what_is_given_up_or_awaited_is_told(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    handing.cancel(client, "web-1", False, as_json=False)
    handing.expect(client, "new", None, None, as_json=False)
    assert capsys.readouterr().out == "web-1: stays here\nnew: awaited for 10 min\n"


def test_hand_offs_are_a_table(client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    handing.list_handoffs(client, as_json=False)
    assert capsys.readouterr() == ("", "no guest is being handed over, and none is awaited\n")
    handing.list_handoffs(client, as_json=True)
    assert json.loads(capsys.readouterr().out) == []
    daemon.handoffs = [{"guest": "web-1", "role": "source", "peer": "host-b", "phase": "in doubt", "since_s": 90.0}]
    handing.list_handoffs(client, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "GUEST  THIS HOST IS  PEER    PHASE     FOR",
        "web-1  source        host-b  in doubt  1 min",
    ]


# ---- Migrations ----


def test_a_guest_that_is_ready_to_migrate_says_so(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    handing.begin(client, "web-1", None, as_json=False)
    assert capsys.readouterr().out == "web-1: before_migration done in 840 ms\n"
    for stage, said in (
        ("failed", "web-1: told that its migration failed\n"),
        ("arrived", "web-1: told that it has migrated, as soon as it can be told\n"),
    ):
        handing.end(client, "web-1", stage, as_json=False)
        assert capsys.readouterr().out == said


def test_a_guest_that_is_too_old_to_be_told_is_no_failure(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {"guest": "web-1", "stage": "begin", "completion": None, "round_trip_s": None}
    daemon.answers["web-1/migration"] = (200, nothing)
    handing.begin(client, "web-1", None, as_json=False)
    assert capsys.readouterr().out == "web-1: not told, for less than API 3 is agreed with it\n"
    handing.begin(client, "web-1", None, as_json=True)
    assert json.loads(capsys.readouterr().out) == nothing


@pytest.mark.parametrize("as_json", [False, True])
def test_a_guest_that_is_not_ready_to_migrate_is_a_failure(
    client: Client, daemon: FakeDaemon, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"done": False, "error": {"code": "failed", "message": "a hook failed"}}
    daemon.answers["web-1/migration"] = (200, {"guest": "web-1", "stage": "begin", "completion": said, "round_trip_s": 1})
    with pytest.raises(GuestFailed, match="web-1: before_migration failed: a hook failed"):
        handing.begin(client, "web-1", None, as_json)
    assert bool(capsys.readouterr().out) is as_json


# ---- Into a file ----


def test_an_exported_file_is_its_owners_alone(client: Client, daemon: FakeDaemon, place: Path) -> None:
    file = place / "web-1.session"
    file.write_bytes(b"what was there before, and longer than what comes: " * 100)
    file.chmod(0o644)
    handing.export(client, "web-1", str(file), None, False, as_json=False)
    assert file.read_bytes() == daemon.exported
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(each.name for each in place.iterdir()) == ["control.sock", "web-1.session"]


def test_what_was_exported_is_told(
    client: Client, daemon: FakeDaemon, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(place / "f")
    handing.export(client, "web-1", file, None, False, as_json=False)
    assert capsys.readouterr().out == f"web-1: exported to {file}; it is still a guest of this host\n"
    handing.export(client, "web-1", file, None, False, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"guest": "web-1", "file": file, "bytes": len(daemon.exported)}


def test_a_session_goes_to_standard_output_as_it_is(
    client: Client, daemon: FakeDaemon, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    handing.export(client, "web-1", "-", None, False, as_json=False)
    assert capfdbinary.readouterr().out == daemon.exported
    with pytest.raises(BadArgument, match="both mean standard output; leave one out"):
        handing.export(client, "web-1", "-", None, False, as_json=True)


def test_a_session_that_can_not_be_exported_leaves_the_file_alone(client: Client, daemon: FakeDaemon, place: Path) -> None:
    file = place / "f"
    file.write_bytes(b"before")
    daemon.answers["web-1/session"] = problem("would-lose", 409, "take a newer spec", names=["commands"])
    with pytest.raises(WouldLose) as caught:
        handing.export(client, "web-1", str(file), 0, False, as_json=False)
    assert caught.value.status is Exit.WOULD_LOSE
    assert file.read_bytes() == b"before"


def test_all_that_would_be_lost_is_named_what_matters_most_first(client: Client, daemon: FakeDaemon, place: Path) -> None:
    names = ["counters.lines", *(f"facts.f{number}" for number in range(12)), EVIL, "frozen", "commands"]
    for path in ("session", "handoff"):
        daemon.answers[f"web-1/{path}"] = problem("would-lose", 409, "would lose counters.lines and 15 more", names=names)
    facts = ", ".join(names[1:13])
    listed = f"commands, frozen, {facts}, \\x1b[31m\\u202e[bold], counters.lines"
    with pytest.raises(WouldLose) as caught:
        handing.export(client, "web-1", str(place / "f"), 1, False, as_json=False)
    remedy = "take a newer --spec, or go on with --allow-loss"
    assert str(caught.value) == f"web-1: session spec 1 has no place for {listed}: {remedy}"
    assert caught.value.names == tuple(names)
    with pytest.raises(WouldLose) as caught:
        handing.send(client, "web-1", "host-b", False, as_json=False)
    remedy = "upgrade host-b, or go on with --allow-loss"
    assert str(caught.value) == f"web-1: a session spec of host-b has no place for {listed}: {remedy}"
    with pytest.raises(WouldLose, match="a session spec of the peer that awaits it has no place for commands, frozen"):
        handing.send(client, "web-1", None, False, as_json=False)


def test_a_file_that_can_not_be_written_whole_is_as_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "f"
    file.write_bytes(b"before")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(BadArgument, match="f: No space left on device; name a file that can be written"):
            handing.write_file(str(file), b"x")
    assert [(each.name, each.read_bytes()) for each in place.iterdir()] == [("f", b"before")]


def test_a_link_stays_one(place: Path) -> None:
    (place / "deep").mkdir()
    (place / "link").symlink_to(place / "deep" / "file")
    handing.write_file(str(place / "link"), b"x")
    assert (place / "link").is_symlink()
    assert (place / "deep" / "file").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none/f", "No such file or directory; name a file that can be written"),
        ("", "no regular file; name another one, or - for standard output"),
        ("fifo", "no regular file; name another one, or - for standard output"),
        ("a\0b", "no file can be called so; name a file that can be written"),
    ],
)
def test_where_no_file_can_be_that_is_said(place: Path, name: str, why: str) -> None:
    os.mkfifo(place / "fifo")
    with pytest.raises(BadArgument, match=why):
        handing.write_file(f"{place}/{name}", b"x")
    assert [each.name for each in place.iterdir()] == ["fifo"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_of_somebody_else_is_not_written_to(place: Path) -> None:
    place.chmod(0o755)
    with another_user(), pytest.raises(BadArgument, match="Permission denied; name a file that can be written"):
        handing.write_file(str(place / "f"), b"x")


# ---- Out of a file ----


def test_a_file_is_taken_in(
    client: Client, daemon: FakeDaemon, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = files.write(SPEC)
    (place / "f").write_bytes(content)
    handing.take_in(client, str(place / "f"), as_json=False)
    assert capsys.readouterr().out == "web-1: is a guest of this host now\n"
    feed(monkeypatch, content)
    handing.take_in(client, "-", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"guest": "web-1", "uuid": None}
    assert [body for _, _, body in daemon.asked] == [content, content]


def test_a_file_that_is_no_session_is_refused_before_anybody_is_asked_or_by_the_daemon(
    client: Client, daemon: FakeDaemon, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadArgument, match="No such file or directory; name a readable file"):
        handing.take_in(client, str(place / "none"), as_json=False)
    monkeypatch.setattr(files, "FILE_LIMIT", 10)
    (place / "f").write_bytes(b"x" * 11)
    with pytest.raises(BadArgument, match="longer than 10 bytes"):
        handing.take_in(client, str(place / "f"), as_json=False)
    assert daemon.asked == []
    (place / "f").write_bytes(b"x")
    daemon.answers["sessions"] = problem("invalid-session", 422, "export it again")
    with pytest.raises(InvalidSession, match="export it again"):
        handing.take_in(client, str(place / "f"), as_json=False)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_a_file_says_is_shown_without_a_daemon(place: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "f").write_bytes(files.write(SPEC, number, allow_loss=True))
    handing.inspect(str(place / "f"), as_json=False)
    out = capsys.readouterr().out
    assert out.startswith(f"web-1 (session spec {number})\n")
    if number:
        assert "  /srv: thaws by itself in 30 s at the latest" in out.splitlines()
        assert "  filesystem-freeze (0123456789abcdef-7): 12 s left" in out.splitlines()
        assert "    name: \ufffd[31m\\u202e[bold]" in out.splitlines()
    assert "\x1b" not in out
    handing.inspect(str(place / "f"), as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["spec"] == number
    assert documents.write(documents.read(json.dumps(document))) == documents.write(files.read((place / "f").read_bytes()))


def test_what_a_reference_host_wrote_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch, files.write(Spec0(api_version_hint=3, username="eve", guest_fqdn="web.example.org"), 0))
    handing.inspect("-", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "  a reference host agreed on  3" in lines
    assert "    fqdn: web.example.org" in lines


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not an exported session: name a file that 'vmaccord export' has written"),
        (b"vmaccord-session 9\n{}\n", "session spec 9 is not known here"),
        (files.write(SPEC)[:-1], "the end of the file is missing: copy it again, or export the guest again"),
    ],
)
def test_a_file_that_can_not_be_read_says_what_to_do(place: Path, content: Any, sentence: str) -> None:
    (place / "f").write_bytes(content)
    with pytest.raises(InvalidSession, match=sentence) as caught:
        handing.inspect(str(place / "f"), as_json=False)
    assert str(caught.value).startswith(f"{place}/f: ")
    assert caught.value.status is Exit.HANDOFF_FAILED
