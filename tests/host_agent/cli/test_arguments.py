from __future__ import annotations

import re
import shlex
from typing import Any, Optional

import pytest

from common import catalogue, messages
from host_agent.cli import arguments
from host_agent.cli.arguments import BadArgument
from host_agent.exits import Exit

NO_FILES: dict[str, str] = {}


def read(command: str, *words: str, files: Optional[dict[str, str]] = None, typed: Optional[str] = None) -> dict[str, Any]:
    row = arguments.find_command(command)
    return arguments.read(row, words, lambda name: (files or NO_FILES)[name], lambda name: typed)


def refusal(command: str, *words: str) -> str:
    with pytest.raises(BadArgument) as refused:
        read(command, *words)
    assert refused.value.status is Exit.USAGE
    assert str(refused.value).isprintable()
    return str(refused.value)


def test_every_command_of_the_table_but_what_negotiates_can_be_sent() -> None:
    to_guest = {row.name for row in catalogue.CATALOGUE.rows if row.direction is catalogue.Direction.TO_GUEST}
    assert {row.name for row in catalogue.CATALOGUE.commands} == to_guest - {"refresh", "api-version"}


def test_an_unknown_command_is_told_with_what_was_meant() -> None:
    assert refusal("lock-scren") == "no command is called 'lock-scren': did you mean lock-screen?"
    assert refusal("\x1b") == "no command is called '\\x1b': 'vmaccord messages' shows all"


@pytest.mark.parametrize(
    ("command", "words", "values"),
    [
        ("lock-screen", [], {}),
        ("shutdown", ["timeout=5", "message=a=b: c", "reboot=True"], {"timeout": 5, "message": "a=b: c", "reboot": "True"}),
        ("hibernate", [], {}),
        ("hibernate", ["state=mem"], {"state": "mem"}),
        ("lifecycle-event", ["type=17", "failure=true"], {"type": "17", "failure": True}),
        ("lifecycle-event", ['type:="x"', "failure:=false"], {"type": "x", "failure": False}),
        ("exec", ['argv:=["ls", "-l"]', "timeout=1.5"], {"argv": ["ls", "-l"], "timeout": 1.5}),
        (
            "exec",
            ['argv=["ls"]', "timeout=1", 'environment:={"A": "1"}', "encoding=base64"],
            {"argv": ["ls"], "timeout": 1, "environment": {"A": "1"}, "encoding": "base64"},
        ),
        (
            "file-write",
            ["path=/x", "content=aGFsbG8=", "truncate=true"],
            {"path": "/x", "content": "aGFsbG8=", "truncate": True},
        ),
        ("echo", ["a=1", "b:=1", 'c:={"d": [null]}', "e="], {"a": "1", "b": 1, "c": {"d": [None]}, "e": ""}),
    ],
)
def test_words_are_typed_as_the_table_declares_them(command: str, words: list[str], values: dict[str, Any]) -> None:
    found = read(command, *words)
    assert found == values
    assert [type(value) for value in found.values()] == [type(value) for value in values.values()]
    arguments.find_command(command).message_class.from_arguments(found)


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("shutdown", ["timeout=-1", "message=", "reboot=True"], "shutdown: timeout can't be '-1'; allowed: int ≥ 0"),
        ("set-number-of-cpus", ["count=two"], "set-number-of-cpus: count can't be 'two'; allowed: int > 0"),
        ("set-number-of-cpus", ["count=NaN"], "set-number-of-cpus: count can't be 'NaN'; allowed: int > 0"),
        ("set-number-of-cpus", ["count=true"], "set-number-of-cpus: count can't be 'true'; allowed: int > 0"),
        ("set-number-of-cpus", [], "set-number-of-cpus lacks count; usage: set-number-of-cpus count=NUMBER"),
        ("exec", ["argv=ls", "timeout=1"], "exec: argv can't be 'ls'; allowed: list of str"),
        ("exec", ["argv:=[1]", "timeout=1"], "exec: argv can't be '[1]'; allowed: list of str"),
        ("file-write", ["path=/x", "content=a"], "file-write: content can't be 'a'; allowed: base64"),
        ("hibernate", ["state=tape"], "hibernate: state can't be 'tape'; allowed: disk or mem"),
        ("hibernate", ["now"], "hibernate: an argument is no KEY=VALUE; usage: hibernate [state=disk|mem]"),
        ("hibernate", ["=x"], "hibernate: an argument is no KEY=VALUE; usage: hibernate [state=disk|mem]"),
        ("hibernate", ["state=mem", "state=mem"], "hibernate: state is given twice; give it once"),
        ("lock-screen", ["\x1b=1"], "lock-screen has no argument '\\x1b'; usage: lock-screen"),
        ("echo", ["a:=[1"], "echo: what follows a:= is no JSON; a text needs quotes there"),
        ("echo", ["a:=NaN"], "echo: what follows a:= is no JSON; a text needs quotes there"),
    ],
)
def test_a_wrong_word_is_one_sentence(command: str, words: list[str], said: str) -> None:
    assert refusal(command, *words) == said


def test_everything_that_lacks_is_named_at_once() -> None:
    usage = "shutdown timeout=NUMBER message=TEXT reboot=True|False"
    assert refusal("shutdown", "message=") == f"shutdown lacks timeout and reboot; usage: {usage}"


def test_the_reply_id_is_the_daemons() -> None:
    assert "has no argument 'reply_id'" in refusal("lifecycle-event", "type=x", "reply_id=1")


# ---- Secrets ----


@pytest.mark.parametrize(
    "word", ["password=geheim", 'password:="geheim"', "password=", "Password=geheim", "password:geheim"]
)
def test_a_secret_may_not_stand_on_the_command_line_and_no_error_quotes_it(word: str) -> None:
    said = refusal("login", "username=eve", word)
    assert "geheim" not in said
    assert "password=@" in said


def test_a_secret_comes_from_a_file_without_its_last_newline() -> None:
    found = read("login", "username=eve", "password=@/x/y", files={"/x/y": "ge heim\n\n"})
    assert found == {"username": "eve", "password": "ge heim\n"}
    assert read("login", "username=eve", "password=@-", files={"-": "@x"})["password"] == "@x"


def test_a_secret_that_is_not_given_is_asked_for() -> None:
    assert read("login", "username=eve", typed="geheim")["password"] == "geheim"
    assert "lacks password; write password=@FILE, or password=@-" in refusal("login", "username=eve")


def test_what_is_no_secret_may_begin_with_an_at() -> None:
    assert read("shutdown", "timeout=1", "message=@home", "reboot=False")["message"] == "@home"


def test_every_secret_of_the_table_is_known_as_one() -> None:
    secret = {(row.name, name) for row in catalogue.CATALOGUE.commands for name in arguments.secret_arguments(row)}
    assert secret == {("login", "password"), ("set-password", "password"), ("exec", "input")}


def test_a_secret_that_may_be_left_out_is_not_asked_for() -> None:
    assert read("exec", 'argv:=["ls"]', "timeout=5", typed="geheim") == {"argv": ["ls"], "timeout": 5}


# ---- For the documentation ----


def test_the_arguments_of_every_message_can_be_told() -> None:
    for row in catalogue.CATALOGUE.rows:
        told = arguments.documents(row)
        assert [each["name"] for each in told] == [each.wire for each in arguments.declared(row)]
        assert all(
            len(re.split(f"{each['name']}:?=", arguments.signature(row))) == 2 for each in told if each["name"] != "…"
        )
    (login,) = (row for row in catalogue.CATALOGUE.commands if row.message_class is messages.Login)
    assert arguments.signature(login) == "username=TEXT password=@FILE"
    assert [each["secret"] for each in arguments.documents(login)] == [False, True]


def test_the_usage_of_a_command_that_takes_a_list_or_an_object_can_be_typed_as_it_is_shown() -> None:
    usage = arguments.signature(arguments.find_command("exec"))
    assert usage == (
        """argv:='["TEXT", ...]' timeout=NUMBER [environment:='{"NAME": "TEXT", ...}'] """
        "[input=@FILE] [encoding=text|base64]"
    )
    assert read("exec", *shlex.split(usage.replace(", ...", "").replace("NUMBER", "1").split(" [")[0])) == {
        "argv": ["TEXT"],
        "timeout": 1,
    }
