"""What ``--check`` says of this machine: a real terminal as the port, and programs in a /proc of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent import check, port
from guest_agent.check import Finding
from guest_agent.commands import COMMANDS
from guest_agent.config import Configuration
from guest_agent.exits import Exit
from guest_agent.schedule import NEVER, PERIODS
from guest_agent.surroundings import here

from .parts import Pty, configuration


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


class Programs:
    """A /proc with programs that have files open."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._proc = root / "proc"
        self._proc.mkdir()
        (self._proc / "meminfo").touch()

    def add(self, pid: int, command_line: str, *opened: str) -> None:
        (self._proc / str(pid) / "fd").mkdir(parents=True)
        (self._proc / str(pid) / "cmdline").write_text(command_line.replace(" ", "\0") + "\0", encoding="utf-8")
        for number, path in enumerate(opened):
            (self._proc / str(pid) / "fd" / str(number)).symlink_to(path)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def on(*paths: str) -> Configuration:
    return configuration(port=paths)


def busy(_: str) -> port.Port:
    raise port.PortBusy("held")


# ---- The port ----


def test_the_first_port_that_exists_counts(pty: Pty, programs: Programs) -> None:
    missing = "/dev/nonexistent"
    assert check.ports(on(missing, pty.path), programs.root) == (
        Exit.OK,
        [Finding("port", missing, "missing", "it does not exist"), Finding("port", pty.path, "works")],
    )
    assert check.ports(on(missing), programs.root)[0] is Exit.NO_PORT


def test_a_file_that_is_no_port_fails(tmp_path: Path, programs: Programs) -> None:
    (tmp_path / "file").touch()
    status, (finding,) = check.ports(on(str(tmp_path / "file")), programs.root)
    assert (status, finding.verdict) == (Exit.PORT_UNUSABLE, "fails")


def test_a_port_that_vanishes_meanwhile_is_missing(pty: Pty, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanished(path: str) -> port.Port:
        raise port.PortMissing(f"{path} vanished")

    monkeypatch.setattr(port, "open_port", vanished)
    assert check.ports(on(pty.path), programs.root) == (
        Exit.NO_PORT,
        [Finding("port", pty.path, "missing", f"{pty.path} vanished")],
    )


@pytest.mark.parametrize(
    "command_line",
    [
        "/usr/bin/vmaccord-guest",
        "/usr/bin/python3 /usr/bin/vmaccord-guest --port /dev/hvc0",
        "python3 -I -m guest_agent.main",
    ],
)
@pytest.mark.parametrize("locked", [True, False])
def test_a_port_that_our_agent_holds_works(
    pty: Pty, programs: Programs, monkeypatch: pytest.MonkeyPatch, command_line: str, locked: bool
) -> None:
    programs.add(7, command_line, "/dev/null", pty.path)
    if locked:
        monkeypatch.setattr(port, "open_port", busy)
    assert check.ports(on(pty.path), programs.root) == (
        Exit.OK,
        [Finding("port", pty.path, "works", f"held by {command_line} (process 7)")],
    )


@pytest.mark.parametrize(
    "command_line", ["qemu-ga -d", "tail -f /var/log/vmaccord-guest", "vi guest_agent/main.py", "vmaccord-guest-old", ""]
)
def test_a_port_that_another_program_holds_can_not_be_used(
    pty: Pty, programs: Programs, monkeypatch: pytest.MonkeyPatch, command_line: str
) -> None:
    programs.add(7, command_line, pty.path)
    monkeypatch.setattr(port, "open_port", busy)
    assert check.ports(on(pty.path), programs.root) == (
        Exit.PORT_UNUSABLE,
        [Finding("port", pty.path, "held", f"by {command_line or 'a program'} (process 7): stop that one")],
    )


def test_a_port_whose_holder_can_not_be_seen_is_held_by_another_program(
    pty: Pty, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "open_port", busy)
    assert check.ports(on(pty.path), programs.root)[1][0].why == "by another program: stop that one"


def test_a_port_that_another_program_has_open_without_a_lock_is_shared(pty: Pty, programs: Programs) -> None:
    programs.add(7, "agetty", pty.path)
    programs.add(8, "cat", "/dev/null")
    why = "also open in agetty (process 7): two programs would read it; stop that one"
    assert check.ports(on(pty.path), programs.root) == (Exit.OK, [Finding("port", pty.path, "shared", why)])


def test_only_devices_are_looked_at_among_what_programs_have_open(
    pty: Pty, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, seen = os.stat, []

    def stat(path: str, **named: bool) -> os.stat_result:
        seen.append(str(path))
        return really(path, **named)

    programs.add(7, "cat", "/srv/hangs", "socket:[1]", "/dev/null")
    monkeypatch.setattr(os, "stat", stat)
    check.ports(on(pty.path), programs.root)
    looked_at = [path for path in seen if "/7/fd/" in path]
    assert [os.path.basename(path) for path in looked_at] == ["2"]


# ---- All of it ----


def test_each_fact_and_each_command_has_a_line(pty: Pty, programs: Programs) -> None:
    lines: list[str] = []
    periods = {**dict.fromkeys(PERIODS, NEVER), "fqdn": 5.0}
    wanted = configuration(port=(pty.path,), periods=periods, commands_block=("shutdown",))
    assert check.check(wanted, here(), lines.append, programs.root) is Exit.OK
    assert len(lines) == 1 + len(PERIODS) + len(COMMANDS)
    rows = {tuple(line.split()[:2]): line.split()[2] for line in lines}
    assert rows["port", pty.path] == "works"
    assert rows["fact", "fqdn"] in ("works", "fails")
    assert rows["fact", "applications"] == "off"
    assert rows["command", "shutdown"] == "blocked"
    assert rows["command", "echo"] == "works"
