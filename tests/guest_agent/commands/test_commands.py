"""The table of commands."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from common import messages
from common.catalogue import CATALOGUE, Direction
from common.messages import Code
from guest_agent import processes
from guest_agent.commands import COMMANDS, CommandFailed, Machine, dangerous, hibernate, permitted
from tests.guest_agent.conftest import CommandGuard

NEGOTIATION = {"refresh", "api-version"}

#: What needs nothing of a machine but the owner's rights.
MODEST = {"echo", "exec", "filesystem-status", "filesystem-thaw", "filesystem-trim", "lifecycle-event", "set-time", "users"}

ALL = set(COMMANDS)
HARMLESS = ALL - dangerous()


def test_there_is_a_row_for_every_command_that_a_host_may_give() -> None:
    given = {row.name for row in CATALOGUE.rows if row.direction is Direction.TO_GUEST}
    assert set(COMMANDS) == given - NEGOTIATION
    assert all(name == command.name for name, command in COMMANDS.items())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_in_a_sentence_why_a_machine_that_has_nothing_can_not_do_it(machine: Machine, name: str) -> None:
    why = COMMANDS[name].available(machine)
    assert (why is None) == (name in MODEST)
    assert why is None or len(why.split()) > 4


def test_what_the_loop_answers_needs_nothing_but_the_loop() -> None:
    in_loop = {name for name, command in COMMANDS.items() if command.module is None}
    assert in_loop == {"echo", "filesystem-freeze", "filesystem-thaw", "filesystem-status"}


def test_a_worker_has_more_patience_than_what_it_does(machine: Machine) -> None:
    machine = machine._replace(deadline=10, hooks_deadline=20)
    assert COMMANDS["login"].patience(machine, None) == 15
    assert COMMANDS["lifecycle-event"].patience(machine, None) == 64 * 20 + 5
    assert COMMANDS["exec"].patience(machine, messages.Exec(argv=("true",), timeout=7)) == 12


def test_several_programs_run_at_once_and_of_all_else_one_after_the_other() -> None:
    assert {name: command.parallel for name, command in COMMANDS.items() if command.parallel != 1} == {"exec": 4}


SECRET = "open-sesame"


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        (messages.Exec(("/bin/mount", SECRET), 5, {"PASSWORD": SECRET}, SECRET), "/bin/mount"),
        (messages.Exec((), 5), ""),
        (messages.SetPassword("alice", SECRET), "that of alice"),
        (messages.SshKeys("alice", "add", (f"ssh-ed25519 {SECRET}",)), "add those of alice"),
        (messages.FileRead("/var/log/x"), "/var/log/x"),
        (messages.FileWrite("/tmp/x", SECRET), "/tmp/x"),
        (messages.Suspend("disk"), "disk"),
        (messages.Login("alice", SECRET), ""),
    ],
)
def test_what_the_log_says_of_a_message_is_no_secret(message: messages.Message, subject: str) -> None:
    row = CATALOGUE.row_of(Direction.TO_GUEST, message)
    assert row is not None
    assert COMMANDS[row.name].subject(message) == subject


def test_what_a_command_adds_to_its_completion_is_passed_on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hibernate, "run", lambda *given: {"given": given})
    message = messages.Hibernate()
    assert COMMANDS["hibernate"].run(machine, message) == {"given": (machine, message)}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (processes.ProgramMissing("wall was not found"), "wall was not found"),
        (OSError(5, "Input/output error", "/sys/x"), "/sys/x: Input/output error"),
        (OSError(5, "Input/output error"), "hibernate: Input/output error"),
        (OSError("odd"), "hibernate: odd"),
        (CommandFailed("no"), "no"),
        (processes.ProgramTimedOut("wall took too long"), "wall took too long"),
    ],
)
def test_what_goes_wrong_on_the_machine_is_a_failure(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(hibernate, "run", fail)
    with pytest.raises(CommandFailed) as raised:
        COMMANDS["hibernate"].run(machine, messages.Hibernate())
    assert str(raised.value) == sentence
    assert (raised.value.members, raised.value.notes) == ({}, ())
    timed_out = isinstance(error, processes.ProgramTimedOut)
    assert raised.value.code is (Code.TIMED_OUT if timed_out else Code.FAILED)


@pytest.mark.parametrize(
    ("allow", "block", "expected"),
    [
        ([], [], HARMLESS),
        (["echo", "login"], [], {"echo", "login"}),
        ([], ["echo", "login"], HARMLESS - {"echo", "login"}),
        (["echo", "login"], ["login"], {"echo"}),
        (["login"], ["login"], set()),
        (["exec"], [], {"exec"}),
    ],
)
def test_nothing_allowed_means_all_that_is_harmless_and_block_wins(
    allow: list[str], block: list[str], expected: set[str]
) -> None:
    assert permitted(allow, block) == expected


@pytest.mark.parametrize(
    ("allow", "block", "enable", "expected"),
    [
        ([], [], ["exec"], HARMLESS | {"exec"}),
        (["echo"], [], ["exec"], {"echo", "exec"}),
        ([], ["exec"], ["exec", "file-read"], HARMLESS | {"file-read"}),
        ([], [], sorted(dangerous()), ALL),
    ],
)
def test_each_dangerous_command_is_enabled_by_its_name_and_block_wins(
    allow: list[str], block: list[str], enable: list[str], expected: set[str]
) -> None:
    assert permitted(allow, block, enable) == expected


def test_the_dangerous_commands_are_those_of_the_table() -> None:
    assert dangerous() == {"exec", "ssh-keys", "set-password", "file-read", "file-write"}


def test_the_table_alone_loads_nothing_large(command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)
    script = "import sys, guest_agent.commands\nprint(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout.decode().split()
    assert "guest_agent.commands" in found
    assert not {"jeepney", "subprocess", "guest_agent.commands.logind", "guest_agent.commands.login"}.intersection(found)
