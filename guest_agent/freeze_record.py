"""The record of what is frozen, and the lock that goes with it: both lie in the agent's state directory.

That directory is in memory (on a tmpfs), where nothing is ever frozen, and only root has a say in it. A record is replaced
as a whole and never changed, so that whoever wrote one sees by its descriptor whether it still stands. What is read is
believed only as far as it is what the agent writes. What follows from a record is not known here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

from . import mounts, processes
from .collectors.files import read_optional
from .commands import Machine
from .freezer import RECORD

_LIMIT = 1024 * 1024
_IN_MEMORY = frozenset({"ramfs", "tmpfs"})
_BOOT = "proc/sys/kernel/random/boot_id"
_DEVICE = re.compile(r"[0-9]{1,10}:[0-9]{1,10}", re.ASCII)


class Noted(NamedTuple):
    """What a record says.

    :ivar file_systems: the device of each file system that may be frozen, and where it is mounted.
    :ivar failed: what the hooks are to be told that are still to run, now that all is thawed; None: it is not.
    """

    file_systems: Sequence[tuple[str, str]] = ()
    failed: Optional[bool] = None


def path(machine: Machine) -> str:
    """Where the record lies."""
    return os.path.join(machine.state_directory, RECORD)


def why_unfit(machine: Machine) -> Optional[str]:
    """Why the state directory can't be used, in a sentence; where it does not exist, what it would be made in counts."""
    directory = place = machine.state_directory
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    try:
        why = processes.why_untrusted(place, machine.owner)
        kind = _kind(machine.root, place)
    except OSError as error:
        return f"{directory} can't be used: {error.strerror}; remove what is there, the agent makes the directory itself"
    if why is not None:
        return f"{directory} can't be used: {why}"
    if kind not in _IN_MEMORY:
        return f"{directory} is on a file system ({kind}) that may be frozen; mount a tmpfs there, or above it"
    return None


def _kind(root: str, directory: str) -> str:
    """The type of the file system that *directory* is on."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        number = mounts.number_of(descriptor)
    finally:
        os.close(descriptor)
    kinds = {mount.number: mount.kind for mount in mounts.mounts(root)}
    return kinds.get(number, "none that is known")


def open_lock(machine: Machine) -> int:
    """A descriptor that can hold the lock.

    :raises OSError: there is no state directory.
    """
    return os.open(machine.state_directory, os.O_RDONLY | os.O_DIRECTORY)


def try_lock(lock: int) -> bool:
    """Whether the lock is held now; it is until all copies of the descriptor are closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write(machine: Machine, noted: Noted) -> int:
    """Put *noted* in the place of what was noted; a descriptor of that.

    :raises OSError: it can't be noted, as where there is no room for it.
    """
    unfinished = os.path.join(machine.state_directory, f".{RECORD}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    text = json.dumps({"boot": read_optional(machine.root, _BOOT), **noted._asdict()})
    try:
        with open(descriptor, "w", encoding="ascii", closefd=False) as file:
            file.write(text)
        os.replace(unfinished, path(machine))
    except OSError as error:
        os.close(descriptor)
        os.unlink(unfinished)
        raise OSError(error.errno, error.strerror, path(machine)) from None
    return descriptor


def try_write(machine: Machine, noted: Noted) -> Optional[int]:
    """As ``write``; None where that can't be done: to thaw is more important."""
    try:
        return write(machine, noted)
    except OSError:
        return None


def read(machine: Machine) -> Optional[Noted]:
    """What is noted; no file systems, if that was before the machine was started. None where there is no record.

    :raises ValueError: it is no record; the text is a sentence.
    :raises OSError: it can't be read.
    """
    try:
        with open(path(machine), "rb") as file:
            found = json.loads(file.read(_LIMIT))
        systems = [(device, place) for device, place in found["file_systems"]]
        if not all(isinstance(place, str) and _DEVICE.fullmatch(device) for device, place in systems):
            raise ValueError
        failed = found["failed"]
        if failed is not None and not isinstance(failed, bool):
            raise ValueError
        return Noted(systems if found["boot"] == read_optional(machine.root, _BOOT) else (), failed)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        sentence = f"{path(machine)} is not what the agent wrote; see what is frozen, thaw it by hand, and remove it"
        raise ValueError(sentence) from None


def stands(record: int) -> bool:
    """Whether nobody has replaced or removed the record that this is a descriptor of."""
    return os.fstat(record).st_nlink > 0
