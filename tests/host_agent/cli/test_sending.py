from __future__ import annotations

import getpass
import io
import json
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli import sending
from host_agent.cli.arguments import BadArgument, find_command
from host_agent.cli.sending import GuestFailed
from host_agent.client import Client, VersionTooLow
from host_agent.exits import Exit
from tests.host_agent.operators import EVIL, FakeDaemon, described, problem
from tests.host_agent.operators import terminal as a_terminal

LIFECYCLE = ("lifecycle-event", ["type=before_migration"])


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(
        place / "control.sock", described("web-1"), described("db"), described("off", state="absent")
    ) as running:
        yield running


@pytest.fixture
def client(daemon: FakeDaemon) -> Client:
    return Client(daemon.path)


def completion(guest: str, **said: Any) -> tuple[int, dict[str, Any]]:
    answer = {"guest": guest, "name": "lifecycle-event", "agreed": 3, "reply_id": "r-1", "round_trip_s": 0.0125}
    return 200, {**answer, "completion": {"reply_id": "r-1", **said}}


# ---- To one guest ----


def test_a_command_is_sent_and_what_became_of_it_is_told(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    sending.send(client, "web-1", *LIFECYCLE, 5.0, True, as_json=False)
    assert capsys.readouterr().out == "web-1: lifecycle-event done in 12 ms\n"
    body = {"name": "lifecycle-event", "arguments": {"type": "before_migration"}, "timeout": 5.0, "wait": True}
    assert daemon.asked == [("POST", "/v1/guests/web-1/commands", body)]
    sending.send(client, "web-1", "lock-screen", [], 5.0, True, as_json=False)
    assert capsys.readouterr().out == "web-1: lock-screen sent at API 3\n"


def test_what_a_guest_says_of_it_is_told_and_obeyed_by_no_terminal(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["web-1/commands"] = completion("web-1", done=True, result={EVIL: EVIL})
    sending.send(client, "web-1", *LIFECYCLE, 5.0, True, as_json=False)
    assert capsys.readouterr().out.splitlines()[1:] == ["  result:", "    \\x1b[31m\\u202e[bold]: \\x1b[31m\\u202e[bold]"]


def test_an_answer_is_told_as_json(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    sending.send(client, "web-1", *LIFECYCLE, 5.0, True, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "guest": "web-1",
        "name": "lifecycle-event",
        "agreed": 3,
        "reply_id": "run-1-1",
        "completion": {"done": True},
        "round_trip_s": 0.0125,
    }


def test_a_guest_that_could_not_do_it_is_a_failure_with_its_reason(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["web-1/commands"] = completion("web-1", done=False, reason=f"2 hooks failed {EVIL}")
    with pytest.raises(GuestFailed) as failed:
        sending.send(client, "web-1", *LIFECYCLE, 5.0, True, as_json=False)
    assert failed.value.status is Exit.GUEST_FAILED
    assert str(failed.value) == "web-1: lifecycle-event failed: 2 hooks failed \\x1b[31m\\u202e[bold]"
    assert capsys.readouterr().out == ""
    with pytest.raises(GuestFailed):
        sending.send(client, "web-1", *LIFECYCLE, 5.0, True, as_json=True)
    assert json.loads(capsys.readouterr().out)["completion"]["done"] is False


def test_a_refusal_is_an_error(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers["web-1/commands"] = problem("version-too-low", 409, "upgrade it")
    with pytest.raises(VersionTooLow, match="upgrade it"):
        sending.send(client, "web-1", *LIFECYCLE, 5.0, True, as_json=False)


def test_a_wrong_command_line_is_never_sent(client: Client, daemon: FakeDaemon) -> None:
    for command, words in (("lock-scren", []), ("hibernate", ["state=x"])):
        with pytest.raises(BadArgument):
            sending.send(client, "web-1", command, words, 5.0, True, as_json=False)
        with pytest.raises(BadArgument):
            sending.send_to_all(client, command, words, 5.0, True, as_json=False)
    assert daemon.asked == []


def test_one_guest_is_refreshed(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    sending.refresh(client, "web-1", as_json=False)
    assert capsys.readouterr().out == "web-1: asked, at API 3\n"
    sending.refresh(client, "web-1", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"guest": "web-1", "agreed": 3}


# ---- To all ----


def test_every_guest_that_has_a_port_is_sent_it(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sending.send_to_all(client, *LIFECYCLE, 5.0, True, as_json=False) is Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["GUEST", "RESULT", "WHAT", "IT", "SAYS"],
        ["db", "done", "in", "12", "ms"],
        ["web-1", "done", "in", "12", "ms"],
    ]
    assert {path for method, path, _ in daemon.asked if method == "POST"} == {
        "/v1/guests/db/commands",
        "/v1/guests/web-1/commands",
    }


def test_what_became_of_all_is_told_as_json(client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["db/commands"] = problem("unresponsive", 503, "db is silent")
    assert sending.send_to_all(client, *LIFECYCLE, 5.0, True, as_json=True) is Exit.SEVERAL
    db, web = json.loads(capsys.readouterr().out)
    assert (db["guest"], db["exit_status"], db["answer"]["type"]) == ("db", 12, "about:vmaccord/unresponsive")
    assert (web["guest"], web["exit_status"], web["answer"]["completion"]) == ("web-1", 0, {"done": True})


def test_the_status_is_what_all_have_in_common(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    for guest in ("db", "web-1"):
        daemon.answers[f"{guest}/commands"] = problem("timed-out", 504, f"no answer of {EVIL}")
    assert sending.send_to_all(client, *LIFECYCLE, 5.0, True, as_json=False) is Exit.TIMED_OUT
    assert "db     failed  no answer of \\x1b[31m\\u202e[bold]" in capsys.readouterr().out
    daemon.answers["db/commands"] = problem("disabled", 409, "turned off")
    daemon.answers["web-1/commands"] = completion("web-1", done=False, reason="no")
    assert sending.send_to_all(client, *LIFECYCLE, 5.0, True, as_json=False) is Exit.SEVERAL
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split() for line in lines] == [["db", "refused", "turned", "off"], ["web-1", "failed", "no"]]


def test_nobody_to_send_it_to_is_no_failure(client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.guests = [described("off", state="absent")]
    assert sending.send_to_all(client, *LIFECYCLE, 5.0, True, as_json=False) is Exit.OK
    assert capsys.readouterr() == ("", "no guest has a port: nothing was sent\n")
    assert sending.refresh_all(client, as_json=True) is Exit.OK
    assert json.loads(capsys.readouterr().out) == []


def test_all_are_refreshed(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.refresh_all(client, as_json=False) is Exit.OK
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["db", "sent", "at", "API", "3"],
        ["web-1", "sent", "at", "API", "3"],
    ]


def test_an_error_of_ours_is_not_taken_for_one_of_a_guest(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "refresh", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sending.refresh_all(client, as_json=False)


def test_on_a_terminal_there_is_a_bar_and_it_goes_away(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_terminal(monkeypatch) as drawn:
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        assert sending.refresh_all(client, as_json=False) is Exit.OK
        shown = drawn()
    assert "2/2" in shown
    assert "\x1b[2K" in shown[shown.rindex("2/2") :]


# ---- Secrets ----


def secret(word: str) -> str:
    return str(sending.read_arguments(find_command("login"), ["username=eve", word])["password"])


def test_a_secret_is_read_from_a_file(place: Path) -> None:
    (place / "secret").write_text("geheim\n", encoding="utf-8")
    assert secret(f"password=@{place}/secret") == "geheim"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none\x1b", r"none\\x1b: No such file or directory; name a readable file"),
        ("zero\0", r"zero\\x00: no file can be called so"),
        ("latin", "latin: not UTF-8 text"),
        ("long", "long: longer than 65536 bytes"),
        ("", "Is a directory"),
    ],
)
def test_a_file_that_can_not_hold_a_secret_is_one_sentence(place: Path, name: str, said: str) -> None:
    (place / "latin").write_bytes(b"\xfc")
    (place / "long").write_bytes(b"x" * 65_537)
    with pytest.raises(BadArgument, match=said):
        secret(f"password=@{place}/{name}")


def test_a_secret_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("gehüim\n".encode()), encoding="utf-8"))
    assert secret("password=@-") == "gehüim"


@pytest.mark.parametrize("words", [[], ["password=@-"]])
def test_on_a_terminal_a_secret_is_asked_for(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setattr(getpass, "getpass", lambda prompt, stream: "geheim")
    with open(theirs, encoding="utf-8") as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        given = sending.read_arguments(find_command("login"), ["username=eve", *words])
    os.close(ours)
    assert given["password"] == "geheim"
