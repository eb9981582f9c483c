"""The time zone."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from guest_agent.collectors.timezone import timezone


def zone_file(seconds: int, rule: str) -> bytes:
    """A compiled time zone that has one offset for ever."""
    header = struct.pack(">4sc15x6I", b"TZif", b"2", 0, 0, 0, 0, 1, 4)
    body = struct.pack(">iBB4s", seconds, 0, 0, b"ABC\0")
    return (header + body) * 2 + f"\n{rule}\n".encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    zones = tmp_path / "usr/share/zoneinfo/Asia"
    zones.mkdir(parents=True)
    (zones / "Kolkata").write_bytes(zone_file(19800, "IST-5:30"))
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../usr/share/zoneinfo/Asia/Kolkata", "Asia/Kolkata"),
        ("../usr/share/zoneinfo/posix/Asia/Kolkata", "Asia/Kolkata"),
    ],
)
def test_the_zone_is_what_the_link_names(root: Path, link: str, expected: str) -> None:
    (root / "usr/share/zoneinfo/posix").symlink_to(".")
    (root / "etc/localtime").symlink_to(link)
    found = timezone(str(root))
    assert (found.zone, found.offset) == (expected, 330)


def test_a_copied_zone_is_named_by_the_other_file(root: Path) -> None:
    (root / "etc/localtime").write_bytes(zone_file(-12600, "XXX3:30"))
    (root / "etc/timezone").write_text("America/St_Johns\n", encoding="utf-8")
    found = timezone(str(root))
    assert (found.zone, found.offset) == ("America/St_Johns", -210)


def test_a_zone_without_a_name_still_has_an_offset(root: Path) -> None:
    (root / "etc/elsewhere").write_bytes(zone_file(3600, "XXX-1"))
    (root / "etc/localtime").symlink_to("elsewhere")
    found = timezone(str(root))
    assert (found.zone, found.offset) == ("", 60)


def test_without_a_zone_the_system_runs_on_utc(root: Path) -> None:
    found = timezone(str(root))
    assert (found.zone, found.offset) == ("UTC", 0)


def test_a_file_that_is_no_zone_is_an_error(root: Path) -> None:
    (root / "etc/localtime").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="magic"):
        timezone(str(root))
