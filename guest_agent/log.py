"""Log lines: one event each, to the standard error output, where the journal or a person reads them.

The standard library's logging would be as large as all of the protocol. Text from the other side of the port is made
harmless here: a line stays one line, and shows no control character.

A reader that hangs must not hold up the agent: a line for which there is no room is lost, and counted. The descriptor
itself is left as it is, blocking: other programs share it. Lines can be held back in memory for as long as nothing may be
written at all; the last ones of too many are kept.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import select
import time
from collections.abc import Mapping
from typing import Callable

#: The levels by their names in the configuration, the most important one first, with syslog's priorities.
PRIORITIES: Mapping[str, int] = {"error": 3, "warning": 4, "info": 6, "debug": 7}

_STANDARD_ERROR = 2

#: How many lines are held back.
HELD_LIMIT = 100

#: A line is cut here, in bytes: a pipe that has room at all has room for so much.
_LINE_LIMIT = select.PIPE_BUF


class Log:
    """Writes lines of *level* and above.

    :param write: takes one line with its end.
    :param has_room: whether *write* would take one now, without waiting.
    :param journal: whether the journal reads: it wants a priority in front, and has a clock of its own.
    :param clock: whether other readers want to know when it was.
    """

    def __init__(
        self,
        level: str,
        write: Callable[[str], object],
        *,
        has_room: Callable[[], bool] = lambda: True,
        journal: bool = False,
        clock: bool = False,
    ) -> None:
        self.level = level
        #: Whether lines are to be held back now.
        self.holds_back: Callable[[], bool] = _never
        self._held: collections.deque[str] = collections.deque()
        self._too_many = 0
        self._write = write
        self._has_room = has_room
        self._lost = 0
        self._journal = journal
        self._clock = clock

    def error(self, text: str) -> None:
        """Say what the agent can't go on without."""
        self.say("error", text)

    def warning(self, text: str) -> None:
        """Say what goes wrong."""
        self.say("warning", text)

    def info(self, text: str) -> None:
        """Say what happens."""
        self.say("info", text)

    def debug(self, text: str) -> None:
        """Say what only somebody who looks for a fault wants to know."""
        self.say("debug", text)

    def say(self, level: str, text: str) -> None:
        """Say *text* at *level*."""
        if PRIORITIES[level] <= PRIORITIES[self.level]:
            self.always(level, text)

    def always(self, level: str, text: str) -> None:
        """Say *text* at *level*, though lines of that level may not be wanted: each time it happens must be known."""
        self.catch_up()
        if self.holds_back():
            self._hold(self._line(level, text))
        else:
            self._put(self._line(level, text))

    def catch_up(self) -> None:
        """Say what was held back, unless it still is to be."""
        if self._held and not self.holds_back():
            if self._too_many:
                self._put(self._line("warning", f"{self._too_many} lines lost: more than {HELD_LIMIT} were held back"))
                self._too_many = 0
            while self._held:
                self._put(self._held.popleft())

    def close(self) -> None:
        """Say all that was held back: nothing more is to come."""
        self.holds_back = _never
        self.catch_up()

    def _hold(self, line: str) -> None:
        if len(self._held) >= HELD_LIMIT:
            self._held.popleft()
            self._too_many += 1
        self._held.append(line)

    def _put(self, line: str) -> None:
        if self._lost and self._has_room():
            self._write(self._line("warning", f"{self._lost} lines lost: their reader had no room for them"))
            self._lost = 0
        if self._has_room():
            self._write(line)
        else:
            self._lost += 1

    def _line(self, level: str, text: str) -> str:
        text = text[:_LINE_LIMIT]
        shown = text if text.isprintable() else "".join(map(_shown, text))
        if self._journal:
            return f"<{PRIORITIES[level]}>{shown}\n"
        when = time.strftime("%Y-%m-%d %H:%M:%S ") if self._clock else ""
        return f"{when}{level.upper()} {shown}\n"


def standard_error(level: str, environment: Mapping[str, str] = os.environ) -> Log:
    """A log to the standard error output, in the form that its reader wants."""
    descriptor = _terminal() if os.isatty(_STANDARD_ERROR) else _STANDARD_ERROR
    return Log(
        level,
        functools.partial(_write, descriptor),
        has_room=functools.partial(_has_room, descriptor),
        journal=_is_journal(environment),
        clock=os.isatty(_STANDARD_ERROR),
    )


def _never() -> bool:
    return False


def _terminal() -> int:
    """The terminal that is our standard error output, opened anew, so as not to wait for it.

    It says that it has room where it has too little for a line; and not to wait at the descriptor that we were given
    would be felt by everybody who shares it.
    """
    try:
        return os.open(os.ttyname(_STANDARD_ERROR), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return _STANDARD_ERROR


def _write(descriptor: int, line: str) -> None:
    """Write *line*; that nobody can read it is no reason to stop working."""
    with contextlib.suppress(OSError):
        os.write(descriptor, _cut(line.encode("utf-8")))


def _has_room(descriptor: int) -> bool:
    """Whether a line can be written without waiting; also where writing fails at once."""
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    return bool(room.poll(0))


def _cut(line: bytes) -> bytes:
    if len(line) <= _LINE_LIMIT:
        return line
    return line[: _LINE_LIMIT - 1].decode("utf-8", "ignore").encode("utf-8") + b"\n"


def _is_journal(environment: Mapping[str, str]) -> bool:
    """Whether the journal reads our standard error output; systemd says which descriptor it connected."""
    try:
        status = os.fstat(_STANDARD_ERROR)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
