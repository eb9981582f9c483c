"""The steps of a hand-off: which command may come when, where it leads, and who owns the guest then.

One table is what both sides keep to, and what the diagram in the documentation is made from. A phase is that of one
connection, as its destination sees it. What has one owner is the guest of the transfer: the source, until the destination
has taken it; then the destination, whatever the source knows of it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Optional

from .frames import Command


class Owner(enum.Enum):
    """Whose guest it is."""

    SOURCE = "source"
    DESTINATION = "destination"


class Phase(enum.Enum):
    """How far a connection is."""

    OPENED = "opened"
    #: A protocol version is agreed on.
    STARTED = "started"
    #: The destination has checked the document and holds it.
    PREPARED = "prepared"
    TAKEN = "taken"
    ABANDONED = "abandoned"

    @property
    def owner(self) -> Owner:
        """Whose guest it is in this phase."""
        return Owner.DESTINATION if self is Phase.TAKEN else Owner.SOURCE


class Step(NamedTuple):
    """What a command does.

    :ivar since: the protocol version that brought it.
    :ivar during: the phases in which it may come.
    :ivar leads_to: the phase after it was answered with OK. After an error it is what it was; but where a document is
        refused, the one before it is not prepared any more either.
    :ivar asks: what the source says with it, and ``answers`` what the destination says with OK; for the diagram.
    """

    command: Command
    since: int
    during: tuple[Phase, ...]
    leads_to: Phase
    asks: str
    answers: str


STEPS = (
    Step(Command.START, 0, (Phase.OPENED,), Phase.STARTED, "my protocol version", "I speak it"),
    Step(
        Command.HELLO,
        1,
        (Phase.STARTED,),
        Phase.STARTED,
        "specs, API maximum, VM, transfer",
        "specs, API maximum, whether I await the VM, whether I have taken it",
    ),
    Step(Command.SESSION, 0, (Phase.STARTED, Phase.PREPARED), Phase.PREPARED, "the document", "checked and prepared"),
    # One that comes twice is answered twice: the first answer may have got lost.
    Step(Command.COMPLETE, 0, (Phase.PREPARED, Phase.TAKEN), Phase.TAKEN, "take it", "it is mine, and noted on disk"),
    Step(Command.ABANDON, 0, (Phase.STARTED, Phase.PREPARED), Phase.ABANDONED, "forget it", "both are as before"),
)

_BY_COMMAND = {step.command: step for step in STEPS}


def find(command: Command, phase: Phase, protocol: int) -> Optional[Step]:
    """The step that *command* is in that *phase* of a connection of that *protocol* version; None: it may not come."""
    step = _BY_COMMAND[command]
    return step if phase in step.during and step.since <= protocol else None
