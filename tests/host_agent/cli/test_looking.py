from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import catalogue
from host_agent.cli import looking
from host_agent.client import Client, NoSuchGuest
from tests.host_agent.operators import EVIL, FakeDaemon, described


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "control.sock", described("web-1"), described(EVIL, state="absent")) as running:
        yield running


@pytest.fixture
def client(daemon: FakeDaemon) -> Client:
    return Client(daemon.path)


def test_guests_are_listed_in_plain_columns(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    looking.list_guests(client, None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["GUEST", "STATE", "AGREED", "ADVERTISED", "IN", "USE", "HEARD", "LAST", "CHANGE"]
    assert lines[1].split()[:5] == ["web-1", "responsive", "3", "3", "3"]
    assert lines[2].startswith("\\x1b[31m\\u202e[bold]  absent")


def test_guests_are_listed_as_json_with_all_that_is_known(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    looking.list_guests(client, None, as_json=True)
    out = capsys.readouterr().out
    assert [each["name"] for each in json.loads(out)] == [each["name"] for each in daemon.guests]
    assert "facts" in json.loads(out)[0]
    assert out.isascii()
    assert "\x1b" not in out


def test_a_table_does_not_ask_for_what_it_does_not_show(client: Client, daemon: FakeDaemon) -> None:
    looking.list_guests(client, None, as_json=False)
    assert daemon.asked[0][1] == "/v1/guests?facts=no"


def test_no_guests_are_a_sentence_that_says_where_they_would_be(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.guests = []
    daemon.host["directories"] = ["/a", "/b\x1b"]
    looking.list_guests(client, None, as_json=False)
    assert capsys.readouterr() == ("", "no guests found in /a, /b\\x1b; see 'vmaccord doctor'\n")
    looking.list_guests(client, None, as_json=True)
    assert capsys.readouterr() == ("[]\n", "")


def test_guests_are_listed_that_can_be_sent_a_command(
    client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    looking.list_guests(client, "lifecycle-event", as_json=False)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["GUEST", "web-1"]
    looking.list_guests(client, "exec", as_json=False)
    assert capsys.readouterr() == ("", "no guest may be sent exec now; 'vmaccord messages --guest GUEST' says why not\n")
    assert [path for _, path, _ in daemon.asked] == [
        "/v1/guests?facts=no&can=lifecycle-event",
        "/v1/guests?facts=no&can=exec",
    ]


def test_one_guest_is_shown(client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    looking.show(client, "web-1", as_json=False)
    assert capsys.readouterr().out.startswith("web-1\n\nChannel\n  state  responsive for 1 min\n")
    looking.show(client, "web-1", as_json=True)
    assert json.loads(capsys.readouterr().out) == daemon.guests[0]


def test_the_latest_events_are_told(client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(looking.RECENT + 5):
        daemon.tell("state", guest="web-1", state=EVIL, number=number)
    looking.events(client, follow=False, guest=None, recent=None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == looking.RECENT
    assert lines[-1].endswith("web-1  state  state=\\x1b[31m\\u202e[bold] number=24")
    looking.events(client, follow=False, guest="web-1", recent=1, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "id": "run-1-25",
        "kind": "state",
        "at": 1_700_000_000.5,
        "guest": "web-1",
        "state": EVIL,
        "number": 24,
    }


def test_who_follows_begins_with_what_is_new_and_ends_when_interrupted(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.tell("old")
    told: list[str] = []

    def note(line: str, flush: bool) -> None:
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt
        daemon.tell("second")

    monkeypatch.setattr("builtins.print", note)
    # Where the stream stands is only known to the daemon: it tells the first event when it is asked.
    daemon.raw_stream = None
    original = daemon._begin

    async def begin(request: object, response: object) -> int:
        position = await original(request, response)  # type: ignore[arg-type]
        daemon.told.append(("first", {"at": 0.0, "guest": None}))
        return position

    monkeypatch.setattr(daemon, "_begin", begin)
    looking.events(client, follow=True, guest=None, recent=None, as_json=False)
    assert [line.split("  ")[2] for line in told] == ["first", "second"]
    assert daemon.asked[0][1] == "/v1/events"


def test_all_messages_are_told_without_asking_anybody(capsys: pytest.CaptureFixture[str]) -> None:
    looking.messages(None, None, as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(catalogue.CATALOGUE.rows)
    looking.messages(None, None, as_json=True)
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == [row.name for row in catalogue.CATALOGUE.rows]


def test_what_a_guest_may_be_sent_is_told(client: Client, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.guests = [described(agreed=1, advertised=1)]
    looking.messages(client, "web-1", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "COMMAND"
    assert [line.split()[:3] for line in lines if line.startswith("lifecycle")] == [["lifecycle-event", "3", "no"]]
    looking.messages(client, "web-1", as_json=True)
    assert {each["sendable"] for each in json.loads(capsys.readouterr().out)} == {True, False}
    with pytest.raises(NoSuchGuest):
        looking.messages(client, "other", as_json=False)
