"""filesystem-freeze: whether it can work here. It is the agent's loop that answers it; see ``freezer``."""

from __future__ import annotations

import os
from typing import Optional

from guest_agent import freeze_record, freezing, hooks

from . import Machine


def available(machine: Machine) -> Optional[str]:
    """None where this is root, what is frozen can be noted, and all hooks around it would be run, or there are none."""
    if os.geteuid() != machine.owner:
        return "only root may freeze file systems; run the agent as root"
    directories = (os.path.join(machine.hooks_directory, event) for event in (freezing.BEFORE, freezing.AFTER))
    return freeze_record.why_unfit(machine) or hooks.why_refused(directories, owner=machine.owner)
