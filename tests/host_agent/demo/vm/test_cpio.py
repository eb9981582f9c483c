"""The archive is one that cpio reads: checked against its format, field by field."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import stat

from host_agent.demo.vm import cpio


@dataclasses.dataclass(frozen=True)
class Entry:
    mode: int
    owner: tuple[int, int]
    device: tuple[int, int]
    content: bytes


def _read(archive: bytes) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * each : at + 14 + 8 * each], 16) for each in range(13)]
        size, name_size = numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size].rstrip(b"\0").decode()
        begin = -(-(at + 110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return entries
        assert name not in entries
        content = archive[begin : begin + size]
        entries[name] = Entry(numbers[1], (numbers[2], numbers[3]), (numbers[9], numbers[10]), content)
        at = -(-(begin + size) // 4) * 4


def test_an_archive_holds_what_was_added_and_belongs_to_root(tmp_path: pathlib.Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/tool").write_bytes(b"odd")
    (tmp_path / "usr/bin/tool").chmod(0o755)
    (tmp_path / "usr/bin/alias").symlink_to("tool")
    file = io.BytesIO()
    with cpio.Archive(file) as archive:
        archive.add_tree(tmp_path)
        archive.add_file("etc/init", b"#!", 0o755)
        archive.add_link("usr/bin/other", "tool")
        archive.add_character_device("dev/console", 5, 1)
        archive.add_directory("proc")
    entries = _read(file.getvalue())
    assert set(entries) == {"dev", "dev/console", "etc", "etc/init", "proc", "usr", "usr/bin"} | {
        f"usr/bin/{name}" for name in ("tool", "alias", "other")
    }
    assert entries["usr/bin/tool"] == Entry(stat.S_IFREG | 0o755, (0, 0), (0, 0), b"odd")
    assert entries["usr/bin/alias"].content == entries["usr/bin/other"].content == b"tool"
    assert stat.S_ISLNK(entries["usr/bin/other"].mode)
    assert entries["dev/console"] == Entry(stat.S_IFCHR | 0o600, (0, 0), (5, 1), b"")
    assert entries["proc"].mode == stat.S_IFDIR | 0o755


def test_of_two_trees_a_common_directory_is_added_once(tmp_path: pathlib.Path) -> None:
    for tree in ("one", "two"):
        (tmp_path / tree / "shared").mkdir(parents=True)
        (tmp_path / tree / "shared" / tree).touch()
    file = io.BytesIO()
    with cpio.Archive(file) as archive:
        archive.add_tree(tmp_path / "one")
        archive.add_tree(tmp_path / "two")
    assert list(_read(file.getvalue())) == ["shared", "shared/one", "shared/two"]
