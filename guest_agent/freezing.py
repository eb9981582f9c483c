"""What the freezer's workers do: freeze file systems, see to it that they are thawed, and run the hooks around that.

A freeze is the work of one process, its *keeper*: it runs the hooks ``before_freeze``, notes in a *record* what is to be
frozen, has a child of its own freeze it (that blocks, for as long as the kernel likes), and thaws everything when it is
asked to, when the time is over, or when the agent is gone. Then it runs the hooks ``after_thaw`` and removes the record.

Each process may be killed at any moment, so these rules hold:

- Nothing is frozen that is not in the record. It lies in memory (on a tmpfs), where nothing is ever frozen.
- The record is removed when all is thawed and the hooks have run. Whoever finds one does what is left to do.
- Whoever freezes, or undoes that, holds a lock, which dies with the last process that could still freeze something.
- Whoever is to undo what a process left, or still does, replaces the record and waits for the lock, thawing all the while:
  a process whose record was replaced freezes nothing more, and leaves the rest to the other one.
- When all is thawed the record says so, and what the hooks ``after_thaw`` are told. Who was to run them may be killed before
  they have all run, or before the record is removed: then all of them run again. A hook must not mind.

While something is frozen nothing here writes to a file, opens one, or tells the agent more than a pipe has room for. Each
file system is thawed by a process of its own, since one that can't be thawed yet must not hold up the one it waits for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union

from common.messages import Code

from . import freeze_record, hooks, mounts, processes
from .commands import CommandFailed, Machine
from .freeze_record import Noted
from .freezer import ASKED, FAILED, FREEZING, FROZEN, KEPT, LEFT, ORPHANED, OVER, RECALLED, THAWED, TIME_OVER, boot_seconds
from .mounts import FileSystem, Mount
from .worker import Report, keep_only

#: The directories of hooks, which are also the events that these are told.
BEFORE, AFTER = "before_freeze", "after_thaw"

#: The ioctls of <linux/fs.h>.
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878

#: How often a keeper looks whether it is still wanted, in seconds.
GLANCE = 0.05

#: Bytes that the paths of what is frozen together may have: more would not go into the pipe to an agent that hangs.
PATHS_LIMIT = 32768

_CRASHED = 255


def keep(machine: Machine, agent: int, thaw_after: float, mountpoints: Optional[Sequence[str]], report: Report) -> None:
    """Be the keeper of one freeze.

    :param agent: the process for whose sake something is frozen.
    :param thaw_after: seconds.
    :param mountpoints: where what is to be frozen is mounted; None: all that can be.
    """
    stop = _Stop(agent)
    tell = _telling(report)
    tell(KEPT, os.getpid())
    try:
        lock = _lock(machine)
        choose(machine, mountpoints)
        freeze = _Freeze(machine, lock, stop)
    except (CommandFailed, OSError) as error:
        failure = _failure(error)
        tell(FAILED, failure.code.value, str(failure), [])
        tell(OVER, [])
        return
    try:
        outcome = _frozen_for_a_while(freeze, thaw_after, mountpoints, tell)
    finally:
        thawed, problems = freeze.thaw()
    if isinstance(outcome, CommandFailed):
        tell(FAILED, outcome.code.value, str(outcome), [*outcome.notes, *problems])
    else:
        tell(THAWED, outcome, thawed, problems)
    tell(OVER, freeze.finish(failed=outcome != ASKED or bool(problems)))


def _frozen_for_a_while(
    freeze: _Freeze, thaw_after: float, mountpoints: Optional[Sequence[str]], tell: Callable[..., None]
) -> Union[str, CommandFailed]:
    """Freeze, and wait; why it is to be thawed, or what went wrong. To thaw is left to the caller."""
    try:
        freeze.prepare(mountpoints)
        until = boot_seconds() + thaw_after
        tell(FREEZING, freeze.paths, until, freeze.notes)
        freeze.begin(until, skip=mountpoints is None)
        tell(FROZEN, freeze.skipped)
        return freeze.wait(until)
    except (CommandFailed, OSError) as error:
        return _failure(error)


def _failure(error: Union[CommandFailed, OSError]) -> CommandFailed:
    if isinstance(error, CommandFailed):
        return error
    what = error.filename or "what freezing needs"
    return CommandFailed(f"{what} can't be used: {error.strerror}; mend that, and try again")


def _telling(report: Report) -> Callable[..., None]:
    """What tells the agent, as long as there is one."""

    def tell(*what: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            report(what)

    return tell


def thaw_recorded(machine: Machine, report: Report) -> None:
    """Thaw what a process that is gone, or is to let go of it, has frozen or will, and run the hooks that it did not."""
    tell = _telling(report)
    problems: list[str] = []
    try:
        noted = freeze_record.read(machine)
    except ValueError as error:
        noted, problems = None, [str(error)]
    if noted is None:
        tell(THAWED, LEFT, [], problems)
        tell(OVER, [])
        return
    lock = freeze_record.open_lock(machine)
    try:
        tell(THAWED, LEFT, *(_undo(machine, noted, lock) if noted.failed is None else ([], [])))
        while not freeze_record.try_lock(lock):
            time.sleep(GLANCE)
        noted = freeze_record.read(machine)
        tell(OVER, [] if noted is None else _finish(machine, failed=noted.failed is not False))
    finally:
        os.close(lock)


def _undo(machine: Machine, noted: Noted, lock: int) -> tuple[list[str], list[str]]:
    """Thaw what is noted until nobody is left who could freeze more of it: then the lock is held.

    :returns: what was frozen until now, and what went wrong.
    """
    thawed: list[str] = []
    record = freeze_record.try_write(machine, noted)  # a keeper that lives is to see that its own is gone
    while not freeze_record.try_lock(lock):
        if record is None or freeze_record.stands(record):
            thawed += _thaw_devices(machine.root, noted.file_systems, lock)[0]
        else:
            noted, record = _replaced_again(machine, noted, record)
        time.sleep(GLANCE)
    if record is not None:
        os.close(record)
    left = freeze_record.read(machine) or Noted()
    now_thawed, problems = _thaw_devices(machine.root, left.file_systems, lock)
    return [*thawed, *now_thawed], problems


def _replaced_again(machine: Machine, noted: Noted, record: int) -> tuple[Noted, Optional[int]]:
    """What is noted now, and our record of it, where a keeper has replaced ours without having seen it."""
    found = freeze_record.read(machine)
    if found is None or not found.file_systems:
        return noted, record  # whoever did that has thawed all
    os.close(record)
    return found, freeze_record.try_write(machine, found)


def thaw_now(machine: Machine) -> Optional[tuple[list[str], list[str]]]:
    """As ``thaw_recorded``, for whoever calls the program.

    :returns: what was thawed, and what went wrong; None: nothing is noted as frozen.
    """
    if not os.path.lexists(freeze_record.path(machine)):
        return None
    told: list[tuple[Any, ...]] = []
    try:
        thaw_recorded(machine, told.append)
    except (OSError, ValueError) as error:
        return [], [_why_not_undone(machine, error)]
    (_, _, thawed, problems), (_, notes) = told
    return thawed, [*problems, *notes]


def _why_not_undone(machine: Machine, error: Union[OSError, ValueError]) -> str:
    if isinstance(error, ValueError):
        return str(error)
    what = error.filename or machine.state_directory
    return f"{what} can't be used: {error.strerror}; see what is frozen, and thaw it by hand: fsfreeze --unfreeze"


# ---- What is to be frozen ----


def choose(machine: Machine, wanted: Optional[Sequence[str]]) -> list[Sequence[Mount]]:
    """The file systems that are to be frozen, in the order in which they were mounted: each once, at the places to try.

    :param wanted: where they are mounted; None: all on disks that can be written to.
    :raises CommandFailed: there are none, or one of those wanted is none.
    """
    mounted = mounts.mounts(machine.root)
    systems = mounts.file_systems(machine.root, mounted)
    if wanted is None:
        chosen: list[Sequence[Mount]] = [system.mounts for system in systems if not system.read_only]
    else:
        places = _places(wanted, mounted, systems)
        chosen = [(places[system.device],) for system in systems if system.device in places]
    if not chosen and wanted is None:
        raise CommandFailed(_NOTHING)
    if not chosen:
        raise CommandFailed.invalid("no mountpoint is named; name one, or leave the argument out to have all frozen")
    return chosen


_NOTHING = "this guest has no file system that can be frozen"


def _places(wanted: Sequence[str], mounted: Sequence[Mount], systems: Sequence[FileSystem]) -> Mapping[str, Mount]:
    """By its device: where each file system that is *wanted* was asked for first."""
    on_disk = {system.device for system in systems}
    visible = {mount.path: mount for mount in mounted}
    places: dict[str, Mount] = {}
    for path in wanted:
        # Two slashes at the beginning are kept by normpath, though they mean nothing to Linux.
        mount = visible.get(os.path.normpath(f"/{path.lstrip('/')}")) if path.startswith("/") else None
        shown = processes.one_line(path)
        if mount is None:
            raise CommandFailed.invalid(
                f"nothing is mounted at {shown or 'nowhere'} in this guest; name mountpoints that exist"
            )
        if mount.device not in on_disk:
            raise CommandFailed.invalid(
                f"{shown} ({mount.kind}) stands on no disk, so that it can't be frozen; leave it out"
            )
        places.setdefault(mount.device, mount)
    return places


class _Target(NamedTuple):
    """A file system to be frozen, held by a descriptor: it stays within reach whatever becomes of the path."""

    device: str
    path: str
    kind: str
    descriptor: int


def _open(machine: Machine, places: Sequence[Mount]) -> _Target:
    """Take hold of a file system.

    :raises Hidden: other mounts hide it.
    :raises CommandFailed: it can't be had.
    """
    try:
        mount, descriptor = mounts.open_any(machine.root, places)
    except mounts.Hidden:
        raise
    except OSError as error:
        why = f"can't be opened: {error.strerror}; see to that, or name the others in mountpoints"
        raise CommandFailed(f"{processes.one_line(places[0].path)} {why}") from None
    return _Target(mount.device, mount.path, mount.kind, descriptor)


# ---- One freeze ----


class _Stop:
    """Notes what must end a freeze before its time.

    :param agent: the process for whose sake something is frozen.
    """

    def __init__(self, agent: int) -> None:
        self._agent = agent
        self._noted: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: self._noted.append(number))

    @property
    def asked(self) -> bool:
        """Whether SIGTERM came."""
        return bool(self._noted)

    def why(self, record: int) -> Optional[str]:
        """Why what *record* says is to be thawed; None: nothing speaks for it."""
        if os.getppid() != self._agent:
            return ORPHANED
        if not freeze_record.stands(record):
            return RECALLED
        return ASKED if self._noted else None


class _Freeze:
    """One freeze, from the hooks before it to those behind it.

    :param lock: is held for as long as this lives.
    """

    def __init__(self, machine: Machine, lock: int, stop: _Stop) -> None:
        self._machine = machine
        self._lock = lock
        self._stop = stop
        self._record = freeze_record.write(machine, Noted())
        self._targets: list[_Target] = []
        #: What the log is to say.
        self.notes: list[str] = []
        #: What the kernel answered, of each that was tried: 0 or an error's number; the last mounted comes first.
        self._answers = bytearray()
        self._child: Optional[_Child] = None

    @property
    def paths(self) -> list[str]:
        """Where it is mounted what is to be frozen, in the order in which that is done."""
        return [target.path for target in self._targets]

    @property
    def skipped(self) -> list[int]:
        """Which of them can't be frozen."""
        return [index for index, answer in enumerate(self._answers) if answer]

    def prepare(self, mountpoints: Optional[Sequence[str]]) -> None:
        """Run the hooks, take hold of all file systems, and note them.

        :raises CommandFailed: a hook fails, a file system can't be had, or the freeze is not wanted any more.
        """
        self._run_hooks_before()
        self._leave_if_unwanted()
        self._open_all(mountpoints)
        if sum(len(os.fsencode(path)) for path in self.paths) > PATHS_LIMIT:
            raise CommandFailed(f"{len(self._targets)} file systems are too many to be frozen at once; name fewer")
        noted = Noted([(target.device, target.path) for target in self._targets])
        self._leave_if_unwanted()
        os.close(self._record)
        self._record = freeze_record.write(self._machine, noted)

    def _open_all(self, mountpoints: Optional[Sequence[str]]) -> None:
        """Take hold of all file systems.

        Of those that are hidden some may still be written to, but nothing can freeze them: where all are to be frozen that
        can be, they are left out as others are that can't be. The answer names what is frozen, and the log what is not.
        """
        hidden = []
        for places in reversed(choose(self._machine, mountpoints)):
            try:
                self._targets.append(_open(self._machine, places))
            except mounts.Hidden as error:
                path = processes.one_line(places[0].path)
                if mountpoints is not None:
                    why = f"{path} can't be frozen: {error.strerror}, or name the others in mountpoints"
                    raise CommandFailed(why) from None
                hidden.append(path)
        if not self._targets:
            raise CommandFailed(_NOTHING)
        if hidden:
            names = processes.one_line(", ".join(hidden))
            self.notes.append(f"left out, since other mounts hide them, so that they can't be frozen: {names}")

    def begin(self, until: float, skip: bool) -> None:
        """Freeze all.

        :param until: when that must be done, in ``boot_seconds``.
        :param skip: whether what can't be frozen may be left out.
        :raises CommandFailed: it can't be done, or not in time; some may be frozen.
        """
        self._child = _Child(functools.partial(self._freeze_each, skip, os.getpid()))
        while not self._child.over:
            if boot_seconds() >= until:
                raise CommandFailed(_CUT_SHORT[TIME_OVER], code=Code.TIMED_OUT)
            self._leave_if_unwanted()
            self._answers += self._child.read(min(GLANCE, max(0.0, until - boot_seconds())))
        for target, answer in zip(self._targets, self._answers):
            if answer and not (skip and answer == errno.EOPNOTSUPP):
                raise CommandFailed(_why_not(target, answer))
        if len(self._answers) < len(self._targets):
            self._leave_if_unwanted()
            raise CommandFailed(f"{self._targets[len(self._answers)].path}: the process that was to freeze it was ended")
        if all(self._answers):
            raise CommandFailed(_NOTHING)

    def wait(self, until: float) -> str:
        """Wait for the first reason to thaw, and return it."""
        while boot_seconds() < until:
            why = self._stop.why(self._record)
            if why is not None:
                return why
            time.sleep(min(GLANCE, max(0.0, until - boot_seconds())))
        return TIME_OVER

    def thaw(self) -> tuple[list[str], list[str]]:
        """Thaw what was frozen, and wait for that.

        What was still to be frozen isn't any more; what is just being frozen is thawed as soon as the kernel is done.

        :returns: what was frozen until now, and what went wrong.
        """
        thawing = _Thawing()
        child = self._child
        if child is not None:
            child.stop()
            while not child.over:
                self._thaw_answered(thawing)
                self._answers += child.read(GLANCE)
            if child.crashed:
                self._answers += b"\0"  # it may have frozen one more
        self._thaw_answered(thawing)
        results = thawing.results()
        for target in self._targets:
            os.close(target.descriptor)  # hooks may want to unmount it
        return results

    def finish(self, failed: bool) -> list[str]:
        """Run the hooks and remove the record, unless somebody else does.

        :returns: what the log is to say.
        """
        return _finish(self._machine, failed) if freeze_record.stands(self._record) else []

    def _leave_if_unwanted(self) -> None:
        why = self._stop.why(self._record)
        if why is not None:
            raise CommandFailed(_CUT_SHORT[why])

    def _run_hooks_before(self) -> None:
        machine = self._machine._replace(run=self._run_while_wanted)
        try:
            with _every(GLANCE, self._end_hook_if_recalled):
                failures = _run_hooks(machine, BEFORE, failed=False)
        except SystemExit:
            raise CommandFailed(_CUT_SHORT[self._stop.why(self._record) or ASKED]) from None
        if failures:
            names = ", ".join(each.hook for each in failures)
            raise CommandFailed(f"hooks of {BEFORE} failed: {names}; nothing was frozen", notes=list(hooks.notes(failures)))

    def _run_while_wanted(self, *arguments: Any, **options: Any) -> processes.Finished:
        """As ``processes.run``.

        :raises CommandFailed: the freeze is not wanted any more.
        """
        self._leave_if_unwanted()
        return self._machine.run(*arguments, **options)

    def _end_hook_if_recalled(self) -> None:
        if not freeze_record.stands(self._record):
            signal.raise_signal(signal.SIGTERM)

    def _freeze_each(self, skip: bool, keeper: int, pipe: int) -> int:
        """What the child of *keeper* does. If that dies meanwhile the child takes its place, and thaws; its exit status."""
        keep_only(pipe, self._lock, self._record, *(target.descriptor for target in self._targets))
        for target in self._targets:
            if self._stop.asked or os.getppid() != keeper or not freeze_record.stands(self._record):
                break
            answer = _ask(target.descriptor, FIFREEZE)
            self._answers.append(answer)
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, bytes([answer]))
            if answer and not (skip and answer == errno.EOPNOTSUPP):
                break
        if os.getppid() != keeper:
            self._child = None
            self.thaw()
            self.finish(failed=True)
        return 0

    def _thaw_answered(self, thawing: _Thawing) -> None:
        """Begin to thaw what is known to be frozen; the last frozen first, for the others may stand on it."""
        for target, answer in reversed(list(zip(self._targets, self._answers))):
            if not answer:
                thaw = functools.partial(_ask, target.descriptor, FITHAW)
                thawing.begin(target.device, target.path, thaw, target.descriptor, self._lock)


_CUT_SHORT = {
    ASKED: "it was to be thawed before all was frozen; nothing stays frozen",
    ORPHANED: "the agent was ended before all was frozen; nothing stays frozen",
    RECALLED: "all was to be thawed by vmaccord-guest --thaw before all was frozen; nothing stays frozen",
    TIME_OVER: "freezing took longer than thaw_after; nothing stays frozen",
}


def _why_not(target: _Target, answer: int) -> str:
    path = processes.one_line(target.path)
    if answer == errno.EBUSY:
        return f"{path} is frozen already, by somebody else; thaw it first: fsfreeze --unfreeze {path}"
    if answer == errno.EOPNOTSUPP:
        return f"{path} can't be frozen, {target.kind} does not know how; leave it out"
    if answer == errno.EPERM:
        return f"{path} can't be frozen: only root may do that; run the agent as root"
    return f"{path} can't be frozen: {os.strerror(answer)}"


# ---- Processes ----


def _fork(work: Callable[[], int]) -> int:
    """The number of a process that does *work* and has its result as status, but no life besides."""
    pid = os.fork()
    if pid == 0:
        status = _CRASHED
        try:
            status = work()
        finally:
            os._exit(status)
    return pid


class _Child:
    """A process that does *work*, which is given a pipe to answer into.

    :ivar over: whether it has ended.
    :ivar crashed: whether it did not end by itself.
    """

    def __init__(self, work: Callable[[int], int]) -> None:
        self.over = False
        self.crashed = False
        self._pipe, write_end = os.pipe()
        try:
            self._pid = _fork(functools.partial(work, write_end))
        except OSError as error:
            os.close(self._pipe)
            raise CommandFailed(f"no process to freeze with can be had: {error.strerror}") from None
        finally:
            os.close(write_end)

    def read(self, patience: float) -> bytes:
        """What it answers within *patience* seconds; nothing, for one."""
        if not select.select([self._pipe], [], [], patience)[0]:
            return b""
        answers = os.read(self._pipe, PATHS_LIMIT)
        if not answers:
            self.over = True
            self.crashed = os.waitpid(self._pid, 0)[1] != 0
            os.close(self._pipe)
        return answers

    def stop(self) -> None:
        """Have it begin nothing more; what it is doing it does to its end."""
        if not self.over:
            os.kill(self._pid, signal.SIGTERM)


class _Thawing:
    """File systems that are being thawed, each by a process of its own."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}
        self._thawers: dict[str, int] = {}
        self._answers: dict[str, int] = {}

    def begin(self, device: str, path: str, work: Callable[[], int], *descriptors: int) -> None:
        """Have *work* thaw the file system on *device*, unless it does so already; it needs *descriptors*.

        :param path: what people are to know it by.
        """
        if device in self._paths:
            return
        self._paths[device] = path

        def alone() -> int:
            keep_only(*descriptors)  # nobody is to wait for this process, who waits for another one
            return work()

        try:
            self._thawers[device] = _fork(alone)
        except OSError:
            self._answers[device] = work()  # there is no room for another process

    def results(self) -> tuple[list[str], list[str]]:
        """What was frozen until now, and what went wrong; waits for all."""
        for device, pid in self._thawers.items():
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            self._answers[device] = status if status >= 0 else _CRASHED
        answers = [(self._paths[device], answer) for device, answer in self._answers.items()]
        thawed = [path for path, answer in answers if answer == 0]
        return thawed, [_why_not_thawed(path, answer) for path, answer in answers if answer not in (0, errno.EINVAL)]


def _why_not_thawed(path: str, answer: int) -> str:
    shown = processes.one_line(path)
    by_hand = f"do it by hand: fsfreeze --unfreeze {shown}"
    if answer == errno.ENOENT:
        return f"{shown} can't be thawed: it is not mounted any more; mount it, then {by_hand}"
    if answer == errno.ESTALE:
        return f"{shown} can't be thawed: another mount hides it; unmount that one, then {by_hand}"
    why = os.strerror(answer) if answer != _CRASHED else "the process that was to do it was ended"
    return f"{shown} can't be thawed: {why}; {by_hand}"


def _thaw_devices(root: str, recorded: Sequence[tuple[str, str]], lock: int) -> tuple[list[str], list[str]]:
    """Thaw the file systems of a record, which are found by their devices."""
    thawing = _Thawing()
    for device, path in reversed(recorded):
        thawing.begin(device, path, functools.partial(_thaw_device, root, device), lock)
    return thawing.results()


def _thaw_device(root: str, device: str) -> int:
    """What the kernel answers when the file system on *device* is to be thawed."""
    try:
        places = [mount for mount in mounts.mounts(root) if mount.device == device]
        return _ask(mounts.open_any(root, places)[1], FITHAW)
    except OSError as error:
        return error.errno or errno.EIO


def _ask(descriptor: int, request: int) -> int:
    """0, or the number of the error that the kernel answers with. Blocks for as long as it likes."""
    try:
        fcntl.ioctl(descriptor, request, 0)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


# ---- The lock ----


_STILL_BUSY = "an earlier freeze is not quite over; try again in a moment"


def _lock(machine: Machine) -> int:
    """A descriptor that holds the lock; what an earlier keeper left undone is done first.

    :raises CommandFailed: somebody else holds it, or the state directory can't be used.
    :raises OSError: the state directory can't be had.
    """
    with contextlib.suppress(FileExistsError):
        os.makedirs(machine.state_directory, mode=0o700)
    why = freeze_record.why_unfit(machine)
    if why is not None:
        raise CommandFailed(why)
    lock = freeze_record.open_lock(machine)
    if not freeze_record.try_lock(lock):
        raise CommandFailed(_STILL_BUSY, code=Code.BUSY)
    try:
        noted = freeze_record.read(machine)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    if noted is not None and noted.file_systems:
        raise CommandFailed(_STILL_BUSY, code=Code.BUSY)
    if noted is not None:
        _finish(machine, failed=noted.failed is not False)
    return lock


def _finish(machine: Machine, failed: bool) -> list[str]:
    """Run the hooks that are due when all is thawed, and remove the record. Who does that holds the lock.

    :param failed: what the hooks are told. It is noted, so that whoever runs them again tells them the same.
    :returns: what the log is to say.
    """
    record = freeze_record.try_write(machine, Noted(failed=failed))
    if record is not None:
        os.close(record)
    parent = os.getppid()
    try:
        failures = _run_hooks(machine, AFTER, failed)
    except SystemExit:
        if os.getppid() == parent:
            raise
        failures = _run_hooks(machine, AFTER, failed)  # they were cut short because the agent died
    with contextlib.suppress(FileNotFoundError):
        os.unlink(freeze_record.path(machine))
    return [f"hooks of {AFTER}: {note}" for note in hooks.notes(failures)]


# ---- Hooks ----


def _run_hooks(machine: Machine, event: str, failed: bool) -> tuple[hooks.Failure, ...]:
    return hooks.run(
        os.path.join(machine.hooks_directory, event),
        {"VMACCORD_EVENT": event, "VMACCORD_FAILURE": "1" if failed else "0"},
        deadline=machine.hooks_deadline,
        run_program=machine.run,
        owner=machine.owner,
    )


@contextlib.contextmanager
def _every(seconds: float, look: Callable[[], object]) -> Iterator[None]:
    """Call *look* every so many *seconds*, whatever is waited for."""
    before = signal.signal(signal.SIGALRM, lambda *_: look())
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
