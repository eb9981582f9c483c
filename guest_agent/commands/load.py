"""load: how much the guest has to do, as averages over 1, 5 and 15 minutes of the tasks that run or wait for a disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import Load
from guest_agent.collectors import cpus, files

from . import CommandFailed, Machine

_AVERAGES = "proc/loadavg"

_AVERAGE = r"([0-9]{1,9}\.[0-9]{1,9}) "
_BEGINNING = re.compile(_AVERAGE * 3, re.ASCII)


def available(machine: Machine) -> Optional[str]:
    """None where the kernel tells."""
    try:
        _averages(machine)
    except CommandFailed as failure:
        return str(failure)
    return None


def run(machine: Machine, message: Load) -> Mapping[str, Any]:
    """The load averages, and how many CPUs are online, by which they can be judged; -1 where the kernel does not say.

    :raises CommandFailed: the kernel does not tell the averages.
    """
    return {"load": _averages(machine), "cpus": cpus.number_of_cpus(machine.root).count}


def _averages(machine: Machine) -> list[float]:
    try:
        found = _BEGINNING.match(files.read_text(machine.root, _AVERAGES))
    except OSError as error:
        raise CommandFailed(f"/{_AVERAGES}: {error.strerror}; mount /proc") from None
    if found is None:
        raise CommandFailed(f"/{_AVERAGES} has no load averages; mount the kernel's own /proc")
    return [float(average) for average in found.groups()]
