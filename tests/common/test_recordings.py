"""Real traffic between the deployed host and guest: ours in the place of either understands it and is understood.

``recorded/*.jsonl`` has one JSON object a row: ``{"t_ms", "from": "host"|"guest", "line"}`` or ``{"t_ms", "event"}``.
``released/*`` has, byte for byte, what release 0.1.0, the last one without a version above 3, wrote in the place of either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from common import codec, events, messages, versions
from common.catalogue import CATALOGUE, Direction
from common.session import GuestSession, HostSession
from common.versions import Version

from .pair import message_to_host, read_lines

FOLDER = Path(__file__).parent

RECORDINGS = ["agent-restart", "fresh-connect", "host-commands", "migrate-3-to-1"]
EVERY_RECORDING = pytest.mark.parametrize("recording", RECORDINGS)

Line = tuple[str, dict[str, Any]]


class Row(NamedTuple):
    """One row of a recording; either *line* (with its newline) or *event* is empty."""

    now: float
    sender: str
    line: bytes
    event: str


def _rows(recording: str) -> list[Row]:
    text = (FOLDER / "recorded" / f"{recording}.jsonl").read_text(encoding="utf-8")
    rows = map(json.loads, text.splitlines())
    return [
        Row(row["t_ms"] / 1000, row.get("from", ""), _line(row["line"]) if "line" in row else b"", row.get("event", ""))
        for row in rows
    ]


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _after_migration(rows: list[Row]) -> list[Row]:
    start = next(index for index, row in enumerate(rows) if row.event.startswith("migrated"))
    return rows[start:]


class Step(NamedTuple):
    """What one of our sessions did at one row."""

    row: Row
    happened: list[events.Event]
    written: list[Line]


def _as_host(rows: Iterable[Row], supported: Version) -> Iterator[tuple[HostSession, Step]]:
    """Our host in the place of the recorded one: what it does at every row."""
    host = HostSession(supported, "host-1")
    for row in rows:
        if row.event == "host connected":
            host.connected(row.now)
        elif row.event == "host disconnected":
            host.disconnected()
        elif row.sender == "guest":
            host.receive_data(row.line, row.now)
        host.tick(row.now)
        yield host, Step(row, host.events(), read_lines(host.data_to_send()))


class Guest:
    """Our guest in the place of the recorded one, with an agent that answers every wish."""

    def __init__(self) -> None:
        self.session = GuestSession(Version.V3, "agent-1")
        self.session.opened(0.0)
        self.steps: list[Step] = []

    def play(self, rows: Iterable[Row]) -> Guest:
        """What the recorded host did comes to the guest."""
        for row in rows:
            if row.event == "guest agent started":
                self.session.opened(row.now)
            elif row.event == "host connected":
                self.session.host_came(row.now)
            elif row.event == "host disconnected":
                self.session.host_gone()
            elif row.sender == "host":
                self.session.receive_data(row.line, row.now)
            self.settle(row)
        return self

    def settle(self, row: Row) -> Step:
        """Answer what the session wants."""
        happened = self.session.events()
        for event in happened:
            if isinstance(event, events.HeartbeatWanted):
                self.session.send_heartbeat("512", None)
        step = Step(row, happened, read_lines(self.session.data_to_send()))
        self.steps.append(step)
        return step

    def at(self, line_name: str) -> Step:
        """What the guest did when the first line of that name came."""
        return next(step for step in self.steps if f'"{line_name}"'.encode() in step.row.line)


class DeployedHost:
    """What is documented of the deployed host: it pushes when its stored result changes to anything but 0."""

    def __init__(self, supported: Version, stored: int) -> None:
        self.supported = supported
        self.stored = stored

    def receive(self, lines: Iterable[Line]) -> list[int]:
        """The pushes with which it answers *lines*."""
        pushes = []
        for name, arguments in lines:
            result = int(versions.negotiate(self.supported, arguments.get("apiVersion")))
            if name == "heartbeat" and result != self.stored:
                self.stored = result
                pushes += [result] if result else []
        return pushes


def _pushes(steps: Iterable[Step]) -> list[tuple[Row, int]]:
    """Each push of ours, with what it answers."""
    return [(step.row, line[1]["apiVersion"]) for step in steps for line in step.written if line[0] == "api-version"]


def _answered_by_recorded_pushes(rows: list[Row]) -> list[Row]:
    return [rows[index - 1] for index, row in enumerate(rows) if row.sender == "host" and b'"api-version"' in row.line]


# ---- Our host, the deployed guest ----


@EVERY_RECORDING
def test_our_host_understands_every_line_of_the_deployed_guest(recording: str) -> None:
    for host, step in _as_host(_rows(recording), Version.V3):
        understood = [event for event in step.happened if isinstance(event, events.MessageReceived)]
        assert len(understood) == (step.row.sender == "guest"), step
        assert not [event for event in step.happened if isinstance(event, events.Complaint)]
        assert host.counters.dropped == {}
        assert host.counters.mistyped == 0


@pytest.mark.parametrize("recording", ["fresh-connect", "agent-restart", "migrate-3-to-1"])
def test_our_host_greets_at_every_connect_as_the_deployed_one_does(recording: str) -> None:
    for _, step in _as_host(_rows(recording), Version.V3):
        greeted = ("refresh", {"apiVersion": 3, "hostId": "host-1"}) in step.written
        assert greeted is (step.row.event == "host connected")


@pytest.mark.parametrize("recording", ["fresh-connect", "agent-restart"])
def test_our_host_pushes_a_version_at_the_very_lines_at_which_the_deployed_one_does(recording: str) -> None:
    rows = _rows(recording)
    raised = [row for row, version in _pushes(step for _, step in _as_host(rows, Version.V3)) if version == 3]
    assert raised == _answered_by_recorded_pushes(rows)


def test_our_host_tells_a_restarted_agent_at_once_that_0_is_agreed() -> None:
    pushes = [version for _, version in _pushes(step for _, step in _as_host(_rows("agent-restart"), Version.V3))]
    assert pushes == [3, 0, 3]


@pytest.mark.parametrize("recording", ["fresh-connect", "agent-restart"])
def test_our_host_ends_agreed_at_3_and_believes_the_deployed_guest_to_be_there(recording: str) -> None:
    played = _as_host(_rows(recording), Version.V3)
    *_, host = [host for host, step in played if step.row.sender == "guest"]
    assert (host.negotiation.agreed, host.negotiation.in_use) == (3, 3)


def test_our_host_at_1_agrees_on_1_after_the_migration_and_pushes_it() -> None:
    played = list(_as_host(_after_migration(_rows("migrate-3-to-1")), Version.V1))
    assert played[-1][0].negotiation.agreed == 1
    pushes = _pushes(step for _, step in played)
    first_heartbeat = next(step.row for _, step in played if b'"heartbeat"' in step.row.line)
    assert pushes[0] == (first_heartbeat, 1)
    assert {version for _, version in pushes} == {1}


def test_our_host_at_1_drops_what_the_guest_still_sends_at_3_and_keeps_the_rest() -> None:
    rows = _after_migration(_rows("migrate-3-to-1"))
    names = [json.loads(row.line)["__name__"] for row in rows if row.sender == "guest"]
    newer = [name for name in names if name in CATALOGUE.facts(above=1, up_to=3)]
    played = list(_as_host(rows, Version.V1))
    host, _ = played[-1]
    understood = [event.name for _, step in played for event in step.happened if isinstance(event, events.MessageReceived)]
    assert host.counters.dropped == {"newer-than-supported": len(newer)}
    assert understood == [name for name in names if name not in newer]


# ---- Our guest, the deployed host ----


@EVERY_RECORDING
def test_our_guest_understands_every_line_of_the_deployed_host(recording: str) -> None:
    guest = Guest().play(_rows(recording))
    assert guest.session.counters.dropped == {}
    assert guest.session.counters.mistyped == 0
    assert guest.session.counters.lines == sum(row.sender == "host" for row in _rows(recording))


def test_our_guest_receives_every_command_of_the_deployed_host() -> None:
    guest = Guest().play(_rows("host-commands"))
    happened = [event for step in guest.steps for event in step.happened]
    received = [event.message for event in happened if isinstance(event, events.MessageReceived)]
    assert [type(message) for message in received[:6]] == [
        messages.LockScreen,
        messages.Login,
        messages.LogOff,
        messages.Shutdown,
        messages.Shutdown,
        messages.Hibernate,
    ]
    assert received[1] == messages.Login(username="alice@example", password="secret")
    assert received[4] == messages.Shutdown(timeout=0, message="bye", reboot="False")
    assert received[5:7] == [messages.Hibernate(state="disk"), messages.SetNumberOfCpus(count=4)]
    assert [message.type for message in received if isinstance(message, messages.LifecycleEvent)] == [
        "before_migration",
        "after_migration",
        "after_migration",
        "before_hibernation",
        "after_hibernation",
    ]
    assert "secret" not in repr(happened)


def test_our_guest_makes_the_deployed_host_push_with_its_first_answer_to_the_refresh() -> None:
    answer = Guest().play(_rows("fresh-connect")).at("refresh")
    assert DeployedHost(Version.V3, stored=0).receive(answer.written) == [3]
    assert DeployedHost(Version.V3, stored=3).receive(answer.written) == [3]


@pytest.mark.parametrize("recording", ["fresh-connect", "agent-restart"])
def test_our_guest_is_at_3_after_the_push_of_the_deployed_host(recording: str) -> None:
    guest = Guest()
    for step in guest.play(_rows(recording)).steps:
        if b'"api-version"' in step.row.line:
            wanted = [event.names for event in step.happened if isinstance(event, events.FactsWanted)]
            assert wanted in ([], [CATALOGUE.facts(above=0, up_to=3)])
            assert [arguments["apiVersionInUse"] for name, arguments in step.written if name == "heartbeat"] == [3]


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_our_guest_ends_in_use_at_1_after_the_migration_where_the_deployed_pair_stays_apart(noticed: bool) -> None:
    rows = _rows("migrate-3-to-1")
    migrated = rows.index(_after_migration(rows)[0])
    refresh = next(index for index, row in enumerate(rows) if index > migrated and row.sender == "host")
    guest = Guest().play(rows[: refresh if noticed else migrated])
    assert guest.session.negotiation.in_use == (0 if noticed else 3)
    # The source hands its result over; the destination starts from the lower one and greets.
    host = DeployedHost(Version.V1, stored=1)
    guest.play([rows[refresh]])
    assert guest.session.negotiation.in_use == 0
    (pushed,) = host.receive(guest.steps[-1].written)
    push = Row(rows[refresh].now, "host", _line(f'{{"apiVersion": {pushed}, "__name__": "api-version"}}'), "")
    guest.play([push])
    assert guest.session.negotiation.in_use == 1
    assert host.stored == 1
    assert host.receive(guest.steps[-1].written) == []


def test_our_guest_asks_again_when_the_refresh_of_the_deployed_host_got_lost() -> None:
    rows = _rows("migrate-3-to-1")
    guest = Guest().play(row for row in rows if row.event or row.now < 8.0)
    guest.session.host_came(20.0)
    deadline = guest.session.next_deadline()
    assert deadline is not None
    guest.session.tick(deadline)
    assert DeployedHost(Version.V1, stored=1).receive(guest.settle(rows[-1]).written) == [1]


# ---- A peer at version 3 sees what it always saw ----

#: With a newer maximum, a session announces that; nothing else that it writes may differ.
OLD_AND_NEW = pytest.mark.parametrize("supported", [version for version in Version if version >= 3], ids="up to {}".format)


@EVERY_RECORDING
@OLD_AND_NEW
def test_our_host_writes_to_the_deployed_guest_what_it_wrote_before_there_were_newer_versions(
    recording: str, supported: Version
) -> None:
    written = b"".join(_written_by_host(_agreeing_rows(recording), supported))
    assert _as_if_up_to_3(written, supported) == (FOLDER / "released" / f"{recording}.host").read_bytes()


@EVERY_RECORDING
@OLD_AND_NEW
def test_our_guest_writes_to_the_deployed_host_what_it_wrote_before_there_were_newer_versions(
    recording: str, supported: Version
) -> None:
    written = b"".join(_written_by_guest(_agreeing_rows(recording), supported))
    assert _as_if_up_to_3(written, supported) == (FOLDER / "released" / f"{recording}.guest").read_bytes()


def _as_if_up_to_3(written: bytes, supported: Version) -> bytes:
    return written.replace(b'"apiVersion":%d' % supported, b'"apiVersion":3')


def _agreeing_rows(recording: str) -> list[Row]:
    """The recording; one that begins when both are at version 3 already is told so in its beginning."""
    rows = _rows(recording)
    if any(b'"api-version"' in row.line for row in rows):
        return rows
    greeting = next(index for index, row in enumerate(rows) if b'"refresh"' in row.line)
    agreement = [
        Row(rows[greeting].now, sender, _line(f'{{"__name__": "{name}", "apiVersion": 3}}'), "")
        for sender, name in (("guest", "heartbeat"), ("host", "api-version"))
    ]
    return [*rows[: greeting + 1], *agreement, *rows[greeting + 1 :]]


def _written_by_host(rows: Iterable[Row], supported: Version) -> Iterator[bytes]:
    """Our host in the place of the recorded one, which sends the same commands."""
    host = HostSession(supported, "host-1")
    for row in rows:
        if row.event == "host connected":
            host.connected(row.now)
        elif row.event == "host disconnected":
            host.disconnected()
        elif row.sender == "guest":
            host.receive_data(row.line, row.now)
        elif row.sender == "host":
            _send_recorded(host, row.line)
        host.tick(row.now)
        yield host.data_to_send()


def _send_recorded(host: HostSession, line: bytes) -> None:
    name, arguments = codec.decode(line)
    row = CATALOGUE.find(Direction.TO_GUEST, name)
    assert row is not None
    if row.is_command:
        command, _ = row.message_class.from_arguments(arguments)
        host.send(command, arguments.get("reply_id"))


def _written_by_guest(rows: Iterable[Row], supported: Version) -> Iterator[bytes]:
    """Our guest in the place of the recorded one, with an agent that reports everything and answers what can be answered."""
    guest = GuestSession(supported, "agent-1")
    guest.opened(0.0)
    for row in rows:
        if row.event == "guest agent started":
            guest.opened(row.now)
        elif row.event == "host connected":
            guest.host_came(row.now)
        elif row.event == "host disconnected":
            guest.host_gone()
        elif row.sender == "host":
            guest.receive_data(row.line, row.now)
        guest.tick(row.now)
        for event in guest.events():
            _react(guest, event)
        yield guest.data_to_send()


def _react(guest: GuestSession, event: events.Event) -> None:
    if isinstance(event, events.HeartbeatWanted):
        guest.send_heartbeat("512", {"mem_free": 512})
    elif isinstance(event, events.FactsWanted):
        for name in sorted(event.names):
            guest.send(message_to_host(name))
    elif isinstance(event, events.MessageReceived):
        if isinstance(event.message, messages.SetNumberOfCpus):
            guest.send(messages.NumberOfCpus(event.message.count))
        if event.reply_id is not None:
            guest.send(messages.Completion(event.reply_id, False, more={"reason": "a hook failed"}))
