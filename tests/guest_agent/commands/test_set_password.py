"""set-password: chpasswd gets the password on its standard input, and nobody else does."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.messages import Code, SetPassword
from guest_agent import processes
from guest_agent.commands import COMMANDS, CommandFailed, Machine, accounts, set_password
from tests.guest_agent.conftest import CommandGuard

from .conftest import Programs, Ran, install
from .forked import only_root

PASSWORD = "pass:word *%ü"

HASH = "$6$salt$RhVA7LLrtUbH04FgQPX3QSB5d0w4SHMmQ5Z3xGVv8wIm1rTnTkqUBCbnPo9Nf0vDq1pWk5yZxOKM1H4Tq0Jk0/"

#: Writes down what others could see of it, and what it was told, one after the other.
RECORDER = """
import os, sys
told = sys.stdin.buffer.read()
with open(sys.argv[1], "wb") as note:
    for part in ("cmdline", "environ"):
        with open(f"/proc/{os.getpid()}/{part}", "rb") as file:
            note.write(file.read())
    note.write(b"\\n" + told)
"""


@pytest.fixture
def users(root: Path) -> Path:
    """The machine has a user, who has no password."""
    etc = root / "etc"
    etc.mkdir()
    (root / accounts.USERS).write_text("alice:x:1000:1000::/home/alice:/bin/sh\n", "ascii")
    (etc / "group").touch()
    shadow = etc / "shadow"
    shadow.touch(0o600)
    shadow.write_text("root:*:19000:0:99999:7:::\nalice:!:19000:0:99999:7:::\n", "ascii")
    return shadow


def failure(machine: Machine, message: SetPassword) -> CommandFailed:
    with pytest.raises(CommandFailed) as raised:
        COMMANDS["set-password"].run(machine, message)
    told = "".join(traceback.format_exception(raised.type, raised.value, raised.tb)) + repr(vars(raised.value))
    assert not message.password or message.password not in told
    return raised.value


@pytest.mark.usefixtures("users")
def test_chpasswd_reads_name_and_password_and_what_it_prints_is_nobodys_business(
    machine: Machine, programs: Programs
) -> None:
    assert set_password.run(machine, SetPassword(user="alice", password=PASSWORD)) == {}
    assert set_password.run(machine, SetPassword(user="alice", password=HASH, crypted=True)) == {}
    elsewhere = ("chpasswd", "-R", machine.root)
    assert programs.ran == [
        Ran(elsewhere, f"alice:{PASSWORD}\n".encode(), output_limit=0),
        Ran((*elsewhere, "-e"), f"alice:{HASH}\n".encode(), output_limit=0),
    ]


def test_on_this_machine_it_is_started_as_it_is(
    machine: Machine, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "find", lambda _, name: accounts.Account(name, 1000, 1000, (), "/"))
    set_password.run(machine._replace(root="/"), SetPassword(user="alice", password=PASSWORD))
    assert programs.ran == [Ran(("chpasswd",), f"alice:{PASSWORD}\n".encode(), output_limit=0)]


@only_root
@pytest.mark.skipif(processes.find("chpasswd") is None, reason="there is no chpasswd here")
def test_the_real_chpasswd_notes_the_hash_of_that_user(
    machine: Machine, users: Path, root: Path, command_guard: CommandGuard
) -> None:
    command_guard.allowed.add("chpasswd")

    def run_elsewhere(argv: Sequence[str], **named: Any) -> processes.Finished:
        assert list(argv[:3]) == ["chpasswd", "-R", str(root)]
        return processes.run(argv, **named)

    set_password.run(machine._replace(run=run_elsewhere), SetPassword(user="alice", password=HASH, crypted=True))
    others, _, alice = users.read_text("ascii").partition("alice:")
    assert others == "root:*:19000:0:99999:7:::\n"
    assert alice.startswith(f"{HASH}:")


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(("password", "crypted"), [(PASSWORD, False), (HASH, True)])
def test_nobody_sees_the_password_in_a_real_programs_arguments_or_environment(
    machine: Machine, tmp_path: Path, command_guard: CommandGuard, password: str, crypted: bool
) -> None:
    command_guard.allowed.add(sys.executable)
    note = tmp_path / "note"

    def run_recorder(argv: Sequence[str], **named: Any) -> processes.Finished:
        recorder = [sys.executable, "-I", "-c", RECORDER, str(note), *argv[1:]]
        return processes.run(recorder, **named)

    set_password.run(machine._replace(run=run_recorder), SetPassword(user="alice", password=password, crypted=crypted))
    seen, _, told = note.read_bytes().rpartition(b"\nalice:")
    assert told == f"{password}\n".encode()
    assert machine.root.encode() in seen
    assert b"LC_ALL" in seen
    assert password.encode() not in seen


@pytest.mark.usefixtures("users")
def test_a_chpasswd_that_fails_is_a_failure_that_repeats_nothing(machine: Machine, programs: Programs) -> None:
    programs.ends["chpasswd"] = processes.Finished(1, f"BAD PASSWORD: {PASSWORD}".encode())
    failed = failure(machine, SetPassword(user="alice", password=PASSWORD))
    assert str(failed) == "chpasswd ended with status 1; the guest's own log may say why"
    assert failed.code is Code.FAILED


@pytest.mark.usefixtures("users")
def test_without_chpasswd_it_fails(machine: Machine, programs: Programs) -> None:
    programs.missing.add("chpasswd")
    assert "chpasswd was not found" in str(failure(machine, SetPassword(user="alice", password=PASSWORD)))


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("name", ["bob", "", "alice:x", "alice\nroot", "root:x\nalice", "-e"])
def test_only_users_that_exist_get_a_password(machine: Machine, programs: Programs, name: str) -> None:
    failed = failure(machine, SetPassword(user=name, password=PASSWORD))
    assert "there is no user" in str(failed)
    assert failed.code is Code.INVALID_ARGUMENTS
    assert programs.ran == []


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("secret\nroot:secret", "line break"),
        ("secret\r", "line break"),
        ("secret\0", "can't be sent"),
        ("sec\N{REPLACEMENT CHARACTER}ret", "can't be sent"),
        ("secret\ud800", "can't be sent"),
        ("", "is empty"),
        ("x" * 512, "longer than 511 bytes"),
        ("ü" * 256, "longer than 511 bytes"),
    ],
)
def test_a_password_that_nobody_could_log_in_with_is_refused(
    machine: Machine, programs: Programs, password: str, why: str
) -> None:
    failed = failure(machine, SetPassword(user="alice", password=password))
    assert why in str(failed)
    assert failed.code is Code.INVALID_ARGUMENTS
    assert programs.ran == []


@pytest.mark.usefixtures("users")
def test_the_longest_password_is_set(machine: Machine, programs: Programs) -> None:
    set_password.run(machine, SetPassword(user="alice", password="x" * 511))
    assert len(programs.ran) == 1


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    "password",
    ["", "secret", "!", "*", f"!{HASH}", f"{HASH}:", f"{HASH} ", f"{HASH}!", "$6$", "$6$a\\b", "$6$ü", "$6$" + "x" * 509],
)
def test_what_is_no_hash_is_not_stored_as_one(machine: Machine, programs: Programs, password: str) -> None:
    failed = failure(machine, SetPassword(user="alice", password=password, crypted=True))
    assert "is no hash as crypt(3) makes it" in str(failed)
    assert failed.code is Code.INVALID_ARGUMENTS
    assert programs.ran == []


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("crypted", [HASH, "$y$j9T$x./1$y./2", "$2b$05$x./,"])
def test_hashes_of_all_kinds_are_taken(machine: Machine, programs: Programs, crypted: str) -> None:
    set_password.run(machine, SetPassword(user="alice", password=crypted, crypted=True))
    assert programs.ran[0].input == f"alice:{crypted}\n".encode()


def test_it_is_available_to_root_where_there_are_users_and_chpasswd(machine: Machine, root: Path) -> None:
    assert "no users" in str(set_password.available(machine))
    (root / "etc").mkdir()
    (root / accounts.USERS).touch()
    assert set_password.available(machine) == "chpasswd is not installed; install it"
    install(root, "chpasswd")
    assert set_password.available(machine) is None
    assert "only root" in str(set_password.available(machine._replace(owner=os.geteuid() + 1)))
