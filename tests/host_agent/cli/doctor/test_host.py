from __future__ import annotations

from typing import Any

import pytest

import host_agent
from common import versions
from host_agent.cli.doctor import Finding, Level, host
from host_agent.descriptors import RESERVE
from tests.host_agent.operators import described_host

NEWEST = int(versions.newest())


def examine(**changes: Any) -> list[Finding]:
    return list(host.examine(described_host(**changes), host_agent.release()))


def bad(**changes: Any) -> Finding:
    (found,) = (each for each in examine(**changes) if each.level is not Level.OK)
    return found


def test_a_daemon_in_which_nothing_is_wrong_is_well() -> None:
    findings = examine(
        state={"path": "/s", "failing": None}, libvirt=[{"uri": "qemu:///system", "connected": True, "error": None}]
    )
    assert {each.level for each in findings} == {Level.OK}
    assert {each.check for each in findings} == {
        "release", "role", "max-api-version", "libvirt", "state", "handoff", "descriptors",
    }  # fmt: skip


def test_another_release_is_a_warning() -> None:
    found = bad(version="0.0.1")
    assert (found.level, found.check) == (Level.WARNING, "release")
    assert found.text == f"the daemon is of release 0.0.1, this command of {host_agent.release()}"


def test_who_may_only_look_is_told_so() -> None:
    found = bad(you={"user": None, "uid": 1234, "role": "viewer"})
    assert (found.level, found.text) == (Level.WARNING, "you are a user without a name (uid 1234), and may only look")


@pytest.mark.parametrize(("supported", "said"), [(1, "API 1 at most"), (None, "no versions")])
def test_a_host_that_is_held_back_is_told(supported: object, said: str) -> None:
    found = bad(api={"supported": supported, "versions": []})
    assert found.text == f"this host supports {said}, though its release knows API {NEWEST}"


def test_a_libvirt_that_is_not_connected_is_trouble() -> None:
    found = bad(libvirt=[{"uri": "qemu:///system", "connected": False, "error": "refused"}])
    assert (found.level, found.text) == (Level.TROUBLE, "libvirt is not connected: qemu:///system: refused")
    assert found.advice is not None
    assert "no connection yet" in bad(libvirt=[{"uri": "qemu:///system", "connected": False, "error": None}]).text


@pytest.mark.parametrize(("failing", "said"), [("disk full", ": disk full"), (True, "")])
def test_a_state_file_that_can_not_be_written_is_trouble(failing: object, said: str) -> None:
    found = bad(state={"path": "/s", "failing": failing})
    assert (found.level, found.text) == (Level.TROUBLE, f"the state file /s can't be written{said}")


def test_doors_that_can_not_be_opened_are_trouble() -> None:
    found = bad(handoff={"listen": [], "failing": "[handoff] listen 192.0.2.1:7788: in use; name another", "peers": []})
    assert (found.level, found.check) == (Level.TROUBLE, "handoff")
    assert found.text == "no other host is let in: [handoff] listen 192.0.2.1:7788: in use; name another"
    assert found.advice is not None


def test_it_is_told_where_hosts_come_in_and_where_guests_may_go() -> None:
    listen = [{"address": "192.0.2.1:7788", "security": "tls", "connections": 1}]
    findings = examine(handoff={"listen": listen, "failing": None, "peers": ["host-b", "host-c"]})
    text = "other hosts are let in at 192.0.2.1:7788 (tls); guests may be handed over to host-b, host-c"
    assert [each.text for each in findings if each.check == "handoff"] == [text]
    findings = examine(handoff={"listen": [], "failing": None, "peers": ["host-b"]})
    assert any(each.text == "other hosts are let in at nowhere; guests may be handed over to host-b" for each in findings)
    assert any(each.text.startswith("no hand-offs are configured: ") for each in examine())


def test_a_daemon_of_an_older_release_tells_nothing_of_hand_offs() -> None:
    host_then = {name: value for name, value in described_host().items() if name != "handoff"}
    assert "handoff" not in {each.check for each in host.examine(host_then, host_agent.release())}


def test_few_descriptors_are_trouble_or_a_warning() -> None:
    assert bad(guests=1000, descriptors={"limit": 1000}).level is Level.TROUBLE
    assert bad(guests=1000, descriptors={"limit": 1000 + RESERVE}).level is Level.WARNING
    assert {each.level for each in examine(guests=1000, descriptors={"limit": 1250 + RESERVE})} == {Level.OK}
