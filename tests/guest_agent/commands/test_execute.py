"""exec: real programs, each of them a Python that does what the test says, or what the test has made one of."""

from __future__ import annotations

import base64
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from common import codec
from common.framing import LINE_LIMIT
from common.messages import Code, Exec
from guest_agent import processes
from guest_agent.answers import Answer, Outcome
from guest_agent.commands import COMMANDS, CommandFailed, Machine, execute
from guest_agent.worker import Worker
from tests.guest_agent.conftest import CommandGuard
from tests.guest_agent.parts import GIVE_UP, wait_until

#: A deadline that is passed for sure.
SOON = 0.2

FOREVER = "import time\nwhile True: time.sleep(60)\n"

#: Writes this byte to both streams, as often as no answer could take.
FLOOD = "import os, sys\nfor _ in range(16):\n  for out in (1, 2): os.write(out, eval(sys.argv[1]) * 16384)\n"


@pytest.fixture(autouse=True)
def _allow_python(command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """One whose programs are real."""
    return machine._replace(run=processes.run)


class Over:
    """Deadlines are over *when* this holds."""

    when: Callable[[], bool]


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> Over:
    made = Over()

    def left(_: float) -> float:
        if made.when():
            raise TimeoutError
        return GIVE_UP

    monkeypatch.setattr(processes, "_left", left)
    return made


def wait_until_gone(pid: int) -> None:
    """Wait until there is no such process; one that only waits to be reaped is none."""

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(is_gone, lambda: time.sleep(0.01))


def command(script: str, *arguments: str, timeout: float = GIVE_UP, **named: Any) -> Exec:
    return Exec((sys.executable, "-c", script, *arguments), timeout, **named)


def run(machine: Machine, script: str, *arguments: str, **named: Any) -> Mapping[str, Any]:
    return execute.run(machine, command(script, *arguments, **named))


def failure(machine: Machine, message: Exec) -> CommandFailed:
    """How the table's row says that *message* failed."""
    with pytest.raises(CommandFailed) as raised:
        COMMANDS["exec"].run(machine, message)
    return raised.value


def line_of(result: Mapping[str, Any], problem: Optional[str] = None, code: Code = Code.FAILED) -> bytes:
    """The line in which the host gets *result*."""
    completion = Answer("exec", "r" * 64, Outcome(problem, result, (), code.value)).completion(in_full=True)
    return codec.encode("completion", completion.to_arguments())


# ---- What the host gets to know ----


def test_the_status_and_both_streams_are_the_answer(machine: Machine) -> None:
    assert run(machine, "import os; os.write(1, b'one'); os.write(2, b'two'); raise SystemExit(7)") == {
        "exit_status": 7,
        "signal": None,
        "output": "one",
        "error_output": "two",
        "truncated": False,
    }


def test_a_program_that_gets_killed_has_no_status_but_a_signal(machine: Machine) -> None:
    result = run(machine, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (result["exit_status"], result["signal"]) == (None, signal.SIGKILL)


def test_output_that_is_no_text_has_replacements_in_text_and_is_whole_in_base64(machine: Machine) -> None:
    script = "import os; os.write(1, b'\\xff\\x00\\xc3\\xa4')"
    assert run(machine, script)["output"] == "\N{REPLACEMENT CHARACTER}\0ä"
    assert base64.b64decode(run(machine, script, encoding="base64")["output"]) == b"\xff\x00\xc3\xa4"


@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_output_just_at_the_limit_is_whole(machine: Machine, encoding: str) -> None:
    limit = execute.OUTPUT_LIMITS[encoding]
    result = run(machine, f"import sys; sys.stdout.write('x' * {limit})", encoding=encoding)
    assert not result["truncated"]
    assert len(result["output"]) == limit if encoding == "text" else len(base64.b64decode(result["output"])) == limit


@pytest.mark.parametrize("stream", [1, 2])
def test_of_output_beyond_the_limit_the_beginning_is_told_and_that_there_was_more(machine: Machine, stream: int) -> None:
    limit = execute.OUTPUT_LIMITS["text"]
    result = run(machine, f"import os; os.write({stream}, b'x' * {limit - 1} + b'yz'); os.write({stream}, b'more')")
    assert result["truncated"]
    assert result[("output", "error_output")[stream - 1]] == "x" * (limit - 1) + "y"


def test_a_character_that_the_limit_cuts_through_is_left_out(machine: Machine) -> None:
    limit = execute.OUTPUT_LIMITS["text"]
    result = run(machine, f"import sys; sys.stdout.buffer.write(b'x' * {limit - 1} + 'ää'.encode())")
    assert result["output"] == "x" * (limit - 1)


def test_a_character_that_the_program_itself_does_not_finish_is_replaced(machine: Machine) -> None:
    assert run(machine, "import os; os.write(1, b'x\\xc3')")["output"] == "x\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("encoding", ["text", "base64"])
@pytest.mark.parametrize(
    "byte", [b"\x00", b"\x1b", b"\x7f", b"\xff", b'"', b"\\", b"/", b",", b"x", "ä".encode(), "😀".encode()]
)
def test_whatever_a_program_floods_us_with_fits_into_one_line(machine: Machine, byte: bytes, encoding: str) -> None:
    result = run(machine, FLOOD, repr(byte), encoding=encoding)
    assert result["truncated"]
    line = line_of(result, "x" * 1000, Code.TIMED_OUT)
    assert len(line) <= LINE_LIMIT
    name, arguments = codec.decode(line)
    assert (name, set(arguments["result"])) == ("completion", set(result))


# ---- What a program gets ----


def test_a_program_starts_in_the_root_directory_with_a_small_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    script = "import os; print(dict(os.environ, LC_CTYPE=os.getcwd()))"
    assert eval(run(machine, script, environment={"MORE": "1", "USER": "me"})["output"]) == {  # noqa: S307 - see the script
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "LC_CTYPE": "/",
        "LOGNAME": "root",
        "MORE": "1",
        "PATH": processes.PATH,
        "SHELL": "/bin/sh",
        "USER": "me",
    }


def test_arguments_reach_the_program_as_they_are(machine: Machine) -> None:
    arguments = ("$HOME", "a b", "*", "", "ä\n'\"")
    assert eval(run(machine, "import sys; print(sys.argv[1:])", *arguments)["output"]) == [*arguments]  # noqa: S307


def test_a_program_is_found_in_the_path_that_it_gets(machine: Machine, tmp_path: Path, command_guard: CommandGuard) -> None:
    (tmp_path / "tool").write_text(f"#!{sys.executable}\nprint('found')", "utf-8")
    (tmp_path / "tool").chmod(0o755)
    command_guard.allowed.add("tool")
    message = Exec(("tool",), GIVE_UP, environment={"PATH": str(tmp_path)})
    assert execute.run(machine, message)["output"] == "found\n"


@pytest.mark.parametrize(
    ("encoding", "text", "read"),
    [("text", "ä\r\n\0", "ä\r\n\0".encode()), ("base64", "/wBh", b"\xff\x00a"), ("text", "", b""), ("text", None, b"")],
)
def test_input_reaches_the_program_as_the_encoding_says(machine: Machine, encoding: str, text: str, read: bytes) -> None:
    script = "import sys; print(sys.stdin.buffer.read().hex(), end='')"
    result = run(machine, script, input=text, encoding=encoding)
    said = result["output"] if encoding == "text" else base64.b64decode(result["output"]).decode()
    assert bytes.fromhex(said) == read


def test_a_program_need_not_read_its_input(machine: Machine) -> None:
    assert run(machine, "print('done')", input="x" * 1_000_000)["output"] == "done\n"


# ---- Programs that do not end, or not as one would think ----


@pytest.mark.parametrize(
    "script",
    [
        "import signal\nfor number in (1, 2, 3, 15): signal.signal(number, signal.SIG_IGN)\n" + FOREVER,
        "import os\nos.close(1); os.close(2)\n" + FOREVER,
        "while True: print('x' * 1000)",
        "import sys\nsys.stdin.read()\n" + FOREVER,
    ],
    ids=["ignores signals", "closes its output", "prints for ever", "reads its input and hangs"],
)
def test_a_program_that_does_not_end_is_ended_at_its_deadline(machine: Machine, script: str) -> None:
    failed = failure(machine, command(script, timeout=SOON, input="x" * 100_000))
    assert failed.code is Code.TIMED_OUT
    assert str(failed) == f"{os.path.basename(sys.executable)} did not end within 0.2 s and was ended"


def test_what_was_printed_until_the_deadline_is_in_the_answer(machine: Machine, tmp_path: Path, over: Over) -> None:
    over.when = (tmp_path / "note").exists
    script = "import os, sys; os.write(1, b'so far'); os.write(2, b'so bad'); open(sys.argv[1], 'w')\n"
    assert failure(machine, command(script + FOREVER, str(tmp_path / "note"))).members == {
        "exit_status": None,
        "signal": None,
        "output": "so far",
        "error_output": "so bad",
        "truncated": False,
    }


def test_everything_in_the_process_group_ends_with_the_program(machine: Machine, tmp_path: Path, over: Over) -> None:
    over.when = lambda: len(os.listdir(tmp_path / "begun")) == 4
    (tmp_path / "begun").mkdir()
    script = (
        "import os, signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork(); os.fork()\n"
        "open(os.path.join(sys.argv[1], str(os.getpid())), 'w')\n"
    )
    failure(machine, command(script + FOREVER, str(tmp_path / "begun")))
    for pid in os.listdir(tmp_path / "begun"):
        wait_until_gone(int(pid))


def test_a_program_may_leave_a_daemon_behind(machine: Machine) -> None:
    script = (
        "import os, signal\nread, write = os.pipe()\nchild = os.fork()\nif child:\n"
        "  os.close(write); os.read(read, 1); print(child); raise SystemExit(3)\n"
        f"os.setsid()\nfor each in (0, 1, 2, write): os.close(each)\n{FOREVER}"
    )
    result = run(machine, script)
    daemon = int(result["output"])
    assert result["exit_status"] == 3
    assert os.getsid(daemon) == daemon
    os.kill(daemon, signal.SIGKILL)


def test_a_program_ends_with_the_worker_that_runs_it(machine: Machine, tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = (
        "import os, sys\nopen(sys.argv[1] + '~', 'w').write(str(os.getpid()))\nos.rename(sys.argv[1] + '~', sys.argv[1])\n"
    )

    def job(_: object) -> None:
        run(machine, script + FOREVER, str(note))

    worker = Worker(job)
    wait_until(note.exists, lambda: time.sleep(0.01))
    worker.end()
    wait_until(lambda: worker.reports() or worker.status is not None, lambda: time.sleep(0.01))
    worker.close()
    wait_until_gone(int(note.read_text("ascii")))


# ---- What can't be run ----


@pytest.mark.parametrize("argv", [(), ("",), ("", "x")])
def test_without_a_program_there_is_nothing_to_run(machine: Machine, argv: tuple[str, ...]) -> None:
    failed = failure(machine, Exec(argv, GIVE_UP))
    assert (failed.code, str(failed)) == (Code.INVALID_ARGUMENTS, "argv names no program; its first member must")


@pytest.mark.parametrize("timeout", [execute.TIMEOUT_LIMIT + 1, 1e300, 10**400])
def test_no_program_may_take_for_ever(machine: Machine, timeout: float) -> None:
    failed = failure(machine, command("", timeout=timeout))
    assert failed.code is Code.INVALID_ARGUMENTS
    assert "no longer than 86400 s" in str(failed)


def test_input_that_is_no_base64_is_refused(machine: Machine) -> None:
    failed = failure(machine, command("", input="secret?", encoding="base64"))
    assert failed.code is Code.INVALID_ARGUMENTS
    assert "secret" not in str(failed)


def test_what_no_program_can_be_given_is_refused(machine: Machine) -> None:
    failed = failure(machine, command("", environment={"sec=ret": "x"}))
    assert failed.code is Code.INVALID_ARGUMENTS
    assert "sec" not in str(failed)


@pytest.mark.parametrize("program", ["no-such-program", "/no/such-program", "no/such-program"])
def test_a_missing_program_is_named(machine: Machine, command_guard: CommandGuard, program: str) -> None:
    command_guard.allowed.add(program)
    failed = failure(machine, Exec((program, "secret"), GIVE_UP, {"SECRET": "secret"}, "secret"))
    assert failed.code is Code.FAILED
    assert str(failed).endswith("such-program was not found; install it, or what the first line of it names")
    assert "secret" not in str(failed)


def test_a_list_of_arguments_that_is_too_long_is_said_so(machine: Machine) -> None:
    failed = failure(machine, command("", "secret" * 100_000))
    assert str(failed) == f"{os.path.basename(sys.executable)} can't be run: Argument list too long"


def test_no_failure_has_a_secret(machine: Machine) -> None:
    message = command("import sys; sys.stdin.read()\n" + FOREVER, "secret", timeout=SOON, input="secret")
    failed = failure(machine, message)
    assert "secret" not in repr((failed, failed.members, failed.notes))
    assert failed.__suppress_context__


def test_programs_can_be_run_on_any_machine(machine: Machine) -> None:
    assert execute.available(machine) is None
