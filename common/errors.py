"""The errors of the protocol, and whose fault each one is.

::

    ProtocolError
    ├── LocalProtocolError          we are wrong: nothing has been written
    │   ├── EncodingError           a message that can't be put on a line
    │   └── SendRefused             a message that must not be sent now
    │       ├── NotConnected        there is no channel
    │       ├── Congested           the peer does not read
    │       ├── NotInCatalogue      no such message in this direction
    │       ├── NotForCallers       a message that the session sends by its own rules
    │       ├── VersionTooLow       the message is newer than what was agreed
    │       └── Disabled            the guest has not said that it carries the command out, or says that it doesn't
    └── RemoteProtocolError         they are wrong: it costs at most the line it came in
        ├── MalformedLine           not one JSON object with a name
        └── InvalidArguments        a required argument is missing or of a wrong type

A remote error never leaves a session: it is counted and reported as an event. Both kinds keep the evidence.
"""

from __future__ import annotations

import enum
from typing import Optional

#: How much of a bad line an error keeps and a log line shows, in bytes.
EVIDENCE_LIMIT = 80


class ProtocolError(Exception):
    """Base of everything below; never raised itself."""


class LocalProtocolError(ProtocolError):
    """We are wrong: the caller asked for something that the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer is wrong."""


class EncodingError(LocalProtocolError):
    """A message can't be written: a value that JSON does not have, or a line over the limit."""


class SendRefused(LocalProtocolError):
    """A message must not be sent now. Not a byte of it was written."""


class NotConnected(SendRefused):
    """There is no channel to the peer."""


class Congested(SendRefused):
    """The peer does not read: what was written before still waits."""


class NotInCatalogue(SendRefused):
    """The table has no such message in this direction."""


class NotForCallers(SendRefused):
    """The message negotiates: the session sends it, and nobody else."""


class VersionTooLow(SendRefused):
    """The message is newer than the version that may be spoken now.

    :ivar name: the message's wire name.
    :ivar needed: the lowest version at which it may be sent.
    :ivar spoken: the version spoken now (agreed on the host, in use in the guest).
    :ivar upgrade: which side must be upgraded, ``"guest"``, ``"host"`` or ``"both"``; None where that is not known.
    """

    def __init__(self, name: str, *, needed: int, spoken: int, upgrade: Optional[str] = None) -> None:
        self.name = name
        self.needed = needed
        self.spoken = spoken
        self.upgrade = upgrade
        super().__init__(f"{name} needs API {needed}, spoken is API {spoken}{_remedy(upgrade)}")


class Want(enum.Enum):
    """Why a guest that understands a command is not sent it."""

    OFF = "its configuration has it turned off"
    NOT_OFFERED = "it does not offer it"
    UNSAID = "it has not said yet what it carries out"


class Disabled(SendRefused):
    """The guest has not said that it carries the command out, or says that it doesn't.

    :ivar name: the command's wire name.
    :ivar want: what is missing.
    """

    def __init__(self, name: str, want: Want) -> None:
        self.name = name
        self.want = want
        super().__init__(f"{name} is not for this guest: {want.value}")


class MalformedLine(RemoteProtocolError):
    """A line is not one JSON object with a name.

    :ivar evidence: the line's first bytes.
    """

    def __init__(self, problem: str, line: bytes) -> None:
        self.evidence = line[:EVIDENCE_LIMIT]
        super().__init__(problem)


class InvalidArguments(RemoteProtocolError):
    """A required argument of a message is missing or of a wrong type.

    :ivar argument: the argument's wire name.
    """

    def __init__(self, argument: str, problem: str) -> None:
        self.argument = argument
        super().__init__(f"{argument}: {problem}")


def _remedy(upgrade: Optional[str]) -> str:
    if upgrade is None:
        return ""
    return ": upgrade both sides" if upgrade == "both" else f": upgrade the {upgrade}"
