"""Following what happens: the stream of events of the control API, opened again where it breaks off."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.parse
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, Optional

from . import sse
from .failures import DaemonUnreachable, Stopping
from .transport import Stream, Transport

#: The daemon says at least every 15 s that a stream lives; one that is silent for so many seconds is dead.
SILENCE = 45.0

#: Pauses between attempts to open a stream again double from the first to the second of these, in seconds.
PAUSES = 0.1, 2.0

#: No line of a stream is longer, in bytes.
LINE_LIMIT = 16 * 1024 * 1024

#: The kind of event that stands for those which can't be told any more.
LOST = "lost"


class Event(NamedTuple):
    """Something that happened.

    :ivar id: what to resume after, of the same daemon run.
    :ivar kind: what happened; ``lost`` stands for events that can't be told any more, of which ``count`` among the details
        says how many (None: nobody knows).
    :ivar at: when, in seconds since the epoch.
    :ivar guest: the guest it happened to, where it happened to one.
    """

    id: Optional[str]
    kind: str
    at: Optional[float]
    guest: Optional[str]
    details: dict[str, Any]


class Events:
    """What happens, as an iterator. Where the daemon is restarted meanwhile, it goes on with the new one.

    It is a context manager; ``close`` may be called from any thread and ends the iteration. Iterating raises ClientError
    where the daemon can't be reached: in the beginning at once, later after *patience* seconds.

    :param recent: how many of the latest events to begin with, where there is no *last_id*.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        follow: bool,
        last_id: Optional[str],
        guest: Optional[str],
        recent: Optional[int],
        patience: float,
    ) -> None:
        self._transport = transport
        self._follow = follow
        self._guest = guest
        self._recent = recent
        self._patience = patience
        self._parser = sse.Parser(last_id)
        self._closed = threading.Event()
        self._stream: Optional[Stream] = None
        self._broken_since: Optional[float] = None
        self._events = self._tell()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration, also that in another thread."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.interrupt()
        # Where another thread iterates, that one comes to its end by itself.
        with contextlib.suppress(ValueError):
            self._events.close()

    # ---- The life of a stream ----

    def _tell(self) -> Generator[Event, None, None]:
        yield from self._read(self._open())
        pause, longest = PAUSES
        while self._follow and not self._closed.wait(pause):
            stream = self._reopen()
            if stream is None:
                pause = min(2 * pause, longest)
                continue
            pause = PAUSES[0]
            yield from self._read(stream, with_gap=self._parser.last_id is None)

    def _open(self) -> Stream:
        self._parser = sse.Parser(self._parser.last_id)
        last_id = self._parser.last_id
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        wanted = {"guest": self._guest, "recent": self._recent if last_id is None else None}
        query = urllib.parse.urlencode({name: value for name, value in wanted.items() if value is not None})
        stream = self._transport.stream(f"/v1/events?{query}", headers, SILENCE)
        if stream.content_type != "text/event-stream":
            stream.close()
            raise self._transport.unexpected("the answer is no stream of events")
        return stream

    def _reopen(self) -> Optional[Stream]:
        """The stream opened again; None: that is to be tried once more."""
        now = time.monotonic()
        if self._broken_since is None:
            self._broken_since = now
        try:
            return self._open()
        except (DaemonUnreachable, Stopping):
            if now - self._broken_since >= self._patience:
                raise
            return None

    def _read(self, stream: Stream, with_gap: bool = False) -> Iterator[Event]:
        """The events of one stream, up to its end; or to the first pause where nobody wants to follow.

        :param with_gap: nobody knows what happened before it.
        """
        self._stream = stream
        try:
            if with_gap:
                yield Event(None, LOST, None, None, {"count": None})
            while not self._closed.is_set() and (self._follow or not self._parser.idle):
                line = self._read_line(stream)
                if line is None:
                    return
                self._broken_since = None
                sent = self._parser.feed(line)
                if sent is not None:
                    yield self._understand(sent)
        finally:
            self._stream = None
            stream.close()

    def _read_line(self, stream: Stream) -> Optional[str]:
        try:
            return stream.read_line(LINE_LIMIT)
        except ValueError as error:
            raise self._transport.unexpected(str(error)) from None

    def _understand(self, sent: sse.ServerSent) -> Event:
        try:
            details = json.loads(sent.text)
        except (ValueError, RecursionError):
            details = None
        if not isinstance(details, dict):
            raise self._transport.unexpected("an event is no JSON object")
        return Event(sent.id, sent.kind, details.pop("at", None), details.pop("guest", None), details)
