"""How a hand-off ends, for whoever asked for it: what was handed over, or why it was not."""

from __future__ import annotations

from typing import Any, NamedTuple


class HandoffFailed(Exception):
    """A hand-off, an export or an import did not come about; the text is a sentence that says what to do.

    :ivar kind: why, as the last part of a problem document's type.
    :ivar text: the sentence.
    :ivar members: further members of that document.
    """

    def __init__(self, kind: str, text: str, **members: Any) -> None:
        self.kind = kind
        self.text = text
        self.members = members
        super().__init__(text)


class Handed(NamedTuple):
    """A guest was handed over.

    :ivar to: the host that has it now.
    :ivar protocol: the protocol version that was spoken.
    :ivar spec: the session spec that the document was written in.
    :ivar lost: the dotted names of all that this spec has no place for.
    """

    to: str
    protocol: int
    spec: int
    lost: tuple[str, ...]
