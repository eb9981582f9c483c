"""What is known of a guest, as plain values: its facts, the changes of its version, its commands in flight, what it can do,
what is frozen in it, and of a hand-off of which the outcome is not known.

Instants are seconds of the event loop's clock. A fact is kept as the line that it came in, the most compact form there is,
and read again when somebody asks.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from common import codec
from common.catalogue import CATALOGUE, Direction
from common.messages import Capabilities

#: When something was heard of which nobody knows when it was: before everything else.
UNKNOWN_TIME = -math.inf

#: No version is as high.
VERSION_LIMIT = 1000

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Fact(NamedTuple):
    """What a guest said last in one message: a line that has passed every check, and when it came.

    :ivar heard_at: ``UNKNOWN_TIME``: another host was told, and did not say when.
    """

    line: bytes
    heard_at: float

    @classmethod
    def of(cls, name: str, arguments: Mapping[str, object], heard_at: float) -> Fact:
        """The fact that a line with *arguments* would be.

        :raises EncodingError: they can't stand on a line.
        """
        return cls(codec.encode(name, arguments).rstrip(), heard_at)

    def arguments(self) -> dict[str, Any]:
        """What it says: the arguments that the table has, without those that were mistyped."""
        name, arguments = codec.decode(self.line)
        row = CATALOGUE.find(Direction.TO_HOST, name)
        assert row is not None  # noqa: S101 - the line has passed the table
        message, _ = row.message_class.from_arguments(arguments)
        return message.to_arguments()

    @property
    def text(self) -> str:
        """What it says as JSON text."""
        return _encode(self.arguments())


class VersionChange(NamedTuple):
    """Host and guest agreed on another version; *reason* is one clause for people."""

    at: float
    old: int
    new: int
    reason: str


class InFlight(NamedTuple):
    """A command whose completion is awaited."""

    reply_id: str
    name: str
    sent_at: float
    deadline: float


class Frozen(NamedTuple):
    """File systems of the guest are frozen, and thaw by themselves no later than *thaws_at*.

    :ivar mountpoints: empty: all that can be frozen.
    """

    mountpoints: tuple[str, ...]
    thaws_at: float


class Departure(NamedTuple):
    """A guest was offered to another host.

    :ivar transfer: the attempt.
    :ivar uuid: of its VM; None: it is known by its name alone.
    :ivar peer: that host, by its name in the configuration.
    :ivar gone: whether that has taken it; if not, nobody here knows.
    """

    transfer: str
    guest: str
    uuid: Optional[str]
    peer: str
    since: float
    gone: bool = False


def share(capabilities: Capabilities) -> Capabilities:
    """*capabilities*, as one object for all guests that say the same."""
    return _shared(tuple(capabilities.commands.items()), capabilities.features)


@functools.lru_cache(maxsize=64)
def _shared(commands: tuple[tuple[str, bool], ...], features: tuple[str, ...]) -> Capabilities:
    return Capabilities(dict(commands), features)
