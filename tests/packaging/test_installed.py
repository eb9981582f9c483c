"""The packages, installed into a fresh Debian: they run, agree, are upgraded, and leave nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from common import versions
from host_agent.demo import emulator

from .conftest import NEXT
from .parts import PACKAGES, ROOT, Debian, build, copy_sources, wait_until

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

#: Where libvirt has the sockets of its guests, and one of these as it names them.
CHANNELS = "var/lib/libvirt/qemu/channel/target"
VM = "domain-1-web"

#: Where Debian remembers which services are enabled, until their packages are purged.
DEBIANS = "/deb-systemd-helper-enabled/"

PROGRAMS = ("vmaccord-guest", "vmaccord-host", "vmaccord")


def release_of_sources() -> str:
    lines = (ROOT / "setup.cfg").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("version = ") for line in lines if line.startswith("version = "))


def installed_releases(debian: Debian) -> set[str]:
    """What the programs say of themselves."""
    return {debian.run(program, "--version").splitlines()[0].split()[1] for program in PROGRAMS}


@contextlib.contextmanager
def both_agents(debian: Debian, logs: pathlib.Path) -> Iterator[None]:
    """The service of a host, as its unit has it, and the agent of a guest, on two sides of one port."""
    for directory in ("run/vmaccord", "var/lib/vmaccord"):
        (debian.path / directory).mkdir(parents=True, exist_ok=True)
        debian.run("chown", "vmaccord:vmaccord", f"/{directory}")
    channels = debian.path / CHANNELS
    channels.mkdir(parents=True, exist_ok=True)
    with emulator.EmulatedPort() as port:
        port.plug(channels / VM)
        (channels / VM / emulator.PORT_NAME).chmod(0o777)
        host = debian.running("vmaccord-host", log=logs / "host", user="vmaccord", XDG_RUNTIME_DIR="/run")
        guest = debian.running("vmaccord-guest", "--port", port.guest_path, log=logs / "guest")
        with host:
            wait_until((debian.path / "run/vmaccord/control.sock").exists)
            with guest:
                yield
    for directory in (CHANNELS, "run/vmaccord"):
        shutil.rmtree(debian.path / directory.removesuffix("/qemu/channel/target"))


def agreed(debian: Debian) -> Any:
    """What the operator sees of the guest, once both have agreed on the newest version."""

    def described() -> Any:
        api = json.loads(debian.run("vmaccord", "list", "--json"))[0]["api"]
        return api if api["agreed"] == api["in_use"] == versions.newest() else None

    wait_until(described)
    return json.loads(debian.run("vmaccord", "show", "web", "--json"))


def test_both_agents_run_from_the_packages_and_agree(debian: Debian, tmp_path: pathlib.Path) -> None:
    assert debian.run("dpkg", "--audit") == ""
    assert installed_releases(debian) == {release_of_sources()}
    with both_agents(debian, tmp_path):
        guest = agreed(debian)
        assert guest["api"]["advertised"] == versions.newest()
        wait_until(lambda: "vmaccord-guest-agent" in str(agreed(debian)["facts"].get("applications")))
    for log in ("host", "guest"):
        said = (tmp_path / log).read_text()
        assert "Traceback" not in said
        assert "ERROR" not in said


def test_bytecode_is_there_and_nothing_else_is_written(debian: Debian, tmp_path: pathlib.Path) -> None:
    private = debian.path / "usr/lib/vmaccord"
    compiled = {path.parent.parent / f"{path.name.split('.')[0]}.py" for path in private.rglob("*.pyc")}
    assert compiled == set(private.rglob("*.py"))
    before = {path: path.stat().st_mtime_ns for path in private.rglob("*")}
    with both_agents(debian, tmp_path):
        agreed(debian)
    assert {path: path.stat().st_mtime_ns for path in private.rglob("*")} == before


def test_configuration_survives_an_upgrade_and_a_downgrade(
    built: pathlib.Path, built_next: pathlib.Path, debian: Debian
) -> None:
    changed = debian.path / "etc/vmaccord/guest.conf"
    changed.write_text("[guest]\nheartbeat = 7\n", encoding="utf-8")
    dropped_in = debian.path / "etc/vmaccord/guest.conf.d/site.conf"
    dropped_in.write_text("[guest]\nmax-api-version = 1\n", encoding="utf-8")
    for debs, release in ((built_next, NEXT), (built, release_of_sources())):
        debian.install(*debs.glob("*.deb"), options=["--allow-downgrades"])
        assert installed_releases(debian) == {release}
        effective = debian.run("vmaccord-guest", "--show-config").splitlines()
        assert {"heartbeat = 7", "max-api-version = 1"} <= set(effective)
        (metadata,) = (debian.path / "usr/lib/vmaccord").glob("*.dist-info")
        assert metadata.name == f"vmaccord-{release}.dist-info"


def test_the_packages_fit_only_together(built_next: pathlib.Path, debian: Debian) -> None:
    with pytest.raises(AssertionError, match=f"Depends: vmaccord-common \\(= {NEXT}\\)"):
        debian.install(*built_next.glob("vmaccord-guest-agent_*.deb"), options=["--simulate"])


def test_what_is_removed_leaves_its_configuration_and_what_is_purged_nothing(
    built: pathlib.Path, debian: Debian, tmp_path: pathlib.Path
) -> None:
    debian.purge()
    without = debian.files()
    assert [file for file in without if "vmaccord" in file] == []
    debian.install(*built.glob("*.deb"))
    hook = debian.path / "etc/vmaccord/hooks.d/before_migration/flush"
    hook.write_text("#!/bin/sh\n", encoding="utf-8")
    with both_agents(debian, tmp_path):
        agreed(debian)

    debian.run("dpkg", "--remove", *PACKAGES)
    left = {file for file in debian.files() - without if (debian.path / file[1:]).is_file() and DEBIANS not in file}
    configuration = {f"/etc/vmaccord/{name}" for name in ("guest.conf", "host.conf", "hooks.d/README")}
    assert left == {*configuration, "/etc/vmaccord/hooks.d/before_migration/flush", "/var/lib/vmaccord/facts.sqlite"}

    debian.purge()
    assert debian.files() == without


def test_the_daemons_user_joins_the_hypervisors_group_whenever_that_is_made(debian: Debian) -> None:
    assert debian.run("id", "-nG", "vmaccord").split() == ["vmaccord"]
    debian.run("groupadd", "--system", "libvirt-qemu")
    debian.run("dpkg-trigger", "--by-package=libvirt-daemon", "/usr/sbin/libvirtd")
    debian.run("dpkg", "--triggers-only", "--pending")
    assert debian.run("id", "-nG", "vmaccord").split() == ["vmaccord", "libvirt-qemu"]
    debian.run("groupdel", "libvirt-qemu")


def test_the_rpms_can_be_installed_and_erased_too(built: pathlib.Path, debian: Debian, tmp_path: pathlib.Path) -> None:
    debian.purge()
    without = debian.files()
    # Debian's packages have none of the names that are required.
    rpm = ["rpm", "--root", str(debian.path), "--dbpath", "/var/lib/rpm", "--nodeps"]
    subprocess.run([*rpm, "--install", *map(str, built.glob("*.rpm"))], check=True)
    assert installed_releases(debian) == {release_of_sources()}
    with both_agents(debian, tmp_path):
        agreed(debian)
    subprocess.run([*rpm, "--erase", *PACKAGES], check=True)
    assert debian.files() - without == {"/var/lib/vmaccord", "/var/lib/vmaccord/facts.sqlite"}
    debian.run("rm", "-r", "/var/lib/vmaccord")


def test_the_same_sources_give_the_same_packages(sources: pathlib.Path, built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    again = build(tmp_path / "again", tree=copy_sources(sources, tmp_path / "elsewhere"))
    assert digests(again) == digests(built)
    assert len(digests(built)) == len(PACKAGES) * 2


def digests(directory: pathlib.Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}
