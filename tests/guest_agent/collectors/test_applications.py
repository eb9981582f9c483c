"""Installed packages."""

from __future__ import annotations

from pathlib import Path

from guest_agent.collectors.applications import applications

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

Package: qemu-guest-agent-removed
Status: deinstall ok config-files
Version: 1

Package: qemu-guest-agent-broken
Status: install ok installed

Package: bash
Status: install ok installed
Version: 5

Package: vmaccord-guest
Status: install ok installed
Version: 0.1
"""


def write_dpkg(root: Path, text: str) -> None:
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text(text, encoding="utf-8")


def test_installed_packages_that_match_are_reported_with_their_version(tmp_path: Path) -> None:
    write_dpkg(tmp_path, DPKG)
    found = applications(str(tmp_path), ["vmaccord*", "linux-image-*", "qemu-guest-agent*"]).applications
    assert found == ("linux-image-6.1-amd64-6.1.5-1", "qemu-guest-agent-1:7.2+dfsg-7", "vmaccord-guest-0.1")


def test_a_name_without_wildcards_matches_itself_only(tmp_path: Path) -> None:
    write_dpkg(tmp_path, DPKG)
    assert applications(str(tmp_path), ["qemu-guest", "bash"]).applications == ("bash-5",)


def test_without_patterns_nothing_is_reported(tmp_path: Path) -> None:
    write_dpkg(tmp_path, DPKG)
    assert applications(str(tmp_path), []).applications == ()


def test_a_machine_without_packages_has_no_applications(tmp_path: Path) -> None:
    assert applications(str(tmp_path), ["*"]).applications == ()


def test_rpm_packages_are_reported_with_their_release(tmp_path: Path) -> None:
    make_database(tmp_path, {"kernel-core": ("5.14.0", "427.el9"), "bash": ("5.1.8", "9.el9")})
    assert applications(str(tmp_path), ["kernel*"]).applications == ("kernel-core-5.14.0-427.el9",)
