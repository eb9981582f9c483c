"""The processes that take part in a measurement, each on a core of its own, and what the kernel says they have used."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, NamedTuple, Optional, TypeVar

ROOT = Path(__file__).resolve().parent.parent.parent

#: Seconds after which something that is waited for does not come.
GIVE_UP = 120.0

P = TypeVar("P", bound="Process")

_libc = ctypes.CDLL(None, use_errno=True)


class Gone(Exception):
    """A process that takes part has ended."""


class Usage(NamedTuple):
    """What a process has used so far.

    :ivar cpu: seconds, of all its threads.
    :ivar sleeps: how often its first thread went to sleep by itself, so how often it was woken.
    """

    cpu: float
    sleeps: int


class Memory(NamedTuple):
    """What a process has in memory, in KiB: all that is resident, and what it shares with no other process."""

    resident: int
    unshared: int


class Process:
    """A Python program on *core*. Use as a context manager."""

    def __init__(
        self,
        arguments: Sequence[str],
        core: int,
        *,
        environment: Optional[Mapping[str, str]] = None,
        log: Optional[Path] = None,
        keep: Sequence[int] = (),
    ) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self.began = time.monotonic()
        with open(log or os.devnull, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file if log else None,
                stderr=file if log else None,
                pass_fds=keep,
            )
        os.sched_setaffinity(self._process.pid, {core})
        self._log = log
        self._clock = _clock_of(self._process.pid)

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.end()

    def end(self) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._process.wait(GIVE_UP)

    def check(self) -> None:
        """:raises Gone: it has ended by itself."""
        if self._process.poll() is not None:
            said = self._log.read_text(errors="replace")[-2000:] if self._log else ""
            raise Gone(f"{self._process.args!r} ended with status {self._process.returncode}\n{said}")

    def usage(self) -> Usage:
        """What it has used so far."""
        switches = _field(self._process.pid, "status", "voluntary_ctxt_switches")
        return Usage(time.clock_gettime(self._clock), switches)

    def memory(self) -> Memory:
        """What it has in memory now."""
        return Memory(
            _field(self._process.pid, "smaps_rollup", "Rss"),
            _field(self._process.pid, "smaps_rollup", "Private_Clean")
            + _field(self._process.pid, "smaps_rollup", "Private_Dirty"),
        )


class Fleet(Process):
    """A fleet in a process of its own; see ``fleet`` for what may be asked of it.

    :param module: what plays it.
    """

    def __init__(self, place: Path, core: int, module: str = "tests.bench.fleet") -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            program = ["-m", module, str(place), str(theirs.fileno())]
            super().__init__(program, core, keep=[theirs.fileno()])
        self._control = ours
        self._answers = ours.makefile("rb")

    def end(self) -> None:
        """Let all guests vanish, and stop."""
        with contextlib.suppress(OSError, Gone, subprocess.TimeoutExpired):
            self.ask("stop")
            self.wait()
        self._answers.close()
        self._control.close()
        super().end()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Let it do something, and return what it says.

        :raises Gone: it has ended.
        """
        self._control.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise Gone("the fleet ended; what is wrong stands above")
        return json.loads(line)


class Host(Process):
    """A host, be it the daemon or the floor, for the ports below *ports*."""

    #: The file that appears when it is ready.
    control: Path

    def until(self, condition: Callable[[], bool], every: float = 0.02) -> float:
        """Wait for *condition*; seconds since the process was started.

        :raises Gone: it has ended, or the condition has not come true in time.
        """
        while not condition():
            self.check()
            if time.monotonic() - self.began > GIVE_UP:
                raise Gone(f"what was waited for did not come within {GIVE_UP:g} s")
            time.sleep(every)
        return time.monotonic() - self.began

    def until_ready(self) -> float:
        """Wait until it has started; seconds since the process was started."""
        return self.until(self.control.exists, every=0.001)


class Daemon(Host):
    """The real daemon, as it is started by hand with a configuration file.

    :param settings: lines of the configuration's section ``[host]``, beyond those that say where things are.
    :param profile: where cProfile leaves what it saw; it then runs under it.
    """

    def __init__(
        self,
        place: Path,
        core: int,
        *,
        settings: Sequence[str] = (),
        environment: Optional[Mapping[str, str]] = None,
        profile: Optional[Path] = None,
    ) -> None:
        self.control = place / "control.sock"
        self.log = place / "daemon.log"
        configuration = place / "host.conf"
        lines = ["[host]", f"directory = {place / 'ports'}", f"control = {self.control}", *settings]
        configuration.write_text("\n".join((*lines, "")), encoding="utf-8")
        wrapped = ["-m", "cProfile", "-o", str(profile)] if profile else []
        arguments = [*wrapped, "-m", "host_agent.main", "--config", str(configuration)]
        super().__init__(arguments, core, environment=environment, log=self.log)


class Floor(Host):
    """The floor."""

    def __init__(self, place: Path, core: int) -> None:
        self.control = place / "floor.ready"
        self.control.unlink(missing_ok=True)
        super().__init__(["-m", "tests.bench.floor", str(place / "ports"), str(self.control)], core)


def _clock_of(pid: int) -> int:
    """The clock that counts the CPU time of process *pid*, to the nanosecond."""
    clock = ctypes.c_int()
    error = _libc.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return clock.value


def _field(pid: int, file: str, name: str) -> int:
    text = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii")
    return int(re.findall(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[0])
