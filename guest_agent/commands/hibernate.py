"""hibernate: the guest is suspended to disk or to memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from common.messages import Hibernate

from . import Machine, sleeping

_SLEEPS = {"disk": sleeping.DISK, "mem": sleeping.MEMORY}


def available(machine: Machine) -> Optional[str]:
    """None where the guest can sleep in one of these ways."""
    return sleeping.available(machine)


def run(machine: Machine, message: Hibernate) -> Mapping[str, Any]:
    """Suspend the guest.

    :raises CommandFailed: the kernel does not offer that, or it did not work.
    """
    sleeping.fall_asleep(machine, _SLEEPS[message.state])
    return {}
