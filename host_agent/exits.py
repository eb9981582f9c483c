"""Exit statuses of ``vmaccord-host`` and ``vmaccord``, and the errors that lead to them.

Both programs share one numbering, so that a status says the same wherever it is seen. A ``Failure`` is a sentence for the
person who started the program; nothing of it is meant for a debugger.
"""

from __future__ import annotations

from typing import ClassVar

from common import statuses


class Exit(statuses.Status):
    """Why a program ended."""

    OK = 0, "done, or the daemon was stopped by SIGTERM or SIGINT"
    UNEXPECTED = 1, "an error that should not happen"
    USAGE = 2, "the command line has an unknown option or lacks a value"
    BAD_CONFIGURATION = 3, "the configuration can't be read, or has an unknown key or a bad value"
    UNREACHABLE = 4, "the daemon does not run, or can't be reached"
    NO_SUCH_GUEST = 5, "the daemon knows no guest of that name"
    CONTROL_SOCKET = 6, "the control socket can't be made: in use by another daemon, no permission, or its path is too long"
    STATE_FILE = 7, "the state file can't be where the configuration says"
    NO_INOTIFY = 8, "the kernel gives no inotify instance to watch directories with"
    DEMO_FAILED = 9, "the demonstration did not come out as it should"
    REFUSED_BY_VERSION = 10, "a command needs a newer API version than was agreed with the guest"
    REFUSED_BY_CAPABILITY = 11, "a command is turned off in the guest, or its agent does not offer it"
    UNRESPONSIVE = 12, "the guest is not connected, is silent, does not read, or has too much to do"
    TIMED_OUT = 13, "the guest did not answer a command in time"
    GUEST_FAILED = 14, "the guest answered that it could not do what a command asks for"
    NOT_ALLOWED = 15, "the daemon does not let this user do that"
    TROUBLE = 16, "the doctor found something that keeps guests or the daemon from working"
    SEVERAL = 17, "of many guests: a command came out well in some only, or badly in different ways"
    MOVED = 18, "the guest moves, or has moved, to another host"
    HANDOFF_FAILED = 19, "a guest could not be handed over, taken in, exported or imported, or nobody knows who owns it"
    WOULD_LOSE = 20, "an older session spec would lose something, which was not allowed"


class Failure(Exception):
    """A program can't go on; the text is one sentence that says what to do next."""

    status: ClassVar[Exit] = Exit.UNEXPECTED


def epilog() -> str:
    """All statuses, as ``--help`` lists them."""
    return statuses.epilog(Exit)
