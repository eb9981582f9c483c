"""The errors of a hand-off.

::

    HandoffError
    ├── InvalidDocument         not a document of a session, or one that says what can't be
    │   └── UnknownSpec         of a session spec that this release does not know
    ├── WouldLose               an older spec has no place for all that the document says
    ├── InvalidFile             not a file that an export wrote
    ├── InvalidFrame            the peer does not keep to the frames: it costs it the connection
    └── InvalidPayload          a frame is sound and what it carries is not

Each is one sentence that says what to do next where anything can be done. None quotes what a document says of a guest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: How many lost members a sentence names; the error has them all.
NAMES_SHOWN = 10


class HandoffError(Exception):
    """Base of everything below; never raised itself."""


class InvalidDocument(HandoffError):
    """Not a document of a session, or one that says what can't be."""


class UnknownSpec(InvalidDocument):
    """A session spec that this release does not know.

    :ivar known: the specs that it knows.
    """

    def __init__(self, shown: str, known: Iterable[int]) -> None:
        self.known = tuple(known)
        numbers = ", ".join(map(str, self.known))
        super().__init__(
            f"session spec {shown} is not known here, known are {numbers}: "
            "upgrade this release, or have the document written with one of these"
        )


class WouldLose(HandoffError):
    """An older spec has no place for all that the document says.

    :ivar names: the dotted names of every member that would be lost.
    """

    def __init__(self, spec: int, names: Sequence[str]) -> None:
        self.names = tuple(names)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        listed = ", ".join(names[:NAMES_SHOWN])
        super().__init__(f"session spec {spec} would lose {listed}{more}: take a newer spec, or allow the loss")


class InvalidFile(HandoffError):
    """Not a file that an export wrote."""


class InvalidFrame(HandoffError):
    """The peer does not keep to the frames. What follows on the connection means nothing."""


class InvalidPayload(HandoffError):
    """A frame is sound, and what it carries is not."""
