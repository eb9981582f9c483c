"""The workers under way: waited for in the agent's loop, ended when they take too long.

A task's patience counts from its start and anew from each of its reports. Whoever started it is told of its end once, at
the latest when its patience is over; a worker that the kernel still holds then stays known here until it has gone.
"""

from __future__ import annotations

import math
import select
import selectors
from typing import Any, Callable, Optional

from .worker import Job, Worker

#: Seconds that a worker has to end what it started, before it is killed.
GRACE = 2.0

#: Seconds until somebody looks again whether a worker has gone that closed its pipe and that the kernel still holds.
LOOK_AGAIN = 1.0


class Task:
    """A worker, and who wants to know of it.

    :ivar gone: whether its process has ended.
    :ivar out_of_time: whether it took longer than it may.
    """

    def __init__(
        self,
        worker: Worker,
        patience: float,
        now: float,
        reported: Callable[[Any], None],
        ended: Callable[[Optional[str]], None],
    ) -> None:
        self.gone = False
        self.out_of_time = False
        self.deadline = now + patience
        self._look_again_at = math.inf
        self._worker = worker
        self._patience = patience
        self._reported = reported
        self._ended = ended
        self._over = False

    def fileno(self) -> int:
        """What to wait on, unless it is silent."""
        return self._worker.fileno()

    @property
    def silent(self) -> bool:
        """Whether nothing more comes from it."""
        return self._worker.silent

    def next_deadline(self) -> float:
        """When ``advance`` wants to be called although it has not reported."""
        return min(self.deadline, self._look_again_at)

    def advance(self, now: float) -> None:
        """Hand over what has been reported; notice the end, and end what takes too long."""
        for value in self._worker.reports():
            if not self._over:
                self.deadline = now + self._patience
                self._reported(value)
        if self.silent:
            self._look_again_at = now + LOOK_AGAIN
        if self._worker.status is not None:
            self.gone = True
            self._finish(_problem(self._worker.status))
        elif now >= self.deadline:
            self._lose_patience(now)

    def end(self, why: str, kill_at: float) -> None:
        """It is not wanted any more; what it started it may end until *kill_at*."""
        self.deadline = kill_at
        self._worker.end()
        self._finish(why)

    def close(self) -> None:
        """Nobody looks after it any more."""
        if not self.gone:
            self._worker.kill()
        self._worker.close()

    def _lose_patience(self, now: float) -> None:
        if self._over:
            self._worker.kill()
            self.deadline = math.inf
        else:
            self.out_of_time = True
            self.end(f"did not finish within {self._patience:g} s", now + GRACE)

    def _finish(self, problem: Optional[str]) -> None:
        if not self._over:
            self._over = True
            self._ended(problem)


class Crew:
    """Starts and watches workers.

    :param selector: where they are waited for.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._tasks: list[Task] = []

    def start(
        self,
        job: Job,
        *,
        patience: float,
        now: float,
        reported: Callable[[Any], None],
        ended: Callable[[Optional[str]], None],
    ) -> Task:
        """Have a worker do *job*.

        :param patience: seconds that it may take from one report to the next.
        :param reported: called with each value that it reports.
        :param ended: called once, with None or with what went wrong.
        :raises OSError: the system has no room for another process.
        """
        task = Task(Worker(job), patience, now, reported, ended)
        self._selector.register(task, selectors.EVENT_READ)
        self._tasks.append(task)
        return task

    def advance(self, now: float) -> None:
        """Look after all of them."""
        for task in tuple(self._tasks):
            task.advance(now)
            if task.silent:
                self._stop_waiting(task)
            if task.gone:
                self._tasks.remove(task)
                task.close()

    def next_deadline(self) -> float:
        """When ``advance`` wants to be called although none has reported."""
        return min((task.next_deadline() for task in self._tasks), default=math.inf)

    def close(self, seconds: float, clock: Callable[[], float]) -> None:
        """End all of them, and wait at most *seconds* until they have ended what they started."""
        until = clock() + seconds
        for task in tuple(self._tasks):
            task.end("was ended because the agent is stopping", until)
        while self._tasks and clock() < until:
            waited_for = [task for task in self._tasks if not task.silent]
            select.select(waited_for, [], [], max(0.0, min(until, self.next_deadline()) - clock()))
            self.advance(clock())
        for task in self._tasks:
            self._stop_waiting(task)
            task.close()
        self._tasks.clear()

    def _stop_waiting(self, task: Task) -> None:
        if task in self._selector.get_map():
            self._selector.unregister(task)


def _problem(status: int) -> Optional[str]:
    if status == 0:
        return None
    if status < 0:
        return f"was ended by signal {-status}"
    return f"failed with status {status}"
