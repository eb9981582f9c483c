"""What passes over the emulated port, as a timeline for people, and the time that an agreement took.

The watcher is the wire itself: it believes neither the host nor the guest.
"""

from __future__ import annotations

import dataclasses
import queue
import time
from typing import Any, Callable, Optional

from common import codec, errors

from . import emulator


@dataclasses.dataclass(frozen=True)
class Happening:
    """One line of the timeline; *at* is monotonic."""

    what: str
    name: str
    arguments: dict[str, Any]
    at: float


class Timeline:
    """Collects what the port shows, and tells it.

    :param tell: called with the monotonic time at which something happened, and what.
    """

    def __init__(self, tell: Callable[[float, str], None]) -> None:
        self._tell = tell
        self._queue: queue.SimpleQueue[Happening] = queue.SimpleQueue()
        self._facts = 0
        self._since: list[Happening] = []

    def watch(self, what: str, line: bytes, at: float) -> None:
        """The port's watcher; called in its thread."""
        try:
            name, arguments = codec.decode(line) if line else ("", {})
        except errors.MalformedLine as error:
            name, arguments = str(error), {}
        self._queue.put(Happening(what, name, arguments, at))

    def note(self, text: str) -> None:
        """Say what the demo does."""
        self.catch_up()
        self._tell(time.monotonic(), text)

    def begin(self) -> None:
        """A scenario begins: what was before does not count."""
        self.catch_up()
        self._since.clear()

    def catch_up(self) -> None:
        """Tell what has happened by now."""
        while True:
            try:
                happening = self._queue.get_nowait()
            except queue.Empty:
                return
            self._since.append(happening)
            self._describe(happening)

    def used(self) -> Optional[int]:
        """The version that the guest said it uses, in the last heartbeat of this scenario."""
        said = [each.arguments.get("apiVersionInUse") for each in self._since if each.name == "heartbeat"]
        return said[-1] if said else None

    def took(self, expected: int) -> Optional[float]:
        """Seconds from when both sides were there to the heartbeat that shows *expected* in use; None if none does."""
        begun: Optional[float] = None
        for each in self._since:
            if each.what == emulator.CONNECTED or each.name == "session-startup":
                begun = each.at
            elif begun is not None and each.name == "heartbeat" and each.arguments.get("apiVersionInUse") == expected:
                return each.at - begun
        return None

    def _describe(self, happening: Happening) -> None:
        text = _text(happening)
        if text is None:
            self._facts += 1
            return
        if self._facts:
            self._tell(happening.at, f"  {emulator.TO_HOST}  facts and notices: {self._facts}")
            self._facts = 0
        self._tell(happening.at, text)


def _text(happening: Happening) -> Optional[str]:
    if not happening.name:
        return f"  host {happening.what}"
    arguments = happening.arguments
    if happening.name == "refresh":
        spoken = _maximum("host", arguments)
        return f"  {happening.what}  refresh: {spoken}"
    if happening.name == "api-version":
        return f"  {happening.what}  api-version: use {arguments.get('apiVersion')}"
    if happening.name == "heartbeat":
        return f"  {happening.what}  heartbeat: {_maximum('guest', arguments)}, uses {arguments.get('apiVersionInUse')}"
    return None


def _maximum(who: str, arguments: dict[str, Any]) -> str:
    if "apiVersion" not in arguments:
        return f"{who} knows no versions"
    return f"{who} supports up to {arguments['apiVersion']}"
