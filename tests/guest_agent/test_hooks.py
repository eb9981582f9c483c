"""Hooks, real ones: each is a Python script in a directory that belongs to who runs the test."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from guest_agent import hooks, processes

from .conftest import CommandGuard
from .parts import GIVE_UP, hang, wait_until

#: A deadline that is passed for sure.
SOON = 0.2

FOREVER = "print('waiting', flush=True)\nimport time\nwhile True: time.sleep(60)\n"


class Directory:
    """A directory of hooks, which note that they have run."""

    def __init__(self, path: Path, guard: CommandGuard) -> None:
        self.path = path
        self._notes = path.parent / "notes"
        self._guard = guard
        path.parent.chmod(0o755)
        path.mkdir(mode=0o755)

    def add(self, name: str, script: str = "", mode: int = 0o755) -> Path:
        path = self.path / name
        first = f"#!{sys.executable} -I\nimport os\nopen({str(self._notes)!r}, 'a').write({name!r} + '\\n')\n"
        path.write_text(first + script, "utf-8")
        path.chmod(mode)
        self._guard.allowed.add(str(path))
        return path

    def run(self, **named: Any) -> tuple[hooks.Failure, ...]:
        return hooks.run(
            str(self.path), named.pop("environment", {}), **{"deadline": GIVE_UP, "owner": os.geteuid(), **named}
        )

    @property
    def ran(self) -> list[str]:
        return self._notes.read_text("utf-8").splitlines() if self._notes.exists() else []


@pytest.fixture
def directory(tmp_path: Path, command_guard: CommandGuard) -> Directory:
    return Directory(tmp_path / "before_migration", command_guard)


def test_hooks_run_in_the_order_of_their_names(directory: Directory) -> None:
    for name in ("20-b", "10-a", "9-first-comes-last", "Ä"):
        directory.add(name)
    assert directory.run() == ()
    assert directory.ran == ["10-a", "20-b", "9-first-comes-last", "Ä"]


def test_where_there_is_no_directory_there_is_nothing_to_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert hooks.run(str(tmp_path / "nothing" / "below"), {}, deadline=GIVE_UP, owner=os.geteuid()) == ()


def test_an_empty_directory_is_all_done(directory: Directory) -> None:
    assert directory.run() == ()


def test_the_log_is_told_what_failed_and_what_was_printed() -> None:
    failures = [hooks.Failure("1", "ended with status 1", ("it is", "broken")), hooks.Failure("2", "not run")]
    assert list(hooks.notes(failures)) == ["1: ended with status 1", "1 printed: it is", "1 printed: broken", "2: not run"]


def test_what_would_be_refused_in_any_directory_is_one_clause(directory: Directory) -> None:
    owner = os.geteuid()
    assert hooks.why_refused([str(directory.path), "/nonexistent"], owner=owner) is None
    directory.add("10-a", mode=0o777)
    why = str(hooks.why_refused(["/nonexistent", str(directory.path)], owner=owner))
    assert why.startswith(f"hooks are refused: {directory.path}: 10-a: not run: ")


def test_hooks_are_told_what_happens(directory: Directory) -> None:
    directory.add("tell", "print(os.environ['EVENT'])\nraise SystemExit(1)")
    (failure,) = directory.run(environment={"EVENT": "this"})
    assert failure.output == ("this",)


def test_a_hook_that_fails_does_not_stop_those_after_it(directory: Directory) -> None:
    directory.add("1", "print('it is', flush=True); raise SystemExit('broken')")
    directory.add("2", "os.kill(os.getpid(), 15)")
    directory.add("3")
    assert directory.run() == (
        hooks.Failure("1", "ended with status 1", ("it is", "broken")),
        hooks.Failure("2", "was ended by signal 15"),
    )
    assert directory.ran == ["1", "2", "3"]


def test_a_hook_that_takes_too_long_does_not_stop_those_after_it(directory: Directory) -> None:
    directory.add("1", FOREVER)
    directory.add("2")

    def run(argv: Any, *, deadline: float, **named: Any) -> processes.Finished:
        return processes.run(argv, deadline=SOON if argv[0].endswith("/1") else deadline, **named)

    (failure,) = directory.run(run_program=run)
    assert failure[:2] == ("1", "1 did not end within 0.2 s and was ended")
    assert directory.ran[-1] == "2"


def test_what_a_hook_said_until_it_took_too_long_is_kept(directory: Directory) -> None:
    directory.add("1")

    def run(*_: Any, **__: Any) -> processes.Finished:
        raise processes.ProgramTimedOut("1 did not end", b"waiting\n")

    assert directory.run(run_program=run) == (hooks.Failure("1", "1 did not end", ("waiting",)),)


def test_a_hook_without_an_interpreter_does_not_stop_those_after_it(directory: Directory) -> None:
    directory.add("1").write_text("no script", "utf-8")
    directory.add("2").write_text("#!/no/such/interpreter\n", "utf-8")
    directory.add("3")
    failures = directory.run()
    assert [failure.hook for failure in failures] == ["1", "2"]
    assert "Exec format error" in failures[0].reason
    assert "was not found" in failures[1].reason
    assert directory.ran == ["3"]


def test_when_the_agent_is_gone_no_further_hook_is_run(directory: Directory, tmp_path: Path) -> None:
    directory.add("1")
    directory.add("2")
    ran = tmp_path / "ran"

    def outlive_the_agent(argv: Any, **_: Any) -> processes.Finished:
        with ran.open("a", encoding="utf-8") as file:
            file.write(argv[0][-1])
        agent = os.getppid()
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda: os.getppid() != agent, lambda: time.sleep(0.01))
        return processes.Finished(0, b"")

    read, write = os.pipe()
    agent = os.fork()
    if not agent:
        if not os.fork():
            with contextlib.suppress(BaseException):
                directory.run(run_program=outlive_the_agent)
            os._exit(0)
        hang()
    os.close(write)
    os.waitpid(agent, 0)
    assert os.read(read, 1) == b""
    os.close(read)
    assert ran.read_text("utf-8") == "1"


def test_what_would_be_refused_is_told_without_running_anything(directory: Directory) -> None:
    directory.add("1")
    path = directory.add("2", mode=0o777)
    (failure,) = hooks.refused(str(directory.path), owner=os.geteuid())
    assert (failure.hook, str(path) in failure.reason) == ("2", True)
    assert directory.ran == []


# ---- What is no hook ----


@pytest.mark.parametrize("name", [".hidden", "backup~", "10-a.dpkg-old", "10-a.dpkg-dist", "10-a.rpmsave", "10-a.rpmnew"])
def test_hidden_files_and_leftovers_are_no_hooks(directory: Directory, name: str) -> None:
    directory.add(name)
    assert directory.run() == ()
    assert directory.ran == []


@pytest.mark.parametrize("name", ["10-rpm.sh", "a.dpkg", "hook.py", "with space", "-rf", "a.dpkg-old.sh"])
def test_any_other_name_will_do(directory: Directory, name: str) -> None:
    directory.add(name)
    assert directory.run() == ()
    assert directory.ran == [name]


def test_a_file_that_is_not_executable_is_switched_off(directory: Directory) -> None:
    directory.add("README", mode=0o644)
    assert directory.run() == ()
    assert directory.ran == []


def test_directories_and_pipes_are_no_hooks(directory: Directory) -> None:
    (directory.path / "below").mkdir()
    os.mkfifo(directory.path / "pipe", 0o755)
    assert directory.run() == ()


# ---- What others have a say in ----


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_hook_that_others_can_write_to_is_refused(directory: Directory, mode: int) -> None:
    path = directory.add("1", mode=mode)
    directory.add("2")
    (failure,) = directory.run()
    assert failure == ("1", f"not run: {path} can be written to by others; take that right from group and others", ())
    assert directory.ran == ["2"]


def test_a_hook_of_another_user_is_refused(directory: Directory) -> None:
    path = directory.add("1")
    if os.geteuid() != 0:
        pytest.skip("only root can make it somebody else's")
    os.chown(path, 1234, -1)
    (failure,) = directory.run()
    assert failure.reason == f"not run: {path} belongs to user 1234; let it belong to user 0"
    assert directory.ran == []


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_nothing_is_run_in_a_directory_that_others_can_write_to(directory: Directory, mode: int) -> None:
    directory.add("1")
    directory.path.chmod(mode)
    (failure,) = directory.run()
    assert failure.hook == "before_migration"
    assert failure.reason.startswith(f"nothing in this directory was run: {directory.path} can be written to by others")
    assert directory.ran == []


def test_nothing_is_run_below_a_directory_that_others_can_write_to(directory: Directory) -> None:
    directory.add("1")
    directory.path.parent.chmod(0o777)
    (failure,) = directory.run()
    assert failure.reason.startswith(f"nothing in this directory was run: {directory.path.parent} can be written to")


def test_a_link_to_a_hook_elsewhere_is_run(directory: Directory, command_guard: CommandGuard, tmp_path: Path) -> None:
    elsewhere = directory.add("real").rename(tmp_path / "elsewhere")
    (directory.path / "link").symlink_to(elsewhere)
    command_guard.allowed.add(str(directory.path / "link"))
    assert directory.run() == ()
    assert directory.ran == ["real"]


def test_a_link_to_what_others_can_write_to_is_refused(directory: Directory, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    elsewhere = directory.add("real").rename(tmp_path / "open" / "elsewhere")
    (tmp_path / "open").chmod(0o777)
    (directory.path / "link").symlink_to(elsewhere)
    (failure,) = directory.run()
    assert failure.reason.startswith(f"not run: {tmp_path / 'open'} can be written to by others")
    assert directory.ran == []


def test_a_link_that_leads_nowhere_is_a_failure(directory: Directory) -> None:
    (directory.path / "link").symlink_to("nowhere")
    assert directory.run() == (hooks.Failure("link", "not run: No such file or directory"),)


def test_a_file_in_the_place_of_the_directory_is_a_failure(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch(0o600)
    (failure,) = hooks.run(str(tmp_path / "file"), {}, deadline=GIVE_UP, owner=os.geteuid())
    assert failure == ("file", "nothing in this directory was run: it can't be read: Not a directory", ())


# ---- Bounds ----


def test_more_hooks_than_can_be_are_refused(directory: Directory) -> None:
    for number in range(hooks.LIMIT + 2):
        (directory.path / f"{number:03}").touch(0o755)
    ran = []

    def run(argv: Any, **_: Any) -> processes.Finished:
        ran.append(argv[0])
        return processes.Finished(0, b"")

    (failure,) = directory.run(run_program=run)
    assert failure == ("064", "not run, nor are those behind it: these are more than 64 hooks", ())
    assert len(ran) == hooks.LIMIT


def test_a_name_that_a_log_could_not_take_is_made_one_that_it_can(directory: Directory) -> None:
    (directory.path / "line\nbreak\x1b\udcff").symlink_to("nowhere")
    assert directory.run()[0].hook == "line break"
