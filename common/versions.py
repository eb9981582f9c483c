"""API versions as stable identities, and the one rule that joins two of them.

Rules: a number that shipped never changes its meaning; a new version is a new member below, with what it added written
beside it; nothing here is a moving label such as "current". Versions 0–3 are those of the deployed oVirt agents, later ones
are our own.
"""

from __future__ import annotations

import enum
from typing import Optional


class Version(enum.IntEnum):
    """One API version."""

    V0 = 0
    V1 = 1
    V2 = 2
    V3 = 3
    V4 = 4
    V5 = 5

    def __str__(self) -> str:
        return str(self.value)


#: What each version added to the one before.
ADDED = {
    Version.V0: "legacy: no negotiation; heartbeat, facts, sessions and the basic commands",
    Version.V1: "negotiation (api-version), and the number of CPUs, reported and set",
    Version.V2: "os-info and timezone",
    Version.V3: "containers, lifecycle-event and its completion",
    Version.V4: "capabilities, a completion for every command, unsupported",
    Version.V5: "what backups and operators need: freezing, the clock, programs, keys, passwords, files",
}


def newest() -> Version:
    """The newest version that this release knows."""
    return max(Version)


def read(value: object) -> Optional[int]:
    """The number that a peer announces, or None where *value* is no valid version.

    Valid is a JSON integer ≥ 0, however large: no boolean, no float, no string.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


def negotiate(supported: Optional[Version], announced: Optional[int]) -> Version:
    """The version that both sides understand: the lower maximum; 0 where either side (None) knows no versions."""
    if supported is None or announced is None:
        return Version.V0
    return supported if announced >= supported else Version(announced)
