"""``common.messages``"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from common import errors, messages
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
    """Whether *value* is what *annotation* promises; a boolean is no int."""
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
    told = {"type": "of-the-future", "failure": "yes", "reply_id": "r"}
    event, mistyped = messages.LifecycleEvent.from_arguments(told)
    assert (event, mistyped) == (messages.LifecycleEvent(type="of-the-future", reply_id="r"), ["failure"])


@pytest.mark.parametrize("reboot", [True, "true", "yes", 1, None])
def test_whether_to_reboot_is_said_by_two_words_and_nothing_else(reboot: Any) -> None:
    with pytest.raises(errors.InvalidArguments, match=r"^reboot: "):
        messages.Shutdown.from_arguments({"timeout": 0, "message": "", "reboot": reboot})


def test_hibernation_is_to_disk_unless_said_otherwise() -> None:
    assert messages.Hibernate.from_arguments({})[0].state == "disk"


def test_an_echo_keeps_every_argument_unchanged() -> None:
    arguments = {"a": [1, {"b": None}], "more": 1, "…": 2}
    assert messages.Echo.from_arguments(arguments)[0].to_arguments() == arguments


def test_a_completion_keeps_the_members_that_depend_on_the_command() -> None:
    completion, _ = messages.Completion.from_arguments({"reply_id": "r", "done": False, "error": {"code": "busy"}})
    assert completion == messages.Completion(reply_id="r", done=False, more={"error": {"code": "busy"}})


def test_a_login_never_shows_its_password() -> None:
    login = messages.Login(username="alice", password="hunter2")
    assert "hunter2" not in f"{login} {login!r} {[login]}"
    assert "alice" in repr(login)


def _as_json(value: Any) -> Any:
    """*value* as it looks when it has travelled: tuples are lists."""
    if isinstance(value, dict):
        return {key: _as_json(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(member) for member in value]
    return value
