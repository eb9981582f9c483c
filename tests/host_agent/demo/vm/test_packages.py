"""What can't be had is said in one line; apt is replaced by scripts that say what it says."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from host_agent.demo.vm import packages


@pytest.fixture
def programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A directory with the only programs that are there."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return directory


def _script(path: pathlib.Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_program_that_is_there_is_found(programs: pathlib.Path) -> None:
    _script(programs / "emulator", "")
    assert packages.program("emulator", "package") == str(programs / "emulator")


def test_a_missing_program_is_said_in_one_line_with_the_way_to_get_it(programs: pathlib.Path) -> None:
    with pytest.raises(packages.Unavailable, match=r"^emulator is missing: apt-get install package$"):
        packages.program("emulator", "package")


def test_root_installs_a_missing_program(programs: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    made = f'case "$*" in *"install --yes"*package) : >{programs}/emulator; /bin/chmod +x {programs}/emulator;; esac'
    _script(programs / "apt-get", made)
    assert packages.program("emulator", "package") == str(programs / "emulator")


def test_root_asks_the_servers_before_a_package_is_unknown(programs: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh machine has no package lists."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    lists = programs / "lists"
    update, refuse = f'case "$*" in *update) : >{lists};; esac', f"[ -e {lists} ] || exit 100"
    make = f'case "$*" in *package) : >{programs}/emulator; /bin/chmod +x {programs}/emulator;; esac'
    say = """echo "'http://mirror/a_1_all.deb' a_1_all.deb 9 SHA256:aa\""""
    _script(programs / "apt-get", "\n".join([update, refuse, make, say]))
    assert packages.program("emulator", "package") == str(programs / "emulator")
    lists.unlink()
    assert packages.named(["a"]) == [packages.Package("a_1_all.deb", "SHA256:aa")]


def test_packages_are_named_with_version_and_checksum_and_sorted(programs: pathlib.Path) -> None:
    said = """'http://mirror/b_2_all.deb' b_2_all.deb 10 SHA256:bb
'http://mirror/a_1%3a1_amd64.deb' a_1%3a1_amd64.deb 9 SHA256:aa"""
    _script(programs / "apt-get", f'echo "{said}"')
    found = packages.named(["b", "a"])
    assert found == [packages.Package("a_1%3a1_amd64.deb", "SHA256:aa"), packages.Package("b_2_all.deb", "SHA256:bb")]


def test_a_system_is_what_apt_would_install_on_an_empty_machine(programs: pathlib.Path) -> None:
    said = "Reading package lists...\nInst libc6 (2.36 Debian:12 [amd64])\nInst a (1 Debian:12 [all])\nConf libc6 (2.36)"
    _script(programs / "apt-get", f'case "$*" in *status=/dev/null*"install ?essential a") echo "{said}";; esac')
    assert packages.system(["a"]) == ["libc6", "a"]


def test_packages_are_fetched_once(programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "cache"
    wanted = [packages.Package("a_1_all.deb", "SHA256:aa")]
    _script(programs / "apt-get", "echo content >a_1_all.deb")
    assert packages.fetch(["a"], wanted, cache) == [cache / "a_1_all.deb"]
    _script(programs / "apt-get", "exit 1")
    assert packages.fetch(["a"], wanted, cache) == [cache / "a_1_all.deb"]
    assert [path.name for path in cache.iterdir()] == ["a_1_all.deb"]


def test_another_package_than_the_named_one_is_said(programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _script(programs / "apt-get", "echo content >a_2_all.deb")
    with pytest.raises(packages.Unavailable, match=r"a_1_all\.deb is missing"):
        packages.fetch(["a"], [packages.Package("a_1_all.deb", "SHA256:aa")], tmp_path / "cache")


def test_what_apt_refuses_is_said_in_one_line(programs: pathlib.Path) -> None:
    _script(programs / "apt-get", "echo noise >&2; echo 'E: Unable to locate package a' >&2; exit 100")
    with pytest.raises(packages.Unavailable, match=r"^apt-get --quiet … failed \(E: Unable to locate package a\): .*$"):
        packages.named(["a"])


def test_a_package_that_no_server_knows_is_said(programs: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    refuse = "echo 'E: Unable to locate package a' >&2; exit 100"
    _script(programs / "apt-get", f'case "$*" in *update) exit 0;; esac; {refuse}')
    with pytest.raises(packages.Unavailable, match="Unable to locate package a"):
        packages.named(["a"])
    with pytest.raises(packages.Unavailable, match="Unable to locate package a"):
        packages.program("emulator", "a")


def test_a_refusal_without_a_word_is_said_too(programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _script(programs / "apt-get", "exit 100")
    with pytest.raises(packages.Unavailable, match=r"\(no reason given\)"):
        packages.fetch(["a"], [packages.Package("a_1_all.deb", "SHA256:aa")], tmp_path / "cache")


def test_a_package_is_described_as_installed_and_taken_apart(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a/DEBIAN").mkdir(parents=True)
    control = "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: Debian <debian@example.org>\nDescription: a thing\n"
    (tmp_path / "a/DEBIAN/control").write_text(control, encoding="utf-8")
    (tmp_path / "a/file").touch()
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "a"], cwd=tmp_path, check=True, capture_output=True)
    assert packages.describe(tmp_path / "a.deb") == f"{control}Status: install ok installed\n"
    packages.unpack([tmp_path / "a.deb"], tmp_path / "apart")
    assert [path.name for path in (tmp_path / "apart").iterdir()] == ["file"]


def test_a_machine_without_apt_is_said_in_one_line(programs: pathlib.Path) -> None:
    with pytest.raises(packages.Unavailable, match=r"^apt-cache is missing: use Debian 12"):
        packages.dependency("kernel", "linux-.*")


def test_a_dependency_is_found_by_its_pattern(programs: pathlib.Path) -> None:
    _script(programs / "apt-cache", "echo kernel; echo '  Depends: other'; echo '  Depends: linux-6'")
    assert packages.dependency("kernel", "linux-.*") == "linux-6"
    with pytest.raises(packages.Unavailable):
        packages.dependency("kernel", "bsd-.*")
