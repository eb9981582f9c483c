"""file-write: real files, and what keeps them from being written."""

from __future__ import annotations

import base64
import os
import resource
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common.messages import Code, FileWrite
from guest_agent.commands import COMMANDS, CommandFailed, Machine, file_write
from guest_agent.commands.files import OFFSET_LIMIT, PIECE_LIMIT
from guest_agent.worker import Report, Worker
from tests.guest_agent.parts import wait_until


@pytest.fixture
def machine(machine: Machine, root: Path) -> Machine:
    """One below whose ``/srv`` files may be written."""
    (root / "srv").mkdir()
    return machine._replace(write_roots=("/srv",))


@pytest.fixture
def file(root: Path) -> Path:
    return root / "srv" / "file"


def message(content: bytes, path: str = "/srv/file", **wish: Any) -> FileWrite:
    return FileWrite(path, base64.b64encode(content).decode(), **wish)


def write(machine: Machine, content: bytes, **wish: Any) -> Mapping[str, Any]:
    return COMMANDS["file-write"].run(machine, message(content, **wish))


def failure(machine: Machine, message: FileWrite) -> CommandFailed:
    with pytest.raises(CommandFailed) as raised:
        COMMANDS["file-write"].run(machine, message)
    return raised.value


def test_a_file_is_made_for_its_owner_alone(machine: Machine, file: Path) -> None:
    assert write(machine, b"\x00\xff") == {"written": 2, "size": 2}
    assert file.read_bytes() == b"\x00\xff"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("offset", "truncate", "then"),
    [
        (0, False, b"xy23456789"),
        (3, False, b"012xy56789"),
        (9, False, b"012345678xy"),
        (12, False, b"0123456789\0\0xy"),
        (0, True, b"xy"),
        (3, True, b"012xy"),
        (12, True, b"0123456789\0\0xy"),
    ],
)
def test_a_piece_is_written_where_it_belongs(machine: Machine, file: Path, offset: int, truncate: bool, then: bytes) -> None:
    file.write_bytes(b"0123456789")
    assert write(machine, b"xy", offset=offset, truncate=truncate) == {"written": 2, "size": len(then)}
    assert file.read_bytes() == then


def test_a_file_can_be_emptied(machine: Machine, file: Path) -> None:
    file.write_bytes(b"0123456789")
    assert write(machine, b"") == {"written": 0, "size": 10}
    assert write(machine, b"", truncate=True) == {"written": 0, "size": 0}
    assert file.read_bytes() == b""


def test_the_largest_piece_is_written_and_a_larger_one_is_not(machine: Machine, file: Path) -> None:
    content = os.urandom(PIECE_LIMIT)
    assert write(machine, content)["written"] == PIECE_LIMIT
    failed = failure(machine, message(b"x" * (PIECE_LIMIT + 1)))
    assert (failed.code, str(failed)) == (
        Code.INVALID_ARGUMENTS,
        "content has more than 262144 bytes; write it in pieces",
    )
    assert file.read_bytes() == content


@pytest.mark.parametrize("offset", [OFFSET_LIMIT + 1, 10**100])
def test_no_file_reaches_further_than_the_kernel_counts(machine: Machine, file: Path, offset: int) -> None:
    failed = failure(machine, message(b"x", offset=offset))
    assert failed.code is Code.INVALID_ARGUMENTS
    assert not file.exists()


def test_a_file_system_may_not_reach_as_far(machine: Machine, file: Path) -> None:
    failed = failure(machine, message(b"x", offset=OFFSET_LIMIT))
    assert (failed.code, str(failed), failed.members["written"]) == (Code.FAILED, "/srv/file: File too large", 0)


def test_what_the_disk_does_not_take_is_told_with_what_it_took(machine: Machine, file: Path) -> None:
    room = 1000

    def job(report: Report) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        failed = failure(machine, message(b"secret" * room))
        report((str(failed), failed.members))

    worker = Worker(job)
    reported = wait_until(worker.reports, lambda: None)
    wait_until(lambda: worker.reports() or worker.status is not None, lambda: None)
    worker.close()
    assert reported == [("/srv/file: File too large", {"written": room, "size": room})]


def test_a_file_that_can_not_be_opened_for_writing_is_named(machine: Machine) -> None:
    machine = machine._replace(root="/", write_roots=("/proc",))
    assert str(failure(machine, message(b"", "/proc/new"))) == "/proc/new: No such file or directory"


def test_what_may_not_be_written_is_not(machine: Machine, root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "shadow").write_bytes(b"safe")
    (root / "srv" / "shadow").symlink_to("../etc/shadow")
    assert failure(machine, message(b"x", "/etc/shadow")).code is Code.INVALID_ARGUMENTS
    assert "symbolic link" in str(failure(machine, message(b"x", "/srv/shadow")))
    assert (root / "etc" / "shadow").read_bytes() == b"safe"


def test_where_files_may_be_read_they_may_not_be_written(machine: Machine, file: Path) -> None:
    machine = machine._replace(read_roots=("/srv",), write_roots=())
    assert "not below a directory that write in [files] names" in str(failure(machine, message(b"x")))
    assert not file.exists()


def test_it_is_available_where_a_directory_is_configured(machine: Machine) -> None:
    assert file_write.available(machine) is None
    assert "name one in write in [files]" in str(file_write.available(machine._replace(write_roots=())))
