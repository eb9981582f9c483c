"""Our packages on a Debian with systemd and udev: the agent is there when its port is, whatever is done to either."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import shlex
from collections.abc import Iterator

import pytest

from common import messages
from common.versions import Version
from host_agent.demo.vm import image
from host_agent.demo.vm.guest import GuestError
from host_agent.demo.vm.machine import Emulator, Machine
from tests.needs import or_left_out
from tests.packaging import parts

from . import debian
from .hosts import VM, BareHost, Host
from .scene import Scene, States, now

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

#: Two releases to go back and forth between.
OLDER, NEWER = "0.1", "999.1"

#: Seconds that dpkg may take; much of it is Python compiling on an emulated processor.
_DPKG_PATIENCE = 180.0

_UNIT = "vmaccord-guest-agent"
_DROP_INS = "/etc/vmaccord/guest.conf.d"
_PACKAGES = ("vmaccord-common", _UNIT)

#: The kernel has its own to say about emulated hardware.
_NOT_THE_KERNEL = " + ".join(f"_TRANSPORT={each}" for each in ("driver", "journal", "stdout", "syslog"))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """Our packages for guests, of both releases."""
    output = tmp_path_factory.mktemp("releases")
    with or_left_out():
        for release in (OLDER, NEWER):
            parts.build(output, "--deb-only", "--release", release)
    return [output / _file(package, release) for package in _PACKAGES for release in (OLDER, NEWER)]


@pytest.fixture(scope="session")
def emulator(emulator: Emulator, workplace: pathlib.Path, releases: list[pathlib.Path]) -> Emulator:
    """QEMU, and a Debian with two processors that has our packages at hand."""
    with or_left_out():
        booted = debian.build(workplace, image.default_cache(), releases)
    arguments = ("-m", str(debian.MEMORY), "-smp", "2", *emulator.arguments)
    return dataclasses.replace(emulator, image=booted, arguments=arguments)


@pytest.fixture(scope="session")
def states(emulator: Emulator, workplace: pathlib.Path) -> States:
    """A booted Debian without a port, saved without and with our packages."""
    template = Machine(emulator, workplace / "debian", workplace / "vms", VM, 0, plugged=False)
    booted, installed = workplace / "debian-booted", workplace / "debian-installed"
    try:
        template.boot()
        template.guest.run("systemctl is-system-running --wait")
        template.save(booted)
        template.monitor.execute("cont")
        _install(template, OLDER)
        template.save(installed)
        assert template.crash is None
    finally:
        template.end()
    return States(booted, installed, 0, plugged=False)


@pytest.fixture
def scene(scene: Scene) -> Iterator[Scene]:
    """The scenario's host and machine; the guest's journal is shown at its end."""
    yield scene
    for vm in scene.machines:
        with contextlib.suppress(GuestError, OSError):
            print(vm.guest.attempt(f"journalctl --quiet --lines=200 {_NOT_THE_KERNEL}")[0])


def _file(package: str, release: str) -> str:
    return f"{package}_{release}_all.deb"


# ---- What an administrator does ----


def _install(vm: Machine, release: str) -> None:
    files = " ".join(f"{debian.PACKAGES}/{_file(package, release)}" for package in _PACKAGES)
    vm.guest.run(f"dpkg --install {files} 2>&1", _DPKG_PATIENCE)


def _configure(vm: Machine, *lines: str) -> None:
    """Write a drop-in of these lines."""
    vm.guest.run(f"mkdir -p {_DROP_INS} && printf '%s\\n' {shlex.join(lines)} >{_DROP_INS}/test.conf")


# ---- What an administrator sees ----


def _unit(vm: Machine, name: str) -> str:
    """A property of the agent's unit."""
    return vm.guest.run(f"systemctl show --property={name} --value {_UNIT}")


def _assert_clean(vm: Machine, *expected: str) -> None:
    """No unit has failed, the agent never had to be restarted, and nobody warned of more than is *expected*."""
    assert vm.guest.run("systemctl --failed --quiet --plain --no-legend") == ""
    assert (_unit(vm, "Result"), _unit(vm, "NRestarts")) == ("success", "0")
    warnings = vm.guest.run(f"journalctl --quiet --priority=warning --output=cat {_NOT_THE_KERNEL}").splitlines()
    assert [line for line in warnings if not any(each in line for each in expected)] == []


def _await_release(host: Host, release: str) -> None:
    """Wait until the agent reports its own package."""
    name = f"{_UNIT}-{release}"
    host.await_that(f"{name} is installed", lambda guest: name in guest["facts"]["applications"]["value"]["applications"])


def _plug(scene: Scene, vm: Machine, host: Host) -> None:
    began, pushes = now(), host.counted("pushes")
    vm.plug_port()
    scene.await_agreement(host, 3, "from the plugging in, systemd's start of the agent included", began, pushes=pushes)


def test_the_agent_is_started_when_a_port_appears_and_stopped_when_it_goes(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    assert _unit(vm, "ActiveState") == "inactive"
    _assert_clean(vm)
    _plug(scene, vm, host)
    _await_release(host, OLDER)
    assert _unit(vm, "ActiveState") == "active"
    _assert_clean(vm)
    vm.unplug_port()
    vm.guest.run(f"until [ $(systemctl is-active {_UNIT}) = inactive ]; do sleep 0.2; done")
    _plug(scene, vm, host)
    _assert_clean(vm, "the port vanished")


def test_the_package_is_installed_upgraded_and_downgraded_while_the_host_is_connected(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm_without_agent(host)
    # While dpkg restarts the agent, its database still has the release before.
    _configure(vm, "[periods]", "applications = 5")
    vm.plug_port()
    host.await_state("connected")
    for release in (OLDER, NEWER, OLDER):
        began, pushes = now(), host.counted("pushes")
        _install(vm, release)
        scene.await_agreement(host, 3, f"dpkg's work on release {release}, to agreement", began, pushes=pushes)
        _await_release(host, release)
    assert host.times_said("its agent was restarted") == 2
    _assert_clean(vm)


def test_a_configuration_is_reloaded_without_a_restart(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    _plug(scene, vm, host)
    agent = _unit(vm, "MainPID")
    for lines, expected in ((["[guest]", "max-api-version = 1"], 1), ([], 3)):
        _configure(vm, *lines)
        began = now()
        vm.guest.run(f"systemctl reload {_UNIT}")
        scene.await_agreement(host, expected, f"from the reload to API {expected}", began)
    assert _unit(vm, "MainPID") == agent
    _assert_clean(vm)


def test_what_is_frozen_thaws_when_systemd_finds_the_agent_killed(scene: Scene, disk: bytes) -> None:
    host = scene.host("5")
    vm = scene.vm(host)
    vm.guest.write_file("/run/disk", disk)
    vm.guest.run("mkdir /run/mounted; modprobe loop; mount -t ext4 -o loop /run/disk /run/mounted")
    vm.plug_port()
    host.await_that("the capabilities are there", lambda guest: guest["capabilities"] is not None)
    frozen = host.send("filesystem-freeze", mountpoints=["/run/mounted"], thaw_after=600)
    assert frozen.completion == {"done": True, "result": {"mountpoints": ["/run/mounted"]}}
    vm.guest.run("(touch /run/mounted/file && touch /run/written) & sleep 1; ! test -e /run/written")
    agent = _unit(vm, "MainPID")
    vm.guest.run(f"systemctl kill --signal=KILL {_UNIT}")
    vm.guest.run("until test -e /run/written; do sleep 0.1; done")
    vm.guest.run(f"while [ $(systemctl show --property=MainPID --value {_UNIT}) -le 1 ]; do sleep 0.2; done")
    assert _unit(vm, "MainPID") != agent
    host.await_that("the next agent is there", lambda guest: guest["api"]["agreed"] == 5)
    assert vm.guest.run("umount /run/mounted; ls -A /run/vmaccord-guest") == ""


def test_a_purged_package_leaves_a_silent_port_and_no_file(scene: Scene) -> None:
    host = scene.host("3")
    vm = scene.vm(host)
    _plug(scene, vm, host)
    vm.guest.run(f"dpkg --purge {' '.join(reversed(_PACKAGES))} 2>&1", _DPKG_PATIENCE)
    host.await_state("unresponsive")
    assert vm.guest.run(f"find / -xdev -path {debian.PACKAGES} -prune -o -name '*vmaccord*' -print") == ""
    assert _unit(vm, "LoadState") == "not-found"
    _assert_clean(vm)


def _set_number_of_cpus(host: BareHost, count: int) -> None:
    host.session.send(messages.SetNumberOfCpus(count=count))
    host.read_until(f"it has {count} processors", lambda: host.said_last("number-of-cpus") == {"count": count})


def test_a_host_takes_a_processor_away_and_gives_it_back(scene: Scene) -> None:
    vm = scene.vm(scene.host(started=False))
    vm.plug_port()
    with BareHost(vm.port, Version.V3) as host:
        host.read_until("API 3 is in use", lambda: host.in_use == 3)
        for count, online in ((1, "0"), (2, "0-1")):
            _set_number_of_cpus(host, count)
            assert vm.guest.run("cat /sys/devices/system/cpu/online") == online
    _assert_clean(vm)


def test_a_host_shuts_the_guest_down_which_says_so_before(scene: Scene) -> None:
    vm = scene.vm(scene.host(started=False))
    vm.plug_port()
    with BareHost(vm.port, Version.V3) as host:
        host.read_until("API 3 is in use", lambda: host.in_use == 3)
        before = vm.monitor.mark()
        host.session.send(messages.Shutdown(timeout=0, message="for maintenance", reboot="False"))
        host.read_until("it shuts down", lambda: host.said_last("session-shutdown") is not None)
    assert vm.monitor.await_event("SHUTDOWN", before).arguments == {"guest": True, "reason": "guest-shutdown"}
