"""Programs of the machine; here each of them is a Python that does what the test says."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from guest_agent import processes
from guest_agent.worker import Worker

from .conftest import CommandGuard
from .parts import GIVE_UP, hang, wait_until

#: A deadline that is passed for sure.
SOON = 0.2

FOREVER = "import time\nwhile True: time.sleep(60)\n"

#: Writes the number of the process into the file that is the first argument; the file appears with its content.
NOTE_MY_NUMBER = """\
import os, sys
with open(sys.argv[1] + '~', 'w') as note:
    note.write(str(os.getpid()))
os.rename(sys.argv[1] + '~', sys.argv[1])
"""


@pytest.fixture(autouse=True)
def _allow_python(command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)


def run(script: str, *arguments: str, deadline: float = GIVE_UP, **named: Any) -> processes.Finished:
    return processes.run([sys.executable, "-c", script, *arguments], deadline=deadline, **named)


def is_alive(pid: int) -> bool:
    """Whether the process lives; one that only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_gone(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), lambda: time.sleep(0.01))


def noted(note: Path) -> int:
    return int(note.read_text("ascii"))


@pytest.fixture
def until_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: as soon as it exists, deadlines are over."""
    note = tmp_path / "note"

    def left(_: float) -> float:
        if note.exists():
            raise TimeoutError
        return GIVE_UP

    monkeypatch.setattr(processes, "_left", left)
    return note


@pytest.fixture
def seen_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program has ended by the time that it is first looked at."""

    def has_ended(process: Any) -> bool:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is not None

    monkeypatch.setattr(processes, "_has_ended", has_ended)


@pytest.fixture
def seen_at_once() -> None:
    """A program is looked at while it runs."""


@pytest.fixture
def executable(tmp_path: Path, command_guard: CommandGuard) -> Any:
    def make(content: str, mode: int = 0o755) -> str:
        path = tmp_path / "program"
        path.write_text(content, "utf-8")
        path.chmod(mode)
        command_guard.allowed.add(str(path))
        return str(path)

    return make


# ---- How a program ends ----


def test_status_and_both_outputs_are_kept_in_order() -> None:
    script = "import os; os.write(1, b'one '); os.write(2, b'two '); os.write(1, b'three'); raise SystemExit(7)"
    finished = run(script)
    assert finished == (7, b"one two three", b"")
    assert finished.how == "ended with status 7"


def test_a_program_that_a_signal_ended_says_so() -> None:
    finished = run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert finished.status == -signal.SIGKILL
    assert finished.how == "was ended by signal 9"


def test_output_beyond_the_limit_is_read_and_thrown_away() -> None:
    finished = run("import os\nfor _ in range(64): os.write(1, b'x' * 65536)\nraise SystemExit(3)", output_limit=1000)
    assert finished == (3, b"x" * 1000, b"")


def test_standard_error_is_kept_apart_where_that_is_asked_for() -> None:
    script = "import os; os.write(1, b'one '); os.write(2, b'two'); os.write(1, b'three')"
    assert run(script, errors_apart=True) == (0, b"one three", b"two")


def test_each_of_two_streams_is_kept_up_to_the_limit_and_none_makes_the_program_wait() -> None:
    script = "import os\nfor _ in range(16):\n  os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)"
    assert run(script, errors_apart=True, output_limit=70_000) == (0, b"x" * 70_000, b"y" * 70_000)


def test_one_of_two_streams_may_be_closed() -> None:
    script = "import os\nos.close(1)\nfor _ in range(64): os.write(2, b'y' * 65536)"
    assert run(script, errors_apart=True, output_limit=10) == (0, b"", b"y" * 10)


def test_input_larger_than_a_pipe_comes_back_from_a_program_that_writes_while_reading() -> None:
    text = os.urandom(300_000)
    script = "import sys\nwhile chunk := sys.stdin.buffer.read1(): sys.stdout.buffer.write(chunk)"
    assert run(script, input=text, output_limit=len(text)).output == text


def test_without_input_there_is_an_end_of_file() -> None:
    assert run("import sys; print(repr(sys.stdin.read()))").output == b"''\n"


def test_a_program_need_not_read_its_input() -> None:
    assert run("print('done')", input=b"x" * 1_000_000) == (0, b"done\n", b"")


def test_a_program_may_close_its_input_and_go_on() -> None:
    script = "import os\nos.close(0)\nprint('went on')"
    assert run(script, input=b"x" * 1_000_000) == (0, b"went on\n", b"")


def test_a_program_that_closes_its_output_still_gets_its_input(tmp_path: Path) -> None:
    script = "import os, sys\nos.close(1); os.close(2)\nopen(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    assert run(script, str(tmp_path / "copy"), input=b"x" * 1_000_000) == (0, b"", b"")
    assert (tmp_path / "copy").read_bytes() == b"x" * 1_000_000


# ---- What a program starts with ----


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    script = "import os; print(sorted(os.environ.items()))"
    names = [("LC_ALL", "C.UTF-8"), ("MORE", "1"), ("PATH", processes.PATH)]
    got = eval(run(script, environment={"MORE": "1"}).output)  # noqa: S307 - what this test's own program printed
    assert [each for each in got if each[0] != "LC_CTYPE"] == names


def test_a_variable_can_take_the_place_of_what_every_program_gets() -> None:
    script = "import os; print(os.environ['LC_ALL'], os.environ['PATH'])"
    assert run(script, environment={"LC_ALL": "C", "PATH": "/nowhere"}).output == b"C /nowhere\n"


def test_a_program_is_found_in_the_path_that_it_gets(executable: Any, command_guard: CommandGuard) -> None:
    program = Path(executable(f"#!{sys.executable}\nprint('found')"))
    command_guard.allowed.add(program.name)
    assert processes.run([program.name], deadline=GIVE_UP, environment={"PATH": str(program.parent)}).output == b"found\n"


def test_a_program_has_no_controlling_terminal_even_if_the_agent_has_one() -> None:
    script = "try: open('/dev/tty')\nexcept OSError as error: print(error.errno)"
    read, write = os.pipe()
    child, terminal = os.forkpty()
    if not child:
        with contextlib.suppress(BaseException):
            os.close(os.open("/dev/tty", os.O_RDWR))
            os.write(write, run(script).output)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as said:
        assert said.read() == f"{errno.ENXIO}\n".encode()
    os.waitpid(child, 0)
    os.close(terminal)


def test_a_program_leads_a_session_of_its_own_in_the_root_directory() -> None:
    script = "import os; print(os.getsid(0) == os.getpid(), os.getcwd())"
    assert run(script).output == b"True /\n"


def test_a_program_inherits_no_descriptors() -> None:
    kept = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(kept, True)
    script = "import os, sys\ntry: os.fstat(int(sys.argv[1]))\nexcept OSError: print('closed')"
    assert run(script, str(kept)).output == b"closed\n"
    os.close(kept)


# ---- Deadlines ----


def test_a_program_that_waits_for_ever_is_ended_at_its_deadline(until_noted: Path) -> None:
    with pytest.raises(processes.ProgramTimedOut, match=r"^\S+ did not end within 30 s and was ended$") as raised:
        run("print('said', flush=True)\n" + NOTE_MY_NUMBER + FOREVER, str(until_noted))
    assert raised.value.output == b"said\n"
    wait_until_gone(noted(until_noted))


def test_so_is_one_that_writes_for_ever(until_noted: Path) -> None:
    with pytest.raises(processes.ProgramTimedOut) as raised:
        run(NOTE_MY_NUMBER + "while True: os.write(1, b'x' * 65536)", str(until_noted), output_limit=10)
    assert raised.value.output in (b"x" * 10, b"")
    wait_until_gone(noted(until_noted))


def test_so_is_one_that_takes_no_notice_of_being_asked(until_noted: Path) -> None:
    script = "import signal\nfor number in range(1, signal.NSIG):\n  if number not in (9, 19, 32, 33):\n"
    script += "    signal.signal(number, signal.SIG_IGN)\n"
    with pytest.raises(processes.ProgramTimedOut):
        run(script + NOTE_MY_NUMBER + FOREVER, str(until_noted))
    wait_until_gone(noted(until_noted))


def test_what_both_streams_said_until_the_deadline_is_kept_apart(until_noted: Path) -> None:
    script = "import os; os.write(1, b'so far'); os.write(2, b'so bad')\n"
    with pytest.raises(processes.ProgramTimedOut) as raised:
        run(script + NOTE_MY_NUMBER + FOREVER, str(until_noted), errors_apart=True)
    assert (raised.value.output, raised.value.errors) == (b"so far", b"so bad")


def test_so_is_one_that_has_closed_its_output() -> None:
    with pytest.raises(processes.ProgramTimedOut):
        run("import os\nos.close(1); os.close(2)\n" + FOREVER, deadline=SOON)


def test_what_it_started_is_ended_with_it(until_noted: Path) -> None:
    script = "import os\nif os.fork() == 0:\n" + textwrap.indent(NOTE_MY_NUMBER, "  ") + FOREVER
    with pytest.raises(processes.ProgramTimedOut):
        run(script, str(until_noted))
    wait_until_gone(noted(until_noted))


def test_a_child_that_holds_the_output_open_is_ended_after_its_parent() -> None:
    script = "import os\nchild = os.fork()\nif child:\n  print(child, flush=True)\n  os._exit(4)\n" + FOREVER
    finished = run(script)
    assert finished.status == 4
    wait_until_gone(int(finished.output))


@pytest.mark.usefixtures("seen_late")
def test_what_a_program_wrote_before_it_ended_is_kept_however_late_that_is_seen() -> None:
    assert run("import os\nos.write(1, b'x' * 65536)").output == b"x" * 65536


@pytest.mark.usefixtures("seen_late")
def test_so_is_what_two_larger_pipes_hold() -> None:
    f_setpipe_sz, size = 1031, 1024 * 1024
    script = (
        f"import fcntl, os\nfor out in (1, 2):\n  fcntl.fcntl(out, {f_setpipe_sz}, {size}); os.write(out, b'x' * {size})"
    )
    finished = run(script, errors_apart=True, output_limit=size)
    assert (len(finished.output), len(finished.errors)) == (size, size)


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = "import os\nif os.fork() == 0:\n  os.setsid()\n" + textwrap.indent(NOTE_MY_NUMBER, "  ")
    script += textwrap.indent(FOREVER, "  ") + "while not os.path.exists(sys.argv[1]): pass\nprint('begun')"
    assert run("import sys\n" + script, str(note)) == (0, b"begun\n", b"")
    assert is_alive(noted(note))
    os.kill(noted(note), signal.SIGKILL)
    wait_until_gone(noted(note))


@pytest.mark.parametrize("when", ["seen_at_once", "seen_late"])
def test_a_child_that_lets_go_of_the_output_lives_on(request: pytest.FixtureRequest, tmp_path: Path, when: str) -> None:
    request.getfixturevalue(when)
    script = (
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nread, write = os.pipe()\n"
        "child = os.fork()\n"
        "if child:\n  os.close(write); os.read(read, 1); print(child, flush=True); os._exit(0)\n"
        "os.close(read); os.close(1); os.close(2); os.close(write)\nsignal.sigwait([signal.SIGTERM])\n"
    )
    note = tmp_path / "note"
    child = int(run(script + NOTE_MY_NUMBER, str(note)).output)
    os.kill(child, signal.SIGTERM)
    wait_until(note.exists, lambda: time.sleep(0.01))
    assert noted(note) == child


def test_a_program_ends_with_the_worker_that_runs_it(tmp_path: Path) -> None:
    note = tmp_path / "note"

    def leave(*_: object) -> None:
        raise SystemExit

    worker = os.fork()
    if not worker:
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGTERM, leave)
            run(NOTE_MY_NUMBER + FOREVER, str(note))
        os._exit(0)
    wait_until(note.exists, lambda: time.sleep(0.01))
    os.kill(worker, signal.SIGTERM)
    os.waitpid(worker, 0)
    wait_until_gone(noted(note))


def test_a_worker_that_is_to_leave_at_the_moment_when_a_program_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note"

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            note.write_text(str(self.pid), "ascii")
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    worker = Worker(lambda _: processes.run([sys.executable, "-c", FOREVER], deadline=GIVE_UP) and None)
    wait_until(lambda: worker.reports() or worker.status is not None, lambda: time.sleep(0.01))
    worker.close()
    assert worker.status == 1
    wait_until_gone(noted(note))


def test_a_program_is_started_with_no_signal_held_back() -> None:
    script = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGTERM))"
    assert run(script).output == f"{set()} {signal.SIG_DFL!s}\n".encode()


@pytest.mark.parametrize("closed", ["", "os.close(1); os.close(2)\n"], ids=["speaking", "silent"])
def test_a_program_ends_when_the_agent_of_its_worker_is_gone(tmp_path: Path, closed: str) -> None:
    note = tmp_path / "note"
    agent = os.fork()
    if not agent:
        Worker(lambda _: run(NOTE_MY_NUMBER + closed + FOREVER, str(note), deadline=100 * GIVE_UP) and None)
        hang()
    wait_until(note.exists, lambda: time.sleep(0.01))
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    wait_until_gone(noted(note))


# ---- Programs that can't be run ----


def test_a_missing_program_is_named(command_guard: CommandGuard) -> None:
    command_guard.allowed.add("no-such-program")
    with pytest.raises(processes.ProgramMissing, match=r"^no-such-program was not found; install it"):
        processes.run(["no-such-program", "secret"], deadline=GIVE_UP)


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [("#!/no/such/interpreter\n", 0o755, "was not found"), ("no script", 0o755, "Exec format"), ("", 0o600, "Permission")],
)
def test_a_program_that_can_not_be_started_is_named_with_the_reason(
    executable: Any, content: str, mode: int, why: str
) -> None:
    with pytest.raises(processes.ProgramError, match=f"^program .*{why}"):
        processes.run([executable(content, mode)], deadline=GIVE_UP)


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["sec\0ret"], {}), ([], {"NAME": "sec\0ret"}), ([], {"sec=ret": ""}), (["\ud800"], {})]
)
def test_what_no_program_can_be_given_is_no_reason_to_fall_over(arguments: list[str], environment: dict[str, str]) -> None:
    with pytest.raises(processes.ArgumentsUnfit, match=r"^\S+ can't be run: an argument or a variable has") as raised:
        processes.run([sys.executable, *arguments], deadline=GIVE_UP, environment=environment)
    assert "sec" not in str(raised.value)


def test_a_directory_is_no_program(command_guard: CommandGuard, tmp_path: Path) -> None:
    command_guard.allowed.add(f"{tmp_path}/")
    with pytest.raises(processes.ProgramError, match=f"^{tmp_path}/ can't be run: Permission denied$"):
        processes.run([f"{tmp_path}/"], deadline=GIVE_UP)


def test_no_error_repeats_arguments_environment_or_input(command_guard: CommandGuard) -> None:
    command_guard.allowed.add("no-such-program")
    errors = []
    too_long = "secret" * 100_000
    for argv in (
        [sys.executable, "-c", FOREVER, "secret"],
        [sys.executable, too_long],
        ["no-such-program", "secret"],
        ["no-such-program", "\0secret"],
    ):
        with pytest.raises(processes.ProgramError) as raised:
            processes.run(argv, deadline=SOON, input=b"secret", environment={"SECRET": "secret"})
        errors.append(raised.value)
    assert all("secret" not in repr(error) and error.__suppress_context__ for error in errors)


# ---- Programs for later ----


def test_a_program_for_later_runs_when_its_time_has_come_and_on_its_own(tmp_path: Path) -> None:
    note = tmp_path / "note"
    processes.run_later([sys.executable, "-c", NOTE_MY_NUMBER + FOREVER, str(note)], delay=0.1, deadline=GIVE_UP)
    wait_until(note.exists, lambda: time.sleep(0.01))
    pid = noted(note)
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGKILL)


def test_a_missing_program_for_later_is_missed_at_once() -> None:
    with pytest.raises(processes.ProgramMissing, match="no-such-program was not found"):
        processes.run_later(["no-such-program"], delay=60, deadline=GIVE_UP)


def test_a_program_for_later_that_can_not_be_prepared_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_WAIT_AND_BECOME", "raise SystemExit(9)")
    with pytest.raises(processes.ProgramError, match=r"can't be prepared: .* ended with status 9"):
        processes.run_later([sys.executable], delay=60, deadline=GIVE_UP)


def test_a_program_is_found_where_the_machine_has_it(tmp_path: Path) -> None:
    directory = tmp_path / "sbin"
    directory.mkdir()
    (directory / "tool").touch(0o755)
    (directory / "notes").touch(0o644)
    (directory / "folder").mkdir()
    assert processes.find("tool", str(tmp_path)) == str(directory / "tool")
    assert [processes.find(name, str(tmp_path)) for name in ("notes", "folder", "nothing")] == [None] * 3


# ---- What people get to read ----


def test_the_first_lines_of_an_output_are_fit_for_a_log() -> None:
    output = b"\n \x1b[31mred\x1b[0m\ttext \xff\r\n" + b"y" * 10_000 + b"\n" + b"z\n" * 100
    lines = processes.first_lines(output)
    assert lines[0] == "[31mred [0m text \N{REPLACEMENT CHARACTER}"
    assert lines[1] == "y" * 500
    assert lines[2:] == ("z",) * 3


# ---- Trust ----


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A file that belongs to who runs the test, in a directory of its own."""
    tmp_path.chmod(0o755)
    path = tmp_path / "directory" / "file"
    path.parent.mkdir(mode=0o755)
    path.touch(0o755)
    path.chmod(0o755)
    return path


def why_untrusted(path: Path) -> Any:
    return processes.why_untrusted(str(path), os.geteuid())


def test_what_only_its_owner_can_change_is_trusted(place: Path) -> None:
    assert why_untrusted(place) is None
    assert why_untrusted(place.parent) is None


def test_what_belongs_to_another_user_is_not_trusted(place: Path) -> None:
    if os.geteuid() == 0:
        os.chown(place, 1234, -1)
        assert why_untrusted(place) == f"{place} belongs to user 1234; let it belong to user 0"
    else:
        assert "belongs to user" in str(processes.why_untrusted(str(place), 0))


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
@pytest.mark.parametrize("step", [0, 1])
def test_what_others_can_write_to_is_not_trusted(place: Path, step: int, mode: int) -> None:
    written = (place, place.parent)[step]
    written.chmod(mode)
    assert why_untrusted(place) == f"{written} can be written to by others; take that right from group and others"


def test_a_directory_on_the_way_that_others_can_write_to_is_not_trusted(place: Path) -> None:
    place.parent.parent.chmod(0o777)
    assert "can be written to by others" in why_untrusted(place)


def test_a_sticky_directory_of_all_on_the_way_is_trusted(place: Path) -> None:
    place.parent.parent.chmod(0o1777)
    assert why_untrusted(place) is None


def test_links_are_followed_on_the_same_terms(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place.parent)
    (place.parent / "again").symlink_to("../link/./file")
    assert why_untrusted(tmp_path / "link" / "again") is None
    place.chmod(0o777)
    assert why_untrusted(tmp_path / "link" / "again").startswith(f"{place} can be written")


def test_a_link_between_two_trusted_places_is_not_trusted_where_others_can_change_it(place: Path, tmp_path: Path) -> None:
    anywhere = tmp_path / "anywhere"
    anywhere.mkdir(mode=0o755)
    (anywhere / "link").symlink_to(place)
    (place.parent / "first").symlink_to(anywhere / "link")
    assert why_untrusted(place.parent / "first") is None
    anywhere.chmod(0o777)
    assert why_untrusted(place.parent / "first").startswith(f"{anywhere} can be written")


def test_a_link_that_another_user_made_is_not_trusted(place: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make it somebody else's")
    (tmp_path / "link").symlink_to(place)
    os.lchown(tmp_path / "link", 1234, -1)
    assert "link belongs to user 1234" in why_untrusted(tmp_path / "link")


def test_links_that_lead_in_circles_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        why_untrusted(tmp_path / "one")


def test_what_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        why_untrusted(tmp_path / "nothing" / "below")


def test_a_relative_path_is_not_trusted() -> None:
    assert processes.why_untrusted("bin/sh") == "bin/sh is no absolute path; give it from / on"
