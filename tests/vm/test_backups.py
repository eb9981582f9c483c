"""What backups need: file systems that are frozen and thaw whatever happens, a clock that is set, programs that are run."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from host_agent.demo.vm.machine import Machine

from .hosts import Host
from .scene import Scene, now

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

DISK, MOUNTPOINT = "/run/disk", "/run/mounted"

#: No test lasts as long, in seconds.
FOR_EVER = 600

CONFIGURATION = b"[commands]\nenable = exec\n"


@pytest.fixture
def host(scene: Scene) -> Host:
    return scene.host("5")


@pytest.fixture
def vm(scene: Scene, host: Host, disk: bytes) -> Machine:
    """The VM with a file system of its own and an agent that may do everything that is tried here."""
    machine = scene.vm_without_agent(host)
    machine.guest.write_file("/etc/vmaccord/guest.conf", CONFIGURATION)
    machine.guest.write_file(DISK, disk)
    machine.guest.run(f"mkdir {MOUNTPOINT}; mount -t ext4 -o loop {DISK} {MOUNTPOINT}")
    began = now()
    scene.start_agent(machine, "5")
    agree(scene, host, "first contact", began)
    return machine


def agree(scene: Scene, host: Host, step: str, began: float) -> None:
    """Wait for the agreement, and for what the guest says that it carries out, after *began*."""
    scene.await_agreement(host, 5, step, began)
    await_capabilities(host)


def await_capabilities(host: Host) -> None:
    host.await_that("the capabilities are there", lambda guest: guest["capabilities"] is not None)


def freeze(host: Host, thaw_after: float = FOR_EVER) -> None:
    answer = host.send("filesystem-freeze", mountpoints=[MOUNTPOINT], thaw_after=thaw_after)
    assert answer.completion == {"done": True, "result": {"mountpoints": [MOUNTPOINT]}}


def status(host: Host) -> Any:
    completion = host.send("filesystem-status").completion
    assert completion is not None
    return completion["result"]


def start_writing(vm: Machine) -> None:
    """Begin to write to the file system, which says when it is done."""
    vm.guest.run(
        f"rm -f /run/written; (echo text >{MOUNTPOINT}/file && sync {MOUNTPOINT}/file && touch /run/written) & sleep 1"
    )


def written(vm: Machine) -> bool:
    return vm.guest.attempt("test -e /run/written")[1] == 0


def await_written(vm: Machine) -> None:
    vm.guest.run("while ! test -e /run/written; do sleep 0.1; done")
    assert vm.guest.run(f"cat {MOUNTPOINT}/file") == "text"


def test_a_frozen_file_system_blocks_who_writes_until_it_is_thawed(scene: Scene, host: Host, vm: Machine) -> None:
    freeze(host)
    assert status(host)["state"] == "frozen"
    start_writing(vm)
    scene.await_life(host)
    assert not written(vm)
    thawed = host.send("filesystem-thaw").completion
    assert thawed == {"done": True, "result": {"mountpoints": [MOUNTPOINT]}}
    await_written(vm)
    assert status(host) == {"state": "thawed", "mountpoints": [], "thaws_in_s": None}


def test_a_frozen_file_system_thaws_by_itself(host: Host, vm: Machine) -> None:
    freeze(host, thaw_after=5)
    start_writing(vm)
    await_written(vm)
    assert status(host)["state"] == "thawed"


def test_a_file_system_thaws_when_its_agent_is_killed(scene: Scene, host: Host, vm: Machine) -> None:
    freeze(host)
    start_writing(vm)
    assert not written(vm)
    vm.guest.kill_agent(scene.agent)
    await_written(vm)
    began = now()
    scene.start_agent(vm, "5")
    agree(scene, host, "the next agent", began)
    assert status(host)["state"] == "thawed"


def test_a_file_system_thaws_at_the_next_start_when_everything_of_the_agent_was_killed(
    scene: Scene, host: Host, vm: Machine
) -> None:
    freeze(host)
    start_writing(vm)
    children = f"$(grep -l '^PPid:[[:space:]]*{scene.agent}$' /proc/[0-9]*/status | cut -d/ -f3)"
    vm.guest.run(f"kill -9 {children} {scene.agent}")
    assert not written(vm)
    began = now()
    scene.start_agent(vm, "5")
    await_written(vm)
    agree(scene, host, "the next agent", began)
    assert status(host)["state"] == "thawed"


def test_a_freeze_outlasts_a_live_migration(scene: Scene, host: Host, vm: Machine) -> None:
    freeze(host)
    there = scene.host("5")
    moved, resumed = scene.move(vm, there)
    await_capabilities(there)
    assert status(there)["state"] == "frozen"
    start_writing(moved)
    assert not written(moved)
    assert there.send("filesystem-thaw").completion == {"done": True, "result": {"mountpoints": [MOUNTPOINT]}}
    await_written(moved)
    scene.await_agreement(there, 5, "from the destination's resume, through a thaw", resumed)


def test_the_clock_of_a_vm_restored_from_a_file_is_set(
    scene: Scene, host: Host, vm: Machine, tmp_path: pathlib.Path
) -> None:
    vm.save(tmp_path / "state")
    vm.end()
    restored = scene.machine(host)
    restored.restore(tmp_path / "state")
    (tmp_path / "state").unlink()
    agree(scene, host, "the restored VM", now())
    behind = now() - guest_time(restored)
    assert behind > 0
    asked = now()
    completion = host.send("set-time", epoch_ns=int(asked * 1e9)).completion
    assert completion is not None
    assert completion["done"], completion
    assert completion["result"]["step_ns"] > 0
    scene.note_time("how far the clock was behind after a restore", behind)
    # It took a while to tell it, and to ask it.
    assert asked - 1 <= guest_time(restored) <= now() + 1


def guest_time(vm: Machine) -> float:
    return float(vm.guest.run("date +%s"))


def test_a_program_is_run(host: Host, vm: Machine) -> None:
    answer = host.send(
        "exec", argv=["sh", "-c", "cat; echo $MORE >&2; exit 3"], input="secret", environment={"MORE": "x"}, timeout=30
    )
    assert answer.completion is not None
    assert answer.completion["done"], answer.completion
    result = answer.completion["result"]
    assert (result["exit_status"], result["output"], result["error_output"]) == (3, "secret", "x\n")
    vm.guest.run("! grep -q secret /tmp/agent.log")


def test_a_program_that_takes_too_long_is_ended_with_all_it_started(scene: Scene, host: Host, vm: Machine) -> None:
    answer = host.send("exec", argv=["sh", "-c", "sleep 1234 & echo begun; sleep 1234"], timeout=3)
    assert answer.completion is not None
    assert answer.completion["error"]["code"] == "timed-out"
    assert answer.completion["result"]["output"] == "begun\n"
    assert vm.guest.attempt("pgrep -f 'sleep 123[4]'")[1] != 0
    scene.await_life(host)
