"""lock-screen: logind tells every session to lock its screen. What has no screen to lock does not listen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.messages import LockScreen

from . import Machine
from .logind import Logind, available

__all__ = ["available", "run"]


def run(machine: Machine, message: LockScreen) -> Mapping[str, Any]:
    """Lock the screens of all sessions."""
    with Logind(machine, machine.deadline) as logind:
        logind.call("LockSessions")
    return {}
