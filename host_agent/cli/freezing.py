"""``vmaccord freeze``: a command on this host, as one that takes a snapshot, while file systems of a guest are frozen.

Whatever happens, the guest is thawed: at a signal, where the command can't be started, when the daemon is restarted. One
that moves to another host meanwhile can't be reached from here; it thaws by itself, as its agent does in any case. What the
command made is worth something only if all was frozen until it had ended; where that is not so, or not known, it is
said, and is a failure.

All that can happen comes through one queue: the guest's answer, the end of the command, that a time is over, signals. So a
signal interrupts nothing in the middle; it is what happens next. Remarks go to standard error, for standard output is the
command's; where nobody can read them, because the terminal is gone, all goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union

from host_agent.client import Answer, Client
from host_agent.client.failures import NAMESPACE, ClientError, CommandRefused, Moved, NoSuchGuest, NotAllowed, read_problem
from host_agent.exits import Exit, Failure
from host_agent.text import printable

from . import sending, views
from .executing import SIGNALLED
from .sending import GuestFailed

#: What ends all early. One that is ignored, as ``nohup`` has it, stays ignored.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: A command that still runs after this part of the time that the guest stays frozen is warned of.
WARN_AT = 0.8

#: Pauses between attempts to thaw double from the first to the second of these, in seconds.
PAUSES = 0.1, 2.0

#: After a signal an answer is waited for until the guest must have thawed by itself, and so many seconds more.
GRACE = 3.0

#: No environment variable with the mountpoints is longer, in bytes; the kernel refuses to start a program with a longer one.
VARIABLE_LIMIT = 64 * 1024

#: What keys of a terminal, and its end, send to all that runs in its foreground.
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGHUP})

_FREEZE, _THAW, _STATUS = "filesystem-freeze", "filesystem-thaw", "filesystem-status"

_MOUNTPOINTS = "VMACCORD_MOUNTPOINTS"


class CommandNotStarted(Failure):
    """There is no such program on this host, or it can't be run."""

    status = Exit.USAGE


class Wanted(NamedTuple):
    """What is to be done.

    :ivar command: the program to run on this host, and its arguments.
    :ivar mountpoints: where the file systems are mounted in the guest; none: all that can be frozen.
    :ivar thaw_after: seconds after which the guest thaws by itself.
    :ivar timeout: seconds that the guest may take to freeze, and to thaw, with its hooks.
    """

    guest: str
    command: Sequence[str]
    mountpoints: Sequence[str]
    thaw_after: float
    timeout: float


class _Finished(NamedTuple):
    """What was done in the background, and what it gave."""

    value: Any


class _TimeOver:
    """A time is over that was waited for."""


class _Interrupted(Exception):
    """A signal came before the command was started, and nothing is frozen any more."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class _Thawed(NamedTuple):
    """What was frozen until it was thawed; or why that is not known.

    :ivar sure: whether what is not named had thawed before; else an attempt may have thawed it whose answer was lost.
    :ivar status: the exit status that the problem means.
    """

    mountpoints: Sequence[str]
    problem: Optional[str] = None
    sure: bool = True
    status: Exit = Exit.GUEST_FAILED


class _Report(NamedTuple):
    """What became of it all.

    :ivar mountpoints: what was frozen when the command was started.
    :ivar thawed: what still was when it had ended.
    :ivar frozen_s: seconds between the guest's answers that it is frozen, and that it is thawed.
    :ivar signal: the name of the signal that ended all early.
    :ivar problem: why what the command made may be worth nothing.
    """

    guest: str
    mountpoints: Sequence[str] = ()
    thawed: Sequence[str] = ()
    frozen_s: float = 0.0
    signal: Optional[str] = None
    problem: Optional[str] = None
    exit_status: int = Exit.OK


#: What the guest answered when it was to freeze, or why it didn't.
_Outcome = Union[Answer, Exception]

_Happening = Union[_Finished, _TimeOver, signal.Signals]


def freeze(client: Client, wanted: Wanted, as_json: bool) -> int:
    """Run the command while the guest is frozen; its exit status, or 128 and the number of the signal that ended all.

    As JSON the report of it is printed whatever comes of it, and none of these errors is raised.

    :raises ClientError: the guest was not asked to freeze; or whether it did is not known, and it was thawed.
    :raises GuestFailed: it could not freeze, or is frozen already.
    :raises CommandNotStarted: there is no such program; the guest is not frozen, or not any more.
    """
    try:
        _refuse_what_is_in_vain(client, wanted)
        freezing = _Freeze(client, wanted, queue.SimpleQueue())
        with _signals_to(freezing.interrupt):
            report = freezing.run()
    except Failure as error:
        if not as_json:
            raise
        report = _Report(wanted.guest, problem=str(error), exit_status=error.status)
    if report.problem is not None:
        _remark(report.problem)
    if as_json:
        _write(json.dumps(report._asdict()))
    return report.exit_status


class _Freeze:
    """One guest that is frozen for the time of one command."""

    def __init__(self, client: Client, wanted: Wanted, happenings: queue.SimpleQueue[_Happening]) -> None:
        self._client = client
        self._wanted = wanted
        self._happenings = happenings
        self._attempt: queue.SimpleQueue[_Happening] = queue.SimpleQueue()
        self._interrupted = self._thawed = False
        self._was_in_foreground = _is_in_foreground(False)
        self._guest = views.name(wanted.guest)
        self._program = printable(wanted.command[0])

    def run(self) -> _Report:
        """All of it."""
        report = _Report(self._wanted.guest)
        try:
            frozen = self._freeze()
        except _Interrupted as interrupted:
            return _end_early(report, interrupted.number)
        since = time.monotonic()
        until = since + self._wanted.thaw_after
        _remark(f"{self._guest}: frozen for at most {self._wanted.thaw_after:g} s: {_shown(frozen)}")
        try:
            process = self._start(frozen)
            happening = self._watch(process)
        except BaseException:
            self._thaw_in_any_case(until)
            raise
        thawed = self._thaw(until)
        self._thawed = True
        report = report._replace(mountpoints=frozen, thawed=thawed.mountpoints, frozen_s=round(time.monotonic() - since, 3))
        if isinstance(happening, _Finished):
            return self._judge(report, thawed, happening.value)
        self._wait_for(process)
        return _end_early(report._replace(problem=thawed.problem), happening)

    def interrupt(self, number: signal.Signals) -> None:
        """A signal came: it is what happens next. May be called in the middle of anything."""
        self._interrupted = True
        # SimpleQueue.put may be called by whatever a signal interrupts, its own get included; print may not.
        self._happenings.put(number)
        self._attempt.put(number)
        if not self._thawed:
            with contextlib.suppress(OSError):
                os.write(2, f"vmaccord: {number.name}: thawing {self._guest} ...\n".encode("utf-8", "backslashreplace"))

    # ---- Freezing ----

    def _freeze(self) -> Sequence[str]:
        """What is frozen now.

        :raises _Interrupted: nothing is, because of a signal.
        :raises Failure: nothing is, as far as can be known.
        """
        _in_background(self._happenings, self._ask_to_freeze)
        first = self._next()
        if isinstance(first, signal.Signals):
            self._take_back()
            raise _Interrupted(first)
        frozen = _mountpoints(first.value)
        if frozen and self._happenings.empty():
            return frozen
        if _may_be_frozen(first.value):
            self._thaw_in_any_case(time.monotonic() + self._wanted.thaw_after)
        second = None if self._happenings.empty() else self._next()
        if isinstance(second, signal.Signals):
            raise _Interrupted(second)
        raise self._why_not(first.value)

    def _ask_to_freeze(self) -> _Outcome:
        arguments: dict[str, Any] = {"thaw_after": self._wanted.thaw_after}
        if self._wanted.mountpoints:
            arguments["mountpoints"] = list(self._wanted.mountpoints)
        return self._send(_FREEZE, arguments)

    def _send(self, command: str, arguments: Mapping[str, Any]) -> _Outcome:
        try:
            return self._client.send(self._wanted.guest, command, arguments, self._wanted.timeout)
        except Exception as error:  # noqa: BLE001 - it is the answer
            return error

    def _why_not(self, outcome: _Outcome) -> Exception:
        if isinstance(outcome, Exception):
            return outcome
        if outcome.failed:
            return sending.failure(outcome)
        return GuestFailed(f"{self._guest}: nothing was frozen: it names no file system that was")

    def _take_back(self) -> None:
        """Thaw at once, for the guest may just be freezing; and once more, should it have begun to after that."""
        until = time.monotonic() + self._wanted.thaw_after
        self._thaw_in_any_case(until)
        answered = _end_of(self._happenings, until - time.monotonic())
        if _may_be_frozen(None if answered is None else answered.value):
            self._thaw_in_any_case(until)

    # ---- Thawing ----

    def _thaw(self, until: float) -> _Thawed:
        """Thaw, and where that fails try again, until the guest has thawed by itself; this is not to fail."""
        pause, longest = PAUSES
        told, sure = False, True
        while True:
            outcome = self._ask_to_thaw(until)
            if isinstance(outcome, Answer):
                if not outcome.failed:
                    return _Thawed(_mountpoints(outcome), sure=sure)
                why = views.reason(outcome)
            elif isinstance(outcome, Moved):
                return self._moved(outcome, until)
            elif isinstance(outcome, ClientError):
                why = str(outcome)
                sure = sure and _surely_not_sent(outcome)
            elif outcome is None:
                why = "it does not answer"
                sure = False
            else:
                raise outcome
            left = until - time.monotonic()
            if left <= 0:
                return _Thawed((), f"{self._guest} could not be thawed, and has thawed by itself: {why}")
            if not told:
                _remark(f"{self._guest} can't be thawed yet, and will thaw by itself in {left:.0f} s; trying again: {why}")
                told = True
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)

    def _moved(self, moved: Moved, until: float) -> _Thawed:
        left = max(0.0, until - time.monotonic())
        where = printable(moved.to or "another host")
        text = f"{self._guest} moved to {where} before it was thawed, and thaws there by itself, within {left:.0f} s"
        return _Thawed((), text, status=moved.status)

    def _ask_to_thaw(self, until: float) -> Optional[_Outcome]:
        """What the guest answers; None: nothing, though after a signal by *until* it must have thawed by itself."""
        attempt = self._attempt = queue.SimpleQueue()
        _in_background(attempt, lambda: self._send(_THAW, {}))
        happening = None if self._interrupted else attempt.get()
        if not isinstance(happening, _Finished):
            happening = _end_of(attempt, max(0.0, until - time.monotonic()) + GRACE)
        return None if happening is None else happening.value

    def _thaw_in_any_case(self, until: float) -> None:
        thawed = self._thaw(until)
        if thawed.problem is not None:
            _remark(thawed.problem)

    # ---- The command ----

    def _start(self, frozen: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "VMACCORD_GUEST": self._wanted.guest, _MOUNTPOINTS: "\n".join(map(printable, frozen))}
        if len(os.fsencode(environment[_MOUNTPOINTS])) > VARIABLE_LIMIT:
            del environment[_MOUNTPOINTS]
            _remark(f"{self._guest}: {len(frozen)} mountpoints are too many for a variable: {_MOUNTPOINTS} is not set")
        try:
            return subprocess.Popen(self._wanted.command, env=environment)  # noqa: S603 - it is the operator's
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise CommandNotStarted(f"{self._program} can't be run: {why}; nothing was done while it was frozen") from None

    def _watch(self, process: subprocess.Popen[bytes]) -> Union[_Finished, signal.Signals]:
        """The end of *process*; or a signal before, which it gets, too."""
        _in_background(self._happenings, process.wait)
        thaw_after = self._wanted.thaw_after
        with _time_over(self._happenings, WARN_AT * thaw_after):
            while isinstance(happening := self._happenings.get(), _TimeOver):
                left = (1 - WARN_AT) * thaw_after
                _remark(f"{self._guest} thaws by itself in {left:g} s, and {self._program} still runs: it should hurry")
        if isinstance(happening, signal.Signals):
            self._tell(process, happening)
        return happening

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until *process* has ended; it gets all further signals."""
        while isinstance(happening := self._next(), signal.Signals):
            self._tell(process, happening)

    def _tell(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """*process* gets the signal, unless the terminal has sent it to it, too."""
        if number not in _FROM_TERMINAL or not _is_in_foreground(self._was_in_foreground):
            process.send_signal(number)

    def _next(self) -> Union[_Finished, signal.Signals]:
        """What happens next; not that a time is over."""
        while isinstance(happening := self._happenings.get(), _TimeOver):
            pass
        return happening

    def _judge(self, report: _Report, thawed: _Thawed, status: int) -> _Report:
        """How it ended where the command did."""
        problem = thawed.problem
        early = sorted(set(report.mountpoints).difference(report.thawed))
        if problem is None and early:
            problem = (
                f"{self._guest} had thawed {_shown(early)} before {self._program} ended"
                if thawed.sure
                else f"{self._guest}: whether {_shown(early)} was frozen until the end is not known"
            )
        if problem is None:
            _remark(f"{self._guest}: thawed after {report.frozen_s:.1f} s")
            return report._replace(exit_status=status if status >= 0 else SIGNALLED - status)
        advice = "what it made may be inconsistent: do it again, with a longer --thaw-after if it needs more time"
        return report._replace(problem=f"{problem}; {advice}", exit_status=thawed.status)


def _refuse_what_is_in_vain(client: Client, wanted: Wanted) -> None:
    """Look for what would keep the command from running, or the guest frozen, before anything is.

    :raises Failure: there is something.
    """
    if shutil.which(wanted.command[0]) is None:
        raise CommandNotStarted(f"no program {printable(repr(wanted.command[0]))} can be run here: nothing was frozen")
    obstacles = client.guest(wanted.guest).get("obstacles", {})
    for command in (_FREEZE, _THAW):
        obstacle = obstacles.get(command)
        problem = obstacle and read_problem({"type": NAMESPACE + obstacle["kind"], "detail": obstacle["detail"]})
        if problem:
            raise problem
    if _STATUS in obstacles and obstacles[_STATUS] is None:
        _refuse_what_is_frozen(client.send(wanted.guest, _STATUS))


def _refuse_what_is_frozen(answer: Answer) -> None:
    """What somebody else has frozen is neither to be frozen nor thawed by this program.

    :raises GuestFailed: something is.
    """
    if answer.result.get("state") == "frozen":
        left = answer.result.get("thaws_in_s")
        when = f"in {left:.0f} s" if type(left) in (int, float) else "by itself"
        raise GuestFailed(f"{views.name(answer.guest)}: frozen already, by somebody else: try again when it thaws, {when}")


def _may_be_frozen(outcome: Optional[_Outcome]) -> bool:
    """Whether after this *outcome* of a freeze, or none, something can be frozen."""
    if isinstance(outcome, Answer):
        return not outcome.failed
    return not _surely_not_sent(outcome)


def _surely_not_sent(outcome: Optional[Exception]) -> bool:
    return isinstance(outcome, (CommandRefused, NoSuchGuest, NotAllowed))


def _is_in_foreground(otherwise: bool) -> bool:
    """Whether this program is in the foreground of its terminal; *otherwise* where there is none, or not any more."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return otherwise
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return otherwise
    finally:
        os.close(terminal)


def _mountpoints(outcome: _Outcome) -> Sequence[str]:
    """What the guest says that it froze, or thawed."""
    if not isinstance(outcome, Answer) or outcome.failed:
        return ()
    named = outcome.result.get("mountpoints")
    return tuple(each for each in named if isinstance(each, str)) if isinstance(named, list) else ()


def _end_early(report: _Report, number: signal.Signals) -> _Report:
    _remark(f"{views.name(report.guest)}: ended by {number.name}")
    return report._replace(signal=number.name, exit_status=SIGNALLED + number)


def _shown(mountpoints: Iterable[str]) -> str:
    return printable(", ".join(mountpoints))


@contextlib.contextmanager
def _signals_to(take: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Signals are for *take*, and do nothing else."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, lambda number, _: take(signal.Signals(number)))
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _in_background(happenings: queue.SimpleQueue[_Happening], work: Callable[[], object]) -> None:
    threading.Thread(target=lambda: happenings.put(_Finished(work())), daemon=True).start()


def _end_of(happenings: queue.SimpleQueue[_Happening], seconds: float) -> Optional[_Finished]:
    """What is done in the background within so many seconds; signals make no difference. None: it goes on."""
    with _time_over(happenings, seconds):
        while isinstance(happening := happenings.get(), signal.Signals):
            pass
    return happening if isinstance(happening, _Finished) else None


@contextlib.contextmanager
def _time_over(happenings: queue.SimpleQueue[_Happening], seconds: float) -> Iterator[None]:
    """After so many seconds that is what happens, unless the block has ended before.

    The queue's own timeouts are no good: with Python 3.9 one that passes in a bad moment never ends.
    """
    timer = threading.Timer(seconds, happenings.put, (_TimeOver(),))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _remark(text: str) -> None:
    _write(f"vmaccord: {text}")


def _write(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
