"""``common.messages``"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from common import errors, events, messages, records
from common.catalogue import CATALOGUE, Row
from common.fields import Argument
from common.messages import declared

from .samples import arguments_for

ROWS = pytest.mark.parametrize("row", CATALOGUE.rows, ids=lambda row: f"{row.name} {row.direction.value}")

#: JSON values of every sort, as the codec hands them out.
ZOO: list[Any] = [
    *[None, True, False, 0, 1, -1, 2**70, 0.0, 1.5, "", "1", "True", "disk", "before_migration", [], [1], ["a"], [None]],
    *[[[]], {}, {"a": 1}, {"a": "b"}, {"a": None}, {"a": {"name": "b"}}, {"a": {"name": 1}}, [{}], [{"name": "a"}]],
    [{"path": "/", "fs": "ext4", "total": -1, "used": 0}],
    [{"path": "/", "fs": "ext4", "total": 1, "used": True}],
    [{"name": "eth0", "hw": "", "inet": "192.0.2.1", "inet6": []}],
    [{"id": "", "names": [1], "image": "", "command": "", "status": ""}],
]


def _conforms(value: Any, annotation: Any) -> bool:
    """Whether *value* is what *annotation* promises; a boolean is no int, but an int is a float."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin is Union:
        return any(_conforms(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, tuple) and all(_conforms(member, parts[0]) for member in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, member = parts
        return isinstance(value, dict) and all(_conforms(k, key) and _conforms(v, member) for k, v in value.items())
    if annotation is float:
        return type(value) in (int, float)
    return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


@ROWS
def test_a_message_survives_its_arguments(row: Row) -> None:
    message, mistyped = row.message_class.from_arguments(arguments_for(row))
    assert type(message) is row.message_class
    assert mistyped == []
    assert row.message_class.from_arguments(_as_json(message.to_arguments())) == (message, [])


@ROWS
def test_a_message_writes_what_was_read(row: Row) -> None:
    message, _ = row.message_class.from_arguments(arguments_for(row))
    assert _as_json(message.to_arguments()) == arguments_for(row)


@ROWS
def test_the_sample_says_every_argument(row: Row) -> None:
    wires = {each.wire for each in declared(row.message_class) if isinstance(each, Argument)}
    assert wires <= arguments_for(row).keys()


@ROWS
def test_a_message_cannot_be_changed(row: Row) -> None:
    message, _ = row.message_class.from_arguments(arguments_for(row))
    with pytest.raises(AttributeError, match="frozen"):
        message.anything = 1  # type: ignore[assignment]


@ROWS
def test_whatever_comes_in_an_argument_the_field_holds_what_its_annotation_promises(row: Row) -> None:
    hints = get_type_hints(row.message_class)
    for each in declared(row.message_class):
        for value in ZOO:
            try:
                message, _ = row.message_class.from_arguments({**arguments_for(row), each.wire: value})
            except errors.InvalidArguments:
                continue
            assert _conforms(getattr(message, each.attribute), hints[each.attribute]), (each.wire, value)


@ROWS
def test_without_its_required_arguments_a_message_is_invalid(row: Row) -> None:
    for each in declared(row.message_class):
        arguments = arguments_for(row)
        arguments.pop(each.wire, None)
        if each.required:
            with pytest.raises(errors.InvalidArguments, match=rf"^{each.wire}: missing$"):
                row.message_class.from_arguments(arguments)
        else:
            row.message_class.from_arguments(arguments)


@ROWS
def test_unknown_arguments_are_ignored_unless_the_message_takes_any(row: Row) -> None:
    message, mistyped = row.message_class.from_arguments({**arguments_for(row), "of-the-future": 1})
    assert mistyped == []
    assert ("of-the-future" in message.to_arguments()) == hasattr(message, "more")


@ROWS
def test_every_message_says_what_it_means(row: Row) -> None:
    assert row.message_class.__doc__


@pytest.mark.parametrize("argument", ["free-ram", "memory-stat", "apiVersion", "apiVersionInUse", "agentId"])
def test_a_heartbeat_with_a_bad_figure_is_still_a_heartbeat(argument: str) -> None:
    good = {"free-ram": "512", "memory-stat": {"mem_free": 1}, "apiVersion": 3, "apiVersionInUse": 2, "agentId": "a"}
    heartbeat, mistyped = messages.Heartbeat.from_arguments({**good, argument: [None]})
    assert mistyped == [argument]
    expected = {wire: value for wire, value in good.items() if wire != argument}
    assert heartbeat.to_arguments() == expected


def test_a_heartbeat_may_be_empty() -> None:
    assert messages.Heartbeat.from_arguments({}) == (messages.Heartbeat(), [])


def test_free_memory_may_come_as_a_number() -> None:
    assert messages.Heartbeat.from_arguments({"free-ram": 512})[0].free_ram == "512"


def test_one_wrong_figure_among_the_memory_statistics_takes_only_these() -> None:
    heartbeat, mistyped = messages.Heartbeat.from_arguments({"memory-stat": {"mem_free": "1"}, "apiVersion": 3})
    assert (heartbeat, mistyped) == (messages.Heartbeat(api_version=3), ["memory-stat"])


def test_a_refresh_with_a_bad_version_is_still_a_refresh() -> None:
    refresh, mistyped = messages.Refresh.from_arguments({"apiVersion": True, "hostId": 1})
    assert (refresh, sorted(mistyped)) == (messages.Refresh(), ["apiVersion", "hostId"])


def test_a_lifecycle_event_that_can_not_be_understood_is_still_one_that_can_be_answered() -> None:
    event, mistyped = messages.LifecycleEvent.from_arguments({"type": "of-the-future", "failure": "yes"})
    assert (event, mistyped) == (messages.LifecycleEvent(type="of-the-future"), ["failure"])


@pytest.mark.parametrize("reboot", [True, "true", "yes", 1, None])
def test_whether_to_reboot_is_said_by_two_words_and_nothing_else(reboot: Any) -> None:
    with pytest.raises(errors.InvalidArguments, match=r"^reboot: "):
        messages.Shutdown.from_arguments({"timeout": 0, "message": "", "reboot": reboot})


def test_hibernation_is_to_disk_unless_said_otherwise() -> None:
    assert messages.Hibernate.from_arguments({})[0].state == "disk"


def test_an_echo_keeps_every_argument_unchanged() -> None:
    arguments = {"a": [1, {"b": None}], "more": 1, "…": 2}
    assert messages.Echo.from_arguments(arguments)[0].to_arguments() == arguments


def test_a_completion_says_its_result_and_why_it_failed() -> None:
    error = {"code": "of-the-future", "message": "no"}
    said = {"reply_id": "r", "done": False, "result": {"a": [1]}, "error": error}
    completion, _ = messages.Completion.from_arguments(said)
    assert completion == messages.Completion(reply_id="r", done=False, result={"a": [1]}, error=error)


def test_a_completion_keeps_the_members_that_depend_on_the_command() -> None:
    completion, _ = messages.Completion.from_arguments({"reply_id": "r", "done": False, "reason": "no"})
    assert completion == messages.Completion(reply_id="r", done=False, more={"reason": "no"})


@pytest.mark.parametrize("argument", ["result", "error"])
@pytest.mark.parametrize("wrong", [None, 1, "no", [], {"code": "failed"}, {"code": 1, "message": "no"}])
def test_a_completion_with_a_wrong_result_or_error_is_still_an_answer(argument: str, wrong: Any) -> None:
    completion, mistyped = messages.Completion.from_arguments({"reply_id": "r", "done": True, argument: wrong})
    if argument == "result" and isinstance(wrong, dict):
        assert (completion.result, mistyped) == (wrong, [])
    else:
        assert (completion, mistyped) == (messages.Completion(reply_id="r", done=True), [argument])


def test_every_code_says_what_it_means() -> None:
    assert list(messages.CODES) == list(messages.Code)
    assert len(set(messages.CODES.values())) == len(messages.Code)


def test_the_codes_are_words_that_never_change() -> None:
    assert {code.value for code in messages.Code} == {
        *("unsupported", "disabled", "invalid-arguments", "failed", "timed-out", "busy", "frozen")
    }


@pytest.mark.parametrize(
    "secretive",
    [
        messages.Login(username="alice", password="hunter2"),
        messages.SetPassword(user="alice", password="hunter2"),
        messages.Exec(argv=(), timeout=1, encoding="alice", input="hunter2"),
        messages.FileWrite(path="alice", content="hunter2"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_secret_never_shows(secretive: messages.Message) -> None:
    assert "hunter2" not in f"{secretive} {secretive!r} {[secretive]}"
    assert "alice" in repr(secretive)
    assert "hunter2" in secretive.to_arguments().values()


#: A message of each dangerous command with something in each argument, what may show of it, and a completion.
PRIVATE = {
    "exec": (messages.Exec(("hunter2",), 17, {"A": "hunter2"}, "hunter2", "base64"), "base64"),
    "ssh-keys": (messages.SshKeys("alice", "add", ("hunter2",)), "alice"),
    "set-password": (messages.SetPassword("alice", "hunter2", True), "alice"),
    "file-read": (messages.FileRead("/srv/a", 17, 17), "/srv/a"),
    "file-write": (messages.FileWrite("/srv/a", "hunter2", 17, True), "/srv/a"),
    "completion": (messages.Completion("r17", True, {"output": "hunter2"}), "r17"),
}


def test_every_dangerous_message_is_looked_at() -> None:
    assert PRIVATE.keys() == {row.name for row in CATALOGUE.rows if row.dangerous} | {"completion"}


@pytest.mark.parametrize("name", PRIVATE)
def test_no_repr_shows_what_a_dangerous_command_is_given_or_what_comes_of_one(name: str) -> None:
    message, shown = PRIVATE[name]
    for shows in (message, events.MessageReceived(name, message, b"hunter2", "r1")):
        assert "hunter2" not in f"{shows} {shows!r} {[shows]}"
        assert shown in repr(shows)


def test_what_is_private_but_no_secret_may_stand_on_a_command_line() -> None:
    secrets = {
        (row.name, name)
        for row in CATALOGUE.rows
        for name, field in records.fields_of(row.message_class).items()
        if field.secret
    }
    assert secrets == {("login", "password"), ("set-password", "password"), ("exec", "input")}


@pytest.mark.parametrize(
    ("message_class", "arguments", "defaults"),
    [
        (messages.FilesystemFreeze, {"thaw_after": 0.5}, {"mountpoints": None}),
        (messages.FilesystemTrim, {}, {"minimum": None}),
        (messages.SetTime, {}, {"epoch_ns": None}),
        (messages.Exec, {"argv": [], "timeout": 1}, {"environment": None, "input": None, "encoding": "text"}),
        (messages.SshKeys, {"user": "alice", "operation": "list"}, {"keys": None}),
        (messages.SetPassword, {"user": "alice", "password": ""}, {"crypted": False}),
        (messages.FileRead, {"path": "/a"}, {"offset": 0, "count": None}),
        (messages.FileWrite, {"path": "/a", "content": ""}, {"offset": 0, "truncate": False}),
    ],
)
def test_what_a_command_leaves_unsaid_is_known(
    message_class: type[messages.Message], arguments: dict[str, Any], defaults: dict[str, Any]
) -> None:
    message, _ = message_class.from_arguments(arguments)
    assert {name: getattr(message, name) for name in defaults} == defaults


@pytest.mark.parametrize("message_class", [messages.FilesystemFreeze, messages.Exec])
@pytest.mark.parametrize("seconds", [0, -1, True, "1", None, 1e300, 10**400, 31_536_001])
def test_a_command_takes_a_time_that_can_be_waited_for_and_no_other(
    message_class: type[messages.Message], seconds: Any
) -> None:
    arguments = {"argv": ["true"], "timeout": seconds, "thaw_after": seconds}
    with pytest.raises(errors.InvalidArguments, match="number of seconds above 0 and up to a year"):
        message_class.from_arguments(arguments)


def _as_json(value: Any) -> Any:
    """*value* as it looks when it has travelled: tuples are lists."""
    if isinstance(value, dict):
        return {key: _as_json(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(member) for member in value]
    return value
