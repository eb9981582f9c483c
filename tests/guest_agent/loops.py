"""Real file systems on loop devices, and what waits for them when they are frozen. Nothing else can be frozen by a test."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import pytest

from guest_agent import freezer, freezing
from guest_agent.commands import Machine
from guest_agent.freezer import RECORD
from guest_agent.worker import Report, Worker
from host_agent.demo.vm import packages
from tests.needs import or_left_out

from .conftest import CommandGuard
from .parts import GIVE_UP, Tally, wait_until

#: How large a file system is, in MiB: as small as its maker lets it be.
SIZES = {"ext4": 4, "xfs": 304, "btrfs": 128}

_MAKERS = {"ext4": ("mkfs.ext4", "-qF"), "xfs": ("mkfs.xfs", "-qf"), "btrfs": ("mkfs.btrfs", "-qf")}

_PROGRAMS = ("mount", "umount", *(program for program, _ in _MAKERS.values()))

_NUMBER = struct.Struct("d")

#: The kernel's number for loop devices.
_LOOP = 7

_real_ioctl = fcntl.ioctl
_FIFREEZE, _FITHAW = freezing.FIFREEZE, freezing.FITHAW


class Disk(NamedTuple):
    """A file system on a loop device.

    :ivar name: where it is mounted, as the agent sees it.
    :ivar path: where that really is.
    """

    name: str
    path: Path

    @property
    def frozen(self) -> bool:
        """Whether it is frozen. Nobody else may freeze or thaw it meanwhile."""
        with _opened(self.path) as descriptor:
            try:
                _real_ioctl(descriptor, _FIFREEZE, 0)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return True
                raise
            _real_ioctl(descriptor, _FITHAW, 0)
        return False

    def freeze(self) -> None:
        """Freeze it as somebody else."""
        with _opened(self.path) as descriptor:
            _real_ioctl(descriptor, _FIFREEZE, 0)

    def thaw(self) -> None:
        """Thaw it as somebody else."""
        with _opened(self.path) as descriptor:
            _real_ioctl(descriptor, _FITHAW, 0)

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], object]]:
        """Keep hold of it, whatever becomes of the path; what thaws it."""
        with _opened(self.path) as descriptor:
            yield functools.partial(_real_ioctl, descriptor, _FITHAW, 0)

    @property
    def device(self) -> str:
        number = self.path.stat().st_dev
        return f"{os.major(number)}:{os.minor(number)}"

    def soil(self) -> None:
        """Write what the kernel has not yet brought to the disk."""
        (self.path / "dirt").write_bytes(os.urandom(256 * 1024))


class SharedClock:
    """Seconds that a test can have pass at once, for all processes that it has started.

    :ivar CLOCK_BOOTTIME: as in ``time``.
    """

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self) -> None:
        self._ahead = mmap.mmap(-1, mmap.PAGESIZE)

    def monotonic(self) -> float:
        return time.monotonic() + self._passed

    def clock_gettime(self, clock: int) -> float:
        slept = self._slept if clock == self.CLOCK_BOOTTIME else 0.0
        return time.clock_gettime(clock) + self._passed + slept

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def advance(self, seconds: float) -> None:
        _NUMBER.pack_into(self._ahead, 0, self._passed + seconds)

    def sleep_through(self, seconds: float) -> None:
        """Have them pass while the machine sleeps: only the clocks know that count from its start."""
        _NUMBER.pack_into(self._ahead, _NUMBER.size, self._slept + seconds)

    @property
    def _passed(self) -> float:
        return float(_NUMBER.unpack_from(self._ahead)[0])

    @property
    def _slept(self) -> float:
        return float(_NUMBER.unpack_from(self._ahead, _NUMBER.size)[0])


class Writer:
    """A process that writes to a file, and waits where that is frozen, or what it stands on."""

    def __init__(self, disk: Disk) -> None:
        def write(report: Report) -> None:
            descriptor = os.open(disk.path / "written", os.O_WRONLY | os.O_CREAT | os.O_SYNC)
            os.write(descriptor, b"something")
            report("written")

        self._worker = Worker(write)
        self._reports: list[Any] = []

    @property
    def done(self) -> bool:
        self._reports += self._worker.reports()
        return bool(self._reports)

    @property
    def waits(self) -> bool:
        """Whether the kernel holds it up."""
        return waits(self._worker.pid) and not self.done

    def close(self) -> None:
        wait_until(lambda: self._worker.reports() or self._worker.status is not None, lambda: None)
        self._worker.close()


class Disks:
    """Makes file systems below a root of their own, and shows the agent nothing but these.

    :ivar clock: by which freezes end.
    :ivar thawings: how often the agent has asked the kernel to thaw something.
    :ivar state: a directory in memory.
    :ivar machine: on which they are.
    """

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o755)
        self.clock = SharedClock()
        self.thawings = Tally(directory / "thawings")
        self.root = directory / "root"
        self.hooks = directory / "hooks.d"
        self.hooks.mkdir(mode=0o755)
        self._images = directory
        self._mounted: list[Path] = []
        self._writers: list[Writer] = []
        (self.root / "proc/self").mkdir(parents=True)
        (self.root / "proc/filesystems").symlink_to("/proc/filesystems")
        memory = self.root / "run"
        memory.mkdir()
        self._mount("-t", "tmpfs", "-o", "mode=755,size=1m", "none", str(memory))
        self.state = memory / "vmaccord-guest"
        self.machine = Machine(
            login_helper=None,
            hooks_directory=str(self.hooks),
            hooks_deadline=GIVE_UP,
            deadline=GIVE_UP,
            root=str(self.root),
            state_directory=str(self.state),
        )

    @property
    def begun(self) -> str:
        """Where the last file system is mounted that somebody began to freeze."""
        begun = self._images / "begun"
        return begun.read_text("utf-8").removeprefix(str(self.root)) if begun.exists() else ""

    @property
    def record(self) -> Path:
        return self.state / RECORD

    def make(self, name: str, kind: str = "ext4", *, inside: Optional[Disk] = None, options: str = "") -> Disk:
        """A file system mounted at *name*; *inside* another one, or beside all.

        :param options: of mount(8), in addition.
        """
        image = (self._images if inside is None else inside.path) / f"{name.strip('/').replace('/', '-')}.img"
        with image.open("wb") as file:
            file.truncate(SIZES[kind] * 1024 * 1024 // (1 if inside is None else 2))
        run(*_MAKERS[kind], str(image))
        place = self._place(name)
        self._mount("-t", kind, "-o", f"loop{options and ','}{options}", str(image), str(place))
        return Disk(name, place)

    def bind(self, disk: Disk, name: str) -> Disk:
        """The same file system at another place."""
        place = self._place(name)
        self._mount("--bind", str(disk.path), str(place))
        return Disk(name, place)

    def cover(self, disk: Disk) -> None:
        """Hide it behind another file system."""
        self._mount("-t", "tmpfs", "none", str(disk.path))

    def unmount(self, disk: Disk, *options: str) -> None:
        run("umount", *options, str(disk.path))
        self.look()

    def look(self, reverse: bool = False) -> None:
        """Show the agent what is mounted now; *reverse*: in an order that is not the true one."""
        lines = [line for line in _lines("/proc/self/mountinfo") if line.split(" ")[4].startswith(f"{self.root}/")]
        shown = [line.replace(f" {self.root}/", " /", 1) for line in (reversed(lines) if reverse else lines)]
        (self.root / "proc/self/mountinfo").write_text("".join(shown), encoding="utf-8")

    def fill_memory(self) -> None:
        """Leave no room where the agent notes what is frozen."""
        with contextlib.suppress(OSError), (self.root / "run/filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def show_as_disks(self, *kinds: str) -> None:
        """Let file systems that stand on none look as if they did."""
        path = self.root / "proc/filesystems"
        path.unlink()
        path.write_text("".join((*_lines("/proc/filesystems"), *(f"\t{kind}\n" for kind in kinds))), encoding="utf-8")

    def write_to(self, disk: Disk) -> Writer:
        self._writers.append(Writer(disk))
        return self._writers[-1]

    def thaw(self) -> None:
        """Thaw all, whoever froze it; what stands on another one after that."""
        for _ in self._mounted:
            for place in self._mounted:
                with contextlib.suppress(OSError):
                    Disk("", place).thaw()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self.thaw()
        for place in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(place)], check=False, stderr=subprocess.DEVNULL)

    def _place(self, name: str) -> Path:
        place = self.root / name.strip("/")
        place.mkdir(exist_ok=True, parents=True)
        return place

    def _mount(self, *arguments: str) -> None:
        run("mount", *arguments)
        self._mounted.append(Path(arguments[-1]))
        self.look()


@contextlib.contextmanager
def disks_below(directory: Path, guard: CommandGuard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    """Disks to be frozen; they are thawed and unmounted at the end, and no others can be frozen meanwhile."""
    guard.allowed.update(_PROGRAMS, map(str, map(shutil.which, _PROGRAMS)))

    def ioctl(descriptor: int, request: int, *arguments: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        allowed = path.startswith(f"{directory}/root/") or os.major(os.fstat(descriptor).st_dev) == _LOOP
        assert allowed, f"a test was about to freeze or thaw {path}"
        if request == _FITHAW:
            disks.thawings.add()
        if request == _FIFREEZE:
            (directory / "begun").write_text(path, encoding="utf-8")
        return _real_ioctl(descriptor, request, *arguments)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with or_left_out():
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            raise packages.Unavailable("loop devices can't be had: run the tests as root, where /dev/loop-control is")
        if shutil.which("mkfs.ext4") is None:
            raise packages.Unavailable("mkfs.ext4 is missing: apt-get install e2fsprogs")
        disks = Disks(directory)
    monkeypatch.setattr(freezing, "time", disks.clock)
    monkeypatch.setattr(freezer, "time", disks.clock)
    try:
        yield disks
    finally:
        disks.thaw()
        disks.close()


def made(disks: Disks, name: str, kind: str) -> Disk:
    """A disk of that kind; the test is left out where nobody can make one."""
    if shutil.which(_MAKERS[kind][0]) is None:
        pytest.skip(f"{_MAKERS[kind][0]} is missing: install {kind}progs, or {kind}-progs")
    return disks.make(name, kind)


def waits(pid: int) -> bool:
    """Whether the kernel holds *pid* up."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "D"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    """Whether a process has ended, though it may not have been asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(pid: int) -> list[int]:
    """The processes that *pid* has started and that have not ended."""
    started = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split())
    return [child for child in started if not gone(child)]


def hook(disks: Disks, event: str, name: str, script: str = "", guard: Optional[CommandGuard] = None) -> Path:
    """A hook that notes that it ran, and what it was told, in ``notes`` beside the hooks."""
    directory = disks.hooks / event
    directory.mkdir(mode=0o755, exist_ok=True)
    path = directory / name
    path.write_text(
        f"#!/bin/sh\necho {event}/{name} $VMACCORD_EVENT $VMACCORD_FAILURE >> {disks.hooks}/notes\n{script}\n", "utf-8"
    )
    path.chmod(0o755)
    if guard is not None:
        guard.allowed.add(str(path))
    return path


def ran(disks: Disks) -> list[str]:
    """What hooks have noted."""
    notes = disks.hooks / "notes"
    return notes.read_text("utf-8").splitlines() if notes.exists() else []


def run(program: str, *arguments: str) -> None:
    subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)


def thaw_program(disks: Disks) -> Sequence[str]:
    """A command that does what ``vmaccord-guest --thaw`` does, to *disks*."""
    machine = {key: value for key, value in disks.machine._asdict().items() if isinstance(value, (str, float, int))}
    code = f"""
from guest_agent import freezing
from guest_agent.commands import Machine
print(freezing.thaw_now(Machine(login_helper=None, **{machine!r})))
"""
    return [sys.executable, "-c", code]


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return file.readlines()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
