"""What a virtio-serial port can do to the agent: pauses, resets, unplugging, other openers, and hosts that do not read."""

from __future__ import annotations

import json

import pytest

from common.versions import Version
from host_agent.demo.vm.machine import Machine

from .hosts import BareHost
from .scene import Scene, now

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

#: CPU time that the agent may take in half a minute without a host, in seconds.
IDLE_LIMIT = 0.1

_GONE = "the host is gone"
_CONGESTED = "the host does not read"


def test_a_stopped_vm_goes_on_where_it_was(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    pushes = host.counted("pushes")
    vm.monitor.execute("stop")
    vm.monitor.execute("cont")
    scene.await_life(host)
    assert host.counted("pushes") == pushes


def test_a_guest_that_was_paused_while_its_host_changed_agrees_with_the_new_one(scene: Scene) -> None:
    """Nothing tells this guest that its host has left, nor that another came."""
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    vm.monitor.execute("stop")
    host.stop()
    host.start("1")
    host.await_state("connected")
    before = vm.monitor.mark()
    vm.monitor.execute("cont")
    scene.await_agreement(host, 1, "from the resume", vm.monitor.await_event("RESUME", before).at)
    assert _GONE not in vm.guest.agent_said()


def test_a_guest_that_spoke_to_nobody_after_its_host_left_agrees_with_the_next_one(scene: Scene) -> None:
    """The host leaves while the VM is paused, so nothing tells; the first thing that the guest then writes jams the port.

    QEMU holds what is written back until its client is ready, and does not notice that another client came. From the guest
    there is no remedy, not even opening the port anew; it takes a host that connects once more.
    """
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    vm.monitor.execute("stop")
    host.stop()
    vm.monitor.execute("cont")
    vm.guest.run("sleep 6")
    assert _GONE not in vm.guest.agent_said()
    host.start("1")
    scene.await_agreement(host, 1, "from the next daemon's first answer, through a jammed port", now())


def test_a_guest_that_is_reset_agrees_again_over_the_same_connection(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    pushes = host.counted("pushes")
    vm.monitor.execute("system_reset")
    vm.guest.await_shell()
    began = now()
    scene.start_agent(vm, "2")
    scene.await_agreement(host, 2, "from the agent's start, Python's included", began, pushes=pushes)


def test_a_port_that_is_unplugged_and_plugged_in_again_is_found_again(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    pushes = host.counted("pushes")
    vm.unplug_port()
    vm.guest.await_agent_saying("the port vanished")
    assert scene.busy_seconds(vm, 10, "port unplugged") < IDLE_LIMIT * 5
    began = now()
    vm.plug_port()
    scene.await_agreement(host, 3, "from the plugging in; the agent looks every second", began, pushes=pushes)


def test_a_port_that_another_program_holds_is_taken_when_that_one_ends(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm_without_agent(host)
    holder = int(vm.guest.run("sh -c 'exec 3<>/dev/vport0p1; exec sleep 1000' & echo $!"))
    scene.start_agent(vm)
    vm.guest.await_agent_saying("held by another program")
    assert scene.busy_seconds(vm, 10, "port held by another program") < IDLE_LIMIT * 5
    began = now()
    vm.guest.run(f"kill {holder}")
    scene.await_agreement(host, 3, "from the holder's end; the agent tries every second", began)


# ---- No busy loop ----


def test_an_agent_without_a_host_takes_next_to_no_cpu_time(scene: Scene) -> None:
    vm = scene.vm(scene.host(started=False))
    assert scene.least_busy_seconds(vm, 30, "no host has come yet", IDLE_LIMIT) <= IDLE_LIMIT


def test_an_agent_whose_host_has_left_takes_next_to_no_cpu_time(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    host.stop()
    vm.guest.await_agent_saying(_GONE)
    assert scene.least_busy_seconds(vm, 30, "the host has left", IDLE_LIMIT) <= IDLE_LIMIT


def test_an_agent_with_a_host_takes_little_cpu_time(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    assert scene.busy_seconds(vm, 10, "with a host") < IDLE_LIMIT * 10


# ---- A host that does not read ----


def _fill(scene: Scene, vm: Machine, host: BareHost) -> None:
    """Make the guest write until nothing fits any more and it has read all that was sent; the host reads nothing.

    An answer takes ten writes: where the port is full, it is so in the middle of a line.
    """
    echo = json.dumps({"__name__": "echo", "text": "x" * 300_000}).encode() + b"\n"
    while _CONGESTED not in vm.guest.agent_said():
        host.send(b"" if host.unsent else echo)
    before = 0.0
    while vm.guest.cpu_seconds(scene.agent) - before > 0.02 or host.unsent:
        before = vm.guest.cpu_seconds(scene.agent)
        host.send(b"")
        vm.guest.run("sleep 1")


def test_a_host_that_does_not_read_blocks_nothing_and_loses_nothing_when_it_reads_again(scene: Scene) -> None:
    vm = scene.vm(scene.host(started=False))
    with BareHost(vm.port, Version.V3) as host:
        host.read_until("API 3 is in use", lambda: host.in_use == 3)
        _fill(scene, vm, host)
        assert scene.busy_seconds(vm, 60, "the host does not read") < IDLE_LIMIT * 20
        began = now()
        host.read_until("the agent goes on", lambda: "the host reads again" in vm.guest.agent_said())
        heard = len(host.lines)
        host.read_until("a heartbeat comes", lambda: "heartbeat" in [line.name for line in host.lines[heard:]])
        scene.note_time(f"from reading again to a heartbeat, after {host.bytes:,} bytes", now() - began)
        assert host.in_use == 3
        assert not host.malformed
        assert host.session.counters.pushes == 1


def test_an_agent_killed_in_the_middle_of_a_line_costs_that_line_only(scene: Scene) -> None:
    vm = scene.vm(scene.host(started=False))
    with BareHost(vm.port, Version.V3) as host:
        host.read_until("API 3 is in use", lambda: host.in_use == 3)
        _fill(scene, vm, host)
        vm.guest.kill_agent(scene.agent)
        began = now()
        scene.start_agent(vm, "2")
        host.read_until("API 2 is in use", lambda: host.in_use == 2)
        scene.note_time("from the next agent's start, Python's included", now() - began)
        # The half line, with what the next agent said first glued to it.
        assert len(host.malformed) == 1
        assert host.malformed[0].endswith(b'"session-startup"}')


def test_a_half_line_of_a_program_that_died_costs_that_line_only(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm_without_agent(host)
    host.await_state("connected")
    vm.guest.run("""printf '{"__name__": "heartbeat", "apiVers' >/dev/vport0p1""")
    scene.cut_lines = 1
    began = now()
    scene.start_agent(vm)
    scene.await_agreement(host, 3, "from the agent's start, Python's included", began)
    assert host.counted("dropped") == {"malformed": 1}
