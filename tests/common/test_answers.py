"""``common.session``, what came with version 4: reply ids, completions, what a guest lets a host do, what it rejects.

Both directions are played with two real sessions, whole, byte by byte and with a tail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable, Optional, TypeVar

import pytest

from common import codec, errors, events, messages, session
from common.catalogue import CATALOGUE, Direction, Row
from common.messages import Code
from common.session import GuestSession, HostSession
from common.versions import Version

from .pair import NEWEST, Cut, Pair, message_to_host, read_lines
from .samples import arguments_for

E = TypeVar("E")

CUTS = pytest.mark.parametrize("cut", list(Cut), ids=lambda cut: cut.value)
EVERY_VERSION = pytest.mark.parametrize("version", list(Version), ids="API {}".format)
OLD_VERSIONS = pytest.mark.parametrize("version", [version for version in Version if version < 4], ids="API {}".format)
NEW_VERSIONS = pytest.mark.parametrize("version", [version for version in Version if version >= 4], ids="API {}".format)

COMMANDS = [row for row in CATALOGUE.rows if row.is_command]
EVERY_COMMAND = pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)

#: What a guest says that has everything turned on.
EVERYTHING = {row.name: True for row in COMMANDS}


def _of(kind: type[E], happened: Iterable[object]) -> list[E]:
    return [event for event in happened if isinstance(event, kind)]


def _pair(version: Version = NEWEST, *, cut: Cut = Cut.WHOLE, commands: Mapping[str, bool] = EVERYTHING) -> Pair:
    """Two sides that agreed on *version*; from 4 on the guest has said what it does with *commands*."""
    pair = Pair(NEWEST, version, cut=cut)
    pair.connect()
    if version >= 4:
        pair.guest.send(messages.Capabilities(commands=commands, features=()))
        pair.exchange()
    pair.forget()
    return pair


def _command(row: Row) -> messages.Message:
    command, _ = row.message_class.from_arguments(arguments_for(row))
    return command


def _say(pair: Pair, name: str, arguments: Mapping[str, Any]) -> None:
    """A line comes to the host, as if the guest had written it."""
    pair.host.receive_data(codec.encode(name, arguments), pair.now)
    pair.host.data_to_send()


def _tell(pair: Pair, name: str, arguments: Mapping[str, Any], *, cut: Cut = Cut.WHOLE) -> None:
    """A line comes to the guest, as if the host had written it."""
    for piece in cut.pieces(codec.encode(name, arguments)):
        pair.guest.receive_data(piece, pair.now)
    pair.exchange()


# ---- Reply ids ----


@CUTS
@EVERY_COMMAND
def test_a_command_reaches_the_guest_with_its_reply_id(row: Row, cut: Cut) -> None:
    pair = _pair(cut=cut)
    pair.host.send(_command(row), "r1")
    pair.exchange()
    assert pair.host_lines == [(row.name, {**arguments_for(row), "reply_id": "r1"})]
    (received,) = _of(events.MessageReceived, pair.guest_events)
    assert (received.name, received.reply_id) == (row.name, "r1")
    if row.name != "echo":
        assert received.message == _command(row)


@EVERY_COMMAND
def test_without_a_reply_id_no_answer_is_asked_for(row: Row) -> None:
    pair = _pair()
    pair.host.send(_command(row))
    pair.exchange()
    assert pair.host_lines == [(row.name, arguments_for(row))]
    assert [received.reply_id for received in _of(events.MessageReceived, pair.guest_events)] == [None]


@EVERY_VERSION
def test_a_command_carries_a_reply_id_exactly_when_it_is_answered(version: Version) -> None:
    pair = _pair(version)
    for row in COMMANDS:
        if row.since > version:
            assert not pair.host.answered(row.name)
            continue
        assert pair.host.answered(row.name) is (version >= 4 or (version, row.name) == (3, "lifecycle-event"))
        if pair.host.answered(row.name):
            pair.host.send(_command(row), "r1")
            ((_, arguments),) = read_lines(pair.host.data_to_send())
            assert list(arguments)[-1] == "reply_id"
        else:
            with pytest.raises(errors.VersionTooLow) as caught:
                pair.host.send(_command(row), "r1")
            assert str(caught.value) == f"the completion of {row.name} needs API 4, spoken is API {version}"
            assert pair.host.data_to_send() == b""


@pytest.mark.parametrize("name", ["refresh", "api-version", "completion", "no-such-command"])
def test_what_is_no_command_is_not_answered(name: str) -> None:
    assert not _pair().host.answered(name)


def test_a_fact_carries_no_reply_id() -> None:
    pair = _pair()
    with pytest.raises(errors.VersionTooLow):
        pair.guest.send(message_to_host("fqdn"), "r1")
    assert pair.guest.data_to_send() == b""


def test_an_echo_brings_its_reply_id_back() -> None:
    pair = _pair()
    pair.host.send(messages.Echo(more={"a": 1}), "r1")
    pair.exchange()
    ((received),) = _of(events.MessageReceived, pair.guest_events)
    assert received.message == messages.Echo(more={"a": 1, "reply_id": "r1"})


@pytest.mark.parametrize("reply_id", [None, 1, True, [], ["r1"], {}, "r" * (session.REPLY_ID_LENGTH + 1), "r" * 100_000])
def test_what_can_be_no_reply_id_asks_for_no_answer_and_costs_the_command_nothing(reply_id: Any) -> None:
    pair = _pair()
    _tell(pair, "shutdown", {"timeout": 0, "message": "", "reboot": "False", "reply_id": reply_id})
    (received,) = _of(events.MessageReceived, pair.guest_events)
    assert (received.name, received.reply_id) == ("shutdown", None)


@pytest.mark.parametrize("reply_id", ["", "r" * session.REPLY_ID_LENGTH, "\u00e9\ufffd"])
def test_any_short_text_is_a_reply_id(reply_id: str) -> None:
    pair = _pair()
    _tell(pair, "lock-screen", {"reply_id": reply_id})
    assert [received.reply_id for received in _of(events.MessageReceived, pair.guest_events)] == [reply_id]


@OLD_VERSIONS
def test_a_guest_of_an_old_version_knows_a_reply_id_of_lifecycle_events_only(version: Version) -> None:
    guest = GuestSession(version, "agent-1")
    guest.opened(0.0)
    guest.events()
    for row in COMMANDS:
        guest.receive_data(codec.encode(row.name, {**arguments_for(row), "reply_id": "r1"}), 1.0)
    known = {received.name: received.reply_id for received in _of(events.MessageReceived, guest.events())}
    assert known == {row.name: "r1" if row.since == 3 else None for row in COMMANDS if row.since <= version}


def test_of_what_negotiates_a_reply_id_means_nothing() -> None:
    guest = _pair().guest
    guest.receive_data(codec.encode("api-version", {"apiVersion": 4, "reply_id": "r1"}), 1.0)
    assert guest.negotiation.in_use == 4
    assert {type(event) for event in guest.events()} == {events.VersionChanged, events.HeartbeatWanted}


# ---- Completions ----

COMPLETION = messages.Completion(
    "r1", False, {"mountpoints": ["/"]}, {"code": "busy", "message": "much to do"}, more={"reason": "much to do"}
)


@CUTS
@NEW_VERSIONS
def test_a_completion_brings_its_result_and_why_it_failed(version: Version, cut: Cut) -> None:
    pair = _pair(version, cut=cut)
    pair.guest.send(COMPLETION)
    pair.exchange()
    assert [event.message for event in _of(events.MessageReceived, pair.host_events)] == [COMPLETION]
    assert pair.host.counters.mistyped == 0


def test_to_a_host_at_version_3_a_completion_has_what_it_always_had() -> None:
    pair = _pair(Version.V3)
    pair.guest.send(COMPLETION)
    assert pair.guest.data_to_send() == b'{"__name__":"completion","reply_id":"r1","done":false,"reason":"much to do"}\n'


@EVERY_VERSION
def test_a_guest_knows_which_arguments_it_may_write(version: Version) -> None:
    guest = _pair(version).guest
    for row in CATALOGUE.names(Direction.TO_HOST).values():
        for wire in arguments_for(row):
            assert guest.allows(row.name, wire) is (row.later.get(wire, row.since) <= version)
    assert guest.allows("completion", "error") is guest.allows("completion", "result") is (version >= 4)


@EVERY_VERSION
def test_a_guest_knows_which_commands_it_may_answer(version: Version) -> None:
    guest = _pair(version).guest
    for row in COMMANDS:
        answered = row.answered
        assert answered is not None
        assert guest.answer_allowed(row.name) is (version >= 4 or version >= answered)
    assert guest.answer_allowed("lifecycle-event") is (version >= 3)
    assert guest.answer_allowed("lock-screen") is guest.answer_allowed("of-the-future") is (version >= 4)


def test_without_a_host_nothing_may_be_answered() -> None:
    pair = _pair()
    pair.guest.host_gone()
    assert not pair.guest.answer_allowed("load")
    assert not pair.guest.allows("completion")


# ---- Capabilities: how long they are known ----


def _capabilities(host: HostSession) -> Optional[dict[str, bool]]:
    return None if host.capabilities is None else dict(host.capabilities.commands)


@CUTS
@EVERY_VERSION
def test_a_host_learns_what_its_guest_lets_it_do_as_soon_as_both_speak_version_4(version: Version, cut: Cut) -> None:
    pair = Pair(NEWEST, version, cut=cut)
    pair.connect()
    said = [arguments for name, arguments in pair.guest_lines if name == "capabilities"]
    assert len(said) == (version >= 4)
    assert pair.host.capabilities == (message_to_host("capabilities") if version >= 4 else None)


@NEW_VERSIONS
def test_the_newest_capabilities_count(version: Version) -> None:
    pair = _pair(version, commands={"load": True})
    pair.guest.send(messages.Capabilities(commands={"load": False}, features=("of-the-future",)))
    pair.exchange()
    assert pair.host.capabilities == messages.Capabilities(commands={"load": False}, features=("of-the-future",))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"commands": {}},
        {"commands": {"load": 1}, "features": []},
        {"commands": {"load": None}, "features": []},
        {"commands": ["load"], "features": []},
        {"commands": {"load": False}, "features": "all"},
        {"commands": {"load": False}, "features": [1]},
    ],
)
def test_capabilities_that_can_not_be_understood_change_nothing(arguments: dict[str, Any]) -> None:
    pair = _pair(commands={"load": True})
    _say(pair, "capabilities", arguments)
    assert pair.host.counters.dropped == {"invalid-arguments": 1}
    assert _capabilities(pair.host) == {"load": True}


def test_a_new_channel_begins_without_capabilities() -> None:
    pair = _pair()
    pair.host.connected(1.0)
    assert (pair.host.capabilities, pair.host.agent_id) == (None, None)


def test_a_host_with_another_maximum_begins_without_capabilities() -> None:
    pair = _pair()
    pair.host.support(Version.V4, 1.0)
    assert pair.host.capabilities is None
    pair.exchange()
    assert pair.host.capabilities == message_to_host("capabilities")


def test_what_another_run_of_the_agent_said_counts_no_longer() -> None:
    pair = _pair()
    assert pair.host.agent_id == "agent-1"
    _say(pair, "heartbeat", {"apiVersion": int(NEWEST), "apiVersionInUse": int(NEWEST), "agentId": "agent-2"})
    assert (pair.host.capabilities, pair.host.agent_id) == (None, "agent-2")


def test_an_agent_without_an_id_is_another_one_than_an_agent_with_one() -> None:
    pair = _pair()
    _say(pair, "heartbeat", {"apiVersion": 5, "apiVersionInUse": 5})
    assert (pair.host.capabilities, pair.host.agent_id) == (None, None)


@pytest.mark.parametrize("agent_id", ["agent-1", 7, None])
def test_what_the_same_run_of_the_agent_said_goes_on_to_count(agent_id: Any) -> None:
    pair = _pair()
    _say(pair, "heartbeat", {"apiVersion": 5, "apiVersionInUse": 5, "agentId": agent_id})
    assert _capabilities(pair.host) == EVERYTHING


@pytest.mark.parametrize("falls", [{"apiVersion": 3}, {"apiVersion": 0}, {"apiVersion": "5"}, {}])
def test_below_version_4_no_capabilities_count_also_when_it_rises_again(falls: dict[str, Any]) -> None:
    pair = _pair()
    _say(pair, "heartbeat", {**falls, "agentId": "agent-1"})
    assert pair.host.capabilities is None
    _say(pair, "heartbeat", {"apiVersion": 5, "agentId": "agent-1"})
    assert pair.host.capabilities is None


def test_from_5_to_4_and_back_capabilities_are_known() -> None:
    pair = _pair()
    for version in (4, 5):
        _say(pair, "heartbeat", {"apiVersion": version, "agentId": "agent-1"})
        assert _capabilities(pair.host) == EVERYTHING


def test_capabilities_that_come_before_version_4_is_agreed_are_the_tail_of_an_older_agreement() -> None:
    host = HostSession(NEWEST, "host-1")
    host.connected(0.0)
    host.receive_data(codec.encode("capabilities", {"commands": {"load": True}, "features": []}), 0.0)
    assert host.capabilities is None
    assert host.counters.newer_than_agreed == 1
    assert [event.name for event in _of(events.MessageReceived, host.events())] == ["capabilities"]


@OLD_VERSIONS
def test_a_host_of_an_old_version_drops_capabilities(version: Version) -> None:
    host = HostSession(version, "host-1")
    host.connected(0.0)
    host.receive_data(codec.encode("heartbeat", {"apiVersion": 5}), 0.0)
    host.receive_data(codec.encode("capabilities", {"commands": {"load": True}, "features": []}), 0.0)
    assert host.capabilities is None
    assert host.counters.dropped == {"newer-than-supported": 1}


# ---- Capabilities: what may be sent ----


def _refused(host: HostSession, row: Row) -> Optional[errors.Want]:
    """Why *host* does not send that command, having looked and tried, and written nothing; None: it does."""
    wants = [_want(lambda: host.require(row.name)), _want(lambda: host.send(_command(row)))]
    assert wants[0] is wants[1]
    assert [name for name, _ in read_lines(host.data_to_send())] == ([] if wants[0] else [row.name])
    return wants[0]


def _want(ask: Callable[[], None]) -> Optional[errors.Want]:
    try:
        ask()
    except errors.Disabled as error:
        return error.want
    return None


@EVERY_COMMAND
def test_a_command_that_the_guest_has_turned_off_is_refused(row: Row) -> None:
    assert _refused(_pair(commands={row.name: False}).host, row) is errors.Want.OFF


@EVERY_COMMAND
def test_a_command_that_the_guest_has_turned_on_is_sent(row: Row) -> None:
    assert _refused(_pair(commands={row.name: True}).host, row) is None


@EVERY_COMMAND
def test_of_what_a_guest_does_not_list_only_commands_that_need_no_capability_are_sent(row: Row) -> None:
    expected = errors.Want.NOT_OFFERED if row.needs_capability else None
    assert _refused(_pair(commands={}).host, row) is expected


@EVERY_COMMAND
def test_to_a_guest_that_has_said_nothing_only_commands_that_need_no_capability_are_sent(row: Row) -> None:
    pair = _pair()
    _say(pair, "heartbeat", {"apiVersion": int(NEWEST), "apiVersionInUse": int(NEWEST), "agentId": "agent-2"})
    assert _refused(pair.host, row) is (errors.Want.UNSAID if row.needs_capability else None)


@EVERY_COMMAND
def test_what_is_newer_than_agreed_is_refused_for_that_whatever_the_guest_says(row: Row) -> None:
    pair = _pair(Version.V4, commands={row.name: False})
    expected = errors.VersionTooLow if row.since > 4 else errors.Disabled
    with pytest.raises(expected):
        pair.host.send(_command(row))


def test_to_a_guest_that_does_not_read_nothing_is_sent_whatever_it_says() -> None:
    pair = _pair(commands={"load": False})
    pair.host.pause_writing()
    with pytest.raises(errors.Congested):
        pair.host.send(messages.Load())


def test_what_negotiates_can_not_be_turned_off() -> None:
    pair = _pair(commands={"refresh": False, "api-version": False, "of-the-future": False})
    pair.host.receive_data(codec.encode("heartbeat", {"apiVersion": 4, "agentId": "agent-1"}), 1.0)
    assert read_lines(pair.host.data_to_send()) == [("api-version", {"apiVersion": 4})]
    pair.host.refresh(1.0)
    assert [name for name, _ in read_lines(pair.host.data_to_send())] == ["refresh"]


@pytest.mark.parametrize("version", Version)
def test_a_reply_id_stands_for_one_command_but_for_those_that_had_one_before_version_4(version: Version) -> None:
    guest = GuestSession(NEWEST, "agent-1")
    guest.opened(0.0)
    guest.receive_data(codec.encode("refresh", {"apiVersion": int(version)}), 1.0)
    guest.receive_data(codec.encode("api-version", {"apiVersion": int(version)}), 1.0)
    assert guest.identifies("lifecycle-event") == (version >= Version.V4)
    assert all(map(guest.identifies, ("shutdown", "exec", "of-the-future")))


# ---- What a guest rejects ----


UNKNOWN = ("of-the-future", {"a": 1}, Code.UNSUPPORTED, "this agent does not know this command; upgrade it")
INVALID = ("shutdown", {"timeout": "soon"}, Code.INVALID_ARGUMENTS, "shutdown: timeout: str instead of int")
REJECTED = pytest.mark.parametrize(("name", "arguments", "code", "reason"), [UNKNOWN, INVALID], ids=["unknown", "invalid"])


@CUTS
@REJECTED
@pytest.mark.parametrize("reply_id", ["r1", None])
@NEW_VERSIONS
def test_from_version_4_on_a_guest_says_what_it_can_not_carry_out(
    version: Version, name: str, arguments: dict[str, Any], code: Code, reason: str, reply_id: Optional[str], cut: Cut
) -> None:
    pair = _pair(version)
    asked = arguments if reply_id is None else {**arguments, "reply_id": reply_id}
    _tell(pair, name, asked, cut=cut)
    assert _of(events.CommandRejected, pair.guest_events) == [events.CommandRejected(name, reply_id, code, reason)]
    assert _of(events.MessageReceived, pair.guest_events) == []


def test_a_guest_says_that_it_is_configured_not_to_understand_a_command() -> None:
    pair = _pair(Version.V4)
    _tell(pair, "exec", {"argv": [], "timeout": 1, "reply_id": "r1"})
    (rejected,) = _of(events.CommandRejected, pair.guest_events)
    assert (rejected.name, rejected.reply_id, rejected.code) == ("exec", "r1", Code.UNSUPPORTED)
    assert rejected.reason == "it needs API 5, this agent is configured to support API 4; raise max-api-version there"


@OLD_VERSIONS
@REJECTED
def test_below_version_4_a_guest_keeps_it_to_itself(
    version: Version, name: str, arguments: dict[str, Any], code: Code, reason: str
) -> None:
    for supported in (version, NEWEST):
        pair = Pair(version, supported)
        pair.connect()
        pair.forget()
        for rejected in (name, "exec"):
            _tell(pair, rejected, {**arguments, "reply_id": "r1"})
        assert _of(events.CommandRejected, pair.guest_events) == []
        assert sum(pair.guest.counters.dropped.values()) == 2


def test_a_rejected_command_is_counted_and_complained_about_as_ever() -> None:
    pair = _pair()
    _tell(pair, "of-the-future", {})
    assert pair.guest.counters.dropped == {"unknown": 1}
    assert len(_of(events.Complaint, pair.guest_events)) == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("api-version", {"apiVersion": "5"}), ("api-version", {}), ("fqdn", {"fqdn": "web"}), ("completion", {"done": True})],
)
def test_what_is_no_command_is_dropped_and_not_rejected(name: str, arguments: dict[str, Any]) -> None:
    pair = _pair()
    _tell(pair, name, arguments)
    assert [type(event) for event in pair.guest_events] == [events.Complaint]


def test_a_line_that_is_no_message_is_dropped_and_not_rejected() -> None:
    pair = _pair()
    pair.guest.receive_data(b'{"reply_id": "r1"}\nexec\n', 1.0)
    assert _of(events.CommandRejected, pair.guest.events()) == []


@pytest.mark.parametrize("reply_id", [1, None, ["r1"], "r" * (session.REPLY_ID_LENGTH + 1)])
def test_a_rejected_command_with_what_can_be_no_reply_id_asks_for_no_answer(reply_id: Any) -> None:
    pair = _pair()
    _tell(pair, "of-the-future", {"reply_id": reply_id})
    assert [event.reply_id for event in _of(events.CommandRejected, pair.guest_events)] == [None]


def test_of_the_name_of_an_unknown_command_a_bounded_part_is_kept() -> None:
    pair = _pair()
    _tell(pair, "x" * 100_000, {"reply_id": "r1"})
    (rejected,) = _of(events.CommandRejected, pair.guest_events)
    assert rejected.name == "x" * session.REJECTED_NAME_LENGTH


def test_why_a_command_was_rejected_shows_no_secret() -> None:
    pair = _pair()
    _tell(pair, "set-password", {"user": "alice", "password": ["hunter2"]})
    _tell(pair, "set-password", {"user": ["hunter2"], "password": "hunter2"})
    _tell(pair, "exec", {"argv": ["login"], "timeout": 1, "input": {"a": "hunter2"}})
    assert len(_of(events.CommandRejected, pair.guest_events)) == 3
    assert "hunter2" not in repr(pair.guest_events)


# ---- Unsupported ----


@CUTS
@NEW_VERSIONS
def test_a_guest_says_of_a_command_without_a_reply_id_that_it_does_not_carry_it_out(version: Version, cut: Cut) -> None:
    pair = _pair(version, cut=cut)
    said = messages.Unsupported(name="of-the-future", api_version=int(version), reason="this agent does not know it")
    pair.guest.send(said)
    pair.exchange()
    assert [event.message for event in _of(events.MessageReceived, pair.host_events)] == [said]


@OLD_VERSIONS
def test_below_version_4_nothing_is_said_to_be_unsupported(version: Version) -> None:
    pair = _pair(version)
    with pytest.raises(errors.VersionTooLow):
        pair.guest.send(message_to_host("unsupported"))
    assert pair.guest.data_to_send() == b""
