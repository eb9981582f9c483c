"""The record of what is frozen, and its lock. What becomes of it when processes die is in ``test_freezing``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guest_agent import freeze_record
from guest_agent.commands import Machine
from guest_agent.freeze_record import Noted


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("one\n", "utf-8")
    (tmp_path / "state").mkdir(mode=0o700)
    return Machine(
        login_helper=None,
        hooks_directory="/none",
        hooks_deadline=1,
        deadline=1,
        root=str(tmp_path),
        state_directory=str(tmp_path / "state"),
    )


@pytest.mark.parametrize(
    "noted", [Noted(), Noted([("7:1", "/a"), ("7:2", "/\udcff")]), Noted(failed=True), Noted(failed=False)]
)
def test_what_is_noted_is_read_again(machine: Machine, noted: Noted) -> None:
    assert freeze_record.read(machine) is None
    os.close(freeze_record.write(machine, noted))
    assert freeze_record.read(machine) in (noted, noted._replace(file_systems=[]))
    assert os.listdir(machine.state_directory) == ["frozen"]


def test_another_boot_has_nothing_frozen_but_the_hooks_are_due_as_they_were(machine: Machine) -> None:
    os.close(freeze_record.write(machine, Noted([("7:1", "/a")], failed=False)))
    (Path(machine.root) / "proc/sys/kernel/random/boot_id").write_text("another\n", "utf-8")
    assert freeze_record.read(machine) == Noted((), failed=False)


def test_a_record_stands_until_it_is_replaced_or_removed(machine: Machine) -> None:
    first = freeze_record.write(machine, Noted())
    assert freeze_record.stands(first)
    second = freeze_record.write(machine, Noted())
    assert (freeze_record.stands(first), freeze_record.stands(second)) == (False, True)
    os.unlink(freeze_record.path(machine))
    assert not freeze_record.stands(second)
    for record in (first, second):
        os.close(record)


def test_the_lock_is_held_once(machine: Machine) -> None:
    first, second = freeze_record.open_lock(machine), freeze_record.open_lock(machine)
    assert freeze_record.try_lock(first)
    assert not freeze_record.try_lock(second)
    os.close(first)
    assert freeze_record.try_lock(second)
    os.close(second)
