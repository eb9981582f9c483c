"""Fixtures for tests on real VMs: image and saved states are made once a session, each test has a scene of its own.

Environment variables: see ``docs/virtual-machines.md``.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Optional

import pytest

from host_agent.cli.views import columns
from host_agent.demo.vm import image, machine, packages
from tests.needs import ROOT, or_left_out

from .hosts import VM
from .scene import Scene, States, Time

_TIMES = pytest.StashKey[list[Time]]()


@pytest.fixture(scope="session")
def workplace() -> Iterator[pathlib.Path]:
    """A directory with a short path: that of a socket is limited."""
    with tempfile.TemporaryDirectory(prefix="vmaccord-") as directory:
        yield pathlib.Path(directory)


@pytest.fixture(scope="session")
def emulator(workplace: pathlib.Path) -> machine.Emulator:
    """QEMU, and the image that it boots."""
    with or_left_out():
        program = os.environ.get("VMACCORD_VM_QEMU") or packages.program("qemu-system-x86_64", "qemu-system-x86")
        booted = _own_image() or image.build(ROOT, workplace, image.default_cache())
    accelerator = os.environ.get("VMACCORD_VM_ACCELERATOR") or machine.accelerator(program, booted.kernel)
    return machine.Emulator(program, accelerator, booted, tuple(shlex.split(os.environ.get("VMACCORD_VM_ARGUMENTS", ""))))


@pytest.fixture(scope="session")
def states(emulator: machine.Emulator, workplace: pathlib.Path) -> States:
    """A booted VM, saved without and with an agent."""
    template = machine.Machine(emulator, workplace / "template", workplace / "vms", VM, 0)
    booted, with_agent = workplace / "booted", workplace / "with-agent"
    try:
        template.boot()
        template.save(booted)
        template.monitor.execute("cont")
        agent = template.guest.start_agent("--max-api-version", "3")
        template.guest.await_agent_saying("no host is connected yet")
        template.save(with_agent)
        assert template.crash is None
    finally:
        template.end()
    return States(booted, with_agent, agent)


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty ext4 file system."""
    path = tmp_path_factory.mktemp("disk") / "disk"
    with path.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", str(path)], check=True)
    return path.read_bytes()


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    emulator: machine.Emulator,
    states: States,
    workplace: pathlib.Path,
    tmp_path: pathlib.Path,
) -> Iterator[Scene]:
    """The scenario's hosts and machines."""
    root = workplace / "scene"
    scene = Scene(root, emulator, states, request.node.name.removeprefix("test_").replace("_", " "))
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(shutil.rmtree, root, ignore_errors=True)
        at_the_end.callback(scene.check, tmp_path)
        at_the_end.callback(_keep_logs, root, tmp_path)
        at_the_end.callback(scene.close)
        at_the_end.callback(lambda: print(scene.said()))
        yield scene
    request.config.stash.setdefault(_TIMES, []).extend(scene.times)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how long everything took."""
    times = config.stash.get(_TIMES, [])
    if times:
        terminalreporter.section("seconds on VMs")
        terminalreporter.write_line(columns([(f"{each.seconds:8.3f}", each.step, each.scenario) for each in times]))


def _own_image() -> Optional[image.Image]:
    kernel, initramfs = (os.environ.get(f"VMACCORD_VM_{part}") for part in ("KERNEL", "INITRAMFS"))
    if bool(kernel) != bool(initramfs):
        pytest.fail("name both VMACCORD_VM_KERNEL and VMACCORD_VM_INITRAMFS, or neither", pytrace=False)
    return image.Image(pathlib.Path(kernel), pathlib.Path(initramfs)) if kernel and initramfs else None


def _keep_logs(root: pathlib.Path, directory: pathlib.Path) -> None:
    """Keep the logs where pytest keeps what failed tests leave behind."""
    for log in root.glob("*/*"):
        if log.name in {"console", "log", "qemu.log"}:
            shutil.copyfile(log, directory / f"{log.parent.name}-{log.name}")
