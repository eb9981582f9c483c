"""Putting the machine to sleep, for the commands that do.

Where systemd runs, by systemctl, which lets services and programs prepare for it and finds the way to pid 1 also without a
bus. Elsewhere the kernel is asked directly; it answers when the machine has woken up again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple, Optional

from guest_agent import processes
from guest_agent.collectors.files import read_optional

from . import CommandFailed, Machine

#: What exists where systemd runs, relative to the root.
SYSTEMD = "run/systemd/system"

#: Which states the kernel offers, and where it is told to enter one; relative to the root.
STATES = "sys/power/state"

#: What the kernel can do when it has written the memory to disk, the chosen one in brackets; relative to the root.
AFTERWARDS = "sys/power/disk"


class Sleep(NamedTuple):
    """A way to sleep.

    :ivar verb: what systemctl calls it.
    :ivar state: the kernel's state.
    :ivar afterwards: what the kernel does when the memory is on disk; None: what is chosen already, or nothing is written.
    """

    verb: str
    state: str
    afterwards: Optional[str] = None


MEMORY = Sleep("suspend", "mem")
DISK = Sleep("hibernate", "disk")
#: The memory is on disk as well, should the power fail.
HYBRID = Sleep("hybrid-sleep", "disk", "suspend")


def available(machine: Machine) -> Optional[str]:
    """None where the kernel offers a state, and systemctl is there if systemd is."""
    if not _words(machine, STATES) & {MEMORY.state, DISK.state}:
        return f"the kernel offers neither disk nor mem in /{STATES}; give the VM these states"
    if _has_systemd(machine) and processes.find("systemctl", machine.root) is None:
        return "systemctl is not installed; install it"
    return None


def fall_asleep(machine: Machine, sleep: Sleep) -> None:
    """Have the machine sleep.

    :raises CommandFailed: the kernel does not offer that, or it did not work.
    """
    _require(machine, STATES, sleep.state)
    if sleep.afterwards is not None:
        _require(machine, AFTERWARDS, sleep.afterwards)
    if _has_systemd(machine):
        _run_systemctl(machine, sleep.verb)
        return
    with _chosen(machine, sleep.afterwards):
        _write(machine, STATES, sleep.state)


def _require(machine: Machine, path: str, word: str) -> None:
    if word not in _words(machine, path):
        raise CommandFailed(f"the kernel does not offer {word} in /{path}; give the VM that state")


@contextlib.contextmanager
def _chosen(machine: Machine, afterwards: Optional[str]) -> Iterator[None]:
    """What the kernel does when the memory is on disk is *afterwards*, for as long as this lasts."""
    words = read_optional(machine.root, AFTERWARDS).split()
    before = [word.strip("[]") for word in words if word.startswith("[")]
    if afterwards is None or before == [afterwards]:
        yield
        return
    _write(machine, AFTERWARDS, afterwards)
    try:
        yield
    finally:
        for word in before:
            _write(machine, AFTERWARDS, word)


def _run_systemctl(machine: Machine, verb: str) -> None:
    finished = machine.run(["systemctl", verb], deadline=machine.deadline)
    if finished.status != 0:
        raise CommandFailed(": ".join((f"systemctl {verb} {finished.how}", *processes.first_lines(finished.output)[:1])))


def _has_systemd(machine: Machine) -> bool:
    return os.path.isdir(os.path.join(machine.root, SYSTEMD))


def _words(machine: Machine, path: str) -> frozenset[str]:
    return frozenset(word.strip("[]") for word in read_optional(machine.root, path).split())


def _write(machine: Machine, path: str, word: str) -> None:
    """Tell the kernel *word*.

    :raises CommandFailed: it does not take it.
    """
    try:
        with open(os.path.join(machine.root, path), "w", encoding="ascii") as file:
            file.write(word)
    except OSError as error:
        raise CommandFailed(f"the kernel refuses {word} in /{path}: {error.strerror}") from None
