"""The tests' own tools notice what goes wrong."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from host_agent.demo.vm.guest import GuestError
from host_agent.demo.vm.machine import Emulator, Machine, MachineError

from .hosts import VM, wait_for
from .scene import GuestCrashed, Scene, States

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.fixture
def machine(emulator: Emulator, states: States, workplace: pathlib.Path) -> Iterator[Machine]:
    """A booted VM of which no scene looks at the console."""
    machine = Machine(emulator, workplace / "machine", workplace / "vms", VM, 1)
    try:
        machine.restore(states.booted)
        yield machine
    finally:
        machine.end()
        for file in (workplace / "machine").iterdir():
            file.unlink()
        (workplace / "machine").rmdir()


def test_a_command_that_fails_in_the_guest_is_noticed(machine: Machine) -> None:
    with pytest.raises(GuestError, match="status 1"):
        machine.guest.run("false")


def test_a_command_that_does_not_end_is_noticed(machine: Machine) -> None:
    with pytest.raises(GuestError, match="no answer from the guest: sleep 100"):
        machine.guest.run("sleep 100", patience=0.5)


def test_a_crash_of_the_guest_s_kernel_is_reported_as_that(
    machine: Machine, scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    assert machine.crash is None
    with pytest.raises(GuestError):
        machine.guest.run("echo c >/proc/sysrq-trigger", patience=2)
    wait_for("the console shows the crash", lambda: machine.crash is not None, machine.said)
    with monkeypatch.context() as patched:
        patched.setattr(scene, "machines", [machine])
        with pytest.raises(GuestCrashed, match=f"(?s)its console is kept in {tmp_path}.*Kernel panic"):
            scene.check(tmp_path)


def test_a_qemu_that_does_not_start_is_noticed(emulator: Emulator, workplace: pathlib.Path) -> None:
    refusing = Emulator(emulator.program, "no-such-accelerator", emulator.image)
    machine = Machine(refusing, workplace / "refused", workplace / "vms", VM, 2)
    try:
        with pytest.raises(MachineError, match=r"QEMU ended with status 1\n(?s:.*)no-such-accelerator"):
            machine.boot()
    finally:
        machine.end()
