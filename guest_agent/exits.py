"""Exit statuses of ``vmaccord-guest``: what service supervision and people can tell apart."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Why the agent ended; *meaning* is a clause for people."""

    meaning: str

    def __new__(cls, status: int, meaning: str) -> Exit:
        """A member with its meaning."""
        member = int.__new__(cls, status)
        member._value_ = status
        member.meaning = meaning
        return member

    OK = 0, "stopped by SIGTERM or SIGINT, or did what an option asked for"
    UNEXPECTED = 1, "an error that should not happen"
    USAGE = 2, "the command line has an unknown option or lacks a value"
    BAD_CONFIGURATION = 3, "the configuration can't be read, or has an unknown key or a bad value"
    NO_PORT = 4, "none of the ports appeared in time"
    PORT_UNUSABLE = 5, "the port exists but can't be used: no permission, or it is no port"


def epilog() -> str:
    """All statuses, as ``--help`` lists them."""
    return "\n".join(("exit status:", *(f"  {status.value}  {status.meaning}" for status in Exit)))
