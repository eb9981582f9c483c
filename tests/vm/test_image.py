"""An image is built from nothing and boots, and is not fetched twice: the builder runs, whatever this machine has cached."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil

import pytest

from host_agent.demo.vm import image
from host_agent.demo.vm.machine import Emulator, Machine
from tests.needs import ROOT, or_left_out

from .hosts import VM

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.fixture
def apt_log(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A file with one line for every call of apt-get, which works as ever."""
    log, programs = tmp_path / "apt.log", tmp_path / "programs"
    programs.mkdir()
    script = f'#!/bin/sh\necho "$*" >>{log}\nexec {shutil.which("apt-get") or "apt-get-is-missing"} "$@"\n'
    (programs / "apt-get").write_text(script, encoding="utf-8")
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return log


def _downloads(apt_log: pathlib.Path) -> int:
    lines = apt_log.read_text(encoding="utf-8").splitlines()
    return sum("download" in line and "--print-uris" not in line for line in lines)


def _digest(built: image.Image) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in (built.kernel, built.initramfs)]


def test_an_image_built_from_nothing_boots_and_the_next_one_is_the_same_without_a_download(
    emulator: Emulator, workplace: pathlib.Path, tmp_path: pathlib.Path, apt_log: pathlib.Path
) -> None:
    with or_left_out():
        built = image.build(ROOT, tmp_path, tmp_path / "cache")
    assert _downloads(apt_log) == 1
    first = _digest(built)
    assert _digest(image.build(ROOT, tmp_path, tmp_path / "cache")) == first
    assert _downloads(apt_log) == 1
    machine = Machine(Emulator(emulator.program, emulator.accelerator, built), workplace / "new", workplace / "vms", VM, 3)
    try:
        machine.boot()
        assert machine.guest.run("vmaccord-guest --version").startswith("vmaccord-guest ")
        assert machine.guest.run("cat /sys/class/virtio-ports/*/name") == machine.port.name
    finally:
        machine.end()
