from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.processes import Gone
from tests.bench.stage import HOST_CORE
from tests.soak.subject import Disk, Subject


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    (tmp_path / "ports").mkdir()
    subject = Subject(tmp_path, HOST_CORE, ["drain = 0.1"])
    yield subject
    subject.end()


def test_a_daemon_is_reloaded_stopped_and_killed(subject: Subject, tmp_path: Path) -> None:
    subject.start()
    first = subject.level()
    assert first.run == subject.run
    assert min(first[1:]) > 0
    assert subject.counters()["queue_commands"] == 0
    subject.reload_in_error()
    subject.reload(2)
    subject.wait_for("the reload", lambda: (subject.host() or {})["api"]["supported"] == 2)
    subject.stop()
    assert subject.host() is None
    assert subject.is_down(0.0)
    end = subject.start_again(clean=True)
    assert end.down_at < end.up_at
    assert not subject.is_down(end.up_at + 1)
    assert subject.level().run != first.run
    subject.kill()
    assert not subject.start_again(clean=False).clean
    assert subject.faults == []
    assert list(subject.read_log()) == []
    assert subject.log_lines > 0
    assert "ready" in subject.log_tail()


def test_what_a_log_must_not_have_is_found_once(subject: Subject, tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text("INFO all is well\nERROR unexpected error while serving a guest\n", encoding="utf-8")
    assert list(subject.read_log()) == ["ERROR unexpected error while serving a guest"]
    assert list(subject.read_log()) == []
    with log.open("a", encoding="utf-8") as file:
        file.write("Task exception was never retrieved\n")
    assert list(subject.read_log()) == ["Task exception was never retrieved"]
    assert subject.log_lines == 3


def test_what_does_not_come_is_not_waited_for_for_ever(subject: Subject) -> None:
    subject.start()
    with pytest.raises(Gone, match="waited for a miracle"):
        subject.wait_for("a miracle", lambda: False, patience=0.0)
    subject.kill()
    with pytest.raises(Gone, match="ended with status -9"):
        subject.wait_for("a miracle", lambda: False)


def test_a_disk_can_be_filled_and_freed(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", 64)
    try:
        if not disk.can_be_full:
            disk.fill()
            assert os.listdir(disk.place) == []
            pytest.skip("no file system can be mounted")
        disk.fill()
        assert disk.full
        with pytest.raises(OSError, match="No space left"):
            (disk.place / "more").write_bytes(b"x" * 4096)
        disk.free()
        (disk.place / "more").write_bytes(b"x" * 4096)
    finally:
        disk.close()
    assert subprocess.run(["mountpoint", "-q", str(disk.place)], check=False).returncode != 0
