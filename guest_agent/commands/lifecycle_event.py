"""lifecycle-event: the guest's hooks are run because something happens to the whole VM.

Each event has a directory of hooks, which are told by ``VMACCORD_EVENT`` what happens and by ``VMACCORD_FAILURE`` (1 or 0)
whether what happened before failed. The completion says ``done`` when all of them ended with status 0, and else has the
member ``failed``: a list of ``{hook, reason}``, in the order in which they ran. What the hooks printed stays in the guest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from common.messages import LifecycleEvent
from guest_agent import hooks

from . import CommandFailed, Machine

#: The directory of each event's hooks. What the host sends only ever chooses among these.
DIRECTORIES = {
    "before_migration": "before_migration",
    "after_migration": "after_migration",
    "before_hibernation": "before_hibernation",
    "after_hibernation": "after_hibernation",
}


def available(machine: Machine) -> Optional[str]:
    """None where all hooks would be run, or there are none."""
    directories = (os.path.join(machine.hooks_directory, each) for each in DIRECTORIES.values())
    return hooks.why_refused(directories, owner=machine.owner)


def run(machine: Machine, message: LifecycleEvent) -> Mapping[str, Any]:
    """Run the hooks of the event.

    :raises CommandFailed: there is no such event, or not all hooks went well.
    """
    directory = DIRECTORIES.get(message.type)
    if directory is None:
        raise CommandFailed(f"there is no such event; allowed: {', '.join(DIRECTORIES)}")
    failures = hooks.run(
        os.path.join(machine.hooks_directory, directory),
        {"VMACCORD_EVENT": directory, "VMACCORD_FAILURE": "1" if message.failure else "0"},
        deadline=machine.hooks_deadline,
        run_program=machine.run,
        owner=machine.owner,
    )
    if failures:
        raise CommandFailed(
            f"hooks of {directory} failed: {', '.join(each.hook for each in failures)}",
            members={"failed": [{"hook": each.hook, "reason": each.reason} for each in failures]},
            notes=list(hooks.notes(failures)),
        )
    return {}
