from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import pytest

from host_agent.cli.doctor import Finding, Level, places
from host_agent.cli.doctor.control import Runner
from host_agent.discovery import PORTS
from tests.host_agent.guests import make_socket
from tests.host_agent.parts import another_user

STRANGER = Runner(4321, frozenset({4321}))


@pytest.fixture
def ports(place: Path) -> Path:
    (place / "ports").mkdir()
    return place / "ports"


def examine(*directories: Path, runner: Optional[Runner] = None, only: Optional[str] = None) -> list[Finding]:
    return list(places.examine([str(each) for each in directories], runner, only))


def bad(directory: Path, runner: Optional[Runner] = None) -> Finding:
    first, found = examine(directory, runner=runner)
    assert first == Finding(Level.OK, "directory", f"{directory}: is there")
    return found


# ---- The directories ----


def test_a_directory_with_a_port_is_well(ports: Path) -> None:
    make_socket(ports / "domain-1-web" / PORTS[1])
    assert [each.level for each in examine(ports)] == [Level.OK]


def test_a_directory_that_is_missing_is_a_warning_where_no_other_is_there(ports: Path, place: Path) -> None:
    (found,) = examine(place / "none")
    assert (found.level, found.check) == (Level.WARNING, "directory")
    assert "does not exist (yet), nor does any other" in found.text
    assert {each.level for each in examine(place / "none", ports)} == {Level.OK}


def test_what_is_no_directory_is_trouble(place: Path) -> None:
    (place / "file").touch()
    (found,) = examine(place / "file")
    assert (found.level, found.text) == (Level.TROUBLE, f"{place}/file: no directory")
    (found,) = examine(place / "file" / "below")
    assert found.text.endswith("you can't look there: Not a directory")


def test_a_directory_that_the_daemon_may_not_read_is_trouble(ports: Path) -> None:
    ports.chmod(0o750)
    (found,) = examine(ports, runner=STRANGER)
    assert (found.level, found.check) == (Level.TROUBLE, "unreadable")
    assert f"user 4321, may not read it (drwxr-x---, group {os.stat(ports).st_gid})" in found.text
    assert "usermod --append --groups" in str(found.advice)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_at_which_this_user_may_not_look_is_a_warning(ports: Path, place: Path) -> None:
    place.chmod(0o755)
    (ports / "vm").mkdir(mode=0o700)
    with another_user():
        found = bad(ports)
    assert (found.level, found.text, found.guest) == (
        Level.WARNING,
        f"{ports}/vm: you can't look there: Permission denied",
        "vm",
    )
    ports.chmod(0o700)
    with another_user():
        assert [each.level for each in examine(ports)] == [Level.OK]


# ---- The VMs ----


def test_a_vms_directory_that_the_daemon_may_not_read_is_trouble(ports: Path) -> None:
    ports.chmod(0o755)
    make_socket(ports / "domain-1-web" / PORTS[1])
    (ports / "domain-1-web").chmod(0o750)
    found = bad(ports, STRANGER)
    assert (found.level, found.check, found.guest) == (Level.TROUBLE, "unreadable", "web")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ovirt-guest-agent.1", "ovirt-guest-agent.0"),
        ("ovirt-guest-agent", "ovirt-guest-agent.0"),
        ("oVirt-Guest-Agent.0", "ovirt-guest-agent.0"),
        ("ovirt_guest_agent.0", "ovirt-guest-agent.0"),
        ("com.redhat.rhev.vdsm", "com.redhat.rhevm.vdsm"),
        ("com.redhat.rhevm.vdsm.0", "com.redhat.rhevm.vdsm"),
    ],
)
def test_a_name_that_is_nearly_that_of_a_port_is_found(ports: Path, name: str, meant: str) -> None:
    make_socket(ports / "domain-1-web" / name)
    make_socket(ports / "domain-1-web" / "org.qemu.guest_agent.0")
    found = bad(ports)
    assert (found.level, found.check, found.guest) == (Level.WARNING, "port-name", "web")
    assert found.text.endswith(f"/{name}: nearly the name of a port, which is {meant}; it is not used")
    assert f"name='{meant}'" in str(found.advice)


def test_beside_a_port_other_names_do_not_matter(ports: Path) -> None:
    for name in ("ovirt-guest-agent.1", "org.qemu.guest_agent.0", PORTS[0]):
        make_socket(ports / "web" / name)
    assert [each.level for each in examine(ports)] == [Level.OK]


def test_a_vm_with_the_channel_of_another_agent_only_is_found(ports: Path) -> None:
    make_socket(ports / "web" / "org.qemu.guest_agent.0")
    found = bad(ports)
    assert (found.level, found.check) == (Level.WARNING, "no-port")
    assert found.text.endswith("has the channel of QEMU's guest agent (org.qemu.guest_agent.0), and none of ours")
    assert found.advice == "add a channel named ovirt-guest-agent.0 to the VM: virsh edit"


def test_a_vm_without_any_channel_for_an_agent_is_found(ports: Path) -> None:
    make_socket(ports / "web" / "com.redhat.spice.0")
    assert bad(ports).text == f"{ports}/web: has no channel for an agent"
    (ports / "web" / "com.redhat.spice.0").unlink()
    assert [each.level for each in examine(ports)] == [Level.OK]


@pytest.mark.parametrize("kind", ["a regular file", "a symbolic link", "a directory", "something else"])
def test_what_stands_where_a_port_should_be_is_trouble(ports: Path, kind: str) -> None:
    (ports / "web").mkdir()
    path = ports / "web" / PORTS[0]
    if kind == "a regular file":
        path.touch()
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a symbolic link":
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path)
    found = bad(ports)
    assert (found.level, found.guest) == (Level.TROUBLE, "web")
    assert found.text == f"{path}: {kind} where the port should be; it is not followed or read"


def test_a_link_to_a_vms_directory_is_found(ports: Path, place: Path) -> None:
    (place / "elsewhere").mkdir()
    (ports / "web").symlink_to(place / "elsewhere")
    assert bad(ports).text == f"{ports}/web: a symbolic link to a directory; it is not followed"


def test_a_port_without_a_directory_of_its_own_is_found(ports: Path) -> None:
    make_socket(ports / PORTS[1])
    found = bad(ports)
    assert found.text == f"{ports}/{PORTS[1]}: a port that is not in a directory of its VM's name; it is not used"
    assert found.advice == f"have it made as {ports}/NAME/{PORTS[1]}"


def test_a_name_that_no_vm_can_have_is_found(ports: Path) -> None:
    (ports / "a\x1bb").mkdir()
    assert "a name with control characters or other than UTF-8 is no VM's name" in bad(ports).text


def test_other_files_do_not_matter(ports: Path) -> None:
    (ports / "notes.txt").touch()
    make_socket(ports / "monitor.sock")
    assert [each.level for each in examine(ports)] == [Level.OK]


def test_of_one_guest_nothing_else_is_looked_at(ports: Path) -> None:
    make_socket(ports / "domain-1-web" / "ovirt-guest-agent.1")
    make_socket(ports / "domain-2-db" / "ovirt-guest-agent.1")
    assert [each.guest for each in examine(ports, only="db")] == [None, "db"]


def test_a_vms_directory_that_goes_away_meanwhile_does_not_matter(ports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ports / "web").mkdir()
    monkeypatch.setattr(places, "_kind", lambda path: 0o040000)
    (ports / "web").rmdir()
    assert list(places._examine_entry(str(ports), "web", None)) == []


# ---- Ports that the configuration names ----


def test_ports_that_are_named_are_looked_at(place: Path) -> None:
    make_socket(place / "good")
    (place / "bad").touch()
    fixed = {"a": str(place / "good"), "b": str(place / "bad"), "c": str(place / "none")}
    bad, missing = places.examine_fixed(fixed)
    assert (bad.level, bad.guest, bad.text) == (Level.TROUBLE, "b", f"its port {place}/bad is a regular file and no socket")
    assert (missing.level, missing.guest) == (Level.WARNING, "c")
