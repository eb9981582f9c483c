"""Asking logind (or elogind) to do something, over the system bus.

Asked over D-Bus and not by loginctl, because only there a shutdown can be set to the second, and because a session's
properties come as what they are and not as text.
"""

from __future__ import annotations

import os
from typing import Any, Optional

from guest_agent import bus
from guest_agent.logind import BUS, MANAGER, SEATS, SERVICE

from . import CommandFailed, Machine


class Refused(CommandFailed):
    """logind answers with an error, whose D-Bus name is *error*."""

    def __init__(self, method: str, refusal: bus.Refused) -> None:
        super().__init__(f"logind refuses {method}: {refusal.why or refusal.error}")
        self.error = refusal.error


def available(machine: Machine) -> Optional[str]:
    """Why logind can't be asked, in a sentence; None where it can."""
    if not os.path.exists(os.path.join(machine.root, BUS)):
        return f"this machine has no system bus (/{BUS}); install and start D-Bus and logind"
    if not os.path.exists(os.path.join(machine.root, SEATS)):
        return f"logind does not run on this machine (there is no /{SEATS}); install and start it"
    return None


class Logind:
    """A connection to logind; a context that closes it.

    :param deadline: seconds that all that is done with it may take.
    :raises CommandFailed: the bus can't be reached.
    """

    def __init__(self, machine: Machine, deadline: float) -> None:
        try:
            self._bus = bus.Bus(os.path.join(machine.root, BUS), deadline)
        except (OSError, bus.Refused) as error:
            raise _unreachable(error) from None

    def __enter__(self) -> Logind:
        """The connection stands already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._bus.close()

    def call(self, method: str, signature: Optional[str] = None, *arguments: Any) -> tuple[Any, ...]:
        """What logind returns for *method* of its manager.

        :raises Refused: it answers with an error.
        :raises CommandFailed: it does not answer.
        """
        return self._ask(MANAGER, f"{SERVICE}.Manager", method, signature, *arguments)

    def session_property(self, path: str, name: str) -> Any:
        """The value of a property of the session at *path*.

        :raises Refused: logind answers with an error.
        :raises CommandFailed: it does not answer.
        """
        ((_, value),) = self._ask(path, bus.PROPERTIES, "Get", "ss", f"{SERVICE}.Session", name)
        return value

    def _ask(self, path: str, interface: str, method: str, signature: Optional[str], *arguments: Any) -> tuple[Any, ...]:
        try:
            return self._bus.call(SERVICE, path, interface, method, signature, *arguments)
        except bus.Refused as refusal:
            raise Refused(method, refusal) from None
        except OSError as error:
            raise _unreachable(error) from None


def _unreachable(error: Exception) -> CommandFailed:
    why = error.strerror if isinstance(error, OSError) else None
    return CommandFailed(f"logind can't be asked, over /{BUS}: {why or error}")
