"""Server-sent events, as the HTML standard has them: lines in, events out. Pure."""

from __future__ import annotations

from typing import NamedTuple, Optional


class ServerSent(NamedTuple):
    """One event.

    :ivar id: what to resume after; None: no event had an identity yet.
    """

    id: Optional[str]
    kind: str
    text: str


class Parser:
    """Puts lines together to events.

    :ivar last_id: what to resume after when the stream breaks now.
    :ivar idle: whether there was a comment, by which the server says that it has nothing (more) to tell for now.
    """

    def __init__(self, last_id: Optional[str] = None) -> None:
        self.last_id = last_id
        self.idle = False
        self._id = last_id
        self._kind = ""
        self._lines: list[str] = []

    def feed(self, line: str) -> Optional[ServerSent]:
        """Take one *line*, without its end; the event that ends with it, or None."""
        if not line:
            return self._finish()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.idle = True
        elif name == "data":
            self._lines.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _finish(self) -> Optional[ServerSent]:
        kind, lines = self._kind, self._lines
        self._kind, self._lines = "", []
        self.last_id = self._id
        return ServerSent(self.last_id, kind or "message", "\n".join(lines)) if lines else None
