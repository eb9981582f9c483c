"""file-read: real files, and files of the kernel."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common import codec
from common.framing import LINE_LIMIT
from common.messages import Code, FileRead
from guest_agent.answers import Answer, Outcome
from guest_agent.commands import COMMANDS, CommandFailed, Machine, file_read
from guest_agent.commands.files import OFFSET_LIMIT, PIECE_LIMIT


@pytest.fixture
def machine(machine: Machine, root: Path) -> Machine:
    """One below whose ``/srv`` files may be read."""
    (root / "srv").mkdir()
    return machine._replace(read_roots=("/srv",))


def read(machine: Machine, root: Path, content: bytes, **wish: Any) -> Mapping[str, Any]:
    (root / "srv" / "file").write_bytes(content)
    return COMMANDS["file-read"].run(machine, FileRead("/srv/file", **wish))


def failure(machine: Machine, message: FileRead) -> CommandFailed:
    with pytest.raises(CommandFailed) as raised:
        COMMANDS["file-read"].run(machine, message)
    return raised.value


def test_a_small_file_is_read_at_once(machine: Machine, root: Path) -> None:
    content = base64.b64encode(b"\x00\xff\n").decode()
    assert read(machine, root, b"\x00\xff\n") == {"content": content, "offset": 0, "size": 3, "end": True}


def test_an_empty_file_ends_at_once(machine: Machine, root: Path) -> None:
    assert read(machine, root, b"") == {"content": "", "offset": 0, "size": 0, "end": True}


@pytest.mark.parametrize(
    ("offset", "count", "piece", "end"),
    [(0, 4, b"0123", False), (4, 5, b"45678", False), (4, 6, b"456789", True), (9, 100, b"9", True), (10, 1, b"", True)],
)
def test_a_piece_is_what_was_asked_for(
    machine: Machine, root: Path, offset: int, count: int, piece: bytes, end: bool
) -> None:
    result = read(machine, root, b"0123456789", offset=offset, count=count)
    assert (base64.b64decode(result["content"]), result["end"]) == (piece, end)
    assert (result["offset"], result["size"]) == (offset, 10)


def test_behind_the_end_there_is_nothing(machine: Machine, root: Path) -> None:
    assert read(machine, root, b"x", offset=2**40)["end"]
    failed = failure(machine, FileRead("/srv/file", offset=OFFSET_LIMIT + 1))
    assert failed.code is Code.INVALID_ARGUMENTS


def test_a_file_that_can_not_be_read_is_named(machine: Machine) -> None:
    machine = machine._replace(root="/", read_roots=("/proc",))
    path = f"/proc/{os.getpid()}/mem"
    assert str(failure(machine, FileRead(path))) == f"{path}: Input/output error"


@pytest.mark.parametrize("wish", [{}, {"count": PIECE_LIMIT + 1}, {"count": 10**100}], ids=str)
def test_the_largest_piece_fits_into_a_line(machine: Machine, root: Path, wish: Mapping[str, Any]) -> None:
    content = os.urandom(PIECE_LIMIT + 1)
    result = read(machine, root, content, **wish)
    assert base64.b64decode(result["content"]) == content[:PIECE_LIMIT]
    assert not result["end"]
    completion = Answer("file-read", "r" * 64, Outcome(None, result)).completion(in_full=True)
    assert len(codec.encode("completion", completion.to_arguments())) < LINE_LIMIT


def test_a_file_is_read_to_its_end_piece_by_piece(machine: Machine, root: Path) -> None:
    content = os.urandom(3 * PIECE_LIMIT)
    found, end = b"", False
    while not end:
        result = read(machine, root, content, offset=len(found))
        found, end = found + base64.b64decode(result["content"]), result["end"]
    assert found == content


def test_files_of_the_kernel_have_no_size_but_an_end(machine: Machine) -> None:
    machine = machine._replace(root="/", read_roots=("/proc",))
    result = file_read.run(machine, FileRead(f"/proc/{os.getpid()}/maps"))
    content = base64.b64decode(result["content"])
    assert (result["size"], result["end"]) == (0, True)
    assert b"[stack]" in content
    assert len(content) > 4096


def test_what_may_not_be_read_is_not(machine: Machine, root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "shadow").touch()
    (root / "srv" / "shadow").symlink_to("../etc/shadow")
    assert failure(machine, FileRead("/etc/shadow")).code is Code.INVALID_ARGUMENTS
    assert "symbolic link" in str(failure(machine, FileRead("/srv/shadow")))


def test_where_files_may_be_written_they_may_not_be_read(machine: Machine, root: Path) -> None:
    machine = machine._replace(read_roots=(), write_roots=("/srv",))
    (root / "srv" / "file").touch()
    assert "not below a directory that read in [files] names" in str(failure(machine, FileRead("/srv/file")))


def test_it_is_available_where_a_directory_is_configured(machine: Machine) -> None:
    assert file_read.available(machine) is None
    assert "name one in read in [files]" in str(file_read.available(machine._replace(read_roots=())))
