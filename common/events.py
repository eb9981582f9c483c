"""What a session reports to whoever drives it. Plain values, nothing to call."""

from __future__ import annotations

import enum
from typing import Optional, Union

from . import messages
from .records import Record, field
from .versions import Version


class Reason(enum.Enum):
    """Why a version changed."""

    FIRST_AGREEMENT = "first agreement of this connection"
    AGENT_RESTARTED = "the agent was restarted"
    GUEST_UPGRADED = "the guest supports more than before"
    GUEST_DOWNGRADED = "the guest supports less than before"
    GUEST_WITHOUT_VERSION = "the guest sends no version"
    GUEST_INVALID_VERSION = "the guest sends an invalid version"
    CHANNEL = "the channel was opened anew or the host went away"
    HOST_RECONFIGURED = "the host was given another maximum"
    REFRESH = "the host asked for everything again"
    PUSH = "the host says so"


class VersionChanged(Record):
    """The version spoken changed: agreed on the host, in use in the guest. *why* is one clause for people.

    A host also reports the first agreement of a channel so, where it is 0 and nothing has changed.
    """

    old: Version
    new: Version
    reason: Reason
    why: str


class MessageReceived(Record):
    """A message of the table came in, in the right direction and not newer than supported.

    A host also reports the *line* that it came in, which is the most compact form in which it can be kept; a guest the
    *reply_id* of a command that is to be answered.
    """

    name: str
    message: messages.Message
    line: bytes = field(default=b"", secret=True)
    reply_id: Optional[str] = None


class CommandRejected(Record):
    """The host sent what this guest can't carry out, and is to be told: *code* and *reason* say why.

    :ivar name: as the host wrote it, cut to a bounded length; for the host only, since a line that was cut can have made a
        name of a password.
    :ivar reply_id: None: no completion is asked for.
    """

    name: str = field(secret=True)
    reply_id: Optional[str]
    code: messages.Code
    reason: str


class Responsive(Record):
    """The peer was heard for the first time, or again after a silence."""


class Unresponsive(Record):
    """The peer was silent for longer than allowed, in seconds."""

    silence: float


class AgentRestarted(Record):
    """Heartbeats come from another run of the agent than before, on the same channel."""


class Complaint(Record):
    """One line for the log about what the peer did wrong; at most one a minute, however much it does wrong."""

    text: str


class HeartbeatWanted(Record):
    """The guest must send a heartbeat now."""


class FactsWanted(Record):
    """The guest must send these facts (wire names) now."""

    names: frozenset[str]


Event = Union[
    VersionChanged,
    MessageReceived,
    CommandRejected,
    Responsive,
    Unresponsive,
    AgentRestarted,
    Complaint,
    HeartbeatWanted,
    FactsWanted,
]
