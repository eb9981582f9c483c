"""The VM moves to another host, live or through a file, and agrees there; or the move fails and nothing is lost."""

from __future__ import annotations

import pathlib
import statistics

import pytest

from common.versions import Version
from host_agent.demo.vm.monitor import MonitorError

from .hosts import BareHost, Host
from .scene import HEARTBEAT_LIMIT, MOVE_LIMIT, Scene, now

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

_MOVES = [("3", "3", 3), ("3", "1", 1), ("3", "none", 0), ("1", "3", 3), ("none", "3", 3)]
_GONE = "the host is gone"


def _version(maximum: str) -> int:
    return 0 if maximum == "none" else int(maximum)


@pytest.mark.parametrize(("here", "there", "expected"), _MOVES)
def test_a_guest_moved_to_a_host_that_waits_for_it_notices_nothing_and_agrees_at_once(
    scene: Scene, here: str, there: str, expected: int
) -> None:
    source, destination = scene.host(here), scene.host(there)
    vm = scene.vm(source)
    scene.await_agreement(source, _version(here), "first contact", now())
    vm, resumed = scene.move(vm, destination)
    scene.await_agreement(destination, expected, "from the destination's resume", resumed, limit=HEARTBEAT_LIMIT)
    assert _GONE not in vm.guest.agent_said()


@pytest.mark.parametrize(("here", "there", "expected"), _MOVES)
def test_a_guest_moved_to_a_host_that_comes_late_sees_it_come_and_agrees_at_once(
    scene: Scene, here: str, there: str, expected: int
) -> None:
    source, destination = scene.host(here), scene.host(there)
    vm = scene.vm(source)
    scene.await_agreement(source, _version(here), "first contact", now())
    vm = scene.move_unseen(vm, destination)
    vm.guest.await_agent_saying(_GONE)
    connects = now()
    vm.reveal()
    scene.await_agreement(destination, expected, "from the destination host's connect", connects, limit=HEARTBEAT_LIMIT)
    assert vm.guest.agent_said().count("a host is connected") == 2


def test_a_guest_moved_there_and_back_ten_times_agrees_every_time(scene: Scene) -> None:
    hosts = [scene.host("3"), scene.host("1")]
    vm = scene.vm(hosts[0])
    scene.await_agreement(hosts[0], 3, "first contact", now())
    took = []
    for move in range(1, 21):
        host = hosts[move % 2]
        vm, resumed = scene.move(vm, host)
        step = "from the destination's resume"
        took.append(scene.await_agreement(host, int(host.maximum), step, resumed, limit=HEARTBEAT_LIMIT))
    assert statistics.median(took) <= MOVE_LIMIT
    assert _GONE not in vm.guest.agent_said()


def test_a_guest_moved_to_hosts_that_come_late_agrees_with_each(scene: Scene) -> None:
    hosts = [scene.host("3"), scene.host("1")]
    vm = scene.vm(hosts[0])
    scene.await_agreement(hosts[0], 3, "first contact", now())
    took = []
    for move in range(1, 8):
        host = hosts[move % 2]
        vm = scene.move_unseen(vm, host)
        vm.guest.await_agent_saying(_GONE, move)
        connects = now()
        vm.reveal()
        step = "from the destination host's connect"
        took.append(scene.await_agreement(host, int(host.maximum), step, connects, limit=HEARTBEAT_LIMIT))
    assert statistics.median(took) <= MOVE_LIMIT


def test_a_guest_that_is_busy_answering_sends_nothing_newer_once_an_older_host_has_told_it(scene: Scene) -> None:
    """The source asks for everything again and again, so that the VM moves with facts of API 3 under way."""
    source, destination = scene.host("3", started=False), scene.host("1", started=False)
    vm = scene.vm(source)
    there = scene.machine(destination)
    address = there.await_migration()
    with BareHost(vm.port, Version.V3) as newer, BareHost(there.port, Version.V1) as older:
        newer.read_until("API 3 is in use", lambda: newer.in_use == 3)
        vm.start_migration(address)

        def ask_again() -> bool:
            if newer.lines[-1].name == "containers":
                newer.session.refresh(now())
            return bool(there.monitor.mark()) and there.status == "running"

        newer.read_until("the VM has moved", ask_again)
        older.read_until("API 1 is in use", lambda: older.in_use == 1)
        told = len(older.lines)
        older.session.refresh(now())
        older.read_until("the facts came again", lambda: "number-of-cpus" in [line.name for line in older.lines[told:]])
        older.session.refresh(now())
        older.read_until(
            "two more heartbeats came", lambda: [line.name for line in older.lines[told:]].count("heartbeat") >= 4
        )
        names = {line.name for line in older.lines[told:]}
        assert not names & {"os-info", "timezone", "containers"}
        # One line may have been cut by the move itself: its head lies with the source.
        assert len(older.malformed) <= 1


def test_a_busy_guest_that_is_short_of_memory_agrees_after_a_move(scene: Scene) -> None:
    source, destination = scene.host("3"), scene.host("1")
    vm = scene.vm(source)
    scene.await_agreement(source, 3, "first contact", now())
    vm.guest.run("for job in 1 2; do while :; do :; done & done")
    vm.guest.run("dd if=/dev/urandom of=/run/ballast bs=1M count=40")
    vm.guest.run("while :; do dd if=/dev/zero of=/run/ballast bs=1M count=8 conv=notrunc 2>/dev/null; done &")
    vm, resumed = scene.move(vm, destination)
    scene.await_agreement(destination, 1, "from the destination's resume, under load", resumed)


def test_a_vm_saved_to_a_file_agrees_on_another_host(scene: Scene, tmp_path: pathlib.Path) -> None:
    source, destination = scene.host("3"), scene.host("1")
    vm = scene.vm(source)
    scene.await_agreement(source, 3, "first contact", now())
    vm.save(tmp_path / "state")
    vm.end()
    vm = scene.machine(destination)
    vm.restore(tmp_path / "state")
    (tmp_path / "state").unlink()
    resumed = vm.monitor.await_event("RESUME").at
    scene.await_agreement(destination, 1, "from the resume", resumed)


# ---- Moves that fail ----


def _stays(scene: Scene, source: Host, destination: Host) -> None:
    """The VM goes on here as before: same agreement, not told again, and heard."""
    pushes = source.counted("pushes")
    scene.await_life(source)
    guest = source.guest()
    assert guest is not None
    assert (guest["api"]["agreed"], guest["api"]["in_use"], guest["counters"]["pushes"]) == (3, 3, pushes)
    assert source.guest() is not None
    there = destination.guest()
    assert there is None or there["channel"]["state"] in {"absent", "connected", "connecting"}


def test_a_move_whose_destination_is_killed_half_way_changes_nothing(scene: Scene) -> None:
    source, destination = scene.host("3"), scene.host("1")
    vm = scene.vm(source)
    scene.await_agreement(source, 3, "first contact", now())
    there = scene.machine(destination)
    before = vm.monitor.mark()
    vm.start_migration(there.await_migration(), bandwidth=1 << 20)
    vm.await_migration_status("active", before)
    there.end()
    with pytest.raises(MonitorError, match="did not come to completed"):
        vm.await_migration_status("completed", before)
    assert vm.status == "running"
    _stays(scene, source, destination)


@pytest.mark.parametrize("failure", ["cancelled", "destination lost"])
def test_a_move_that_fails_at_the_switch_resumes_where_it_was(scene: Scene, failure: str) -> None:
    source, destination = scene.host("3"), scene.host("1")
    vm = scene.vm(source)
    scene.await_agreement(source, 3, "first contact", now())
    there = scene.machine(destination)
    before = vm.monitor.mark()
    vm.start_migration(there.await_migration(), stop_before_the_switch=True)
    vm.await_migration_status("pre-switchover", before)
    destination.await_state("connected")
    if failure == "cancelled":
        vm.monitor.execute("migrate_cancel")
    else:
        there.end()
        vm.monitor.execute("migrate-continue", state="pre-switchover")
    vm.monitor.await_event("RESUME", before)
    _stays(scene, source, destination)
