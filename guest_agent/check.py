"""``vmaccord-guest --check``: what works on this machine and what does not, and why.

It looks at the ports, collects each fact once, and asks each command whether it could be carried out. Nothing is carried
out, and no host is told anything. What may hang is done by a worker, as the agent does it.
"""

from __future__ import annotations

import os
import selectors
import stat
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

from . import facts, port, processes
from .collectors import Slow, Sources
from .commands import COMMANDS, Machine, dangerous
from .config import Configuration
from .crew import GRACE, Crew
from .exits import Exit
from .schedule import NEVER
from .surroundings import Surroundings

#: How our own agent is started: by its name, maybe after its interpreter's, or as a module.
_OUR_NAME = "vmaccord-guest"
_OUR_MODULE = ("-m", "guest_agent.main")

_WORKS = "works"


class Finding(NamedTuple):
    """One line of the answer: what was looked at, whether it works, and why not."""

    kind: str
    name: str
    verdict: str
    why: str = ""


class Holder(NamedTuple):
    """A program that has the port open."""

    pid: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' '.join(self.words).strip() or 'a program'} (process {self.pid})"

    @property
    def ours(self) -> bool:
        """Whether it is our own agent."""
        named = (os.path.basename(word) for word in self.words[:2])
        return _OUR_NAME in named or _OUR_MODULE in zip(self.words, self.words[1:])


def check(
    configuration: Configuration, surroundings: Surroundings, say: Callable[[str], object] = print, root: str = "/"
) -> Exit:
    """Say what works and what does not.

    :param say: takes one line.
    :returns: whether the agent could talk to a host from here.
    """
    status, findings = ports(configuration, root)
    findings += _facts(configuration, surroundings.sources(configuration, lambda: None))
    findings += _commands(configuration, surroundings.machine(configuration))
    widths = [max(len(finding[column]) for finding in findings) for column in range(3)]
    for finding in findings:
        cells = (cell.ljust(width) for cell, width in zip(finding, widths))
        say("  ".join((*cells, processes.one_line(finding.why))).rstrip())
    return status


# ---- The ports ----


def ports(configuration: Configuration, root: str = "/") -> tuple[Exit, list[Finding]]:
    """What the configured ports are like; only the first that exists counts."""
    findings = []
    for path in configuration.port:
        try:
            found = port.find([path])
        except port.PortMissing:
            findings.append(Finding("port", path, "missing", "it does not exist"))
            continue
        status, finding = _port(path, found, root)
        return status, [*findings, finding]
    return Exit.NO_PORT, findings


def _port(path: str, found: str, root: str) -> tuple[Exit, Finding]:
    """*path*, which leads to the device *found*.

    One that others have open without a lock, as a terminal's login program has, can be used: the agent would run. It would
    miss what the others read, though; so the verdict is *shared*, and the status OK.
    """
    busy = False
    try:
        port.open_port(found).close()
    except port.PortBusy:
        busy = True
    except port.PortMissing as error:
        return Exit.NO_PORT, Finding("port", path, "missing", str(error))
    except port.PortUnusable as error:
        return Exit.PORT_UNUSABLE, Finding("port", path, "fails", str(error))
    holders = list(_holders(found, root))
    names = ", ".join(map(str, holders))
    if any(holder.ours for holder in holders):
        return Exit.OK, Finding("port", path, _WORKS, f"held by {names}")
    if busy:
        return Exit.PORT_UNUSABLE, Finding("port", path, "held", f"by {names or 'another program'}: stop that one")
    if holders:
        return Exit.OK, Finding("port", path, "shared", f"also open in {names}: two programs would read it; stop that one")
    return Exit.OK, Finding("port", path, _WORKS)


def _holders(device: str, root: str) -> Iterator[Holder]:
    """The programs that have *device* open, as far as this user may see them."""
    try:
        number = os.stat(device).st_rdev
    except OSError:
        return
    processes = os.path.join(root, "proc")
    for pid in sorted(filter(str.isdigit, os.listdir(processes)), key=int):
        if pid != str(os.getpid()) and _has_open(os.path.join(processes, pid, "fd"), number):
            yield Holder(int(pid), _command_line(os.path.join(processes, pid, "cmdline")))


def _has_open(descriptors: str, number: int) -> bool:
    try:
        return any(_is_device(os.path.join(descriptors, each), number) for each in os.listdir(descriptors))
    except OSError:
        return False


def _is_device(path: str, number: int) -> bool:
    """Whether the descriptor at *path* is of that device; files that are no devices are not touched: their disk may hang."""
    try:
        if not os.readlink(path).startswith("/dev/"):
            return False
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == number


def _command_line(path: str) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            return tuple(file.read(port.READ_SIZE).decode("utf-8", "replace").split("\0"))
    except OSError:
        return ()


# ---- Facts and commands ----


def _facts(configuration: Configuration, sources: Sources) -> Iterator[Finding]:
    for name, period in configuration.periods.items():
        if period == NEVER:
            yield Finding("fact", name, "off", "its period in the configuration is never")
            continue
        collect = sources.quick.get(name) or sources.slow[name]
        problem = _problem(name, collect)
        yield Finding("fact", name, _WORKS if problem is None else "fails", problem or "")


def _problem(name: str, collect: Slow) -> Optional[str]:
    """What goes wrong when a worker collects *name*."""
    clock = time.monotonic
    problems: list[Optional[str]] = []
    with selectors.DefaultSelector() as selector:
        crew = Crew(selector)
        crew.start(
            facts.collecting(collect),
            patience=facts.PATIENCE,
            now=clock(),
            reported=lambda report: problems.append(report[0]),
            ended=lambda problem: problems.append(f"collecting it {problem}"),
        )
        while not problems:
            selector.select(crew.next_deadline() - clock())
            crew.advance(clock())
        crew.close(GRACE, clock)
    return problems[0]


def _commands(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    turned_off = dangerous().difference(configuration.commands_block)
    for name, command in COMMANDS.items():
        if name in configuration.permitted:
            why_not = command.available(machine)
            yield Finding("command", name, _WORKS if why_not is None else "fails", why_not or "")
        elif name in turned_off:
            yield Finding("command", name, "off", "it gives the host power over all of this VM; to turn it on, enable it")
        else:
            yield Finding("command", name, "blocked", "the configuration forbids it")
