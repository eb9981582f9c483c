"""Reading small files, and seeing that larger ones have not changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guest_agent.collectors import files


def test_bytes_that_are_no_text_become_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xffb")
    assert files.read_text(str(tmp_path), "file") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_file_without_end_is_read_up_to_the_limit() -> None:
    assert len(files.read_text("/", "dev/zero")) == files.SIZE_LIMIT


@pytest.mark.parametrize("has_writer", [False, True])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(has_writer: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # A pipe that is open for reading and writing has both.
    other_end = os.open(tmp_path / "pipe", os.O_RDWR) if has_writer else os.open(os.devnull, os.O_RDONLY)
    assert files.read_text(str(tmp_path), "pipe") == ""
    os.close(other_end)


def test_only_what_is_optional_may_be_missing(tmp_path: Path) -> None:
    assert files.read_optional(str(tmp_path), "absent") == ""
    assert files.read_optional(str(tmp_path), ".") == ""
    assert files.entries(str(tmp_path), "absent") == []
    assert files.size(str(tmp_path), "absent") == 0
    with pytest.raises(FileNotFoundError):
        files.read_text(str(tmp_path), "absent")


def test_a_directory_is_listed_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_text(name * 7, encoding="utf-8")
    assert files.entries(str(tmp_path), ".") == ["a", "b", "c"]
    assert files.size(str(tmp_path), "a") == 7


def test_a_fingerprint_changes_with_the_file_its_size_its_time_and_its_identity(tmp_path: Path) -> None:
    def taken() -> object:
        return files.fingerprint(str(tmp_path), ["file"])

    file = tmp_path / "file"
    seen = [taken()]
    file.write_text("a", encoding="utf-8")
    os.utime(file, ns=(1, 1))
    seen.append(taken())
    assert taken() == seen[-1]
    file.write_text("ab", encoding="utf-8")
    os.utime(file, ns=(1, 1))
    seen.append(taken())
    os.utime(file, ns=(2, 2))
    seen.append(taken())
    (tmp_path / "other").write_text("ab", encoding="utf-8")
    os.utime(tmp_path / "other", ns=(2, 2))
    os.replace(tmp_path / "other", file)
    seen.append(taken())
    assert len(set(map(str, seen))) == len(seen)


def test_an_empty_file_counts_as_none_and_an_empty_directory_does_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert files.fingerprint(str(tmp_path), ["file", "absent"]) == ()
    assert [name for name, *_ in files.fingerprint(str(tmp_path), [".", "file"])] == ["."]
