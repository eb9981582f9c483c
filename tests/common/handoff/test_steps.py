"""``common.handoff.steps``"""

from __future__ import annotations

import pytest

from common.handoff import steps, window
from common.handoff.frames import Command
from common.handoff.steps import STEPS, Owner, Phase


def test_every_command_is_one_step_and_says_what_it_says() -> None:
    assert [step.command for step in STEPS] == list(Command)
    assert all(step.asks and step.answers for step in STEPS)


def test_every_step_came_with_a_version_of_the_protocol() -> None:
    assert {step.since for step in STEPS} == set(window.VERSIONS)


@pytest.mark.parametrize("protocol", window.VERSIONS)
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("command", Command)
def test_these_commands_may_come_and_no_others(command: Command, phase: Phase, protocol: int) -> None:
    may_come = {
        Phase.OPENED: {Command.START},
        Phase.STARTED: {Command.SESSION, Command.ABANDON, *([Command.HELLO] if protocol else [])},
        Phase.PREPARED: {Command.SESSION, Command.COMPLETE, Command.ABANDON},
        Phase.TAKEN: {Command.COMPLETE},
        Phase.ABANDONED: set(),
    }
    step = steps.find(command, phase, protocol)
    assert (step is not None) == (command in may_come[phase])
    assert step is None or step.command is command


def test_the_guest_is_the_sources_until_it_was_taken() -> None:
    assert [phase for phase in Phase if phase.owner is Owner.DESTINATION] == [Phase.TAKEN]


def test_only_complete_gives_the_guest_another_owner() -> None:
    changing = {step.command for step in STEPS for phase in step.during if phase.owner is not step.leads_to.owner}
    assert changing == {Command.COMPLETE}


def test_every_phase_can_be_reached_from_the_first_one() -> None:
    reached = {Phase.OPENED}
    for _ in Phase:
        reached |= {step.leads_to for step in STEPS if reached & set(step.during)}
    assert reached == set(Phase)
