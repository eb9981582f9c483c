from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

import host_agent
from host_agent import cli, paths
from host_agent.cli import declared, looking
from host_agent.exits import Exit
from tests.host_agent.operators import FakeDaemon, described, problem
from tests.host_agent.parts import ROOT

from .commanded import CommandedDaemon, done

LIFECYCLE = ["lifecycle-event", "type=before_migration"]

#: All commands, those of a group behind its name.
COMMANDS = {
    **declared.program.commands,
    **{f"handoff {name}": command for name, command in declared.handoff.commands.items()},
}


@pytest.fixture(autouse=True)
def somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine is asked."""
    monkeypatch.setenv("VMACCORD_CONTROL", "/nonexistent/control.sock")


@pytest.fixture
def daemon(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "control.sock", described("web-1"), described("db")) as running:
        monkeypatch.setenv("VMACCORD_CONTROL", running.path)
        yield running


# ---- What each sub-command does ----


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--can", "lock-screen"],
        ["show", "web-1"],
        ["events"],
        ["events", "--guest", "web-1", "--recent", "5"],
        ["messages"],
        ["messages", "--guest", "web-1"],
        ["send", "web-1", *LIFECYCLE],
        ["send", "--timeout", "2", "--no-wait", "web-1", *LIFECYCLE],
        ["send", "--all", *LIFECYCLE],
        ["refresh", "web-1"],
        ["refresh", "--all"],
        ["doctor"],
        ["doctor", "web-1"],
        ["handoff", "send", "web-1"],
        ["handoff", "send", "web-1", "--to", "host-b", "--allow-loss"],
        ["handoff", "cancel", "web-1", "--force"],
        ["handoff", "expect", "new", "--uuid", "3f2a1b4c-0000-4000-8000-0123456789ab", "--for", "30"],
        ["handoff", "begin", "web-1", "--timeout", "2.5"],
        ["handoff", "failed", "web-1"],
        ["handoff", "arrived", "web-1"],
        ["handoff", "list"],
    ],
)
def test_each_command_prints_text_or_json(
    daemon: FakeDaemon, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.tell("state", guest="web-1", state="responsive")
    daemon.handoffs = [{"guest": "web-1", "role": "source", "peer": "host-b", "phase": "moving", "since_s": 1.5}]
    assert cli.main(arguments) == Exit.OK
    text, said = capsys.readouterr()
    assert text
    assert said == ""
    assert cli.main([*arguments, "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)


def test_what_is_said_on_the_command_line_reaches_the_daemon(daemon: FakeDaemon) -> None:
    assert cli.main(["send", "db", *LIFECYCLE, "failure:=true", "--timeout", "2.5", "--no-wait"]) == Exit.OK
    arguments = {"type": "before_migration", "failure": True}
    body = {"name": "lifecycle-event", "arguments": arguments, "timeout": 2.5, "wait": False}
    assert daemon.asked == [("POST", "/v1/guests/db/commands", body)]


def test_guests_are_watched(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from host_agent.cli import watch

    def interrupt(seconds: float) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "PERIOD", 0.0)
    monkeypatch.setattr(watch, "time", types.SimpleNamespace(monotonic=lambda: 0.0, sleep=interrupt))
    assert cli.main(["watch"]) == Exit.OK
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["web-1", "db"]
    assert cli.main(["watch", "--json"]) == Exit.OK
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == ["web-1", "db"]


def test_the_demo_decides_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = types.ModuleType("host_agent.demo")
    demo.play = lambda: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "host_agent.demo", demo)
    monkeypatch.setattr(host_agent, "demo", demo, raising=False)
    assert cli.main(["demo"]) == 7


def test_the_demo_on_a_vm_without_what_it_needs_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith(("qemu", "host_agent.demo"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "qemu", None)
    assert cli.main(["demo", "--vm"]) == Exit.UNEXPECTED
    assert capsys.readouterr().err.endswith("needs qemu: pip install 'vmaccord[vm]'\n")


# ---- Exit statuses ----


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("version-too-low", Exit.REFUSED_BY_VERSION),
        ("disabled", Exit.REFUSED_BY_CAPABILITY),
        ("unresponsive", Exit.UNRESPONSIVE),
        ("not-connected", Exit.UNRESPONSIVE),
        ("timed-out", Exit.TIMED_OUT),
        ("not-allowed", Exit.NOT_ALLOWED),
        ("invalid-arguments", Exit.USAGE),
        ("stopping", Exit.UNREACHABLE),
        ("moving", Exit.MOVED),
        ("moved", Exit.MOVED),
        ("unexpected", Exit.UNEXPECTED),
    ],
)
def test_each_refusal_has_a_status_and_is_one_sentence(
    daemon: FakeDaemon, kind: str, status: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["web-1/commands"] = problem(kind, 409, "what to do\x1b")
    assert cli.main(["send", "web-1", *LIFECYCLE]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "what to do\\x1b" in err


def test_a_guest_that_could_not_do_it_has_a_status(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"guest": "web-1", "name": "lifecycle-event", "agreed": 3, "reply_id": "1", "round_trip_s": 1.0}
    daemon.answers["web-1/commands"] = (200, {**answer, "completion": {"done": False, "reason": "disk full"}})
    assert cli.main(["send", "web-1", *LIFECYCLE]) == Exit.GUEST_FAILED
    assert capsys.readouterr() == ("", "vmaccord: web-1: lifecycle-event failed: disk full\n")


def test_many_guests_have_one_status(daemon: FakeDaemon) -> None:
    daemon.answers["web-1/commands"] = daemon.answers["db/commands"] = problem("timed-out", 504, "no answer")
    assert cli.main(["send", "--all", *LIFECYCLE]) == Exit.TIMED_OUT
    del daemon.answers["db/commands"]
    assert cli.main(["send", "--all", *LIFECYCLE]) == Exit.SEVERAL
    daemon.answers["web-1/refresh"] = problem("not-connected", 503, "no")
    assert cli.main(["refresh", "--all"]) == Exit.SEVERAL


def test_trouble_has_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == Exit.TROUBLE
    assert capsys.readouterr().out.startswith("trouble  no daemon runs: nothing is at /nonexistent/control.sock")


def test_an_unknown_guest_is_one_sentence(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "other"]) == Exit.NO_SUCH_GUEST
    assert capsys.readouterr() == ("", "vmaccord: no guest is called 'other': 'vmaccord list' shows all\n")
    assert cli.main(["show", "--", "-x"]) == Exit.NO_SUCH_GUEST


def test_a_daemon_that_does_not_run_is_one_sentence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--control", str(place / "none"), "list"]) == Exit.UNREACHABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"vmaccord: no daemon at {place}/none (No such file or directory): start vmaccord-host")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["lisst"],
        ["show"],
        ["list", "--yaml"],
        ["list", "x"],
        ["list", "--can"],
        ["--control"],
        ["--control", "", "list"],
        ["send"],
        ["send", "web-1"],
        ["send", "--all"],
        ["send", "web-1", "echo", "--timeout", "0"],
        ["send", "web-1", "echo", "--timeout", "nan"],
        ["refresh"],
        ["refresh", "web-1", "--all"],
        ["events", "--recent", "-1"],
        ["completion", "tcsh"],
        ["freeze", "web-1", "--", "true"],
        ["freeze", "web-1", "--thaw-after", "30"],
        ["freeze", "web-1", "--thaw-after", "0", "--", "true"],
        ["freeze", "web-1", "--thaw-after", "nan", "--", "true"],
        ["exec", "web-1"],
        ["exec", "web-1", "ls", "-l"],
        ["set-time"],
        ["ssh-keys", "web-1", "replace", "eve"],
        ["ssh-keys", "web-1", "list"],
        ["ssh-keys", "web-1", "list", "eve", "file"],
        ["ssh-keys", "web-1", "add", "eve"],
        ["send", "web-1", "echo", "--no-wait", "--follow"],
        ["export", "web-1"],
        ["export", "web-1", "-o", "x", "--spec", "-1"],
        ["export", "web-1", "-o", "x", "--spec", "3"],
        ["import"],
        ["inspect"],
        ["handoff"],
        ["handoff", "sned"],
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vmaccord: ")
    # click does not say where an option lacks its value.
    nowhere = not arguments or arguments[0] not in declared.program.commands or arguments == ["list", "--can"]
    assert err.endswith("See vmaccord --help.\n" if nowhere else f"See vmaccord {arguments[0]} --help.\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "web-1", "lsblk", "--json"],
        ["exec", "web-1", "lsblk", "--", "--json"],
        ["exec", "--", "web-1", "lsblk"],
        ["exec", "web-1"],
        ["freeze", "web-1", "--thaw-after", "30", "lvcreate", "--json"],
    ],
)
def test_no_option_of_a_program_is_taken_for_one_of_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == Exit.USAGE
    example = {
        "exec": "exec web-1 -- lsblk --json",
        "freeze": "freeze web-1 --thaw-after 30 -- lvcreate --snapshot vg0/web-1",
    }
    assert capsys.readouterr() == (
        "",
        f"vmaccord: Write -- before the program: vmaccord {example[words[0]]}. See vmaccord {words[0]} --help.\n",
    )


def test_wrong_arguments_of_a_command_are_one_sentence(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["send", "web-1", "login", "username=eve", "password=geheim"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vmaccord: login: password may not stand on the command line")
    assert "geheim" not in err
    assert daemon.asked == []


def test_an_unexpected_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(declared, "_client", lambda control: 1 / 0)
    assert cli.main(["list"]) == Exit.UNEXPECTED
    assert capsys.readouterr().err.startswith("vmaccord: unexpected error, please report it: ZeroDivisionError")


def test_an_interrupt_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(control: str) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(declared, "_client", interrupt)
    assert cli.main(["list"]) == Exit.UNEXPECTED
    assert capsys.readouterr().err.strip() == "vmaccord: interrupted"


def test_a_reader_that_has_seen_enough_is_no_error(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert cli.main(["list"]) == Exit.UNEXPECTED


# ---- Around it ----


def test_the_control_socket_is_said_by_option_environment_or_default(
    daemon: FakeDaemon, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VMACCORD_CONTROL", str(place / "none"))
    assert cli.main(["list"]) == Exit.UNREACHABLE
    assert cli.main(["--control", daemon.path, "list"]) == Exit.OK
    monkeypatch.delenv("VMACCORD_CONTROL")
    monkeypatch.setattr(paths, "places_to_look", lambda: [str(place / "none"), daemon.path])
    assert cli.main(["list"]) == Exit.OK


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == Exit.OK
    assert capsys.readouterr().out == f"vmaccord {host_agent.release()}\n"


def test_help_lists_the_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == Exit.OK
    out = capsys.readouterr().out
    assert all(f"{status.value}  {status.meaning}" in out for status in Exit)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_line_that_fits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "--help"]) == Exit.OK
    line = COMMANDS[name].get_short_help_str(60)
    assert line.endswith(".")
    assert "..." not in line


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["send", "--help"], ["completion", "bash"]])
def test_what_asks_nobody_imports_neither_rich_nor_http(arguments: list[str]) -> None:
    text = "import sys; from host_agent import cli; cli.main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", text, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"rich", "http.client", "aiohttp", "asyncio"} & set(ran.stderr.split())


def test_into_an_ascii_pipe_everything_can_be_printed(daemon: FakeDaemon) -> None:
    daemon.guests = [{**described("bücher"), "history": [{"old": 0, "new": 3, "reason": "x", "ago_s": 1.0}]}]
    ran = subprocess.run(
        [sys.executable, "-m", "host_agent.cli", "show", "bücher"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert ran.stdout.decode("ascii").startswith("b\\xfccher\n")


def test_every_command_that_prints_can_print_json() -> None:
    silent = {"completion", "demo", "handoff"}
    for name, command in COMMANDS.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--json" in options) is (name not in silent), name


def test_the_documentation_has_every_command_and_every_status() -> None:
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `vmaccord ([a-z-]+)", page, re.MULTILINE)
    assert sorted(set(documented)) == sorted(declared.program.commands)
    in_group = re.findall(r"^\| `vmaccord handoff ([a-z]+)", page, re.MULTILINE)
    also_alone = {"export", "import", "inspect"}
    assert sorted(in_group) == sorted(set(declared.handoff.commands) - also_alone)
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(str(status.value), status.meaning) for status in Exit]
    assert looking.RECENT == 20


def test_each_way_to_operate_a_guest_prints_text_or_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with CommandedDaemon(place / "control.sock") as daemon:
        daemon.said = {"set-time": [done(step_ns=1)], "ssh-keys": [done(keys=["a"])]}
        for words in (["set-time", "web-1", "--from-hardware-clock"], ["ssh-keys", "web-1", "list", "eve"]):
            assert cli.main(["--control", daemon.path, *words, "--timeout", "2.5"]) == Exit.OK
            assert daemon.sent(words[0])["timeout"] == 2.5
            assert cli.main(["--control", daemon.path, *words]) == Exit.OK
            assert capsys.readouterr().out
            assert cli.main(["--control", daemon.path, *words, "--json"]) == Exit.OK
            assert json.loads(capsys.readouterr().out)["completion"]["done"] is True


def test_an_unknown_command_is_refused_before_anybody_is_asked_who_can(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list", "--can", "lod"]) == Exit.USAGE
    assert capsys.readouterr().err == "vmaccord: no command is called 'lod': did you mean load?\n"
    assert daemon.asked == []


# ---- From host to host ----


def test_a_guest_is_handed_over_as_is_said_on_the_command_line(daemon: FakeDaemon) -> None:
    uuid = "3f2a1b4c-0000-4000-8000-0123456789ab"
    for words in (
        ["send", "web-1", "--to", "host-c", "--allow-loss"],
        ["cancel", "web-1", "--force"],
        ["expect", "new", "--uuid", uuid, "--for", "30"],
        ["begin", "web-1", "--timeout", "2.5"],
        ["failed", "web-1"],
        ["arrived", "web-1"],
    ):
        assert cli.main(["handoff", *words]) == Exit.OK
    assert daemon.asked == [
        ("POST", "/v1/guests/web-1/handoff", {"to": "host-c", "allow_loss": True}),
        ("DELETE", "/v1/guests/web-1/handoff?force=yes", None),
        ("POST", "/v1/handoffs/expected", {"name": "new", "uuid": uuid, "patience": 30.0}),
        ("POST", "/v1/guests/web-1/migration", {"stage": "begin", "timeout": 2.5}),
        ("POST", "/v1/guests/web-1/migration", {"stage": "failed"}),
        ("POST", "/v1/guests/web-1/migration", {"stage": "arrived"}),
    ]


def test_a_number_of_no_session_spec_and_a_uuid_that_is_none_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "web-1", "-o", "x", "--spec", "one"]) == Exit.USAGE
    assert "--spec is no session spec; name one of 0, 1, 2." in capsys.readouterr().err
    assert cli.main(["handoff", "expect", "new", "--uuid", "web"]) == Exit.USAGE
    assert "--uuid is no UUID; name it as virsh domuuid prints it." in capsys.readouterr().err


@pytest.mark.parametrize("group", [[], ["handoff"]])
def test_a_session_goes_into_a_file_and_out_of_it(
    daemon: FakeDaemon, place: Path, group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(place / "web-1.session")
    for words in (["export", "web-1", "-o", file], ["inspect", file], ["import", file]):
        assert cli.main([*group, *words]) == Exit.OK
        assert cli.main([*group, *words, "--json"]) == Exit.OK
    assert Path(file).read_bytes() == daemon.exported
    assert daemon.asked[-1] == ("POST", "/v1/sessions", daemon.exported)
    assert cli.main([*group, "export", "web-1", "-o", file, "--spec", "1", "--allow-loss"]) == Exit.OK
    assert daemon.asked[-1][:2] == ("GET", "/v1/guests/web-1/session?spec=1&allow-loss=yes")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("would-lose", Exit.WOULD_LOSE),
        ("in-doubt", Exit.HANDOFF_FAILED),
        ("unreachable-peer", Exit.HANDOFF_FAILED),
        ("moved", Exit.MOVED),
    ],
)
def test_a_hand_off_that_fails_has_a_status_and_is_one_sentence(
    daemon: FakeDaemon, kind: str, status: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["web-1/handoff"] = problem(kind, 409, "what to do\x1b")
    assert cli.main(["handoff", "send", "web-1"]) == status
    assert capsys.readouterr() == ("", "vmaccord: what to do\\x1b\n")


def test_a_command_that_moves_with_its_guest_is_followed(daemon: FakeDaemon) -> None:
    for words in (["web-1"], ["--all"]):
        assert cli.main(["send", "--follow", *words, *LIFECYCLE]) == Exit.OK
        assert daemon.asked[-1][2]["follow"] is True
