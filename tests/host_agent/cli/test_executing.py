from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from host_agent import cli
from host_agent.cli import executing
from host_agent.exits import Exit
from tests.host_agent.operators import EVIL, problem, terminal

from .commanded import CommandedDaemon, Said, done, failed

NO_VARIABLE = "a variable is neither NAME=VALUE nor the NAME of one that is set here; write --env NAME=VALUE"


class Typed(NamedTuple):
    status: int
    out: bytes
    err: bytes


@pytest.fixture
def daemon(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandedDaemon]:
    with CommandedDaemon(place / "control.sock") as running:
        running.said = {"exec": [ended()]}
        monkeypatch.setenv("VMACCORD_CONTROL", running.path)
        yield running


def printed(out: bytes, err: bytes) -> dict[str, Any]:
    output, error_output = (base64.b64encode(each).decode() for each in (out, err))
    return {"output": output, "error_output": error_output, "truncated": False}


def ended(out: bytes = b"", err: bytes = b"", **how: Any) -> Said:
    """A guest's answer that a program ended."""
    return done(**{"exit_status": 0, "signal": None, **printed(out, err), **how})


def typed(capfdbinary: pytest.CaptureFixture[bytes], *words: str) -> Typed:
    """Type ``vmaccord exec`` with these *words*."""
    return Typed(cli.main(["exec", *words]), *capfdbinary.readouterr())


def test_a_program_is_run_in_the_guest(daemon: CommandedDaemon, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    words = ("web-1", "--timeout", "2.5", "--env", "A=1=2", "--env", "B=", "--", "ls", "-l", "--json", "--", "x y")
    assert typed(capfdbinary, *words) == Typed(0, b"", b"")
    arguments = {
        "argv": ["ls", "-l", "--json", "--", "x y"],
        "timeout": 2.5,
        "encoding": "base64",
        "environment": {"A": "1=2", "B": ""},
    }
    # How long to wait is for the daemon to say, which knows that the command has a time of its own.
    assert daemon.sent("exec") == {"name": "exec", "arguments": arguments, "wait": True}
    assert typed(capfdbinary, "web-1", "--", "true").status == 0
    assert daemon.sent("exec")["arguments"] == {"argv": ["true"], "timeout": 60.0, "encoding": "base64"}


def test_a_guest_that_moves_is_followed_where_that_is_asked_for(
    daemon: CommandedDaemon, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert typed(capfdbinary, "web-1", "--follow", "--", "true").status == 0
    assert daemon.sent("exec")["follow"] is True


def test_what_it_prints_is_printed_as_it_is(daemon: CommandedDaemon, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    everything = bytes(range(256))
    daemon.said["exec"] = [ended(everything, b"\x1b[31m\n")]
    assert typed(capfdbinary, "web-1", "--", "x") == Typed(0, everything, b"\x1b[31m\n")


def test_a_variable_has_the_value_that_it_has_here(
    daemon: CommandedDaemon, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("SECRET", "a=b\n")
    assert typed(capfdbinary, "web-1", "--env", "SECRET", "--", "x").status == 0
    assert daemon.sent("exec")["arguments"]["environment"] == {"SECRET": "a=b\n"}


def test_a_terminal_is_shown_escapes_and_all_else(daemon: CommandedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 3000
    daemon.said["exec"] = [ended(f"a\tb\x1b[2J\r\n{long}\n".encode() + b"\xc3")]
    with terminal(monkeypatch) as drawn:
        assert cli.main(["exec", "web-1", "--", "x"]) == 0
        assert drawn() == f"a\tb\\x1b[2J\\r\r\n{long}\r\n\ufffd"


@pytest.mark.parametrize(
    ("said", "status", "problem_"),
    [
        (failed("failed", "no such program"), Exit.GUEST_FAILED, "web-1: exec failed: no such program"),
        (problem("disabled", 409, "turn it on"), Exit.REFUSED_BY_CAPABILITY, "turn it on"),
        (problem("timed-out", 504, "no answer"), Exit.TIMED_OUT, "no answer"),
    ],
)
def test_as_json_it_is_said_also_where_nothing_came_of_it(
    daemon: CommandedDaemon, said: Said, status: Exit, problem_: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    daemon.said["exec"] = [said]
    came = typed(capfdbinary, "--json", "web-1", "--", "x")
    assert (came.status, came.err) == (status, f"vmaccord: {problem_}\n".encode())
    document = json.loads(came.out)
    assert (document["exit_status"], document["timed_out"], document["problem"]) == (None, False, problem_)


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"exit_status": 3}, 3),
        ({"exit_status": 255}, 255),
        ({"exit_status": None, "signal": 9}, 137),
    ],
)
def test_the_status_is_that_of_the_program(
    daemon: CommandedDaemon, how: dict[str, Any], status: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    daemon.said["exec"] = [ended(b"out", **how)]
    assert typed(capfdbinary, "web-1", "--", "x") == Typed(status, b"out", b"")
    said = json.loads(typed(capfdbinary, "--json", "web-1", "--", "x").out)
    assert (said["exit_status"], said["signal"]) == (how["exit_status"], how.get("signal"))


def test_that_not_all_came_that_it_printed_is_said(
    daemon: CommandedDaemon, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    daemon.said["exec"] = [ended(b"out", truncated=True)]
    assert typed(capfdbinary, "web-1", "--", "x") == Typed(
        0, b"out", b"web-1: it printed more than the guest returns; the rest is lost\n"
    )


def test_a_program_that_takes_too_long_has_a_status_and_what_it_printed_is_printed(
    daemon: CommandedDaemon, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    daemon.said["exec"] = [failed("timed-out", "not ended within 60 s", **printed(b"so far\n", b"hm\n"))]
    said = b"hm\nvmaccord: web-1: x was ended: not ended within 60 s\n"
    assert typed(capfdbinary, "web-1", "--", "x") == Typed(Exit.TIMED_OUT, b"so far\n", said)
    as_json = typed(capfdbinary, "--json", "web-1", "--", "x")
    assert as_json.status == Exit.TIMED_OUT
    assert json.loads(as_json.out) == {
        "guest": "web-1",
        "exit_status": None,
        "signal": None,
        "timed_out": True,
        "output": "so far\n",
        "error_output": "hm\n",
        "truncated": False,
        "problem": "web-1: x was ended: not ended within 60 s",
    }
    daemon.said["exec"] = [failed("timed-out", "never begun")]
    assert typed(capfdbinary, "web-1", "--", "x")[:2] == (Exit.TIMED_OUT, b"")


def test_a_program_that_can_not_be_run_is_a_failure_of_the_guest(
    daemon: CommandedDaemon, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    daemon.said["exec"] = [failed("failed", f"no such program {EVIL}")]
    said = b"vmaccord: web-1: exec failed: no such program \\x1b[31m\\u202e[bold]\n"
    assert typed(capfdbinary, "web-1", "--", "x") == Typed(Exit.GUEST_FAILED, b"", said)
    daemon.said["exec"] = [problem("disabled", 409, "name it in enable")]
    assert typed(capfdbinary, "web-1", "--", "x") == Typed(Exit.REFUSED_BY_CAPABILITY, b"", b"vmaccord: name it in enable\n")


@pytest.mark.parametrize(
    "how",
    [
        {"exit_status": None},
        {"exit_status": 256},
        {"exit_status": -1},
        {"exit_status": True},
        {"exit_status": None, "signal": 65},
        {"exit_status": None, "signal": "9"},
        {"output": None},
        {"output": "%"},
        {"error_output": "ü"},
    ],
)
def test_an_answer_that_makes_no_sense_is_a_failure_of_the_guest(
    daemon: CommandedDaemon, how: dict[str, Any], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    daemon.said["exec"] = [ended(**how)]
    said = b"vmaccord: web-1: how exec ended is not known: its answer makes no sense\n"
    assert typed(capfdbinary, "web-1", "--", "x") == Typed(Exit.GUEST_FAILED, b"", said)


def test_it_reads_a_file_or_standard_input(
    daemon: CommandedDaemon, place: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    everything = bytes(range(256)) * 2048
    assert len(everything) == executing.INPUT_LIMIT
    (place / "file").write_bytes(everything)
    assert typed(capfdbinary, "web-1", "--input", f"{place}/file", "--", "x").status == 0
    assert base64.b64decode(daemon.sent("exec")["arguments"]["input"]) == everything
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    assert typed(capfdbinary, "web-1", "--input", "-", "--", "x").status == 0
    assert daemon.sent("exec")["arguments"]["input"] == "/wo="


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--input", "{}/none"), "none: No such file or directory; name a readable file"),
        (("--input", "{}/long"), "long: longer than 524288 bytes; name a shorter file"),
        (("--env", "geheim"), NO_VARIABLE),
        (("--env", "=geheim"), NO_VARIABLE),
        (("--env", ""), NO_VARIABLE),
    ],
)
def test_a_wrong_word_is_one_sentence_and_nothing_is_run(
    daemon: CommandedDaemon, place: Path, words: tuple[str, str], said: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (place / "long").write_bytes(b"x" * (executing.INPUT_LIMIT + 1))
    came = typed(capfdbinary, "web-1", *(word.format(place) for word in words), "--", "x")
    assert (came.status, came.out) == (Exit.USAGE, b"")
    assert came.err.decode().endswith(f"{said}\n")
    assert b"geheim" not in came.err
    assert daemon.asked == []
