"""Installed packages, out of small databases of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guest_agent import processes
from guest_agent.collectors.applications import applications

from .conftest import Program
from .test_rpm import make_database

DPKG = """\
Package: linux-image-6.1-amd64
Status: install ok installed
Version: 6.1.5-1
Description: a kernel
 Version: 9 of the description
\tPackage: nothing

Package: qemu-guest-agent
Status: hold ok installed
Version: 1:7.2+dfsg-7

Package: qemu-guest-agent-unwanted
Status: deinstall ok installed
Version: 2

Package: qemu-guest-agent-triggered
Status: install ok triggers-pending
Version: 3

Package: qemu-guest-agent-removed
Status: deinstall ok config-files
Version: 1

Package: qemu-guest-agent-broken
Status: install reinstreq half-installed
Version: 1

Package: qemu-guest-agent-without-version
Status: install ok installed

Package: qemu-guest-agent-without-status
Version: 1

Package: bash
Status: install ok installed
Version: 5

Package: bash
Status: install ok installed
Architecture: i386
Version: 5

Package: vmaccord-guest
Status: install ok installed
Version: 0.1
"""

APK = """\
C:Q1abc=
P:qemu-guest-agent
V:9.0.4-r0
F:usr/bin
R:qemu-ga
V:not-this

P:without-version

V:1
"""


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.fixture
def found(tmp_path: Path, no_program: processes.Run) -> Any:
    return lambda *patterns: applications(str(tmp_path), patterns, no_program).applications


# ---- What is wanted ----


def test_installed_packages_that_match_are_reported_with_their_version(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG)
    assert found("vmaccord*", "linux-image-*", "qemu-guest-agent*") == (
        "linux-image-6.1-amd64-6.1.5-1",
        "qemu-guest-agent-1:7.2+dfsg-7",
        "qemu-guest-agent-triggered-3",
        "qemu-guest-agent-unwanted-2",
        "vmaccord-guest-0.1",
    )


def test_a_name_without_wildcards_matches_itself_only(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG)
    assert found("qemu-guest", "linux", "Bash") == ()


def test_a_package_of_two_architectures_is_reported_once(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG)
    assert found("b?sh") == ("bash-5",)


@pytest.mark.parametrize("patterns", [(), ("",)])
def test_without_patterns_nothing_is_reported(patterns: tuple[str, ...], tmp_path: Path, found: Any) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG)
    assert found(*patterns) == ()


def test_a_machine_without_packages_has_no_applications(found: Any) -> None:
    assert found("*") == ()


# ---- The databases ----


def test_an_image_without_a_package_tool_has_a_file_per_package(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12\n")
    write(tmp_path, "var/lib/dpkg/status.d/base.md5sums", "d41d8cd98f00b204e9800998ecf8427e  etc/motd\n")
    write(tmp_path, "var/lib/dpkg/status.d/directory/file", "Package: too-deep\nVersion: 1\n")
    assert found("*") == ("base-files-12",)


def test_packages_of_alpine_are_reported(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "lib/apk/db/installed", APK)
    assert found("*") == ("qemu-guest-agent-9.0.4-r0",)


def test_packages_of_arch_are_reported(tmp_path: Path, found: Any) -> None:
    for name in ("linux-api-headers-6.10-1", "vi-1:070224-6", "ALPM_DB_VERSION", "half-way"):
        (tmp_path / "var/lib/pacman/local" / name).mkdir(parents=True)
    assert found("*") == ("linux-api-headers-6.10-1", "vi-1:070224-6")


def test_rpm_packages_are_reported_with_their_release(tmp_path: Path, found: Any) -> None:
    make_database(tmp_path, {"kernel-core": ("5.14.0", "427.el9"), "bash": ("5.1.8", "9.el9")})
    assert found("kernel*") == ("kernel-core-5.14.0-427.el9",)


def test_what_the_rpm_program_says_is_filtered_too(tmp_path: Path, program: Program) -> None:
    write(tmp_path, "var/lib/rpm/Packages", "a Berkeley DB")
    program.answer = b"kernel-core\t4.18.0\t553.el8\nbash\t4.4\t5.el8\n"
    assert applications(str(tmp_path), ["k*"], program.run).applications == ("kernel-core-4.18.0-553.el8",)


def test_all_databases_of_a_machine_count(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n")
    write(tmp_path, "lib/apk/db/installed", "P:b\nV:2\n")
    make_database(tmp_path, {"c": ("3", "1")})
    assert found("*") == ("a-1", "b-2", "c-3-1")


# ---- Damaged ones ----


@pytest.mark.parametrize("text", ["", "\n\n\n", "garbage", "Package\nVersion\n", " Package: x\n Version: 1\n", ":\n:::\n"])
def test_a_damaged_database_has_no_packages(text: str, tmp_path: Path, found: Any) -> None:
    write(tmp_path, "var/lib/dpkg/status", text)
    write(tmp_path, "lib/apk/db/installed", text)
    assert found("*") == ()


def test_bytes_that_are_no_text_cost_their_own_line_only(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "lib/apk/db/installed", "T:\udcff\udcfe\nP:b\nV:2\n")
    assert found("*") == ("b-2",)


def test_no_other_character_than_a_line_feed_ends_a_line(tmp_path: Path, found: Any) -> None:
    write(tmp_path, "lib/apk/db/installed", "P:b\nT:text\rV:1\x0cV:1\u2028V:1\nV:2\n")
    assert found("*") == ("b-2",)


def test_a_line_without_end_is_read_in_parts(tmp_path: Path, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest_agent.collectors.applications._LINE_LIMIT", 8)
    write(tmp_path, "lib/apk/db/installed", f"P:b\nV:2\nT:{'x' * 100}\n")
    assert found("*") == ("b-2",)


def test_a_database_that_can_not_be_read_is_an_error(tmp_path: Path, found: Any) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg").write_text("no directory", encoding="utf-8")
    with pytest.raises(NotADirectoryError):
        found("*")
