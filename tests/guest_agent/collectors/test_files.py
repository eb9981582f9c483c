"""Reading small files."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_agent.collectors import files


def test_bytes_that_are_no_text_become_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xffb")
    assert files.read_text(str(tmp_path), "file") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_file_without_end_is_read_up_to_the_limit() -> None:
    assert len(files.read_text("/", "dev/zero")) == files.SIZE_LIMIT


def test_only_what_is_optional_may_be_missing(tmp_path: Path) -> None:
    assert files.read_optional(str(tmp_path), "absent") == ""
    assert files.entries(str(tmp_path), "absent") == []
    with pytest.raises(FileNotFoundError):
        files.read_text(str(tmp_path), "absent")
