"""What is mounted: what the kernel lists, and getting hold of the mount that is meant and of no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent import mounts
from guest_agent.mounts import Mount

from .conftest import CommandGuard
from .loops import Disks, disks_below

TYPES = "nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tfuseblk\n\txfs\n\n"

LINES = (
    "22 27 0:21 / /sys rw,relatime - sysfs sysfs rw\n"
    "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
    "28 27 0:23 / /run rw shared:2 master:3 - tmpfs tmpfs rw,mode=755\n"
    "29 27 254:1 / /data ro,relatime - xfs /dev/vdb rw\n"
    "30 27 254:0 /home /srv\\040a\\134b\\011c rw - ext4 /dev/vda rw,discard\n"
    "31 27 254:2 / /fixed rw - ext4 /dev/vdc ro,errors=remount-ro\n"
    "32 27 0:40 / /windows rw - fuseblk.ntfs /dev/vdd rw,user_id=0\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / mounts.TYPES).write_text(TYPES, "utf-8")
    (tmp_path / mounts.MOUNTS).write_text(LINES, "utf-8")
    return tmp_path


@pytest.fixture
def disks(tmp_path: Path, command_guard: CommandGuard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    with disks_below(tmp_path, command_guard, monkeypatch) as made_here:
        yield made_here


def test_the_kernels_list_is_read_in_its_order(root: Path) -> None:
    found = mounts.mounts(str(root))
    assert [mount.number for mount in found] == [22, 27, 28, 29, 30, 31, 32]
    assert found[1] == Mount(27, "254:0", "/", "ext4", False)
    assert found[4].path == "/srv a\\b\tc"


def test_read_only_is_what_nobody_can_write_to_at_any_place(root: Path) -> None:
    assert [mount.path for mount in mounts.mounts(str(root)) if mount.read_only] == ["/fixed"]


def test_a_file_system_on_a_disk_is_found_once_with_all_its_places(root: Path) -> None:
    found = mounts.file_systems(str(root))
    assert [[mount.path for mount in system.mounts] for system in found] == [
        ["/", "/srv a\\b\tc"],
        ["/data"],
        ["/fixed"],
        ["/windows"],
    ]
    assert [(system.device, system.read_only) for system in found][2:] == [("254:2", True), ("0:40", False)]


@pytest.mark.parametrize(
    "line",
    [
        "\n",
        " - \n",
        "27 1 254:0 / /\n",
        "27 1 254:0 / / rw\n",
        "27 1 254:0 / / rw - ext4\n",
        "27 1 254:0 / - ext4 /dev/vda rw\n",
        "x 1 254:0 / / rw - ext4 /dev/vda rw\n",
        "² 1 254:0 / / rw - ext4 /dev/vda rw\n",
    ],
)
def test_a_line_that_says_too_little_is_none(root: Path, line: str) -> None:
    (root / mounts.MOUNTS).write_text(line, "utf-8")
    assert mounts.mounts(str(root)) == []


def test_a_path_may_be_any_bytes(root: Path) -> None:
    (root / mounts.MOUNTS).write_bytes(b"27 1 254:0 / /d\xff\r rw - ext4 /dev/vda rw\n")
    assert [mount.path for mount in mounts.mounts(str(root))] == ["/d\udcff\r"]


def test_a_list_that_is_missing_is_an_error(root: Path) -> None:
    (root / mounts.TYPES).unlink()
    with pytest.raises(OSError, match="No such file"):
        mounts.file_systems(str(root))
    (root / mounts.MOUNTS).unlink()
    with pytest.raises(OSError, match="No such file"):
        mounts.mounts(str(root))


def test_a_mount_is_opened_and_no_other_that_hides_it(disks: Disks) -> None:
    disk = disks.make("/data")
    root = str(disks.root)
    (system,) = mounts.file_systems(root)
    descriptor = mounts.open_mount(root, system.mounts[0])
    assert os.fstat(descriptor).st_dev == disk.path.stat().st_dev
    os.close(descriptor)
    disks.cover(disk)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="another mount hides it"):
        mounts.open_mount(root, system.mounts[0])
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_of_several_places_the_first_that_can_be_opened_is_taken(disks: Disks) -> None:
    disk = disks.make("/data")
    disks.bind(disk, "/again")
    root = str(disks.root)
    (system,) = mounts.file_systems(root)
    for place in ("/data", "/again"):
        mount, descriptor = mounts.open_any(root, system.mounts)
        os.close(descriptor)
        assert mount.path == place
        disks.cover(disk)


def test_without_a_place_nothing_is_opened(root: Path) -> None:
    with pytest.raises(OSError, match="not mounted any more"):
        mounts.open_any(str(root), [])
    with pytest.raises(OSError, match="another mount hides it"):
        mounts.open_any(str(root), [Mount(29, "254:1", "/data", "xfs", False)])
