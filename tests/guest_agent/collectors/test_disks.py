"""File systems and disks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guest_agent.collectors.disks import IGNORED, disks_usage

FILE_SYSTEMS = """\
nodev\tsysfs
nodev\tproc
nodev\ttmpfs
nodev\tautofs
nodev\toverlay
nodev\tfuse
nodev\tcifs
nodev\tzfs
nodev\tnfs4
nodev
\text4
\tbtrfs
\tsquashfs
\tfuseblk
"""
ROOT = "27 1 254:1 / / rw,relatime shared:1 master:2 - ext4 /dev/vda1 rw\n"
SIZE = {"total": 4096000, "used": 2457600}


class Machine:
    """Its disks answer, and it keeps which were asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.write("proc/filesystems", FILE_SYSTEMS.encode())

    def write(self, path: str, data: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    def statvfs(self, path: str) -> SimpleNamespace:
        place = "/" + os.path.relpath(path, self.root).lstrip(".")
        self.asked.append(place)
        if place == "/gone":
            raise FileNotFoundError(path)
        return SimpleNamespace(f_blocks=0 if place == "/empty" else 1000, f_bfree=400, f_frsize=4096)

    def disks(self, mounts: str, ignored: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        """Path and type of what is reported."""
        self.write("proc/self/mountinfo", mounts.encode("utf-8", "surrogateescape"))
        self.asked.clear()
        disks = disks_usage(str(self.root), ignored).disks
        assert all(disk["total"] == SIZE["total"] and disk["used"] == SIZE["used"] for disk in disks)
        return [(disk["path"], disk["fs"]) for disk in disks]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    return made


# ---- What is reported ----


def test_a_file_system_is_reported_with_its_size_and_use(machine: Machine) -> None:
    machine.write("proc/self/mountinfo", ROOT.encode())
    assert disks_usage(str(machine.root), ()).disks == ({"path": "/", "fs": "ext4", **SIZE},)


def test_each_file_system_on_a_disk_is_reported_once(machine: Machine) -> None:
    mounts = f"""\
22 27 0:21 / /proc rw - proc proc rw
{ROOT}28 27 254:1 /srv /mnt/bound rw - ext4 /dev/vda1 rw
29 27 0:40 / /run rw - tmpfs tmpfs rw
31 27 0:50 / /pool rw - zfs pool rw
32 27 0:51 /@home /home rw - btrfs /dev/vdb rw
33 27 0:51 /@var /var rw - btrfs /dev/vdb rw
34 27 254:9 / /windows rw - fuseblk.ntfs-3g /dev/vdc rw
"""
    assert machine.disks(mounts) == [("/", "ext4"), ("/pool", "zfs"), ("/home", "btrfs"), ("/windows", "fuseblk.ntfs-3g")]


def test_what_is_gone_or_has_no_size_is_left_out(machine: Machine) -> None:
    mounts = ROOT + "34 27 254:3 / /gone rw - ext4 /dev/vda3 rw\n35 27 254:4 / /empty rw - ext4 /dev/vda4 rw\n"
    assert machine.disks(mounts) == [("/", "ext4")]
    assert machine.asked == ["/", "/gone", "/empty"]


def test_only_what_is_mounted_last_at_a_place_can_be_seen_there(machine: Machine) -> None:
    mounts = f"""\
{ROOT}30 27 254:2 / /mnt rw - ext4 /dev/vda2 rw
31 30 254:3 / /mnt rw - btrfs /dev/vda3 rw
32 27 254:4 / /hidden rw - ext4 /dev/vda4 rw
33 32 0:60 / /hidden rw - tmpfs tmpfs rw
"""
    assert machine.disks(mounts) == [("/", "ext4"), ("/mnt", "btrfs")]
    assert machine.asked == ["/", "/mnt"]


def test_a_file_system_hidden_at_one_place_is_reported_at_another(machine: Machine) -> None:
    mounts = f"""\
{ROOT}30 27 254:2 / /hidden rw - ext4 /dev/vda2 rw
31 30 0:60 / /hidden rw - tmpfs tmpfs rw
32 27 254:2 / /seen rw - ext4 /dev/vda2 rw
"""
    assert machine.disks(mounts) == [("/", "ext4"), ("/seen", "ext4")]


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        ((), ["/", "/snap", "/windows"]),
        (IGNORED, ["/", "/windows"]),
        (("fuse*", "sq?ashfs"), ["/"]),
        (("EXT4", "ext"), ["/", "/snap", "/windows"]),
        (("*",), []),
    ],
)
def test_types_that_match_a_pattern_are_left_out(ignored: tuple[str, ...], expected: list[str], machine: Machine) -> None:
    mounts = (
        ROOT + "33 27 7:0 / /snap ro - squashfs /dev/loop0 ro\n34 27 254:9 / /windows rw - fuseblk.ntfs-3g /dev/vdc rw\n"
    )
    assert [path for path, _ in machine.disks(mounts, ignored)] == expected
    assert machine.asked == expected


# ---- What may hang ----


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse", "fuse.sshfs", "proc"])
def test_a_network_file_system_and_what_lies_behind_it_is_never_touched(kind: str, machine: Machine) -> None:
    mounts = f"""\
{ROOT}32 27 0:51 / /net rw - {kind} server:/ rw
33 32 254:2 / /net/disk rw - ext4 /dev/vda2 rw
34 33 254:3 / /net/disk/deep rw - ext4 /dev/vda3 rw
35 27 254:4 / /network rw - ext4 /dev/vda4 rw
"""
    assert machine.disks(mounts) == [("/", "ext4"), ("/network", "ext4")]
    assert machine.asked == ["/", "/network"]


def test_a_disk_that_a_network_file_system_covers_or_lies_under_is_never_touched(machine: Machine) -> None:
    mounts = f"""\
{ROOT}30 27 254:2 / /covered rw - ext4 /dev/vda2 rw
31 30 0:51 / /covered rw - nfs4 server:/ rw
32 27 0:52 / /under rw - nfs4 server:/ rw
33 32 254:3 / /under rw - ext4 /dev/vda3 rw
"""
    assert machine.disks(mounts) == [("/", "ext4")]
    assert machine.asked == ["/"]


def test_a_disk_that_would_be_mounted_only_when_touched_is_not(machine: Machine) -> None:
    mounts = f"""\
{ROOT}30 27 0:36 / /boot rw - autofs systemd-1 rw
31 30 254:2 / /boot rw - ext4 /dev/vda2 rw
32 27 0:37 / /data rw - autofs systemd-1 rw
"""
    assert machine.disks(mounts) == [("/", "ext4"), ("/boot", "ext4")]
    assert machine.asked == ["/", "/boot"]


def test_the_way_to_a_disk_may_lead_through_memory(machine: Machine) -> None:
    mounts = """\
1 1 0:2 / / rw - overlay overlay rw
29 1 0:40 / /run rw - tmpfs tmpfs rw
30 29 254:2 / /run/media rw - ext4 /dev/vda2 rw
"""
    assert machine.disks(mounts) == [("/run/media", "ext4")]


def test_a_machine_that_runs_from_the_network_still_reports_its_disks(machine: Machine) -> None:
    mounts = "27 1 0:51 / / rw - nfs4 server:/ rw\n30 27 254:2 / /data rw - ext4 /dev/vda2 rw\n"
    assert machine.disks(mounts) == [("/data", "ext4")]


# ---- Hostile and damaged lists ----


@pytest.mark.parametrize(
    ("escaped", "path"),
    [
        ("/with\\040space\\134", "/with space\\"),
        ("/tab\\011line\\012feed", "/tab\tline\nfeed"),
        ("/no\\08escape\\", "/no\\08escape\\"),
        ("/separator\u2028return\rform\x0cfeed", "/separator\u2028return\rform\x0cfeed"),
        ("/no\udcfftext", "/no\udcfftext"),
        ("/\\134040", "/\\040"),
    ],
)
def test_a_path_may_have_any_characters(escaped: str, path: str, machine: Machine) -> None:
    assert machine.disks(f"30 27 254:2 / {escaped} rw - ext4 /dev/vda2 rw\n{ROOT}") == [(path, "ext4"), ("/", "ext4")]


def test_a_network_file_system_behind_a_very_long_list_is_seen(machine: Machine) -> None:
    crowd = "".join(f"{number} 27 0:{number} / /run/{number} rw - tmpfs {'x' * 1000} rw\n" for number in range(2000))
    mounts = f"{ROOT}{crowd}33 32 254:2 / /net/disk rw - ext4 /dev/vda2 rw\n32 27 0:51 / /net rw - nfs4 server:/ rw\n"
    assert machine.disks(mounts) == [("/", "ext4")]
    assert machine.asked == ["/"]


def test_lines_that_are_no_mount_are_left_out(machine: Machine) -> None:
    lines = "\na line that is no mount\n36 27 254:5\n36 27 254:5 / /x rw - \n36 27 - ext4 /dev/vda5 rw\n - \n"
    assert machine.disks(f"{lines}{ROOT}36 27 254:5 / /x") == [("/", "ext4")]


@pytest.mark.parametrize("missing", ["proc/self/mountinfo", "proc/filesystems"])
def test_a_kernel_that_does_not_list_its_mounts_is_an_error(missing: str, machine: Machine) -> None:
    machine.disks(ROOT)
    (machine.root / missing).unlink()
    with pytest.raises(FileNotFoundError):
        disks_usage(str(machine.root), ())


# ---- Devices ----


def test_serial_numbers_lead_to_devices(machine: Machine) -> None:
    machine.disks(ROOT)
    machine.write("sys/block/vda/serial", b"virtio-serial\n")
    machine.write("sys/block/nvme0n1/device/serial", b"NVME 1  \n")
    machine.write("sys/block/sda/device/vpd_pg80", b"\x00\x80\x00\x05SCSI1")
    machine.write("sys/block/sdb/device/vpd_pg80", b"\x00\x80\xc3")
    machine.write("sys/block/sdc/serial", b"\xff\xff\n")
    machine.write("sys/block/cciss!c0d0/device/serial", b"RAID\0\0\n")
    machine.write("sys/block/vdb/serial", b"\n")
    (machine.root / "sys/block/loop0").mkdir()
    assert disks_usage(str(machine.root), ()).mapping == {
        "virtio-serial": {"name": "/dev/vda"},
        "NVME 1": {"name": "/dev/nvme0n1"},
        "SCSI1": {"name": "/dev/sda"},
        "\ufffd\ufffd": {"name": "/dev/sdc"},
        "RAID": {"name": "/dev/cciss/c0d0"},
    }


def test_this_machine_can_be_asked() -> None:
    usage: Any = disks_usage("/", IGNORED)
    for disk in usage.disks:
        assert 0 <= disk["used"] <= disk["total"]
