"""filesystem-trim, of real file systems on loop devices: their files become smaller."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.messages import FilesystemTrim
from guest_agent.commands import COMMANDS, CommandFailed
from guest_agent.commands.filesystem_trim import available, run
from tests.guest_agent.conftest import CommandGuard
from tests.guest_agent.loops import Disk, Disks, disks_below


@pytest.fixture
def disks(tmp_path: Path, command_guard: CommandGuard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    with disks_below(tmp_path, command_guard, monkeypatch) as made_here:
        yield made_here


def refusing(monkeypatch: pytest.MonkeyPatch, answers: dict[Disk, int]) -> None:
    """Let the kernel refuse to trim some disks."""
    ask = fcntl.ioctl

    def ioctl(descriptor: int, request: int, *arguments: Any) -> Any:
        for disk, answer in answers.items():
            if os.fstat(descriptor).st_dev == disk.path.stat().st_dev:
                raise OSError(answer, os.strerror(answer))
        return ask(descriptor, request, *arguments)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def use(disk: Disk) -> None:
    """Have 1 MiB of its blocks used, and not used any more."""
    path = disk.path / "large"
    with path.open("wb") as file:
        file.write(os.urandom(1024 * 1024))
        os.fsync(file.fileno())
    path.unlink()
    directory = os.open(disk.path, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def test_blocks_that_are_not_used_any_more_are_given_back(disks: Disks, tmp_path: Path) -> None:
    disk = disks.make("/data")
    use(disk)
    before = (tmp_path / "data.img").stat().st_blocks
    (told,) = COMMANDS["filesystem-trim"].run(disks.machine, FilesystemTrim())["file_systems"]
    assert told["path"] == "/data"
    assert told["trimmed"] >= 1024 * 1024
    assert before - (tmp_path / "data.img").stat().st_blocks >= 1024 * 1024 // 512


def test_smaller_pieces_than_the_minimum_are_left_alone(disks: Disks) -> None:
    disk = disks.make("/data")
    use(disk)
    larger_than_all = FilesystemTrim(minimum=5 * 1024 * 1024)
    assert run(disks.machine, larger_than_all) == {"file_systems": [{"path": "/data", "trimmed": 0}]}


def test_a_minimum_that_no_piece_can_have_is_told(disks: Disks) -> None:
    disks.make("/data")
    with pytest.raises(CommandFailed, match="/data: no piece of it can be as large as the minimum"):
        run(disks.machine, FilesystemTrim(minimum=10**30))


def test_each_is_trimmed_once_and_what_is_read_only_is_not(disks: Disks) -> None:
    disk = disks.make("/data")
    disks.bind(disk, "/again")
    disks.make("/fixed", options="ro")
    assert [each["path"] for each in run(disks.machine, FilesystemTrim())["file_systems"]] == ["/data"]


def test_what_does_not_know_how_is_left_out(disks: Disks) -> None:
    disks.show_as_disks("tmpfs")
    assert run(disks.machine, FilesystemTrim()) == {"file_systems": []}


def test_one_that_fails_is_told_beside_those_that_work(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, silent, _ = disks.make("/bad"), disks.make("/silent"), disks.make("/good")
    refusing(monkeypatch, {bad: errno.EIO, silent: errno.EOPNOTSUPP})
    one, other = run(disks.machine, FilesystemTrim())["file_systems"]
    assert one == {"path": "/bad", "error": "Input/output error"}
    assert other["path"] == "/good"


def test_it_fails_where_it_worked_for_none(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, {disks.make("/bad"): errno.EIO})
    with pytest.raises(CommandFailed, match="nothing could be trimmed: /bad: Input/output error") as caught:
        run(disks.machine, FilesystemTrim())
    assert caught.value.members == {"file_systems": [{"path": "/bad", "error": "Input/output error"}]}


def test_what_there_is_no_time_for_is_told(disks: Disks) -> None:
    disks.make("/data")
    with pytest.raises(CommandFailed, match="/data: not begun within 0 s"):
        run(disks.machine._replace(deadline=0), FilesystemTrim())


def test_only_root_can_trim(disks: Disks) -> None:
    assert available(disks.machine) is None
    assert available(disks.machine._replace(owner=os.geteuid() + 1)) == (
        "only root may trim file systems; run the agent as root"
    )
