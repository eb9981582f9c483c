"""The facts of this machine: which one is due, how it is collected, and what was collected.

Quick collectors run in the loop, slow ones in a worker each: one that hangs is given up after its time, costs only its own
fact, and is not tried again while it still hangs.

Whether the source of a slow fact has changed is shown by its print, where it has one. A changed fact is collected and
reported soon, whatever its period; an unchanged one is not collected again, but what is known of it is reported anew.

What goes wrong with a fact is said once, and once more when it works again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, Union

from common.catalogue import CATALOGUE, Direction
from common.messages import Message

from .collectors import Slow, Sources
from .crew import Crew, Task
from .log import Log
from .schedule import Schedule
from .sessions import Sessions, UserSession
from .worker import Job, Report

#: Seconds that a slow collector may take.
PATIENCE = 30.0

#: Seconds between two looks at whether the sources of slow facts have changed.
LOOK_PERIOD = 10.0

#: Hands a message to the host. Its first argument names the fact.
Deliver = Callable[[str, Message], None]


class Facts:
    """Collects facts when they are due.

    :param crew: does what may hang.
    :param deliver: takes what was collected.
    """

    def __init__(
        self, sources: Sources, periods: Mapping[str, float], crew: Crew, log: Log, now: float, deliver: Deliver
    ) -> None:
        self._sources = sources
        self._schedule = Schedule(now, periods)
        self._crew = crew
        self._log = log
        self._deliver = deliver
        self._sessions = Sessions()
        self._known: dict[str, tuple[object, Message]] = {}
        self._waiting: set[str] = set()
        self._under_way: dict[str, _Collection] = {}
        self._failing: set[str] = set()
        self._look_at = now + LOOK_PERIOD

    def configure(self, sources: Sources, periods: Mapping[str, float], now: float) -> None:
        """Go on with other collectors and periods; all facts are due at once."""
        self._sources = sources
        self._schedule = Schedule(now, periods)
        self._schedule.want(periods)
        self._waiting.clear()
        self._known.clear()
        for collection in self._under_way.values():
            collection.mark = None  # it is made in the old way: nothing will show that it is unchanged

    def want(self, *names: str) -> None:
        """Make *names* due at once."""
        self._schedule.want(names)

    def next_deadline(self, now: float, allowed: Callable[[str], bool]) -> float:
        """When ``gather`` wants to be called."""
        return self._schedule.next_deadline(now, allowed)

    def gather(self, now: float, allowed: Callable[[str], bool]) -> None:
        """Collect what is due and *allowed*; what is not stays due, and its source is not looked at."""
        self._look(now, allowed)
        for name in self._schedule.take(now, allowed):
            if name in self._sources.quick:
                self._collect(name)
            elif self._unchanged(name):
                self._deliver(name, self._known[name][1])
            elif name in self._sources.slow:
                self._waiting.add(name)
        for name in [name for name in self._waiting if allowed(name) and not self._is_under_way(name)]:
            self._waiting.discard(name)
            self._start_worker(name, now)

    def close(self) -> None:
        """Give up what is under way."""
        self._under_way.clear()

    def fails(self, name: str, problem: str) -> None:
        """*name* can't be collected, or can't be told: it is tried again in its period, however its source changes."""
        self._known.pop(name, None)
        if name not in self._failing:
            self._failing.add(name)
            self._log.warning(f"{name}: can't be collected, the host is told the rest: {problem}")

    def works(self, name: str) -> None:
        """*name* was collected and told."""
        if name in self._failing:
            self._failing.discard(name)
            self._log.info(f"{name}: can be collected again")

    # ---- In the loop ----

    def _collect(self, name: str) -> None:
        try:
            message = self._sources.quick[name]()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this machine, the other facts are collected
            self.fails(name, describe(error))
        else:
            self._deliver(name, message)

    def _look(self, now: float, allowed: Callable[[str], bool]) -> None:
        """Make due what has changed since it was collected."""
        if now >= self._look_at:
            self._look_at = now + LOOK_PERIOD
            marked = [name for name, (mark, _) in self._known.items() if mark is not None and allowed(name)]
            self._schedule.want(name for name in marked if not self._unchanged(name))

    def _unchanged(self, name: str) -> bool:
        mark, _ = self._known.get(name, (None, None))
        return mark is not None and mark == self._print(name)

    def _print(self, name: str) -> object:
        """What shows whether the source of *name* has changed; None: nothing does."""
        take = self._sources.prints.get(name)
        return None if take is None else take()

    # ---- In a worker ----

    def _is_under_way(self, name: str) -> bool:
        return name in self._under_way and not self._under_way[name].gone

    def _start_worker(self, name: str, now: float) -> None:
        collection = self._under_way[name] = _Collection(self._print(name))
        try:
            collection.task = self._crew.start(
                collecting(self._sources.slow[name]),
                patience=PATIENCE,
                now=now,
                reported=lambda report: self._take(name, collection, *report),
                ended=lambda problem: self._end(name, collection, problem),
            )
        except OSError as error:
            del self._under_way[name]
            self.fails(name, describe(error))

    def _take(self, name: str, collection: _Collection, problem: Optional[str], value: Any) -> None:
        collection.heard = True
        if problem is not None:
            self.fails(name, problem)
            return
        if name == "active-user":
            *notices, message = self._sessions.update([UserSession(*each) for each in value])
            for notice in notices:
                self._deliver(name, notice)
        else:
            message = _message(name, value)
        self._known[name] = collection.mark, message
        self._deliver(name, message)

    def _end(self, name: str, collection: _Collection, problem: Optional[str]) -> None:
        if not collection.heard and name in self._under_way:
            self.fails(name, f"collecting it {problem or 'gave nothing'}")


class _Collection:
    """A fact that a worker collects.

    :ivar mark: the print of its source when that began.
    :ivar task: the worker.
    :ivar heard: whether it has reported.
    """

    def __init__(self, mark: object) -> None:
        self.mark = mark
        self.task: Optional[Task] = None
        self.heard = False

    @property
    def gone(self) -> bool:
        """Whether the worker has ended."""
        return self.task is not None and self.task.gone


def describe(error: Exception) -> str:
    """*error* in a sentence."""
    return f"{type(error).__name__}: {error}"


def collecting(collect: Slow) -> Job:
    """What a worker does to collect: it reports what went wrong, and the value where nothing did."""

    def job(report: Report) -> None:
        try:
            value = collect()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this machine, people get a sentence
            report((describe(error), None))
        else:
            report((None, _plain(value)))

    return job


def _plain(value: Union[Message, Sequence[UserSession]]) -> Any:
    return vars(value) if isinstance(value, Message) else [tuple(each) for each in value]


def _message(name: str, values: Mapping[str, Any]) -> Message:
    """The fact *name*, from what ``_plain`` made of it."""
    row = CATALOGUE.find(Direction.TO_HOST, name)
    assert row is not None, name  # noqa: S101
    return row.message_class(**values)
