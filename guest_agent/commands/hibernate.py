"""hibernate: the guest is suspended to disk or to memory.

Where systemd runs, by systemctl, which lets services and programs prepare for it and finds the way to pid 1 also without a
bus. Elsewhere the kernel is asked directly; it answers when the guest has woken up again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import Hibernate
from guest_agent import processes

from . import CommandFailed, Machine

#: What exists where systemd runs, relative to the root.
SYSTEMD = "run/systemd/system"

#: What the kernel offers, and where it is told; relative to the root.
STATES = "sys/power/state"

#: By the command's argument, which is also the kernel's word: what systemctl calls it.
_VERBS = {"disk": "hibernate", "mem": "suspend"}


def available(machine: Machine) -> Optional[str]:
    """None where the kernel offers a state, and systemctl is there if systemd is."""
    if not _offered(machine).intersection(_VERBS):
        return f"the kernel offers neither disk nor mem in /{STATES}; give the VM these states"
    if _has_systemd(machine) and processes.find("systemctl", machine.root) is None:
        return "systemctl is not installed; install it"
    return None


def run(machine: Machine, message: Hibernate) -> Mapping[str, Any]:
    """Suspend the guest.

    :raises CommandFailed: the kernel does not offer that, or it did not work.
    """
    if message.state not in _offered(machine):
        raise CommandFailed(f"the kernel does not offer {message.state} in /{STATES}; give the VM that state")
    if _has_systemd(machine):
        _run_systemctl(machine, _VERBS[message.state])
    else:
        with open(os.path.join(machine.root, STATES), "w", encoding="ascii") as file:
            file.write(message.state)
    return {}


def _run_systemctl(machine: Machine, verb: str) -> None:
    finished = machine.run(["systemctl", verb], deadline=machine.deadline)
    if finished.status != 0:
        raise CommandFailed(": ".join((f"systemctl {verb} {finished.how}", *processes.first_lines(finished.output)[:1])))


def _has_systemd(machine: Machine) -> bool:
    return os.path.isdir(os.path.join(machine.root, SYSTEMD))


def _offered(machine: Machine) -> frozenset[str]:
    try:
        with open(os.path.join(machine.root, STATES), encoding="ascii", errors="replace") as file:
            return frozenset(file.read(4096).split())
    except OSError:
        return frozenset()
