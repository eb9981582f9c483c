"""Prints: equal as long as nothing has changed, different when something has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guest_agent.collectors import prints
from tests.guest_agent.conftest import CommandGuard


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


# ---- Packages ----


@pytest.mark.parametrize(
    "path",
    [
        "var/lib/dpkg/status",
        "var/lib/dpkg/status.d/base",
        "lib/apk/db/installed",
        "var/lib/pacman/local/bash-5-1/desc",
        "var/lib/rpm/rpmdb.sqlite",
        "var/lib/rpm/rpmdb.sqlite-wal",
        "usr/lib/sysimage/rpm/rpmdb.sqlite",
        "usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
        "usr/lib/sysimage/rpm/Packages.db",
        "var/lib/rpm/Packages.db",
        "var/lib/rpm/Packages",
    ],
)
def test_a_package_database_that_appears_changes_the_print(path: str, root: Path) -> None:
    before = prints.applications(str(root))
    assert prints.applications(str(root)) == before
    write(root, path, "packages")
    after = prints.applications(str(root))
    assert after != before
    assert prints.applications(str(root)) == after


def test_a_package_that_comes_or_goes_changes_the_print(root: Path) -> None:
    write(root, "var/lib/dpkg/status", "one")
    first = prints.applications(str(root))
    write(root, "var/lib/dpkg/status.new", "two")
    os.replace(root / "var/lib/dpkg/status.new", root / "var/lib/dpkg/status")
    assert prints.applications(str(root)) != first


def test_a_journal_without_a_change_is_none(root: Path) -> None:
    write(root, "var/lib/rpm/rpmdb.sqlite", "packages")
    before = prints.applications(str(root))
    write(root, "var/lib/rpm/rpmdb.sqlite-wal", "")
    assert prints.applications(str(root)) == before


# ---- Containers ----


def test_where_nobody_can_be_asked_about_containers_the_print_stays(root: Path) -> None:
    assert prints.engines(str(root)) == ((), False)
    assert prints.containers(str(root)) == prints.containers(str(root))


def test_while_an_engine_is_there_nothing_shows_what_it_would_say(root: Path) -> None:
    assert prints.containers(str(root)) is not None
    write(root, "run/docker.sock", "")
    assert prints.containers(str(root)) is None


def test_docker_and_podman_are_both_asked(root: Path) -> None:
    write(root, "run/docker.sock", "")
    write(root, "run/podman/podman.sock", "")
    assert prints.engines(str(root)) == ((f"{root}/run/docker.sock", f"{root}/run/podman/podman.sock"), False)


def test_podman_under_dockers_name_is_asked_once(root: Path) -> None:
    write(root, "run/podman/podman.sock", "")
    (root / "run/docker.sock").symlink_to("podman/podman.sock")
    assert prints.engines(str(root)) == ((f"{root}/run/podman/podman.sock",), False)


def test_podman_under_dockers_name_is_not_asked_where_it_does_not_listen(root: Path) -> None:
    (root / "run").mkdir()
    (root / "run/docker.sock").symlink_to("podman/podman.sock")
    assert prints.engines(str(root)) == ((), False)


@pytest.mark.parametrize("text", ["", "[]", "null\n"])
def test_podman_without_containers_is_not_asked(text: str, root: Path) -> None:
    write(root, "usr/bin/podman", "")
    write(root, "run/podman/podman.sock", "")
    write(root, "var/lib/containers/storage/overlay-containers/containers.json", text)
    write(root, "var/lib/containers/storage/overlay-layers/layers.json", '[{"id": "a layer"}]')
    assert prints.engines(str(root)) == ((), False)


@pytest.mark.parametrize(
    "path",
    [
        "var/lib/containers/storage/overlay-containers/containers.json",
        "var/lib/containers/storage/vfs-containers/volatile-containers.json",
        "run/containers/storage/overlay-containers/volatile-containers.json",
    ],
)
def test_podman_with_containers_is_asked_by_its_program_where_it_does_not_listen(path: str, root: Path) -> None:
    write(root, "usr/bin/podman", "")
    (root / "var/lib/containers/storage").mkdir(parents=True)
    write(root, path, '[{"id": "1"}]')
    assert prints.engines(str(root)) == ((), True)
    assert prints.containers(str(root)) is None
    write(root, "run/podman/podman.sock", "")
    assert prints.engines(str(root)) == ((f"{root}/run/podman/podman.sock",), False)


def test_containers_that_a_removed_podman_left_behind_are_not_asked_for(root: Path) -> None:
    write(root, "var/lib/containers/storage/overlay-containers/containers.json", '[{"id": "1"}]')
    assert prints.engines(str(root)) == ((), False)


# ---- Sessions ----


def test_a_login_at_a_terminal_and_a_session_of_logind_change_the_print(root: Path) -> None:
    taken = [prints.sessions(str(root))]
    write(root, "run/utmp", "login")
    taken.append(prints.sessions(str(root)))
    (root / "run/systemd/sessions").mkdir(parents=True)
    taken.append(prints.sessions(str(root)))
    assert len(set(map(str, taken))) == 3
    assert prints.sessions(str(root)) == taken[-1]


# ---- Weight ----


def test_taking_prints_brings_no_collector_of_a_slow_fact_into_memory(command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)
    script = """
import sys
from guest_agent import collectors
taken = collectors.sources("/", collectors.Wishes((), (), (), ()), lambda: 0.0, lambda: None).prints
for take in taken.values():
    take()
print(*(name.rpartition(".")[2] for name in sys.modules if name.startswith("guest_agent.collectors.")))
"""
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    assert "prints" in imported.split()
    assert {"applications", "containers", "disks", "docker", "network", "rpm", "users"}.isdisjoint(imported.split())
