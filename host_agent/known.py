"""What is known of a guest, as plain values: its facts, the changes of its version, its commands in flight, what it can do.

Instants are seconds of the event loop's clock. A fact is kept as the line that it came in, the most compact form there is,
and read again when somebody asks.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from common import codec
from common.catalogue import CATALOGUE, Direction
from common.messages import Capabilities

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Fact(NamedTuple):
    """What a guest said last in one message: a line that has passed every check, and when it came."""

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


def share(capabilities: Capabilities) -> Capabilities:
    """*capabilities*, as one object for all guests that say the same."""
    return _shared(tuple(capabilities.commands.items()), capabilities.features)


@functools.lru_cache(maxsize=64)
def _shared(commands: tuple[tuple[str, bool], ...], features: tuple[str, ...]) -> Capabilities:
    return Capabilities(dict(commands), features)
