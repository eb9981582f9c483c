"""What the agent finds on the machine that it runs on; the machine itself is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.catalogue import CATALOGUE
from common.versions import newest
from guest_agent import collectors, logind
from guest_agent.port import PortMissing
from guest_agent.surroundings import here

from .parts import Pty, configuration


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


def test_the_first_configured_port_that_exists_is_opened(pty: Pty) -> None:
    port = here().open_port(configuration(port=("/dev/nonexistent", pty.path)))
    assert port.path == pty.path
    port.close()


def test_where_no_configured_port_exists_none_is_opened(tmp_path: Path) -> None:
    with pytest.raises(PortMissing, match=str(tmp_path)):
        here().open_port(configuration(port=(str(tmp_path / "port"),)))


def test_facts_are_collected_as_they_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    really = collectors.sources

    def sources(root: str, wishes: collectors.Wishes, *others: Any) -> collectors.Sources:
        told.append((root, wishes))
        return really(root, wishes, *others)

    monkeypatch.setattr(collectors, "sources", sources)
    wanted = configuration(
        application=("kernel*",), ignore_interface=("veth*",), ignore_file_system=("nfs",), commands_allow=("echo",)
    )
    found = here().sources(wanted, lambda: "mark")
    assert told == [("/", collectors.Wishes(("kernel*",), ("veth*",), ("nfs",), {"echo"}))]
    assert found.quick.keys() | found.slow.keys() == CATALOGUE.facts(up_to=newest())
    assert "mark" in repr(found.prints["active-user"]())


def test_commands_act_on_the_machine_that_is_configured() -> None:
    wanted = configuration(
        commands_login_helper="/opt/login", hooks_directory="/opt/hooks", hooks_deadline=7.0, commands_deadline=11.0
    )
    machine = here().machine(wanted)
    assert (machine.root, machine.login_helper, machine.hooks_directory) == ("/", "/opt/login", "/opt/hooks")
    assert (machine.hooks_deadline, machine.deadline) == (7.0, 11.0)


def test_files_are_read_and_written_and_file_systems_frozen_as_it_is_configured() -> None:
    wanted = configuration(files_read=("/a",), files_write=("/b",), freeze_limit=7.0)
    machine = here().machine(wanted)
    assert (machine.read_roots, machine.write_roots) == (("/a",), ("/b",))
    assert (machine.freeze_limit, machine.state_directory) == (7.0, "/run/vmaccord-guest")


def test_memory_is_measured_on_this_machine() -> None:
    assert here().meter.measure()["mem_total"] > 0


def test_logind_is_looked_for_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    roots: list[str] = []
    monkeypatch.setattr(logind, "connect", roots.append)
    here().connect_to_logind()
    assert roots == ["/"]
