"""Programs of the machine: which may be run, and running them. The only place that starts any.

A program is started from an argument list, never by a shell, in a clean environment and a session of its own. It gets its
input on standard input, what it prints is kept up to a limit, and at its deadline it is ended with its process group; what
has left that lives on. It does not outlive who runs it either: SIGTERM is noted while a program runs, and the program is
ended before the signal takes its way; the same becomes of it when the agent is gone.

Everything here blocks and so belongs into workers; ``subprocess`` is imported only when a program is run. What a program is
for is not known here. Arguments and input may be secrets: no error repeats them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Protocol

if TYPE_CHECKING:
    import subprocess

#: Where programs are looked for, whatever the agent's own environment says.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

#: How much of a program's output is kept unless told otherwise, in bytes.
OUTPUT_LIMIT = 65536

#: How much of a program's output is shown to people, in lines and in characters of each.
_LINES_SHOWN = 5
_LINE_LENGTH = 500

#: How often a program is asked whether it has ended without closing its output, in seconds.
_GLANCE = 0.1

#: How long a killed program may take to go, in seconds.
_GRACE = 1.0

#: The exit status of a process that leaves before its work is done.
_LEFT_EARLY = 1

#: As much as a pipe holds.
_CHUNK = 65536

#: So often that is read when a program has ended: who uses a pipe can have it hold more, usually up to 1 MiB.
_RESTS = 1024 * 1024 // _CHUNK + 1

#: Symbolic links followed on the way to one file; as many as the kernel follows.
_LINK_LIMIT = 40

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

#: Run by a Python of its own: waits, out of reach of whoever started it, and becomes the program.
_WAIT_AND_BECOME = """
import os, sys, time
null = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)
if os.fork():
    os._exit(0)
os.setsid()
time.sleep(float(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ProgramError(Exception):
    """A program could not do its work; the text is one sentence that names it."""


class ProgramMissing(ProgramError):
    """There is no such program."""


class ArgumentsUnfit(ProgramError):
    """An argument or a variable has what no program can be given, as NUL."""


class ProgramTimedOut(ProgramError):
    """The program had not ended at its deadline, and was ended.

    :ivar output: what it had written until then, as in ``Finished``.
    :ivar errors: the same.
    """

    def __init__(self, sentence: str, output: bytes = b"", errors: bytes = b"") -> None:
        super().__init__(sentence)
        self.output = output
        self.errors = errors


class Finished(NamedTuple):
    """How a program ended.

    :ivar status: its exit status; below 0: the signal that ended it, negated.
    :ivar output: what it wrote to standard output and standard error, up to the limit.
    :ivar errors: what it wrote to standard error, up to the limit, where that was to be kept apart.
    """

    status: int
    output: bytes
    errors: bytes = b""

    @property
    def how(self) -> str:
        """How it ended, as a clause for people."""
        return f"ended with status {self.status}" if self.status >= 0 else f"was ended by signal {-self.status}"


class Run(Protocol):
    """What ``run`` is called like."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        input: bytes = b"",  # noqa: A002 - what it is
        environment: Optional[Mapping[str, str]] = None,
        output_limit: int = OUTPUT_LIMIT,
        errors_apart: bool = False,
    ) -> Finished:
        """See ``run``."""


class RunLater(Protocol):
    """What ``run_later`` is called like."""

    def __call__(self, argv: Sequence[str], *, delay: float, deadline: float) -> None:
        """See ``run_later``."""


def run(
    argv: Sequence[str],
    *,
    deadline: float,
    input: bytes = b"",  # noqa: A002 - what it is
    environment: Optional[Mapping[str, str]] = None,
    output_limit: int = OUTPUT_LIMIT,
    errors_apart: bool = False,
) -> Finished:
    """Run a program to its end.

    What it leaves running lives on, unless it has kept the output open: that is ended.

    :param argv: the program, as a path or as a name in the ``PATH`` that it gets, and its arguments.
    :param deadline: seconds that it may take.
    :param input: what it reads from standard input.
    :param environment: variables beside ``PATH`` and ``LC_ALL``, or in their place; a program gets no others.
    :param output_limit: bytes of output to keep; what is more is read and thrown away.
    :param errors_apart: keep standard error by itself, up to the same limit.
    :raises ProgramMissing: there is no such program.
    :raises ArgumentsUnfit: an argument or a variable has what no program can be given.
    :raises ProgramTimedOut: it had not ended in time.
    :raises ProgramError: it can't be started.
    :raises SystemExit: SIGTERM came, or the process that had started this one is gone; the program was ended.
    """
    give_up_at = time.monotonic() + deadline
    parent = os.getppid()
    with _sigterm_noted() as noted:
        process = _start(argv, bool(input), {"PATH": PATH, "LC_ALL": "C.UTF-8", **(environment or {})}, errors_apart)
        conversation = _Conversation(process, input, output_limit)
        try:
            while not _has_ended(process):
                leave_without(parent)
                if noted:
                    raise SystemExit(_LEFT_EARLY)
                conversation.advance(min(_GLANCE, _left(give_up_at)))
            conversation.take_rest()
        except TimeoutError:
            conversation.take_rest()
            sentence = f"{_name(argv)} did not end within {deadline:g} s and was ended"
            raise ProgramTimedOut(sentence, bytes(conversation.output), bytes(conversation.errors)) from None
        finally:
            _clear_away(process, conversation)
    return Finished(process.returncode, bytes(conversation.output), bytes(conversation.errors))


def run_later(argv: Sequence[str], *, delay: float, deadline: float) -> None:
    """Have a program started *delay* seconds from now, whatever happens to the agent until then.

    How it ends is heard by nobody.

    :param deadline: seconds that the preparation may take.
    :raises ProgramMissing: there is no such program.
    :raises ProgramError: it can't be prepared.
    """
    import sys

    if find(argv[0]) is None:
        raise ProgramMissing(_not_found(argv))
    waiter = [sys.executable, "-I", "-S", "-c", _WAIT_AND_BECOME, repr(delay), *argv]
    finished = run(waiter, deadline=deadline)
    if finished.status != 0:
        raise ProgramError(f"{_name(argv)} can't be prepared: the process that was to wait for it {finished.how}")


def leave_without(parent: int) -> None:
    """Leave when *parent*, which had started this process, is gone: whoever takes its place may begin the same work anew.

    :raises SystemExit: it is gone.
    """
    if os.getppid() != parent:
        raise SystemExit(_LEFT_EARLY)


def find(program: str, root: str = "/") -> Optional[str]:
    """The path of *program*, itself a path or a name in ``PATH``; None where there is no such program.

    :param root: where the machine's file system begins.
    """
    for directory in PATH.split(":"):
        path = os.path.join(root, directory.lstrip("/"), program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def first_lines(output: bytes) -> tuple[str, ...]:
    """The beginning of what a program wrote: bounded lines that a log can take."""
    lines = (one_line(line) for line in output.decode("utf-8", "replace").splitlines())
    return tuple(line for line in lines if line)[:_LINES_SHOWN]


def one_line(text: str) -> str:
    """*text* on one bounded line, without the characters that a log, a terminal or the wire could not take."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:_LINE_LENGTH]


# ---- Files that are run because of where they lie ----


def why_untrusted(path: str, owner: int = 0) -> Optional[str]:
    """Why others than root and *owner* could have a say in what *path*, a file or directory, is; None where they can't.

    Everything on the way counts, symbolic links included: it must belong to one of the two, and nobody else may write to it.
    A directory with the sticky bit, as ``/tmp``, may be on the way, but neither be *path* nor the directory that it is in.

    :param path: an absolute one.
    :returns: a clause that names what is wrong and what to do.
    :raises OSError: something on the way does not exist or can't be looked at.
    """
    if not os.path.isabs(path):
        return f"{path} is no absolute path; give it from / on"
    steps = list(_steps(path))
    end = steps[-1][0]
    for step, status in steps:
        shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and step not in (end, os.path.dirname(end))
        if status.st_uid not in {0, owner}:
            return f"{step} belongs to user {status.st_uid}; let it belong to user {owner}"
        if status.st_mode & _WRITABLE_BY_OTHERS and not stat.S_ISLNK(status.st_mode) and not shared:
            return f"{step} can be written to by others; take that right from group and others"
    return None


def _steps(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each directory, link and file that the kernel passes on its way to *path*; that itself is last.

    :raises OSError: a step does not exist, or there are too many links.
    """
    here, ahead, links = "/", _parts(path), 0
    yield here, os.lstat(here)
    while ahead:
        name = ahead.pop()
        if name == "..":
            here = os.path.dirname(here)
            yield here, os.lstat(here)
            continue
        step = os.path.join(here, name)
        status = os.lstat(step)
        yield step, status
        if not stat.S_ISLNK(status.st_mode):
            here = step
            continue
        links += 1
        if links > _LINK_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(step)
        ahead += _parts(target)
        here = "/" if os.path.isabs(target) else here


def _parts(path: str) -> list[str]:
    """The components of *path*, last first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


# ---- One program ----


class _Conversation:
    """A program is written its input while its output is read, whichever it wants first."""

    def __init__(self, process: subprocess.Popen[bytes], input: bytes, limit: int) -> None:  # noqa: A002 - what it is
        import selectors

        self.output = bytearray()
        self.errors = bytearray()
        self._process = process
        self._limit = limit
        self._input = memoryview(input)
        self._selector = selectors.DefaultSelector()
        self._join(process.stdout, selectors.EVENT_READ, lambda pipe: self._read(pipe, self.output))
        self._join(process.stderr, selectors.EVENT_READ, lambda pipe: self._read(pipe, self.errors))
        self._join(process.stdin, selectors.EVENT_WRITE, self._write)

    @property
    def over(self) -> bool:
        """Whether nothing can be read or written any more."""
        return not self._selector.get_map()

    def advance(self, patience: float) -> None:
        """Wait at most *patience* seconds for something to read or write, and do that; else for the program's end."""
        import subprocess

        if self.over:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
            return
        for key, _ in self._selector.select(patience):
            key.data(key.fileobj)

    def take_rest(self) -> None:
        """Read what the program has written: at most what its pipes hold, then their ends."""
        for _ in range(_RESTS):
            self.advance(0)

    def close(self) -> None:
        """Neither read nor write any more."""
        for key in list(self._selector.get_map().values()):
            self._leave(key.fileobj)
        self._selector.close()

    def _join(self, pipe: Optional[IO[bytes]], event: int, advance: Callable[[IO[bytes]], None]) -> None:
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, event, advance)

    def _leave(self, pipe: Any) -> None:
        self._selector.unregister(pipe)
        pipe.close()

    def _read(self, pipe: IO[bytes], kept: bytearray) -> None:
        chunk = os.read(pipe.fileno(), _CHUNK)
        kept += chunk[: max(0, self._limit - len(kept))]
        if not chunk:
            self._leave(pipe)

    def _write(self, pipe: IO[bytes]) -> None:
        try:
            self._input = self._input[os.write(pipe.fileno(), self._input) :]
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            self._leave(pipe)


@contextlib.contextmanager
def _sigterm_noted() -> Iterator[Sequence[int]]:
    """Only note SIGTERM, so that no program is forgotten between two steps; it takes its way afterwards.

    It is not blocked: the program would inherit that.
    """
    noted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)
        if noted:
            signal.raise_signal(signal.SIGTERM)


def _clear_away(process: subprocess.Popen[bytes], conversation: _Conversation) -> None:
    """Leave nothing behind that holds a pipe; a program that the kernel itself holds is not waited for."""
    import subprocess

    if process.returncode is None:
        if not conversation.over or not _has_ended(process):
            _end_group(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    conversation.close()


def _start(
    argv: Sequence[str], with_input: bool, environment: Mapping[str, str], errors_apart: bool
) -> subprocess.Popen[bytes]:
    import subprocess

    try:
        return subprocess.Popen(  # noqa: S603 - an argument list, no shell
            argv,
            bufsize=0,
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if errors_apart else subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=environment,
        )
    except ValueError:
        why = "an argument or a variable has a character, as NUL, that it can't have"
        raise ArgumentsUnfit(f"{_name(argv)} can't be run: {why}") from None
    except FileNotFoundError:
        raise ProgramMissing(_not_found(argv)) from None
    except OSError as error:
        raise ProgramError(f"{_name(argv)} can't be run: {error.strerror}") from None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program ended. It is not reaped, so that nobody else gets its number."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, ended) is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _left(give_up_at: float) -> float:
    """The seconds left until *give_up_at*.

    :raises TimeoutError: there are none.
    """
    left = give_up_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _name(argv: Sequence[str]) -> str:
    return one_line(os.path.basename(argv[0]) or argv[0])


def _not_found(argv: Sequence[str]) -> str:
    return f"{_name(argv)} was not found; install it, or what the first line of it names"
