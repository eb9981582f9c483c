from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from host_agent import cli
from host_agent.cli import arguments, completion, declared
from tests.host_agent.operators import EVIL, FakeDaemon, described
from tests.host_agent.parts import ROOT

SCRIPTS = ROOT / "packaging" / "completion"


@pytest.fixture
def daemon(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    names = ("web-1", "web-2", "db", EVIL, "with space", "$(reboot)", "a;b")
    with FakeDaemon(place / "control.sock", *map(described, names)) as running:
        monkeypatch.setenv("VMACCORD_CONTROL", running.path)
        yield running


def completed(*typed: str) -> list[str]:
    """What is offered for the last of the words that were *typed*."""
    shell = BashComplete(declared.program, {}, declared.PROGRAM, "_VMACCORD_COMPLETE")
    return [item.value for item in shell.get_completions(list(typed[:-1]), typed[-1])]


def test_commands_and_options_are_completed() -> None:
    assert {"list", "send", "doctor"} <= set(completed(""))
    assert "--timeout" in completed("send", "--")


def test_names_of_guests_are_completed_unless_a_shell_would_see_more_in_them(daemon: FakeDaemon) -> None:
    assert completed("show", "") == ["web-1", "web-2", "db"]
    assert completed("show", "web") == ["web-1", "web-2"]
    for command in ("refresh", "doctor", "send", "freeze", "exec", "set-time", "ssh-keys"):
        assert completed(command, "d") == ["db"]
    for command in ("send", "cancel", "begin", "failed", "arrived", "export"):
        assert completed("handoff", command, "d") == ["db"]
    assert completed("export", "d") == ["db"]
    for command in ("events", "messages"):
        assert completed(command, "--guest", "d") == ["db"]
    assert {path for _, path, _ in daemon.asked} == {"/v1/guests?facts=no"}


def test_the_daemon_that_is_named_is_asked(place: Path) -> None:
    with FakeDaemon(place / "other.sock", described("other")) as daemon:
        assert completed("--control", daemon.path, "show", "") == ["other"]


def test_a_command_follows_the_guest_and_nothing_is_offered_behind_it(daemon: FakeDaemon) -> None:
    assert completed("send", "web-1", "lo") == ["lock-screen", "log-off", "login", "load"]
    assert completed("send", "--all", "l") == ["lock-screen", "log-off", "login", "lifecycle-event", "load"]
    assert completed("send", "web-1", "login", "") == []
    assert completed("send", "--all", "login", "") == []


def test_a_command_that_guests_must_be_able_to_be_sent_is_completed() -> None:
    assert completed("list", "--can", "filesystem-t") == ["filesystem-thaw", "filesystem-trim"]


def test_the_hosts_that_a_guest_may_go_to_are_completed(daemon: FakeDaemon) -> None:
    daemon.host["handoff"]["peers"] = ["host-b", "host-c", "backup", "a;b"]
    assert completed("handoff", "send", "web-1", "--to", "host") == ["host-b", "host-c"]
    assert completed("handoff", "send", "--to", "") == ["host-b", "host-c", "backup"]
    del daemon.host["handoff"]
    assert completed("handoff", "send", "--to", "") == []


def test_session_specs_are_completed() -> None:
    assert completed("export", "web-1", "--spec", "") == ["0", "1", "2"]
    assert completed("handoff", "export", "--spec", "1") == ["1"]


def test_what_is_to_be_done_with_keys_is_completed() -> None:
    assert completed("ssh-keys", "web-1", "") == ["list", "add", "remove"]


def test_arguments_are_shown_beside_a_command() -> None:
    context = click.Context(declared.program.commands["send"])
    context.params = {"words": ("web-1",), "to_all": False}
    (item,) = completion.words(context, context.command.params[0], "login")
    assert item.help == arguments.signature(arguments.find_command("login"))


def test_where_no_daemon_answers_no_name_is_offered_and_nothing_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VMACCORD_CONTROL", str(place / "none"))
    assert completed("show", "") == []
    assert capsys.readouterr() == ("", "")


def test_the_shells_of_the_command_are_those_there_are_scripts_for() -> None:
    assert {path.suffix[1:] for path in SCRIPTS.iterdir()} == set(completion.SHELLS)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_scripts_of_the_packages_are_those_that_the_command_prints(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if tuple(map(int, metadata.version("click").split(".")[:2])) < (8, 2):
        pytest.skip("click writes them otherwise before 8.2; they are answered the same way")
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == (SCRIPTS / f"vmaccord.{shell}").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_a_real_bash_completes(daemon: FakeDaemon, place: Path) -> None:
    program = place / "vmaccord"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m host_agent.cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    typed = 'COMP_WORDS=(vmaccord send web-1 lo) COMP_CWORD=3; _vmaccord_completion vmaccord; echo "${COMPREPLY[@]}"'
    ran = subprocess.run(
        ["bash", "-c", f"source {SCRIPTS}/vmaccord.bash; {typed}"],
        env={**os.environ, "PATH": f"{place}:{os.environ['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("lock-screen log-off login load\n", "")
