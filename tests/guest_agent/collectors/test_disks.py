"""File systems and disks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from guest_agent.collectors.disks import disks_usage

FILE_SYSTEMS = "nodev\tproc\nnodev\ttmpfs\nnodev\tzfs\nnodev\tnfs4\nnodev\n\text4\n\tsquashfs\n"
MOUNTS = """\
22 27 0:21 / /proc rw - proc proc rw
27 1 254:1 / / rw,relatime shared:1 master:2 - ext4 /dev/vda1 rw
28 27 254:1 /srv /mnt/bound rw - ext4 /dev/vda1 rw
29 27 0:40 / /run rw - tmpfs tmpfs rw
30 27 254:2 / /srv/with\\040space\\134 rw - ext4 /dev/vda2 rw
31 27 0:50 / /pool rw - zfs pool rw
32 27 0:51 / /net rw - nfs4 server:/ rw
33 27 7:0 / /snap/x ro - squashfs /dev/loop0 ro
34 27 254:3 / /gone rw - ext4 /dev/vda3 rw
35 27 254:4 / /empty rw - ext4 /dev/vda4 rw
a line that is no mount
36 27 254:5
"""


def write(root: Path, path: str, data: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path, "proc/filesystems", FILE_SYSTEMS.encode())
    write(tmp_path, "proc/self/mountinfo", MOUNTS.encode())

    def statvfs(path: str) -> SimpleNamespace:
        if path == str(tmp_path / "gone"):
            raise FileNotFoundError(path)
        return SimpleNamespace(f_blocks=0 if path.endswith("empty") else 1000, f_bfree=400, f_frsize=4096)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return tmp_path


def test_each_file_system_on_a_disk_is_reported_once(root: Path) -> None:
    size = {"total": 4096000, "used": 2457600}
    assert disks_usage(str(root)).disks == (
        {"path": "/", "fs": "ext4", **size},
        {"path": "/srv/with space\\", "fs": "ext4", **size},
        {"path": "/pool", "fs": "zfs", **size},
    )


def test_serial_numbers_lead_to_devices(root: Path) -> None:
    write(root, "sys/block/vda/serial", b"virtio-serial\n")
    write(root, "sys/block/nvme0n1/device/serial", b"NVME 1  \n")
    write(root, "sys/block/sda/device/vpd_pg80", b"\x00\x80\x00\x05SCSI1")
    write(root, "sys/block/vdb/serial", b"\n")
    (root / "sys/block/loop0").mkdir()
    assert disks_usage(str(root)).mapping == {
        "virtio-serial": {"name": "/dev/vda"},
        "NVME 1": {"name": "/dev/nvme0n1"},
        "SCSI1": {"name": "/dev/sda"},
    }


def test_a_kernel_that_does_not_list_its_mounts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disks_usage(str(tmp_path))


def test_this_machine_can_be_asked() -> None:
    for disk in disks_usage("/").disks:
        assert 0 <= disk["used"] <= disk["total"]
