"""What this agent lets its host do. Nothing of the machine is looked at: whether a command works, its completion tells."""

from __future__ import annotations

from collections.abc import Collection

from common.messages import Capabilities
from guest_agent.commands import COMMANDS

#: What a host may rely on beside commands. ``repeated-completions``: a command that is given again with its reply id is not
#: carried out again, but answered again. ``self-thawing``: whatever happens, nothing stays frozen for longer than was asked.
FEATURES = ("repeated-completions", "self-thawing")


def capabilities(permitted: Collection[str]) -> Capabilities:
    """All commands that this agent knows, with whether each is *permitted*."""
    return Capabilities(commands={name: name in permitted for name in COMMANDS}, features=FEATURES)
