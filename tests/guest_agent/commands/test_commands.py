"""The table of commands."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from common import messages
from common.catalogue import CATALOGUE, Direction
from guest_agent import processes
from guest_agent.commands import COMMANDS, CommandFailed, Machine, hibernate, permitted
from tests.guest_agent.conftest import CommandGuard

NEGOTIATION = {"refresh", "api-version"}


def test_there_is_a_row_for_every_command_that_a_host_may_give() -> None:
    given = {row.name for row in CATALOGUE.rows if row.direction is Direction.TO_GUEST}
    assert set(COMMANDS) == given - NEGOTIATION
    assert all(name == command.name for name, command in COMMANDS.items())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"echo"}))
def test_every_command_says_in_a_sentence_why_a_machine_that_has_nothing_can_not_do_it(machine: Machine, name: str) -> None:
    why = COMMANDS[name].available(machine)
    assert (why is None) == (name == "lifecycle-event")
    assert why is None or len(why.split()) > 4


def test_echo_needs_nothing(machine: Machine) -> None:
    assert COMMANDS["echo"].available(machine) is None


def test_a_worker_has_more_patience_than_what_it_does(machine: Machine) -> None:
    machine = machine._replace(deadline=10, hooks_deadline=20)
    assert COMMANDS["login"].patience(machine) == 15
    assert COMMANDS["lifecycle-event"].patience(machine) == 64 * 20 + 5


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


@pytest.mark.parametrize(
    ("allow", "block", "expected"),
    [
        ([], [], set(COMMANDS)),
        (["echo", "login"], [], {"echo", "login"}),
        ([], ["echo", "login"], set(COMMANDS) - {"echo", "login"}),
        (["echo", "login"], ["login"], {"echo"}),
        (["login"], ["login"], set()),
    ],
)
def test_nothing_allowed_means_all_and_block_wins(allow: list[str], block: list[str], expected: set[str]) -> None:
    assert permitted(allow, block) == expected


def test_the_table_alone_loads_nothing_large(command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)
    script = "import sys, guest_agent.commands\nprint(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout.decode().split()
    assert "guest_agent.commands" in found
    assert not {"jeepney", "subprocess", "guest_agent.commands.logind", "guest_agent.commands.login"}.intersection(found)
