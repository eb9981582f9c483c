"""QMP, blocking: commands to one QEMU, and the events that it reports, in order and with the time that it gave them.

The library speaks asyncio; its loop runs in a thread of its own, one for each monitor.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Callable, Optional, TypeVar, cast

from qemu import qmp

#: A command that is not answered within this many seconds is not answered.
PATIENCE = 30.0

_Result = TypeVar("_Result")


class MonitorError(Exception):
    """QEMU refused a command, is gone, or did not report what it should."""


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that QEMU reported; *at* is by its wall clock, in seconds."""

    name: str
    arguments: Mapping[str, Any]
    at: float


class Monitor:
    """The monitor of the QEMU that listens at *path*.

    :raises MonitorError: it does not answer.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._events: list[Event] = []
        self._reported = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="monitor", daemon=True)
        self._thread.start()
        try:
            self._client, self._watcher = self._call(self._connect(path))
        except MonitorError:
            self._end_loop()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        """Carry out *command*; an underscore in an argument's name stands for a dash.

        :raises MonitorError: QEMU refuses it, or is gone.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._call(self._client.execute(command, named))

    def mark(self) -> int:
        """The present, for ``await_event``."""
        with self._reported:
            return len(self._events)

    def await_event(
        self, name: str, since: int = 0, matches: Callable[[Event], bool] = lambda _: True, patience: float = PATIENCE
    ) -> Event:
        """The first event *name* after the mark *since* that *matches*.

        :raises MonitorError: none came within *patience* seconds.
        """

        def find() -> Optional[Event]:
            return next((each for each in self._events[since:] if each.name == name and matches(each)), None)

        with self._reported:
            found = self._reported.wait_for(find, patience)
        if found is None:
            raise MonitorError(f"QEMU did not report {name} within {patience:g} s; it reported {self._events[since:]}")
        return found

    def close(self) -> None:
        """Let go of QEMU."""
        with contextlib.suppress(MonitorError):
            self._call(self._disconnect())
        self._end_loop()

    async def _connect(self, path: pathlib.Path) -> tuple[qmp.QMPClient, asyncio.Task[None]]:
        client = qmp.QMPClient(path.parent.name)
        listener = qmp.EventListener()
        client.register_listener(listener)
        await client.connect(str(path))
        return client, asyncio.create_task(self._watch(listener))

    async def _watch(self, listener: qmp.EventListener) -> None:
        async for message in listener:
            stamp = cast(Mapping[str, int], message["timestamp"])
            at = stamp["seconds"] + stamp["microseconds"] / 1e6
            event = Event(str(message["event"]), cast(Mapping[str, Any], message.get("data", {})), at)
            with self._reported:
                self._events.append(event)
                self._reported.notify_all()

    async def _disconnect(self) -> None:
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher
        await self._client.disconnect()

    def _call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(PATIENCE)
        except (qmp.QMPError, EOFError, OSError) as error:
            raise MonitorError(f"QEMU: {error}") from None
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise MonitorError(f"QEMU did not answer within {PATIENCE:g} s") from None

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
