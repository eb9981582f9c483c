"""Users of the machine: looking one up, and acting with no more rights than one has.

Users of this machine are asked of the C library, which knows those of directories too; where the machine's file system
begins elsewhere, they stand in its ``/etc/passwd``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from guest_agent import processes
from guest_agent.collectors.files import read_optional

from . import CommandFailed, Machine

#: Where users stand, relative to the root.
USERS = "etc/passwd"

#: How many fields a user has there.
_COLUMNS = 7


class Account(NamedTuple):
    """A user.

    :ivar groups: all groups, the primary one (*gid*) included.
    :ivar home: the home directory, as a path that can be opened; empty where none is told.
    """

    name: str
    uid: int
    gid: int
    groups: Sequence[int]
    home: str


def available(machine: Machine) -> Optional[str]:
    """Why no user's belongings can be changed, in a sentence; None where they can."""
    if os.geteuid() != machine.owner:
        return "only root may change what belongs to users; run the agent as root"
    if not os.path.isfile(os.path.join(machine.root, USERS)):
        return f"this machine has no users (there is no /{USERS})"
    return None


def find(machine: Machine, name: str) -> Account:
    """The user called *name*.

    :raises CommandFailed: there is none, or none can be called that.
    """
    found = None
    if name.isprintable() and ":" not in name:
        found = _known_here(name) if machine.root == "/" else _written_down(machine, name)
    if found is None:
        raise CommandFailed.invalid(f"there is no user {processes.one_line(name)!r}; name one of the guest's")
    return found


@contextlib.contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """What is done in here is done with that user's rights, files and directories included.

    Only the effective ones change: the user can't send signals to this process.

    :raises CommandFailed: this is neither root nor that user.
    """
    own = os.geteuid()
    if own != 0:
        if own != account.uid:
            raise CommandFailed(f"only root can act as {account.name}; run the agent as root")
        yield
        return
    gid, groups = os.getegid(), os.getgroups()
    try:
        os.setgroups(account.groups)
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(own)
        os.setegid(gid)
        os.setgroups(groups)


def _known_here(name: str) -> Optional[Account]:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    return Account(name, entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid), entry.pw_dir)


def _written_down(machine: Machine, name: str) -> Optional[Account]:
    for line in read_optional(machine.root, USERS).splitlines():
        columns = line.split(":")
        if len(columns) == _COLUMNS and columns[0] == name and columns[2].isdigit() and columns[3].isdigit():
            uid, gid, home = int(columns[2]), int(columns[3]), columns[5]
            return Account(name, uid, gid, (gid,), home and os.path.join(machine.root, home.lstrip("/")))
    return None
