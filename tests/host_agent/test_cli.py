from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import host_agent
from host_agent import cli
from host_agent.client import Client, NoSuchGuest
from host_agent.exits import Exit

from .guests import SimulatedVm, saying
from .parts import ROOT, make_configuration, make_guest, run, running

EVIL = "\x1b[31m\u202e[bold]"


class KnownGuests:
    """A client of a daemon that knows these guests."""

    def __init__(self, *names: str) -> None:
        self.described = [make_guest(name).describe(0.0) for name in names]

    def host(self) -> dict[str, Any]:
        return {"directories": ["/a", "/b\x1b"]}

    def guests(self) -> list[dict[str, Any]]:
        return self.described

    def guest(self, name: str) -> dict[str, Any]:
        for each in self.described:
            if each["name"] == name:
                return each
        raise NoSuchGuest(f"no guest is called {name!r}: 'vmaccord list' shows all")


@pytest.fixture(autouse=True)
def somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine is asked."""
    monkeypatch.setenv("VMACCORD_CONTROL", "/nonexistent/control.sock")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> KnownGuests:
    guests = KnownGuests("web-1", "x" * 200, EVIL)
    monkeypatch.setattr(cli, "Client", lambda control: guests)
    return guests


def test_guests_are_listed_in_plain_columns(known: KnownGuests, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["GUEST", "STATE", "AGREED", "ADVERTISED", "IN", "USE", "HEARD", "LAST", "CHANGE"]
    assert lines[1].split() == ["web-1", "absent", "-", "-", "-", "-", "-"]
    assert lines[2].startswith("x" * 200 + "  absent")
    assert lines[3].startswith("\\x1b[31m\\u202e[bold]")


def test_guests_are_listed_as_json(known: KnownGuests, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json"]) == Exit.OK
    out = capsys.readouterr().out
    assert json.loads(out) == known.described
    assert out.isascii()
    assert "\x1b" not in out


def test_no_guests_are_a_sentence_that_says_where_they_would_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "Client", lambda control: KnownGuests())
    assert cli.main(["list"]) == Exit.OK
    assert capsys.readouterr() == ("", "no guests found in /a, /b\\x1b\n")
    assert cli.main(["list", "--json"]) == Exit.OK
    assert capsys.readouterr() == ("[]\n", "")


def test_one_guest_is_shown(known: KnownGuests, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "web-1"]) == Exit.OK
    assert capsys.readouterr().out.startswith("web-1\n\nChannel\n  state  absent for 0 s\n")
    assert cli.main(["show", "web-1", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == known.described[0]


def test_a_name_that_begins_with_a_dash_can_be_asked_for(known: KnownGuests, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "--", "-x"]) == Exit.NO_SUCH_GUEST


def test_an_unknown_guest_is_one_sentence(known: KnownGuests, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "db\x1b"]) == Exit.NO_SUCH_GUEST
    assert capsys.readouterr() == ("", "vmaccord: no guest is called 'db\\x1b': 'vmaccord list' shows all\n")


def test_a_daemon_that_does_not_run_is_one_sentence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--control", str(place / "none"), "list"]) == Exit.UNREACHABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"vmaccord: no daemon at {place}/none (No such file or directory): start vmaccord-host")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["lisst"], ["show"], ["list", "--yaml"], ["list", "x"], ["--control"], ["--control", "", "list"]]
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vmaccord: ")
    assert err.endswith("See vmaccord --help.\n")


def test_the_control_socket_is_said_by_option_environment_or_default(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def note(control: str) -> KnownGuests:
        asked.append(control)
        return KnownGuests()

    monkeypatch.setattr(cli, "Client", note)
    monkeypatch.setattr(cli, "find_control", lambda: "/by/default")
    monkeypatch.delenv("VMACCORD_CONTROL")
    cli.main(["list"])
    monkeypatch.setenv("VMACCORD_CONTROL", "/by/environment")
    cli.main(["list"])
    cli.main(["--control", "/by/option", "list"])
    assert asked == ["/by/default", "/by/environment", "/by/option"]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == Exit.OK
    assert capsys.readouterr().out == f"vmaccord {host_agent.release()}\n"


def test_help_lists_the_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == Exit.OK
    out = capsys.readouterr().out
    assert all(f"{status.value}  {status.meaning}" in out for status in Exit)


def test_the_demo_decides_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = types.ModuleType("host_agent.demo")
    demo.play = lambda: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "host_agent.demo", demo)
    monkeypatch.setattr(host_agent, "demo", demo, raising=False)
    assert cli.main(["demo"]) == 7


def test_an_unexpected_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "Client", lambda control: 1 / 0)
    assert cli.main(["list"]) == Exit.UNEXPECTED
    assert capsys.readouterr().err.startswith("vmaccord: unexpected error, please report it: ZeroDivisionError")


def test_an_interrupt_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(control: str) -> Client:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "Client", interrupt)
    assert cli.main(["list"]) == Exit.UNEXPECTED
    assert capsys.readouterr().err.strip() == "vmaccord: interrupted"


def test_a_reader_that_has_seen_enough_is_no_error(known: KnownGuests, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert cli.main(["list"]) == Exit.UNEXPECTED


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def test_on_a_terminal_there_is_a_table_in_which_nothing_is_obeyed_or_cut(
    known: KnownGuests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with terminal() as (ours, theirs), open(theirs, "w", encoding="utf-8", closefd=False) as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        assert cli.main(["list"]) == Exit.OK
        screen.flush()
        shown = os.read(ours, 1 << 16).decode()
    assert "GUEST" in shown
    assert "\\x1b[31m\\u202e[bold]" in shown
    assert shown.count("x") >= 200
    assert "\x1b[31m" not in shown
    assert "…" not in shown


def test_rich_is_not_imported_without_a_terminal() -> None:
    text = "import sys; from host_agent import cli; cli.main(['--version']); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=False).returncode == 0


def test_the_command_shows_a_hostile_guest_of_a_real_daemon(place: Path) -> None:
    name = json.dumps({"__name__": "host-name", "name": "\u202e[bold]\u009b31m"}).encode()

    async def scenario() -> str:
        async with SimulatedVm(place / "ports/web", saying(name)), running(make_configuration(place)) as daemon:
            await daemon.until_guest("web", lambda guest: guest["facts"])
            command = [sys.executable, "-m", "host_agent.cli", "--control", str(place / "control.sock"), "show", "web"]
            environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, err = await process.communicate()
            assert (process.returncode, err) == (0, b"")
            return out.decode("ascii")

    out = run(scenario())
    assert "    name: \\u202e[bold]" in out
    assert "\x1b" not in out


def test_the_demo_on_a_vm_without_what_it_needs_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith(("qemu", "host_agent.demo"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "qemu", None)
    assert cli.main(["demo", "--vm"]) == Exit.UNEXPECTED
    assert capsys.readouterr().err.endswith("needs qemu: pip install 'vmaccord[vm]'\n")
