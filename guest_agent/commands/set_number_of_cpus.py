"""set-number-of-cpus: the kernel brings CPUs on- or offline.

Those with the lowest numbers are online afterwards. A CPU without a switch, as the first one usually is, stays online
whatever is asked for, and at least one always does. Of what can't be done, as much is done as can be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import SetNumberOfCpus

from . import CommandFailed, Machine

#: Where the kernel shows its CPUs, relative to the root.
CPUS = "sys/devices/system/cpu"

_CPU = re.compile(r"cpu([0-9]{1,6})", re.ASCII)


def available(machine: Machine) -> Optional[str]:
    """None where a CPU can be switched."""
    switches = [path for number in _numbers(machine) if os.path.exists(path := _switch(machine, number))]
    if not switches:
        return f"no CPU of this machine can be switched (there is no /{CPUS}/cpu*/online)"
    if not any(os.access(path, os.W_OK) for path in switches):
        return f"/{CPUS} can't be written to; run the agent as root, with /sys writable"
    return None


def run(machine: Machine, message: SetNumberOfCpus) -> Mapping[str, Any]:
    """Have as many CPUs online as is asked for.

    :raises CommandFailed: there are not as many, or they can't be switched.
    """
    numbers = _numbers(machine)
    if not numbers:
        raise CommandFailed(f"the kernel shows no CPUs in /{CPUS}")
    switchable = [number for number in numbers if os.path.exists(_switch(machine, number))]
    fixed = len(numbers) - len(switchable)
    wanted = max(message.count, 1) - fixed
    on, off = switchable[: max(wanted, 0)], switchable[max(wanted, 0) :]
    for number in on:
        _turn(machine, number, "1")
    for number in reversed(off):
        _turn(machine, number, "0")
    if wanted > len(switchable):
        raise CommandFailed(f"this guest has {len(numbers)} CPUs, all of which are online; give the VM more of them")
    if wanted < 0:
        raise CommandFailed(f"{fixed} CPUs of this guest can't be switched off; ask for no fewer")
    return {}


def _numbers(machine: Machine) -> list[int]:
    try:
        names = os.listdir(os.path.join(machine.root, CPUS))
    except OSError:
        return []
    return sorted(int(match[1]) for match in map(_CPU.fullmatch, names) if match)


def _switch(machine: Machine, number: int) -> str:
    return os.path.join(machine.root, CPUS, f"cpu{number}", "online")


def _turn(machine: Machine, number: int, state: str) -> None:
    """Bring a CPU into *state*, unless it is in it.

    :raises CommandFailed: the kernel refuses.
    """
    try:
        with open(_switch(machine, number), "r+", encoding="ascii") as switch:
            if switch.read(1) != state:
                switch.seek(0)
                switch.write(state)
    except OSError as error:
        wish = "online" if state == "1" else "offline"
        raise CommandFailed(f"the kernel does not bring CPU {number} {wish}: {error.strerror}") from None
