"""Freezing file systems, as the agent's loop sees it: who is asked to do it, what is known of it, who is answered.

The work is done by a *keeper*, a worker that also thaws (see ``freezing``), so that nothing here blocks and nothing here
must live for it. If a keeper ends before its work is done, another worker thaws what it had noted, as often as it takes.

The agent keeps still from the moment a freeze is accepted until all is thawed: a keeper can't wait until it has.
"""

from __future__ import annotations

import contextlib
import enum
import math
import os
import select
import signal
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

from common.messages import Code, FilesystemFreeze, FilesystemStatus, FilesystemThaw

from . import hooks
from .answers import Outcome
from .commands import MARGIN, Machine
from .crew import Crew, Task
from .quiet import QuietLog
from .worker import Job, Report

#: Where it is noted what is frozen: a file in the state directory.
RECORD = "frozen"

#: What a keeper tells, in this order, each with more values behind it: the number of its process …
KEPT = "kept"
#: … where it freezes, when it will thaw at the latest, in ``boot_seconds``, and what the log is to say …
FREEZING = "freezing"
#: … that all is frozen but for those (counted from 0) which can't be …
FROZEN = "frozen"
#: … why all is thawed, what was frozen until then, and what went wrong …
THAWED = "thawed"
#: … or the code, a sentence and further lines that say why nothing is frozen …
FAILED = "failed"
#: … and, when the hooks have run too, what the log is to say.
OVER = "over"

#: Why it thawed: because the host wanted it, the time was over, the agent was gone, or somebody else did. The last is what
#: a worker says that thawed what another had left.
ASKED, TIME_OVER, ORPHANED, RECALLED, LEFT = "asked", "time over", "orphaned", "recalled", "left"

#: Seconds after which a keeper that should have thawed is not relied on any more.
OVERDUE = 1.0

#: Seconds between two attempts to thaw what a keeper has left.
RETRY = 5.0

#: Seconds between two looks when everything is to end.
_GLANCE = 0.1

_BY_ITSELF = {
    TIME_OVER: "nobody had wanted it in time",
    RECALLED: "somebody ran vmaccord-guest --thaw",
    LEFT: "who had frozen it was gone",
}

Answer = Callable[[Outcome], None]


def boot_seconds() -> float:
    """Seconds since the machine was started, those that it slept through too: nothing stays frozen after a night's sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Phase(enum.Enum):
    """How far a freeze has come.

    - IDLE becomes FREEZING when a freeze is accepted, and THAWING when an earlier run of the agent has left one.
    - FREEZING becomes FROZEN when all is frozen, and HOOKS when it fails, or is to be thawed before that.
    - FROZEN becomes HOOKS when all is thawed.
    - FREEZING and FROZEN become THAWING when the keeper ends without having thawed: what is frozen, nobody knows.
    - THAWING becomes HOOKS when a worker has thawed what was noted.
    - HOOKS becomes IDLE when the hooks behind it have run.

    In all but IDLE there is a worker. If it ends, another one takes its place.
    """

    IDLE = "idle"
    FREEZING = "freezing"
    FROZEN = "frozen"
    THAWING = "thawing"
    HOOKS = "hooks"


#: What ``filesystem-status`` calls them.
_STATES = {
    _Phase.IDLE: "thawed",
    _Phase.FREEZING: "freezing",
    _Phase.FROZEN: "frozen",
    _Phase.THAWING: "frozen",
    _Phase.HOOKS: "thawed",
}


class Freezer:
    """Has file systems frozen and thawed, one freeze at a time.

    :param machine: whose file systems they are.
    """

    def __init__(self, crew: Crew, log: QuietLog, machine: Machine) -> None:
        self._crew = crew
        self._log = log
        self._machine = machine
        self._task: Optional[Task] = None
        self._keeper: Optional[int] = None
        self._phase = _Phase.IDLE
        self._undo_not_before = -math.inf
        self._mountpoints: list[str] = []
        self._thaws_at: Optional[float] = None
        self._freeze_answer: Optional[Answer] = None
        self._thaw_answers: list[Answer] = []

    @property
    def frozen(self) -> bool:
        """Whether something may be frozen, so that the agent must keep still."""
        return self._phase in (_Phase.FREEZING, _Phase.FROZEN, _Phase.THAWING)

    def configure(self, machine: Machine) -> None:
        """Freeze in another way from now on."""
        self._machine = machine

    def recover(self, now: float) -> None:
        """Thaw what an earlier run of the agent left frozen."""
        if os.path.lexists(os.path.join(self._machine.state_directory, RECORD)):
            self._log.warning("frozen before", "an earlier run of the agent may have left file systems frozen: thawing them")
            self._phase = _Phase.THAWING
            self._undo(now)

    # ---- The commands ----

    def freeze(self, message: FilesystemFreeze, now: float, answer: Answer) -> None:
        """Freeze; answered when all is frozen, or nothing."""
        limit = self._machine.freeze_limit
        if self.frozen:
            answer(Outcome.refused(Code.FROZEN, "file systems are frozen already; thaw them first: filesystem-thaw"))
        elif self._task is not None or self._phase is not _Phase.IDLE:
            answer(Outcome.refused(Code.BUSY, "the hooks behind the last freeze still run; try again in a moment"))
        elif message.thaw_after > limit:
            why = f"thaw_after is above {limit:g} s, the limit in [freeze] of this guest's configuration; ask for less"
            answer(Outcome.refused(Code.INVALID_ARGUMENTS, why))
        else:
            self._begin(message, now, answer)

    def thaw(self, message: FilesystemThaw, now: float, answer: Answer) -> None:
        """Thaw; answered when all is thawed, with what was frozen until it was asked for."""
        if self.frozen:
            self._thaw_answers.append(answer)
            self._ask_to_thaw()
        else:
            answer(Outcome(result={"mountpoints": []}))

    def status(self, message: FilesystemStatus, now: float, answer: Answer) -> None:
        """Answer with what is frozen, or will be in a moment, and for how long still."""
        left = None if self._thaws_at is None else round(max(0.0, self._thaws_at - boot_seconds()), 3)
        state = _STATES[self._phase]
        answer(Outcome(result={"state": state, "mountpoints": list(self._mountpoints), "thaws_in_s": left}))

    # ---- In the loop ----

    def advance(self, now: float) -> None:
        """Do what a worker that is gone has left to do, if that is due. Wanted each time after the crew's ``advance``."""
        if self._left_alone and now >= self._undo_not_before:
            self._undo(now)
        if self._task is not None and self._thaws_at is not None:
            self._task.deadline = now + self._thaws_at - boot_seconds() + OVERDUE

    def next_deadline(self) -> float:
        """When ``advance`` wants to be called although nothing else happens."""
        return self._undo_not_before if self._left_alone else math.inf

    @property
    def _left_alone(self) -> bool:
        """Whether there is something to be done that nobody does."""
        return self._task is None and self._phase is not _Phase.IDLE

    def close(self, seconds: float, clock: Callable[[], float]) -> None:
        """Thaw, and wait at most *seconds* until that is done and the hooks have run; what is still asked is answered."""
        until = clock() + seconds
        self.thaw(FilesystemThaw(), clock(), lambda _: None)
        while (self._task is not None or self._phase is not _Phase.IDLE) and clock() < until:
            waited_for = [] if self._task is None or self._task.silent else [self._task]
            select.select(waited_for, [], [], min(_GLANCE, max(0.0, until - clock())))
            self._crew.advance(clock())
            self.advance(clock())
        stopping = Outcome("the agent is stopping; what is frozen is thawed all the same")
        self._settle(stopping, stopping)

    def _begin(self, message: FilesystemFreeze, now: float, answer: Answer) -> None:
        self._log.info("freeze", f"filesystem-freeze: for {message.thaw_after:g} s at most")
        self._phase, self._freeze_answer = _Phase.FREEZING, answer
        patience = self._machine.hooks_deadline * hooks.LIMIT + self._machine.deadline + MARGIN
        try:
            self._start(_keeping(self._machine, message), patience, now)
        except OSError as error:
            self._failed(Code.FAILED.value, f"could not be started: {error.strerror}; try again later", [])
            self._hooks_ran([])

    def _undo(self, now: float) -> None:
        self._undo_not_before = now + RETRY
        try:
            self._start(_undoing(self._machine), math.inf, now)
        except OSError as error:
            self._log.warning("thawing", f"thawing could not be started, it is tried again: {error.strerror}")

    def _start(self, job: Job, patience: float, now: float) -> None:
        self._task = self._crew.start(job, patience=patience, now=now, reported=self._take, ended=self._ended)

    def _ask_to_thaw(self) -> None:
        if self._keeper is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._keeper, signal.SIGTERM)

    # ---- What the workers tell ----

    def _take(self, told: tuple[Any, ...]) -> None:
        kind, *rest = told
        take: dict[str, Callable[..., None]] = {
            KEPT: self._kept,
            FREEZING: self._freezing,
            FROZEN: self._all_frozen,
            THAWED: self._thawed,
            FAILED: self._failed,
            OVER: self._hooks_ran,
        }
        take[kind](*rest)

    def _kept(self, keeper: int) -> None:
        self._keeper = keeper
        if self._thaw_answers:
            self._ask_to_thaw()

    def _freezing(self, mountpoints: list[str], thaws_at: float, notes: list[str]) -> None:
        self._mountpoints, self._thaws_at = mountpoints, thaws_at
        for note in notes:
            self._log.warning("left out", f"filesystem-freeze: {note}")

    def _all_frozen(self, skipped: Sequence[int]) -> None:
        self._phase = _Phase.FROZEN
        self._mountpoints = [path for index, path in enumerate(self._mountpoints) if index not in skipped]
        self._log.info("frozen", f"frozen: {', '.join(self._mountpoints)}")
        if self._freeze_answer is not None:
            answer, self._freeze_answer = self._freeze_answer, None
            answer(Outcome(result={"mountpoints": list(self._mountpoints)}))

    def _thawed(self, why: str, thawed: list[str], problems: list[str]) -> None:
        names = ", ".join(thawed) or "nothing was frozen any more"
        if why == ASKED:
            self._log.info("thawed", f"thawed: {names}")
        elif self.frozen:
            self._log.warning("thawed by itself", f"thawed by itself, because {_BY_ITSELF.get(why, why)}: {names}")
        for problem in problems:
            self._log.warning("not thawed", problem)
        self._all_thawed()
        lost = Outcome("who was to freeze was ended before all was frozen; nothing stays frozen")
        still_frozen = thawed if why == ASKED else []
        self._settle(lost, Outcome("; ".join(problems) or None, {"mountpoints": still_frozen}))

    def _failed(self, code: str, problem: str, notes: list[str]) -> None:
        self._log.warning("failed freeze", "; ".join((f"filesystem-freeze: failed: {problem}", *notes)))
        self._all_thawed()
        self._settle(Outcome(problem, code=code), Outcome(result={"mountpoints": []}))

    def _hooks_ran(self, notes: list[str]) -> None:
        self._phase, self._undo_not_before = _Phase.IDLE, -math.inf
        for note in notes:
            self._log.warning("hooks of the freezer", note)

    def _ended(self, problem: Optional[str]) -> None:
        self._task = self._keeper = None
        if self._phase is _Phase.HOOKS:
            self._log.warning("keeper", f"who ran the hooks behind a freeze {problem or 'left'}; another one runs them")
        elif self._phase is not _Phase.IDLE:
            self._phase, self._thaws_at = _Phase.THAWING, None
            self._log.warning("keeper", f"who was to thaw {problem or 'left'}; another one does it")

    def _all_thawed(self) -> None:
        self._phase, self._mountpoints, self._thaws_at = _Phase.HOOKS, [], None

    def _settle(self, freeze: Outcome, thaw: Outcome) -> None:
        """Answer whoever waits."""
        freeze_answer, self._freeze_answer = self._freeze_answer, None
        thaw_answers, self._thaw_answers = self._thaw_answers, []
        if freeze_answer is not None:
            freeze_answer(freeze)
        for answer in thaw_answers:
            answer(thaw)


def _keeping(machine: Machine, message: FilesystemFreeze) -> Job:
    """What a keeper does."""
    agent = os.getpid()

    def job(report: Report) -> None:
        from . import freezing

        freezing.keep(machine, agent, message.thaw_after, message.mountpoints, report)

    return job


def _undoing(machine: Machine) -> Job:
    """What a worker does that thaws what another has left."""

    def job(report: Report) -> None:
        from . import freezing

        freezing.thaw_recorded(machine, report)

    return job
