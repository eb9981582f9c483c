"""Both sides come to agreement, in whichever order they and their releases appear."""

from __future__ import annotations

import signal

import pytest

from .scene import Scene, now

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


def test_a_vm_that_boots_agrees_with_its_host(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.machine(host)
    began = now()
    vm.boot()
    scene.start_agent(vm)
    scene.await_agreement(host, 3, "from power on to agreement", began)


def test_the_host_daemon_may_be_there_before_the_agent(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm_without_agent(host)
    host.await_state("connected")
    began = now()
    scene.start_agent(vm)
    scene.await_agreement(host, 3, "from the agent's start, Python's included", began)


def test_the_agent_may_be_there_before_the_host_daemon(scene: Scene) -> None:
    host = scene.host("3", started=False)
    scene.vm(host)
    host.start()
    scene.await_agreement(host, 3, "from the daemon's first answer", now())


def test_a_restarted_daemon_agrees_again(scene: Scene) -> None:
    host = scene.host("3")
    scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    for maximum in ("3", "1", "3"):
        host.stop()
        host.start(maximum)
        scene.await_agreement(host, int(maximum), f"daemon restarted with API {maximum}, from its first answer", now())


def test_a_killed_daemon_s_successor_agrees_again(scene: Scene) -> None:
    host = scene.host("3")
    scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    host.stop(signal.SIGKILL)
    host.start()
    scene.await_agreement(host, 3, "from the next daemon's first answer", now())


def test_an_agent_may_be_upgraded_and_downgraded_under_an_open_channel(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm_without_agent(host)
    host.await_state("connected")
    for maximum in ("1", "3", "2"):
        pushes = host.counted("pushes")
        if scene.agent:
            assert vm.guest.stop_agent(scene.agent) == 0
        began = now()
        scene.start_agent(vm, maximum)
        step = f"from the start of an agent of API {maximum}"
        scene.await_agreement(host, int(maximum), step, began, pushes=pushes)


def test_a_restarted_agent_agrees_again(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    pushes = host.counted("pushes")
    assert vm.guest.stop_agent(scene.agent) == 0
    began = now()
    scene.start_agent(vm)
    scene.await_agreement(host, 3, "from the agent's start, Python's included", began, pushes=pushes)


def test_a_killed_agent_s_successor_agrees_again(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    scene.await_agreement(host, 3, "first contact", now())
    pushes = host.counted("pushes")
    vm.guest.kill_agent(scene.agent)
    began = now()
    scene.start_agent(vm)
    scene.await_agreement(host, 3, "from the next agent's start, Python's included", began, pushes=pushes)
