"""``vmaccord doctor``: everything that can be wrong between an operator and the agents in the guests.

``visit`` asks and prints; the other modules look, each at one place: ``control`` at the control socket, ``host`` at what the
daemon says of itself, ``guests`` at what it says of them, ``places`` at the directories in which ports are.
Each thing looked at gives a finding, also where all is well.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Optional


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    #: It works, but not as it could, or not for all.
    WARNING = "warning"
    #: Something does not work.
    TROUBLE = "trouble"


class Finding(NamedTuple):
    """What was found.

    :ivar check: what was looked at; for programs, so it never changes its meaning.
    :ivar text: a sentence.
    :ivar advice: what to do about it; None: nothing.
    :ivar guest: the guest that it is about, where it is about one.
    """

    level: Level
    check: str
    text: str
    advice: Optional[str] = None
    guest: Optional[str] = None
