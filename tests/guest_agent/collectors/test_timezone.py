"""The time zone."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

from guest_agent.collectors.timezone import timezone

KOLKATA = "../usr/share/zoneinfo/Asia/Kolkata"


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


def told(root: Path) -> tuple[str, int]:
    message = timezone(str(root))
    return message.zone, message.offset


# ---- The name ----


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (KOLKATA, "Asia/Kolkata"),
        ("/usr/share/zoneinfo/Asia/Kolkata", "Asia/Kolkata"),
        ("../usr/share/zoneinfo/posix/Asia/Kolkata", "Asia/Kolkata"),
        ("zoneinfo/Asia/Kolkata", "Asia/Kolkata"),
    ],
)
def test_the_zone_is_what_the_link_names(root: Path, link: str, expected: str) -> None:
    (root / "usr/share/zoneinfo/posix").symlink_to(".")
    (root / "etc/zoneinfo").symlink_to("../usr/share/zoneinfo")
    (root / "etc/localtime").symlink_to(link)
    assert told(root) == (expected, 330)


def test_an_absolute_link_stays_below_the_root(root: Path) -> None:
    elsewhere = root / "etc/localtime"
    elsewhere.symlink_to("/usr/share/zoneinfo/Etc/UTC")
    (root / "usr/share/zoneinfo/Etc").mkdir()
    (root / "usr/share/zoneinfo/Etc/UTC").write_bytes(zone_file(60, "XXX-0:01"))
    assert told(root) == ("Etc/UTC", 1)


def test_a_copied_zone_is_named_by_the_other_file(root: Path) -> None:
    (root / "etc/localtime").write_bytes(zone_file(-12600, "XXX3:30"))
    (root / "etc/timezone").write_text("America/St_Johns\n", encoding="utf-8")
    assert told(root) == ("America/St_Johns", -210)


def test_a_zone_without_a_name_still_has_an_offset(root: Path) -> None:
    (root / "etc/elsewhere").write_bytes(zone_file(3600, "XXX-1"))
    (root / "etc/localtime").symlink_to("elsewhere")
    assert told(root) == ("", 60)


# ---- The offset ----


@pytest.fixture
def own_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Optional[str]], None]]:
    """Has the tests live in another zone."""

    def live_in(zone: Optional[str]) -> None:
        if zone is None:
            monkeypatch.delenv("TZ", raising=False)
        else:
            monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield live_in
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("own", [None, "XXX-3", ":{}/etc/localtime"])
def test_a_zone_that_is_changed_meanwhile_is_told_as_it_is_now(
    own: Optional[str], root: Path, own_zone: Callable[[Optional[str]], None]
) -> None:
    own_zone(own and own.format(root))
    (root / "etc/localtime").write_bytes(zone_file(3600, "XXX-1"))
    assert told(root) == ("", 60)
    (root / "etc/localtime").write_bytes(zone_file(7200, "XXX-2"))
    assert told(root) == ("", 120)


@pytest.mark.parametrize("own", [None, "XXX-3"])
def test_the_zone_that_the_agent_lives_in_stays(
    own: Optional[str], root: Path, own_zone: Callable[[Optional[str]], None]
) -> None:
    own_zone(own)
    before = time.timezone
    (root / "etc/localtime").symlink_to(KOLKATA)
    assert told(root) == ("Asia/Kolkata", 330)
    assert (os.environ.get("TZ"), time.timezone) == (own, before)


# ---- No zone ----


def test_without_a_zone_the_system_runs_on_utc(root: Path) -> None:
    assert told(root) == ("UTC", 0)


def test_a_link_that_leads_nowhere_is_no_zone(root: Path) -> None:
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Asia/Nowhere")
    assert told(root) == ("UTC", 0)


@pytest.mark.parametrize("content", [b"", b"TZ", b"garbage", b"\xff\xfe\xff\xfe"])
def test_a_file_that_is_no_zone_is_an_error(content: bytes, root: Path) -> None:
    (root / "etc/localtime").write_bytes(content)
    with pytest.raises(ValueError, match="no time zone; link it to one below /usr/share/zoneinfo"):
        told(root)


def test_a_pipe_in_place_of_a_zone_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "etc/localtime")
    with pytest.raises(ValueError, match="no time zone"):
        told(root)


def test_a_directory_in_place_of_a_zone_is_an_error(root: Path) -> None:
    (root / "etc/localtime").mkdir()
    with pytest.raises(IsADirectoryError):
        told(root)


def test_a_damaged_zone_is_like_utc(root: Path) -> None:
    (root / "etc/localtime").write_bytes(b"TZif2" + b"\xff" * 100)
    assert told(root) == ("", 0)
