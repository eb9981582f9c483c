"""Facts are gathered by one worker thread, so that a hung mount delays no heartbeat.

Only the thread runs collectors; only the loop calls the methods below. A collector that fails costs its own fact, once;
one that hangs holds up the facts behind it and nothing else. The thread is a daemon: it never holds up the exit.
"""

from __future__ import annotations

import collections
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple, Optional, Union

from common.messages import Message

from .collectors import Collector


class Gathered(NamedTuple):
    """The messages that a collector returned, or what it raised."""

    name: str
    outcome: Union[Sequence[Message], Exception]


class Gatherer:
    """Runs *collectors* (by wire name) one after the other.

    :param wake: called in the thread whenever ``results`` has something new.
    """

    def __init__(self, collectors: Mapping[str, Collector], wake: Callable[[], None]) -> None:
        self._collectors = collectors
        self._wake = wake
        self._wanted: queue.SimpleQueue[Optional[str]] = queue.SimpleQueue()
        self._gathered: collections.deque[Gathered] = collections.deque()
        self._under_way: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="facts", daemon=True)
        self._thread.start()

    def want(self, name: str) -> None:
        """Gather *name*, unless that is under way already."""
        if name not in self._under_way:
            self._under_way.add(name)
            self._wanted.put(name)

    def results(self) -> list[Gathered]:
        """What has been gathered since the last call, in order."""
        results = []
        while self._gathered:
            results.append(self._gathered.popleft())
            self._under_way.discard(results[-1].name)
        return results

    def close(self, seconds: float) -> bool:
        """End the thread after what is under way, and wait for it.

        :returns: whether it ended within *seconds*; until it has, it may still call *wake*.
        """
        self._wanted.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            name = self._wanted.get()
            if name is None:
                return
            self._gathered.append(Gathered(name, self._run(name)))
            self._wake()

    def _run(self, name: str) -> Union[Sequence[Message], Exception]:
        try:
            collected = self._collectors[name]()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a file of this machine ends no agent
            return error
        return [collected] if isinstance(collected, Message) else collected
