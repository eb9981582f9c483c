"""login: the helper gets the credentials on its standard input, and nobody else does."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from common.messages import Login
from guest_agent import processes
from guest_agent.commands import COMMANDS, CommandFailed, Machine, login
from tests.guest_agent.conftest import CommandGuard

from .conftest import Programs, Ran

PASSWORD = "pass word*%"

CREDENTIALS = Login(username="alice@example", password=PASSWORD)


@pytest.fixture
def helper(root: Path) -> Path:
    path = root / "login-helper"
    path.touch(0o755)
    path.chmod(0o755)
    return path


@pytest.fixture
def with_helper(machine: Machine, helper: Path) -> Machine:
    return machine._replace(login_helper=str(helper))


def failure(machine: Machine, message: Login) -> CommandFailed:
    with pytest.raises(CommandFailed) as raised:
        COMMANDS["login"].run(machine, message)
    told = "".join(traceback.format_exception(raised.type, raised.value, raised.tb)) + repr(
        (raised.value, vars(raised.value))
    )
    assert PASSWORD not in told
    return raised.value


def test_the_helper_reads_name_and_password_a_line_each(with_helper: Machine, helper: Path, programs: Programs) -> None:
    assert login.run(with_helper, CREDENTIALS) == {}
    assert programs.ran == [Ran((str(helper),), b"alice@example\npass word*%\n", output_limit=0)]


def test_a_real_helper_gets_them_on_its_standard_input_and_nowhere_else(
    with_helper: Machine, helper: Path, tmp_path: Path, command_guard: CommandGuard
) -> None:
    note = tmp_path / "note"
    script = "import os, sys\nall = [sys.stdin.read(), sys.argv[1:], sorted(os.environ)]\n"
    helper.write_text(f"#!{sys.executable} -I\n{script}open({str(note)!r}, 'w').write(repr(all))\n", "utf-8")
    command_guard.allowed.add(str(helper))
    login.run(with_helper._replace(run=processes.run), CREDENTIALS)
    read, arguments, environment = eval(note.read_text("utf-8"))  # noqa: S307 - what this test's own program wrote
    assert read == "alice@example\npass word*%\n"
    assert arguments == []
    assert set(environment) <= {"PATH", "LC_ALL", "LC_CTYPE"}


def test_a_helper_that_fails_is_a_failure_and_what_it_printed_is_nobodys_business(
    with_helper: Machine, helper: Path, programs: Programs
) -> None:
    programs.ends[str(helper)] = processes.Finished(1, f"wrong password: {PASSWORD}".encode())
    assert str(failure(with_helper, CREDENTIALS)) == "the login-helper ended with status 1"


def test_a_helper_that_takes_too_long_is_a_failure(with_helper: Machine, helper: Path, command_guard: CommandGuard) -> None:
    helper.write_text(f"#!{sys.executable} -I\nimport time\nwhile True: time.sleep(60)\n", "utf-8")
    command_guard.allowed.add(str(helper))
    machine = with_helper._replace(run=processes.run, deadline=0.2)
    assert str(failure(machine, CREDENTIALS)) == "login-helper did not end within 0.2 s and was ended"


@pytest.mark.parametrize("character", ["\n", "\r", "\0"])
def test_credentials_of_more_than_two_lines_are_refused(with_helper: Machine, programs: Programs, character: str) -> None:
    for message in (
        Login(username=f"root{character}", password=PASSWORD),
        Login(username="alice", password=PASSWORD + character),
    ):
        assert "line break or NUL" in str(failure(with_helper, message))
    assert programs.ran == []


def test_endless_credentials_are_refused(with_helper: Machine, programs: Programs) -> None:
    message = Login(username="alice", password=PASSWORD * 1000)
    assert "longer than 4096 bytes" in str(failure(with_helper, message))
    assert programs.ran == []


def test_credentials_that_no_encoding_takes_do_no_harm(with_helper: Machine, helper: Path, programs: Programs) -> None:
    login.run(with_helper, Login(username="alice", password=f"{PASSWORD}\ud800"))
    assert programs.ran == [Ran((str(helper),), f"alice\n{PASSWORD}?\n".encode(), output_limit=0)]


def test_without_a_helper_it_is_not_available(machine: Machine) -> None:
    why = "no login-helper is configured; name one in [commands]"
    assert login.available(machine) == why
    assert str(failure(machine, CREDENTIALS)) == why


def test_it_is_available_with_a_helper(with_helper: Machine) -> None:
    assert login.available(with_helper) is None


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.chmod(0o775), "can be written to by others"),
        (lambda path: path.chmod(0o644), "is no executable file"),
        (lambda path: path.parent.chmod(0o777), "can be written to by others"),
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir(0o755)), "is no executable file"),
    ],
)
def test_a_helper_that_others_have_a_say_in_or_that_is_no_program_gets_no_password(
    with_helper: Machine, helper: Path, programs: Programs, spoil: Any, why: str
) -> None:
    spoil(helper)
    assert why in str(login.available(with_helper))
    assert why in str(failure(with_helper, CREDENTIALS))
    assert programs.ran == []


def test_a_helper_must_be_named_by_an_absolute_path(machine: Machine) -> None:
    assert "no absolute path" in str(login.available(machine._replace(login_helper="login-helper")))
