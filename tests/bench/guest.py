"""What the guest agent costs a guest, measured from /proc beside a bare Python interpreter in the same run.

The agent runs as a package installs it (byte-compiled, ``python3 -I``), at default periods, on a pty whose other end is a
host that agrees at the highest version. First it is started a few times; then one run is watched for as long as asked for,
from when all collectors have run; then the host leaves, and the agent is watched without it.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common import catalogue, codec, versions
from common.framing import LineSplitter
from common.session import HostSession

ROOT = Path(__file__).resolve().parent.parent.parent

#: How often the time from start to first heartbeat is measured.
STARTS = 5

#: Seconds after which a run is given up.
GIVE_UP = 60.0

_LAUNCHER = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from guest_agent.main import main
sys.exit(main())
"""

_BARE = "import time; time.sleep(3600)"

#: What ``--check`` would call reached; the agent that this one replaces: 14.1 MB resident, 60 wake-ups a minute and more.
TARGETS = {"memory": "≤ 6 MiB more", "wake-ups": "≤ 15", "start": "≤ 0.5 s"}


class Usage(NamedTuple):
    """What a process has used so far.

    :ivar resident: KiB.
    :ivar switches: how often it went to sleep by itself, so how often it was woken.
    :ivar cpu: seconds, with those of its children that have ended.
    """

    resident: int
    switches: int
    cpu: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Of the process *pid*, as the kernel counts it."""
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        resident, switches = (
            int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in ("VmRSS", "voluntary_ctxt_switches")
        )
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:15]
        return cls(resident, switches, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))


class Run:
    """One run of the agent, and the host at the other end of its port."""

    def __init__(self, installed: Path) -> None:
        self._host, port = os.openpty()
        tty.setraw(port)
        os.set_blocking(self._host, False)
        self.began = time.monotonic()
        self._session = HostSession(versions.newest(), "bench")
        self._session.connected(self.began)
        self._splitter = LineSplitter()
        self.heard: set[str] = set()
        arguments = ["--config", os.devnull, "--log-level", "warning", "--port", os.ttyname(port)]
        self._agent = subprocess.Popen([sys.executable, "-I", "-c", _LAUNCHER, str(installed), *arguments])
        self._port = port

    @property
    def pid(self) -> int:
        """Of the agent."""
        return self._agent.pid

    def until(self, *names: str) -> float:
        """Play the host until all of *names* have been heard; seconds since the agent was started."""
        while not self.heard.issuperset(names):
            self.play(0.1)
            if time.monotonic() - self.began > GIVE_UP:
                sys.exit(f"the agent did not send {', '.join(set(names) - self.heard)} within {GIVE_UP:g} s")
        return time.monotonic() - self.began

    def play(self, seconds: float) -> None:
        """Play the host for a while; returns early when something came in."""
        os.write(self._host, self._session.data_to_send())
        if select.select([self._host], [], [], seconds)[0]:
            data = os.read(self._host, 65536)
            self._session.receive_data(data, time.monotonic())
            self.heard.update(codec.decode(line)[0] for line in self._splitter.feed(data) if isinstance(line, bytes))
        self._session.tick(time.monotonic())
        for _ in self._session.events():
            pass

    def end(self) -> None:
        """Stop the agent."""
        self._agent.terminate()
        self._agent.wait()
        os.close(self._host)
        os.close(self._port)


def main(arguments: Sequence[str] = sys.argv[1:]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="make bench-guest", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=130.0, help="how long to watch the agent (default: %(default)g)")
    watched = parser.parse_args(arguments).seconds
    with tempfile.TemporaryDirectory() as directory:
        installed = _install(Path(directory))
        print(f"{STARTS} starts ...", flush=True)
        starts = [_start(installed) for _ in range(STARTS)]
        bare = _bare()
        print(f"watching for {watched:g} s with a host ...", flush=True)
        rows = _watch(installed, watched, bare)
    rows.append(("start to first heartbeat, median", f"{statistics.median(starts):.2f} s", TARGETS["start"]))
    print(f"\nPython {sys.version.split()[0]}, agent with a host at default periods, all collectors run\n")
    for name, figure, target in rows:
        print(f"  {name:40} {figure:>16}   {target}".rstrip())


def _install(directory: Path) -> Path:
    for package in ("common", "guest_agent"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(directory, quiet=1)
    return directory


def _start(installed: Path) -> float:
    run = Run(installed)
    seconds = run.until("heartbeat")
    run.end()
    return seconds


def _bare() -> int:
    """What a Python that does nothing has resident, in KiB."""
    python = subprocess.Popen([sys.executable, "-I", "-c", _BARE])
    try:
        before = -1
        while before != (now := Usage.of(python.pid).resident) or not now:
            before = now
            time.sleep(0.5)
        return now
    finally:
        python.kill()
        python.wait()


def _watch(installed: Path, seconds: float, bare: int) -> list[tuple[str, str, str]]:
    run = Run(installed)
    run.until(*catalogue.CATALOGUE.facts(up_to=versions.newest()), "heartbeat")
    began, before = time.monotonic(), Usage.of(run.pid)
    while time.monotonic() - began < seconds:
        run.play(seconds / 100)
    minutes = (time.monotonic() - began) / 60
    after = Usage.of(run.pid)
    run.end()
    return [
        ("resident, bare interpreter", f"{bare / 1024:.1f} MiB", ""),
        ("resident, agent", f"{after.resident / 1024:.1f} MiB", ""),
        ("resident, agent above bare interpreter", f"{(after.resident - bare) / 1024:.1f} MiB", TARGETS["memory"]),
        ("wake-ups a minute", f"{(after.switches - before.switches) / minutes:.1f}", TARGETS["wake-ups"]),
        ("CPU seconds an hour, collecting included", f"{(after.cpu - before.cpu) / minutes * 60:.1f}", ""),
    ]


if __name__ == "__main__":
    main()
