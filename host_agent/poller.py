"""One epoll for the sockets of all guests, inside the event loop.

The loop waits for one file descriptor, that of the epoll; what is ready behind it is handed on in batches, so that a guest
costs no object and no turn of the loop's own and everybody else gets a turn between two batches. An event is only a reason
to look: one that comes for a socket that was closed and whose number was given again does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from typing import Callable

#: At most this many sockets are served in one turn of the loop.
BATCH = 64

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

_log = logging.getLogger(__name__)


class Poller:
    """Calls the owner of each descriptor that is ready."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._owners: dict[int, Callable[[], None]] = {}
        self._number = self._epoll.fileno()
        loop.add_reader(self._number, self._serve)

    def __len__(self) -> int:
        return len(self._owners)

    def watch(self, descriptor: int, events: int, ready: Callable[[], None]) -> None:
        """Call *ready* whenever one of *events* (``READ``, ``WRITE``) is there, or the other side is gone.

        :raises OSError: the kernel has no room for another one.
        """
        if descriptor in self._owners:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._owners[descriptor] = ready

    def ignore(self, descriptor: int) -> None:
        """Call nobody any more, also when the other side is gone; to be done before the descriptor is closed."""
        if self._owners.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop serving."""
        self._loop.remove_reader(self._number)
        self._epoll.close()
        self._owners.clear()

    def _serve(self) -> None:
        owners = self._owners
        for descriptor, _ in self._epoll.poll(0, BATCH):
            ready = owners.get(descriptor)
            if ready is None:
                continue
            try:
                ready()
            except Exception:  # noqa: BLE001 - an error of one guest's must not cost another its turn
                _log.exception("unexpected error while serving a guest, please report it")
