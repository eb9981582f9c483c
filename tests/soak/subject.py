"""The daemon under test: a process that is reloaded, stopped and killed, and what the system and its log say of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from host_agent.client import Client, ClientError
from tests.bench import processes
from tests.bench.processes import Gone

from .ledger import End

#: What is waited for and has not come after so many seconds does not come.
PATIENCE = 120.0

#: Seconds between two looks.
_PAUSE = 0.02

#: The C library gives back what is free, so that what the daemon has in memory is what it uses.
_ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}

#: What no line of the log may have. What guests say of themselves has none of it.
_FORBIDDEN = re.compile(
    r"unexpected error|Traceback|never retrieved|never awaited|Exception ignored|Task was destroyed|Fatal"
)

_COUNTER = re.compile(r"^vmaccord_(\w+) ([0-9.e+]+)$", re.MULTILINE)


class Level(NamedTuple):
    """What the daemon takes.

    :ivar run: the identity of the run.
    :ivar resident: KiB.
    """

    run: str
    descriptors: int
    threads: int
    resident: int


class _Daemon(processes.Daemon):
    """The process."""

    @property
    def number(self) -> int:
        """Its number."""
        return self._process.pid

    def send(self, what: int) -> None:
        """Send it a signal."""
        self._process.send_signal(what)

    def status(self) -> int:
        """What it ended with; waits for that."""
        return self._process.wait(processes.GIVE_UP)


class Subject:
    """The daemon, whichever process it is at present; it is not started yet.

    :param place: where its files are, and the directory ``ports``.
    :param core: of the processor.
    :param settings: lines of its configuration.
    :ivar maximum: the highest version that it is told to support.
    """

    def __init__(self, place: Path, core: int, settings: Sequence[str]) -> None:
        self.control = place / "control.sock"
        self.client = Client(str(self.control))
        self.maximum: Optional[int] = 3
        self.ends: list[End] = []
        self.faults: list[str] = []
        self.run = ""
        self._place = place
        self._core = core
        self._settings = settings
        self._daemon: Optional[_Daemon] = None
        self._down_since: Optional[float] = None
        self._log = place / "daemon.log"
        self._log_read = 0
        self.log_lines = 0
        self.log_bytes = 0
        self._dropped_in = place / "host.conf.d" / "soak.conf"
        self._dropped_in.parent.mkdir()

    @property
    def number(self) -> int:
        """The number of its process."""
        return self._running.number

    @property
    def _running(self) -> _Daemon:
        assert self._daemon is not None, "the daemon was not started"
        return self._daemon

    # ---- Start and end ----

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._write_maximum()
        self._daemon = _Daemon(self._place, self._core, settings=self._settings, environment=_ALLOCATOR)
        self.wait_for("the daemon to answer", self._has_new_run)

    def stop(self) -> float:
        """Have it stop; seconds that it took."""
        began = self._down_since = time.monotonic()
        self._running.send(signal.SIGTERM)
        status = self._running.status()
        if status:
            self.faults.append(f"the daemon was told to stop and ended with status {status}")
        return time.monotonic() - began

    def kill(self) -> None:
        """End it without warning."""
        self._down_since = time.monotonic()
        self._running.send(signal.SIGKILL)
        self._running.status()

    def start_again(self, clean: bool) -> End:
        """Start it after ``stop`` or ``kill``; in which time it was down.

        :param clean: whether it could save everything.
        """
        assert self._down_since is not None, "the daemon has not been stopped"
        down_at = self._down_since
        self.start()
        self._down_since = None
        end = End(down_at, time.monotonic(), clean)
        self.ends.append(end)
        return end

    def end(self) -> None:
        """End it for good."""
        if self._daemon is not None:
            self._daemon.end()

    def is_down(self, since: float) -> bool:
        """Whether it is down, or was at some time after *since*."""
        return self._down_since is not None or any(each.up_at >= since for each in self.ends[-5:])

    # ---- Configuration ----

    def reload(self, maximum: Optional[int]) -> None:
        """Have it support another version at most."""
        self.maximum = maximum
        self._write_maximum()
        self._running.send(signal.SIGHUP)

    def reload_in_error(self) -> None:
        """Have it read a configuration that is wrong, and wait until it has said so."""
        self._dropped_in.write_text("[host]\nno-such-key = 1\n", encoding="utf-8")
        said = self._said("the configuration stays as it was")
        self._running.send(signal.SIGHUP)
        self.wait_for(
            "the daemon to refuse its configuration", lambda: self._said("the configuration stays as it was") > said
        )
        self.reload(self.maximum)

    def _write_maximum(self) -> None:
        written = "none" if self.maximum is None else str(self.maximum)
        new = self._dropped_in.with_suffix(".new")
        new.write_text(f"[host]\nmax-api-version = {written}\n", encoding="utf-8")
        new.replace(self._dropped_in)

    def _said(self, text: str) -> int:
        return self._log.read_bytes().count(text.encode())

    # ---- What can be seen ----

    def wait_for(self, what: str, condition: Any, patience: float = PATIENCE) -> None:
        """Wait until *condition* holds.

        :raises Gone: it does not come true, or the daemon has ended.
        """
        until = time.monotonic() + patience
        while not condition():
            self._running.check()
            if time.monotonic() > until:
                raise Gone(f"waited for {what} for {patience:g} s")
            time.sleep(_PAUSE)

    def host(self) -> Optional[dict[str, Any]]:
        """What it says of itself; None: it does not answer."""
        with contextlib.suppress(ClientError):
            return self.client.host()
        return None

    def level(self) -> Level:
        """What it takes now."""
        place = f"/proc/{self.number}"
        status = Path(place, "status").read_text(encoding="ascii")
        threads, resident = (int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in ("Threads", "VmRSS"))
        return Level(self.run, len(os.listdir(f"{place}/fd")), threads, resident)

    def counters(self) -> dict[str, float]:
        """Its metrics that have no labels, by name."""
        return {name: float(value) for name, value in _COUNTER.findall(self.client.metrics())}

    def read_log(self) -> Iterator[str]:
        """The lines since the last call that must not be; all are counted."""
        with self._log.open("rb") as file:
            file.seek(self._log_read)
            for line in file:
                self._log_read += len(line)
                self.log_bytes += len(line)
                self.log_lines += 1
                text = line.decode("utf-8", "replace").rstrip()
                if _FORBIDDEN.search(text):
                    yield text

    def log_tail(self, lines: int = 30) -> str:
        """The end of its log, for people."""
        if not self._log.exists():
            return ""
        said = self._log.read_bytes()[-50_000:].decode("utf-8", "replace").splitlines()
        return "\n".join(said[-lines:])

    def _has_new_run(self) -> bool:
        host = self.host()
        if host is None or host["host_id"] == self.run:
            return False
        self.run = host["host_id"]
        return True


class Disk:
    """A small file system of its own at *place*, or only a directory where none can be mounted."""

    def __init__(self, place: Path, size: int) -> None:
        self.place = place
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "soak", str(place)], check=False, capture_output=True
        )
        self.can_be_full = done.returncode == 0
        self.full = False

    def fill(self) -> None:
        """Leave no room, where it is a file system of its own."""
        if not self.can_be_full:
            return
        self.full = True
        with (self.place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def free(self) -> None:
        """Give the room back."""
        (self.place / "filler").unlink(missing_ok=True)
        self.full = False

    def close(self) -> None:
        """Unmount it."""
        if self.can_be_full:
            subprocess.run(["umount", "--lazy", str(self.place)], check=False)
