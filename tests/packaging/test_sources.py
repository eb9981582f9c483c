"""What the packages say of releases and dependencies is what the project says."""

from __future__ import annotations

import configparser
import re
import subprocess

import pytest

from .parts import PACKAGING, ROOT

#: The packages of Debian, and of distributions with RPM, whose names are not "python3-" and that of the project.
DEBIAN_NAMES = {"libvirt-python": "python3-libvirt", "pyserial": "python3-serial"}

#: Those that RPM distributions call otherwise than ``python3-NAME``.
RPM_NAMES = {"libvirt-python": "python3-libvirt", "prometheus-client": "python3-prometheus_client"}


def project() -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg", encoding="utf-8")
    return read


def requirements() -> dict[str, str]:
    """The oldest release of each project that ours needs, or can do more with."""
    extras = project()["options.extras_require"]
    lines = " ".join((project()["options"]["install_requires"], extras["libvirt"], extras["fast"])).split()
    return dict(line.split(">=") for line in lines)


def bundled() -> dict[str, str]:
    text = (PACKAGING / "bundled.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE))


def numbers(release: str) -> list[int]:
    return [int(number) for number in release.split(".")]


def test_debians_changelog_begins_with_the_release_of_the_sources() -> None:
    changelog = (PACKAGING / "debian/changelog").read_text(encoding="utf-8")
    assert changelog.startswith(f"vmaccord ({project()['metadata']['version']}) ")


def test_debians_packages_depend_on_what_is_required_and_not_bundled() -> None:
    control = (PACKAGING / "debian/control").read_text(encoding="utf-8")
    named = dict(re.findall(r"\b(python3-[a-z-]+) \(>= ([0-9.]+)\)", control))
    wanted = {name: oldest for name, oldest in requirements().items() if name not in bundled()}
    assert set(named) == {DEBIAN_NAMES.get(name, f"python3-{name}") for name in wanted}
    for name, oldest in wanted.items():
        assert oldest.startswith(named[DEBIAN_NAMES.get(name, f"python3-{name}")])


def test_the_rpms_depend_on_what_is_required_and_not_bundled() -> None:
    spec = (PACKAGING / "rpm/vmaccord.spec").read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:Requires|Recommends): (python3-\S+)$", spec, re.MULTILINE))
    assert named == {RPM_NAMES.get(name, f"python3-{name}") for name in requirements() if name not in bundled()}
    assert dict(re.findall(r"^Provides: bundled\(python3dist\((\S+)\)\) = (\S+)$", spec, re.MULTILINE)) == bundled()


def test_what_is_bundled_is_new_enough() -> None:
    assert bundled()
    for name, release in bundled().items():
        assert numbers(release) >= numbers(requirements()[name])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output"], "--output lacks a value"),
        (["--release", "1.0-rc1"], "'1.0-rc1' is no release"),
        (["--release", ""], "--release lacks a value"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_a_wrong_command_line_of_the_builder_is_one_sentence(arguments: list[str], said: str) -> None:
    ran = subprocess.run([str(PACKAGING / "build"), *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"packaging/build: {said}")
    assert ran.stderr.count("\n") == 1


def test_the_builder_tells_its_options() -> None:
    ran = subprocess.run([str(PACKAGING / "build"), "--help"], capture_output=True, text=True, check=True)
    assert all(option in ran.stdout for option in ("--output", "--release", "--deb-only", "--rpm-only"))
