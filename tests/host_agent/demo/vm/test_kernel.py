"""The kernel and its drivers are picked out of a package, or what it lacks is said."""

from __future__ import annotations

import pathlib

import pytest

from host_agent.demo.vm import kernel, packages


def _package(unpacked: pathlib.Path) -> pathlib.Path:
    drivers = unpacked / "lib/modules/6/kernel/drivers"
    drivers.mkdir(parents=True)
    for name in ("first", "second", "other"):
        (drivers / f"{name}.ko").touch()
    (unpacked / "boot").mkdir()
    (unpacked / "boot/vmlinuz-6").touch()
    return unpacked


def test_the_kernel_and_its_drivers_are_picked_in_the_order_of_loading(tmp_path: pathlib.Path) -> None:
    kernel.pick(_package(tmp_path / "unpacked"), ["second", "first"], tmp_path / "part")
    assert (tmp_path / "part/kernel").exists()
    assert {path.name for path in (tmp_path / "part/root/lib/modules").iterdir()} == {"0-second.ko", "1-first.ko"}


def test_a_package_without_a_driver_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(packages.Unavailable, match=r"^the kernel's package has no third: use Debian 12"):
        kernel.pick(_package(tmp_path / "unpacked"), ["first", "third"], tmp_path / "part")


def test_a_package_without_a_kernel_is_said(tmp_path: pathlib.Path) -> None:
    unpacked = _package(tmp_path / "unpacked")
    (unpacked / "boot/vmlinuz-6").unlink()
    with pytest.raises(packages.Unavailable, match=r"^the kernel's package has no kernel"):
        kernel.pick(unpacked, ["first"], tmp_path / "part")
