"""Kernel and distribution."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guest_agent.collectors import system

DEBIAN = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID='12'
VERSION_CODENAME=bookworm
"""


def test_the_os_version_is_the_kernel_release() -> None:
    assert system.os_version().version == os.uname().release


def test_the_distribution_is_described_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(DEBIAN, encoding="utf-8")
    assert system.os_info(str(tmp_path)).to_arguments() == {
        "version": "12",
        "distribution": "Debian GNU/Linux",
        "codename": "bookworm",
        "arch": os.uname().machine,
        "type": "linux",
        "kernel": os.uname().release,
    }


def test_the_vendors_file_counts_where_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("NAME=Vendor\n", encoding="utf-8")
    assert system.os_info(str(tmp_path)).distribution == "Vendor"


def test_a_system_that_says_nothing_has_empty_members(tmp_path: Path) -> None:
    described = system.os_info(str(tmp_path))
    assert (described.version, described.distribution, described.codename) == ("", "", "")


def test_values_are_read_as_a_shell_would() -> None:
    text = 'A=plain\nB="a \\"b\\" = c"\nC=\'single $x\'\nD=\n  E=spaced  \nF="\\\\ \\$1 \\` \\n"\nG=""\n'
    assert system.parse_os_release(text) == {
        "A": "plain",
        "B": 'a "b" = c',
        "C": "single $x",
        "D": "",
        "E": "spaced",
        "F": "\\ $1 ` \\n",
        "G": "",
    }


@pytest.mark.parametrize(
    "line",
    [
        "# NAME=x",
        "",
        "nothing",
        'A="open',
        'A="',
        "A='",
        "A=two words",
        'A="x"y',
        "A=\"x'",
        'A=x"y"',
        "A=back\\slash",
        "=x\ty",
    ],
)
def test_lines_that_are_no_assignment_are_left_out(line: str) -> None:
    assert system.parse_os_release(f"B=before\n{line}\nC=ok\n") == {"B": "before", "C": "ok"}


def test_bytes_that_are_no_text_do_not_hide_the_rest(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_bytes(b'NAME="\xff"\nVERSION_ID=1\n')
    described = system.os_info(str(tmp_path))
    assert (described.distribution, described.version) == ("\N{REPLACEMENT CHARACTER}", "1")


def test_only_one_of_the_two_files_counts(tmp_path: Path) -> None:
    for path, text in (("etc/os-release", "NAME=Own\n"), ("usr/lib/os-release", "NAME=Vendor\nVERSION_ID=1\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    described = system.os_info(str(tmp_path))
    assert (described.distribution, described.version) == ("Own", "")
