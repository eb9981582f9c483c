"""What ``--check`` says of this machine: a real terminal as the port, and programs in a /proc of the test's own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from common import messages
from common.messages import Message
from guest_agent import check, facts, port
from guest_agent.check import Finding
from guest_agent.collectors import Sources
from guest_agent.commands import COMMANDS
from guest_agent.config import Configuration
from guest_agent.exits import Exit
from guest_agent.schedule import NEVER, PERIODS
from guest_agent.surroundings import Surroundings, here

from .conftest import CommandGuard
from .parts import AgentProcess, FakeCommand, Pty, configuration, hang, hang_stubbornly, wait_until


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


#: Holds a terminal as another agent would, until its standard input ends.
_HOLD = """
import fcntl, sys
line = open(sys.argv[1], "r+b", buffering=0)
fcntl.flock(line, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_program_that_really_holds_a_port_is_named(pty: Pty, command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)
    command = [sys.executable, "-I", "-c", _HOLD, pty.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        status, (finding,) = check.ports(on(pty.path))
        holder.communicate()
    assert (status, finding.verdict) == (Exit.PORT_UNUSABLE, "held")
    assert finding.why.startswith(f"by {sys.executable} -I -c ")
    assert finding.why.endswith(f"{pty.path} (process {holder.pid}): stop that one")
    assert check.ports(on(pty.path))[0] is Exit.OK


def test_our_agent_that_really_holds_a_port_works(pty: Pty, start_agent: Callable[..., AgentProcess]) -> None:
    agent = start_agent("--port", pty.path)
    wait_until(lambda: "port opened" in agent.said, lambda: select.select([pty.master], [], [], 0.05))
    status, (finding,) = check.ports(on(pty.path))
    assert (status, finding.verdict) == (Exit.OK, "works")
    assert finding.why.startswith("held by ")
    assert "guest_agent.main" in finding.why


# ---- Facts and commands ----


def surroundings(collect: Callable[[], Any]) -> Surroundings:
    """A machine whose only collectors, a quick and a slow one, do *collect*."""
    sources = Sources({"fqdn": collect}, {"applications": collect}, {})
    return here()._replace(sources=lambda *_: sources)


def rows(pty: Pty, programs: Programs, found: Surroundings) -> dict[str, list[str]]:
    """What is said of each fact and command: verdict, and why."""
    lines: list[str] = []
    periods = {**dict.fromkeys(PERIODS, NEVER), "fqdn": 5.0, "applications": 5.0}
    wanted = configuration(port=(pty.path,), periods=periods)
    assert check.check(wanted, found, lines.append, programs.root) is Exit.OK
    return {words[1]: words[2:] for words in (line.split(None, 3) for line in lines)}


def fail() -> Message:
    raise ValueError("odd\n\x1b[2Jpath")


@pytest.mark.parametrize(
    ("collect", "why"),
    [(fail, "ValueError: odd [2Jpath"), (lambda: os._exit(7), "collecting it failed with status 7")],
    ids=["failing", "dying"],
)
def test_a_fact_that_fails_is_said_with_the_reason_on_one_harmless_line(
    pty: Pty, programs: Programs, collect: Callable[[], Any], why: str
) -> None:
    said = rows(pty, programs, surroundings(collect))
    assert said["fqdn"] == said["applications"] == ["fails", why]


@pytest.mark.parametrize("collect", [hang, hang_stubbornly])
def test_a_fact_that_hangs_is_given_up(
    pty: Pty, programs: Programs, collect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "PATIENCE", 0.1)
    monkeypatch.setattr(check, "GRACE", 0.1)
    said = rows(pty, programs, surroundings(collect))
    assert said["fqdn"] == said["applications"] == ["fails", "collecting it did not finish within 0.1 s"]


def test_no_collector_outlives_the_check(
    pty: Pty, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    pids.touch()

    def collect() -> None:
        with pids.open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        hang_stubbornly()

    def all_gone() -> bool:
        """Nobody waits for those that were killed in the end: they may be zombies."""
        stats = [Path(f"/proc/{pid}/stat") for pid in pids.read_text(encoding="ascii").split()]
        return all(not stat.exists() or ") Z " in stat.read_text(encoding="ascii") for stat in stats)

    monkeypatch.setattr(facts, "PATIENCE", 0.5)
    monkeypatch.setattr(check, "GRACE", 0.1)
    rows(pty, programs, surroundings(collect))
    wait_until(all_gone, lambda: select.select([], [], [], 0.01))


def test_a_fact_that_works_is_said(pty: Pty, programs: Programs) -> None:
    said = rows(pty, programs, surroundings(lambda: messages.Fqdn(fqdn="vm.example")))
    assert said["fqdn"] == said["applications"] == ["works"]
    assert said["disks-usage"][0] == "off"


def test_a_command_that_is_not_available_is_said_with_the_reason(
    pty: Pty, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "COMMANDS", {"login": FakeCommand(why_not="no helper is set"), "echo": FakeCommand()})
    said = rows(pty, programs, surroundings(lambda: messages.Fqdn(fqdn="vm.example")))
    assert said["login"] == ["fails", "no helper is set"]
    assert said["echo"] == ["works"]


def test_a_command_that_the_host_may_not_give_is_said_with_how_to_change_that(pty: Pty, programs: Programs) -> None:
    lines: list[str] = []
    wanted = configuration(
        port=(pty.path,),
        periods=dict.fromkeys(PERIODS, NEVER),
        commands_block=("echo", "file-read"),
        commands_enable=("exec", "file-read"),
    )
    check.check(wanted, here(), lines.append, programs.root)
    said = {words[1]: words[2] for words in (line.split(None, 3) for line in lines)}
    assert (said["echo"], said["file-read"], said["set-password"]) == ("blocked", "blocked", "off")
    assert said["exec"] not in ("blocked", "off")
    (line,) = [line for line in lines if "set-password" in line]
    assert line.endswith("it gives the host power over all of this VM; to turn it on, enable it")


def test_freezing_that_can_not_work_is_said_with_the_reason(pty: Pty, programs: Programs, tmp_path: Path) -> None:
    lines: list[str] = []
    hooks = tmp_path / "hooks.d"
    (hooks / "before_freeze").mkdir(parents=True)
    (hooks / "before_freeze").chmod(0o777)
    wanted = configuration(port=(pty.path,), periods=dict.fromkeys(PERIODS, NEVER), hooks_directory=str(hooks))
    check.check(wanted, here(), lines.append, programs.root)
    (line,) = [line for line in lines if "filesystem-freeze" in line]
    assert line.split()[2] == "fails"


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


def test_without_a_port_the_agent_could_not_run(programs: Programs) -> None:
    wanted = configuration(port=("/dev/nonexistent",), periods=dict.fromkeys(PERIODS, NEVER))
    assert check.check(wanted, here(), lambda _: None, programs.root) is Exit.NO_PORT
