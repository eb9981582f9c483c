"""Why a guest can't be sent a command now, and what to do about it, in one sentence: as the daemon says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from common import catalogue


def obstacle(guest: Mapping[str, Any], command: catalogue.Row) -> Optional[str]:
    """Why *command* can't be sent to *guest* now; None: it can.

    :param guest: its description by the control API.
    """
    name, state = guest["name"], guest["channel"]["state"]
    if state in ("absent", "connecting"):
        what = "no port on this host" if state == "absent" else "nobody answers on its port"
        return f"{name} is not connected ({what}): start it, or see 'vmaccord doctor {name}'"
    if state != "responsive":
        return f"{name} is silent: start vmaccord-guest-agent in it, or see 'vmaccord doctor {name}'"
    return None if command.since <= guest["api"]["agreed"] else version_too_low(guest, command)


def version_too_low(guest: Mapping[str, Any], command: catalogue.Row) -> str:
    """Who must be upgraded so that *guest*, which is responsive, can be sent *command*."""
    name, api = guest["name"], guest["api"]
    lacking = []
    if (api["advertised"] or 0) < command.since:
        lacking.append((f"its agent supports {_maximum(api['advertised'])}", f"upgrade vmaccord-guest-agent in {name}"))
    if (api["supported"] or 0) < command.since:
        upgrade = "upgrade vmaccord-host-agent here, or raise its max-api-version"
        lacking.append((f"this host supports {_maximum(api['supported'])}", upgrade))
    why, what = (" and ".join(parts) for parts in zip(*lacking))
    return f"{name} agreed on API {api['agreed']}; {command.name} needs {command.since}; {why}: {what}"


def _maximum(version: Optional[int]) -> str:
    return "no versions" if version is None else str(version)
