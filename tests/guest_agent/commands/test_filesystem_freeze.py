"""Whether file systems could be frozen: who runs the agent, where it would note that, and the hooks around it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent.commands import COMMANDS, Machine
from tests.guest_agent.conftest import CommandGuard
from tests.guest_agent.loops import Disks, disks_below, hook


@pytest.fixture
def disks(tmp_path: Path, command_guard: CommandGuard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    with disks_below(tmp_path, command_guard, monkeypatch) as made_here:
        yield made_here


def why_not(machine: Machine) -> str:
    return str(COMMANDS["filesystem-freeze"].available(machine))


def test_it_can_work_where_the_directory_does_not_exist_yet_and_none_is_made(disks: Disks) -> None:
    assert COMMANDS["filesystem-freeze"].available(disks.machine) is None
    assert not disks.state.exists()
    disks.state.mkdir(mode=0o700)
    assert COMMANDS["filesystem-freeze"].available(disks.machine) is None
    assert os.listdir(disks.state) == []


def test_it_needs_root() -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(login_helper=None, hooks_directory=directory, hooks_deadline=1, deadline=1, owner=os.geteuid() + 1)
        assert why_not(machine) == "only root may freeze file systems; run the agent as root"


def test_it_needs_a_directory_that_is_never_frozen(disks: Disks) -> None:
    disk = disks.make("/data")
    machine = disks.machine._replace(state_directory=str(disk.path / "state"))
    assert (
        why_not(machine)
        == f"{disk.path}/state is on a file system (ext4) that may be frozen; mount a tmpfs there, or above it"
    )


@pytest.mark.parametrize("event", ["before_freeze", "after_thaw"])
def test_it_needs_hooks_that_would_be_run(disks: Disks, event: str) -> None:
    hook(disks, event, "10-a").chmod(0o777)
    why = why_not(disks.machine)
    assert why.startswith(f"hooks are refused: {disks.hooks}/{event}: 10-a: not run: ")
    assert len(why.splitlines()) == 1
