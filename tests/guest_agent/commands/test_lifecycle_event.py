"""lifecycle-event: the hooks of the event are run, and the completion says which failed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from common.messages import LifecycleEvent
from guest_agent import processes
from guest_agent.commands import CommandFailed, Machine, lifecycle_event
from tests.guest_agent.conftest import CommandGuard

EVENTS = ["before_migration", "after_migration", "before_hibernation", "after_hibernation"]


@pytest.fixture
def add(machine: Machine, command_guard: CommandGuard) -> Any:
    Path(machine.hooks_directory).mkdir(mode=0o755)

    def add_hook(event: str, name: str, script: str) -> Path:
        directory = Path(machine.hooks_directory, event)
        directory.mkdir(mode=0o755, exist_ok=True)
        path = directory / name
        path.write_text(f"#!{sys.executable} -I\nimport os\n{script}\n", "utf-8")
        path.chmod(0o755)
        command_guard.allowed.add(str(path))
        return path

    return add_hook


@pytest.fixture
def real(machine: Machine) -> Machine:
    """A machine whose programs really run."""
    return machine._replace(run=processes.run)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(("failure", "told"), [(None, "0"), (False, "0"), (True, "1")])
def test_the_hooks_of_the_event_are_told_what_happens(
    real: Machine, add: Any, tmp_path: Path, event: str, failure: Any, told: str
) -> None:
    note = tmp_path / "note"
    for each in EVENTS:
        names = "VMACCORD_EVENT", "VMACCORD_FAILURE"
        add(each, "note", f"open({str(note)!r}, 'a').write(' '.join(os.environ[name] for name in {names!r}))")
    assert lifecycle_event.run(real, LifecycleEvent(type=event, failure=failure)) == {}
    assert note.read_text("utf-8") == f"{event} {told}"


def test_without_a_directory_all_is_done(real: Machine) -> None:
    assert lifecycle_event.run(real, LifecycleEvent(type="before_migration")) == {}


def test_the_completion_says_which_hooks_failed_and_why_and_the_log_what_they_printed(real: Machine, add: Any) -> None:
    add("before_migration", "10-well", "")
    add("before_migration", "20-badly", "print('no disk')\nraise SystemExit(3)")
    add("before_migration", "30-open", "").chmod(0o777)
    with pytest.raises(CommandFailed) as raised:
        lifecycle_event.run(real, LifecycleEvent(type="before_migration"))
    failed = raised.value.members["failed"]
    assert failed[0] == {"hook": "20-badly", "reason": "ended with status 3"}
    assert failed[1]["hook"] == "30-open"
    assert "can be written to by others" in failed[1]["reason"]
    assert str(raised.value) == "hooks of before_migration failed: 20-badly, 30-open"
    assert list(raised.value.notes[:2]) == ["20-badly: ended with status 3", "20-badly printed: no disk"]
    assert len(raised.value.notes) == 3


def test_a_directory_that_others_can_write_to_stands_for_its_hooks(real: Machine, add: Any) -> None:
    add("after_migration", "hook", "").parent.chmod(0o777)
    with pytest.raises(CommandFailed) as raised:
        lifecycle_event.run(real, LifecycleEvent(type="after_migration"))
    (failed,) = raised.value.members["failed"]
    assert failed["hook"] == "after_migration"
    assert failed["reason"].startswith("nothing in this directory was run")


@pytest.mark.parametrize("event", ["", "..", "before_migration/../../elsewhere", "/etc"])
def test_a_name_from_the_wire_leads_nowhere_else(machine: Machine, event: str) -> None:
    with pytest.raises(CommandFailed, match="there is no such event"):
        lifecycle_event.run(machine, LifecycleEvent(type=event))


def test_it_is_available_with_hooks_and_without(machine: Machine, add: Any) -> None:
    assert lifecycle_event.available(machine) is None
    add("before_migration", "hook", "")
    assert lifecycle_event.available(machine) is None


def test_it_is_not_available_where_others_can_write_to_a_directory(machine: Machine, add: Any) -> None:
    directory = add("after_hibernation", "hook", "").parent
    directory.chmod(0o777)
    why = str(lifecycle_event.available(machine))
    assert why.startswith(f"hooks are refused: {directory}: after_hibernation: nothing in this directory was run: ")
    assert f"{directory} can be written to by others" in why


def test_it_names_the_hooks_that_would_be_refused(machine: Machine, add: Any) -> None:
    add("before_migration", "10-well", "")
    add("before_migration", "20-open", "").chmod(0o777)
    add("after_migration", "30-open", "").chmod(0o777)
    why = str(lifecycle_event.available(machine))
    assert "before_migration: 20-open: not run: " in why
    assert "/after_migration: 30-open: not run: " in why
    assert "10-well" not in why


def test_it_is_not_available_where_the_directories_can_not_be_looked_at(machine: Machine) -> None:
    Path(machine.hooks_directory).touch(0o600)
    why = str(lifecycle_event.available(machine))
    assert "before_migration: nothing in this directory was run: it can't be read: Not a directory" in why
