"""The facts of several distributions, out of files as these have them; ``distributions/README`` says where they are from."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from common.catalogue import CATALOGUE
from common.messages import Message
from common.versions import Version
from guest_agent import processes
from guest_agent.collectors import Wishes, disks, sources
from guest_agent.collectors.memory import Meter
from guest_agent.collectors.timezone import timezone
from tests.guest_agent.parts import Clock

from .conftest import Program

DISTRIBUTIONS = Path(__file__).parent / "distributions"

WANTED = ("qemu-guest-agent", "kernel*", "linux*", "glibc", "libnuma1")

JANUARY, JULY = 1_705_000_000.0, 1_720_000_000.0

#: Of each disk of each machine, in blocks.
BLOCKS, FREE, BLOCK_SIZE = 1000, 400, 4096


class Expected(NamedTuple):
    """What a machine must tell.

    :ivar host: what the kernel calls it.
    :ivar os_info: distribution, version, code name.
    :ivar zone: its name, and minutes from UTC in January and in July.
    :ivar memory: total, free with buffers and cache, used swap, in KiB.
    :ivar serials: the device of each serial number.
    """

    host: str
    kernel: str
    fqdn: str
    os_info: tuple[str, str, str]
    zone: tuple[str, int, int]
    cpus: int
    memory: tuple[int, int, int]
    applications: tuple[str, ...]
    disks: tuple[tuple[str, str], ...]
    serials: Mapping[str, str]


EXPECTED = {
    "debian-12": Expected(
        host="bookworm",
        kernel="6.1.0-25-amd64",
        fqdn="bookworm.example.com",
        os_info=("Debian GNU/Linux", "12", "bookworm"),
        zone=("Europe/Berlin", 60, 120),
        cpus=2,
        memory=(2014780, 1811948, 0),
        applications=(
            "linux-image-6.1.0-25-amd64-6.1.106-3",
            "linux-image-amd64-6.1.106-3",
            "qemu-guest-agent-1:7.2+dfsg-7+deb12u15",
        ),
        disks=(("/", "ext4"), ("/boot/efi", "vfat")),
        serials={"b7f5a1d2-9c0e-4c1f-8": "/dev/vda", "data": "/dev/vdb"},
    ),
    "ubuntu-24.04": Expected(
        host="noble",
        kernel="6.8.0-45-generic",
        fqdn="noble",
        os_info=("Ubuntu", "24.04", "noble"),
        zone=("Etc/UTC", 0, 0),
        cpus=4,
        memory=(4025120, 3719160, 0),
        applications=(
            "libnuma1-2.0.18-1build1",
            "linux-image-6.8.0-45-generic-6.8.0-45.45",
            "linux-image-virtual-6.8.0-45.45",
            "qemu-guest-agent-1:8.2.2+ds-0ubuntu1.2",
        ),
        disks=(("/", "ext4"), ("/boot", "ext4"), ("/boot/efi", "vfat")),
        serials={},
    ),
    "rhel-8": Expected(
        host="ootpa",
        kernel="4.18.0-553.16.1.el8_10.x86_64",
        fqdn="ootpa.example.com",
        os_info=("Red Hat Enterprise Linux", "8.10", ""),
        zone=("America/New_York", -300, -240),
        cpus=5,
        memory=(3825764, 3443728, 212992),
        applications=(
            "glibc-2.28-251.el8_10.5",
            "kernel-core-4.18.0-513.24.1.el8_9",
            "kernel-core-4.18.0-553.16.1.el8_10",
            "qemu-guest-agent-6.2.0-53.module+el8.10.0+22375+ea5e8167",
        ),
        disks=(("/", "xfs"), ("/home", "xfs"), ("/boot", "xfs")),
        serials={"rhel8-root": "/dev/vda", "0QEMU_QEMU_HARDDISK_": "/dev/sda"},
    ),
    "almalinux-9": Expected(
        host="alma.example.com",
        kernel="5.14.0-427.13.1.el9_4.x86_64",
        fqdn="alma.example.com",
        os_info=("AlmaLinux", "9.4", ""),
        zone=("Asia/Kolkata", 330, 330),
        cpus=2,
        memory=(1809756, 1473960, 0),
        applications=("kernel-core-5.14.0-427.13.1.el9_4", "qemu-guest-agent-8.2.0-11.el9_4.3"),
        disks=(("/", "xfs"), ("/boot", "xfs"), ("/boot/efi", "vfat")),
        serials={"alma": "/dev/vda", "S4DYNX0R756191": "/dev/nvme0n1"},
    ),
    "sles-15": Expected(
        host="sles15",
        kernel="6.4.0-150600.23.25-default",
        fqdn="sles15.example.com",
        os_info=("SLES", "15.6", ""),
        zone=("America/St_Johns", -210, -150),
        cpus=1,
        memory=(1987944, 1816744, 0),
        applications=("kernel-default-6.4.0-150600.23.25.1", "qemu-guest-agent-8.2.6-150600.3.12.1"),
        disks=(("/", "btrfs"), ("/srv", "xfs")),
        serials={"sles": "/dev/vda"},
    ),
    "alpine-3.20": Expected(
        host="alpine",
        kernel="6.6.49-0-virt",
        fqdn="alpine.my.domain",
        os_info=("Alpine Linux", "3.20.3", ""),
        zone=("Asia/Tokyo", 540, 540),
        cpus=1,
        memory=(996884, 934144, 0),
        applications=("linux-virt-6.6.49-r0", "qemu-guest-agent-9.0.4-r0"),
        disks=(("/", "ext4"), ("/boot", "ext4")),
        serials={"alpine": "/dev/vda"},
    ),
    "arch": Expected(
        host="arch",
        kernel="6.10.8-arch1-1",
        fqdn="arch",
        os_info=("Arch Linux", "", ""),
        zone=("Asia/Kathmandu", 345, 345),
        cpus=8,
        memory=(8139948, 7679844, 0),
        applications=("linux-6.10.8.arch1-1", "linux-api-headers-6.10-1", "qemu-guest-agent-9.0.2-1"),
        disks=(("/", "btrfs"), ("/boot", "vfat")),
        serials={"arch": "/dev/vda"},
    ),
}


class Machine:
    """One with *distribution*, below *root*. It keeps which of its disks were asked."""

    def __init__(self, distribution: str, root: Path) -> None:
        self.expected = EXPECTED[distribution]
        self.root = root
        self.program = Program()
        self.asked: list[str] = []
        shutil.copytree(DISTRIBUTIONS / distribution, root)
        answer = root / "RPM-ANSWER"
        self.program.answer = answer.read_bytes() if answer.exists() else processes.ProgramMissing("rpm is missing")
        for line in (root / "LINKS").read_text(encoding="utf-8").splitlines():
            path, _, target = line.partition(" -> ")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)

    def uname(self) -> os.uname_result:
        return os.uname_result(("Linux", self.expected.host, self.expected.kernel, "#1", "x86_64"))

    def statvfs(self, path: str) -> SimpleNamespace:
        self.asked.append("/" + os.path.relpath(path, self.root).lstrip("."))
        return SimpleNamespace(f_blocks=BLOCKS, f_bfree=FREE, f_frsize=BLOCK_SIZE)

    def facts(self) -> Mapping[str, Message]:
        """All that the files tell, of the facts of the deployed agents."""
        found = sources(str(self.root), Wishes(WANTED, (), disks.IGNORED, ()), Clock(), lambda: None)
        slow = ("applications", "containers", "disks-usage")
        told = {name: found.quick[name]() for name in CATALOGUE.facts(up_to=Version.V3) if name in found.quick}
        return {**told, **{name: message for name in slow if isinstance(message := found.slow[name](), Message)}}


@pytest.fixture(params=EXPECTED)
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(request.param, tmp_path / "root")
    monkeypatch.setattr(os, "uname", made.uname)
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    monkeypatch.setattr(processes, "run", made.program.run)
    return made


def test_every_distribution_is_in_the_table() -> None:
    assert EXPECTED.keys() == {each.name for each in DISTRIBUTIONS.iterdir() if each.is_dir()}


def test_the_machine_is_told_as_it_is(machine: Machine) -> None:
    expected = machine.expected
    told = {name: message.to_arguments() for name, message in machine.facts().items()}
    memory = told.pop("memory-stats")["memory"]
    told.pop("timezone")
    distribution, version, codename = expected.os_info
    assert told == {
        "host-name": {"name": expected.host},
        "fqdn": {"fqdn": expected.fqdn},
        "os-version": {"version": expected.kernel},
        "os-info": {
            "version": version,
            "distribution": distribution,
            "codename": codename,
            "arch": "x86_64",
            "type": "linux",
            "kernel": expected.kernel,
        },
        "number-of-cpus": {"count": expected.cpus},
        "applications": {"applications": expected.applications},
        "containers": {"list": ()},
        "disks-usage": {
            "disks": tuple(
                {"path": path, "fs": kind, "total": BLOCKS * BLOCK_SIZE, "used": (BLOCKS - FREE) * BLOCK_SIZE}
                for path, kind in expected.disks
            ),
            "mapping": {serial: {"name": device} for serial, device in expected.serials.items()},
        },
    }
    assert tuple(memory[name] for name in ("mem_total", "mem_free", "swap_usage")) == expected.memory


def test_no_other_file_system_than_those_reported_is_touched(machine: Machine) -> None:
    machine.facts()
    assert machine.asked == [path for path, _ in machine.expected.disks]


def test_the_time_zone_is_told_in_winter_and_in_summer(machine: Machine) -> None:
    told = [timezone(str(machine.root), at) for at in (JANUARY, JULY)]
    zone, winter, summer = machine.expected.zone
    assert [(each.zone, each.offset) for each in told] == [(zone, winter), (zone, summer)]
    told_now = machine.facts()["timezone"].to_arguments()
    assert (told_now["zone"], told_now["offset"] in (winter, summer)) == (zone, True)


def test_paging_is_told_per_second(machine: Machine, clock: Clock) -> None:
    meter = Meter(str(machine.root), clock)
    meter.measure()
    clock.advance(10.0)
    vmstat = machine.root / "proc/vmstat"
    later = re.sub(r"\d+$", lambda counter: str(int(counter[0]) + 100), vmstat.read_text(encoding="utf-8"), flags=re.M)
    vmstat.write_text(later, encoding="utf-8")
    measured = meter.measure()
    assert {name: measured[name] for name in ("swap_in", "swap_out", "pageflt", "majflt")} == {
        "swap_in": 10,
        "swap_out": 10,
        "pageflt": 10,
        "majflt": 10,
    }


def test_a_program_is_run_only_where_nothing_else_can_read_the_packages(machine: Machine) -> None:
    machine.facts()
    assert bool(machine.program.ran) == (machine.root / "RPM-ANSWER").exists()
