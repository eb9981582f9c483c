"""Exit statuses of ``vmaccord-guest``: what service supervision and people can tell apart."""

from __future__ import annotations

from common import statuses


class Exit(statuses.Status):
    """Why the agent ended."""

    OK = 0, "stopped by SIGTERM or SIGINT, or did what an option asked for"
    UNEXPECTED = 1, "an error that should not happen"
    USAGE = 2, "the command line has an unknown option or lacks a value"
    BAD_CONFIGURATION = 3, "the configuration can't be read, or has an unknown key or a bad value"
    NO_PORT = 4, "none of the ports appeared in time"
    PORT_UNUSABLE = 5, "the port exists but can't be used: no permission, or it is no port"


def epilog() -> str:
    """All statuses, as ``--help`` lists them."""
    return statuses.epilog(Exit)
