"""log-off: the user at the console is logged off.

A host sends it when nobody looks at the VM's console any more, so it means the sessions that are in the foreground of a
seat, graphical or text. Sessions over the network, those in the background and the login screen itself stay. With nobody
logged in there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common.messages import LogOff
from guest_agent.logind import GONE

from . import Machine
from .logind import Logind, Refused, available

__all__ = ["available", "run"]


def run(machine: Machine, message: LogOff) -> Mapping[str, Any]:
    """End the sessions in the foreground."""
    with Logind(machine, machine.deadline) as logind:
        for identifier in list(_in_foreground(logind)):
            _end(logind, identifier)
    return {}


def _in_foreground(logind: Logind) -> Iterator[str]:
    (sessions,) = logind.call("ListSessions")
    for identifier, _, _, seat, path in sessions:
        if seat and _is_in_foreground(logind, path):
            yield identifier


def _is_in_foreground(logind: Logind, path: str) -> bool:
    try:
        return logind.session_property(path, "Active") is True and logind.session_property(path, "Class") == "user"
    except Refused as refusal:
        if refusal.error in GONE:
            return False
        raise


def _end(logind: Logind, identifier: str) -> None:
    try:
        logind.call("TerminateSession", "s", identifier)
    except Refused as refusal:
        if refusal.error not in GONE:
            raise
