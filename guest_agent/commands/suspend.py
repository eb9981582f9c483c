"""suspend: the guest is suspended to memory, to disk, or to both, so that it wakes up fast and survives a loss of power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from common.messages import Suspend

from . import Machine, sleeping

_SLEEPS = {"memory": sleeping.MEMORY, "disk": sleeping.DISK, "hybrid": sleeping.HYBRID}


def available(machine: Machine) -> Optional[str]:
    """None where the guest can sleep in one of these ways."""
    return sleeping.available(machine)


def run(machine: Machine, message: Suspend) -> Mapping[str, Any]:
    """Suspend the guest.

    :raises CommandFailed: the kernel does not offer that, or it did not work.
    """
    sleeping.fall_asleep(machine, _SLEEPS[message.mode])
    return {}
