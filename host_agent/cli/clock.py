"""``vmaccord set-time``: a guest's clock, which stood still while the guest did: suspended, migrated, or in a file."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from host_agent.client import Answer, Client

from . import sending, views

_COMMAND = "set-time"


def set_time(
    client: Client,
    guest: str,
    from_hardware: bool,
    timeout: Optional[float],
    as_json: bool,
    now: Callable[[], int] = time.time_ns,
) -> None:
    """Set the clock of *guest* to that of this host, or from the guest's hardware clock.

    :param timeout: seconds within which the guest must answer; None: the usual time.
    :param now: this host's clock, in nanoseconds since the epoch.
    :raises ClientError: it was not carried out.
    :raises GuestFailed: the guest says that it could not do it.
    """
    arguments = {} if from_hardware else {"epoch_ns": now()}
    sending.tell(client.send(guest, _COMMAND, arguments, timeout), _text, as_json)


def _text(answer: Answer) -> str:
    said = answer.result
    also = ", and the hardware clock" if said.get("hardware_clock") is True else ""
    return f"{views.name(answer.guest)}: clock set{also}; {_jump(said.get('step_ns'))}"


def _jump(step_ns: Any) -> str:
    if type(step_ns) is not int:
        return "it does not say by how much it was wrong"
    return f"it was {abs(step_ns) / 1e9:.3f} s {'slow' if step_ns >= 0 else 'fast'}"
