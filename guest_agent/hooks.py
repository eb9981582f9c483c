"""Hooks: programs that an administrator put into a directory to be run on an event, one after the other, by name.

They run with the agent's rights, so nobody else may have a say in what they are: directory and file, and all that leads
there, must belong to root, and only root may write to it; a symbolic link is followed on these terms. A file that is not
executable is switched off. Hidden files, backups and what package installers leave behind are no hooks.

A hook that fails, is refused or takes too long does not stop the ones after it. What events there are is not known here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from . import processes

#: How many hooks an event may have; the files behind these are refused.
LIMIT = 64

_NO_HOOK = re.compile(r"\..*|.*~|.*\.dpkg-[^.]*|.*\.rpm[^.]*", re.DOTALL)

_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class Failure(NamedTuple):
    """A hook that did not run to its end with status 0.

    :ivar hook: the file's name; that of the directory where this was refused as a whole.
    :ivar reason: what went wrong, as a clause.
    :ivar output: the first lines that it printed.
    """

    hook: str
    reason: str
    output: tuple[str, ...] = ()


def run(
    directory: str,
    environment: Mapping[str, str],
    *,
    deadline: float,
    run_program: processes.Run = processes.run,
    owner: int = 0,
) -> tuple[Failure, ...]:
    """Run every hook in *directory*; where that does not exist, there is nothing to do.

    :param directory: absolute.
    :param environment: variables that tell the hooks what happens.
    :param deadline: seconds that each hook may take.
    :param owner: the user, beside root, to whom hooks may belong.
    :returns: what failed, in the order of the hooks; nothing where all went well.
    :raises SystemExit: the agent is gone; the hooks that were left are not run.
    """
    parent = os.getppid()
    try:
        why = processes.why_untrusted(directory, owner)
        names = [] if why else sorted(name for name in os.listdir(directory) if not _NO_HOOK.fullmatch(name))
    except FileNotFoundError:
        return ()
    except OSError as error:
        why, names = f"it can't be read: {error.strerror}", []
    if why:
        return (_failure(directory, f"nothing in this directory was run: {why}"),)
    failures = []
    for name in names[:LIMIT]:
        processes.leave_without(parent)
        failures.append(_run_one(os.path.join(directory, name), environment, deadline, run_program, owner))
    if len(names) > LIMIT:
        failures.append(_failure(names[LIMIT], f"not run, nor are those behind it: these are more than {LIMIT} hooks"))
    return tuple(failure for failure in failures if failure is not None)


def refused(directory: str, *, owner: int = 0) -> tuple[Failure, ...]:
    """What ``run`` would refuse in *directory*; no hook is run."""
    return run(directory, {}, deadline=0, run_program=_run_nothing, owner=owner)


def why_refused(directories: Iterable[str], *, owner: int = 0) -> Optional[str]:
    """What ``run`` would refuse in any of *directories*, as a clause; None: nothing."""
    refusals = [f"{path}: {each.hook}: {each.reason}" for path in directories for each in refused(path, owner=owner)]
    return f"hooks are refused: {'; '.join(refusals)}" if refusals else None


def notes(failures: Sequence[Failure]) -> Iterator[str]:
    """What the log is to say of *failures*, a line each, with what the hooks printed."""
    for each in failures:
        yield f"{each.hook}: {each.reason}"
        yield from (f"{each.hook} printed: {line}" for line in each.output)


def _run_nothing(*_: Any, **__: Any) -> processes.Finished:
    return processes.Finished(0, b"")


def _run_one(
    path: str, environment: Mapping[str, str], deadline: float, run_program: processes.Run, owner: int
) -> Optional[Failure]:
    try:
        if not _is_switched_on(path):
            return None
        why = processes.why_untrusted(path, owner)
        if why is not None:
            return _failure(path, f"not run: {why}")
        finished = run_program([path], deadline=deadline, environment=environment)
    except OSError as error:
        return _failure(path, f"not run: {error.strerror}")
    except processes.ProgramTimedOut as error:
        return _failure(path, str(error), error.output)
    except processes.ProgramError as error:
        return _failure(path, str(error))
    if finished.status == 0:
        return None
    return _failure(path, finished.how, finished.output)


def _is_switched_on(path: str) -> bool:
    """Whether *path* is a file that somebody may execute.

    :raises OSError: it can't be looked at, as a symbolic link that leads nowhere.
    """
    mode = os.stat(path).st_mode
    return stat.S_ISREG(mode) and bool(mode & _EXECUTABLE)


def _failure(path: str, reason: str, output: bytes = b"") -> Failure:
    return Failure(processes.one_line(os.path.basename(path)), processes.one_line(reason), processes.first_lines(output))
