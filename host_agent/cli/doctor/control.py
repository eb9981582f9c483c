"""The control socket: whether it is there, whether this user may open it, and whether a daemon listens on it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from host_agent.client import is_trusted_socket

from . import Finding, Level

_START = "start it: systemctl start vmaccord-host-agent, or vmaccord-host in a shell"

#: A daemon that does not accept a connection for so long, in seconds, hangs.
_PATIENCE = 5.0

#: Process, user and group at the other end, as the kernel tells them.
_CREDENTIALS = struct.Struct("3i")


class Runner(NamedTuple):
    """Who runs the daemon.

    :ivar groups: the numbers of all groups of its process.
    """

    uid: int
    groups: frozenset[int]

    def may(self, status: os.stat_result, wanted: int) -> bool:
        """Whether the permissions of a file let it do what it wants, as the bits of the last octal digit."""
        if self.uid == 0:
            return True
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.groups else 0
        return status.st_mode >> shift & wanted == wanted


def choose(places: Sequence[str], asked_for: bool) -> tuple[Optional[str], list[Finding]]:
    """The first of *places* at which there is a control socket; and what is to be said of all.

    :param asked_for: whether the operator named the place: then nobody else's judgement counts.
    """
    findings: list[Finding] = []
    for place in places:
        found = _look(place, asked_for)
        if found is None:
            return place, findings
        findings += found
    if not findings:
        where = " or ".join(places)
        advice = f"{_START}; or name its control socket with --control"
        findings.append(Finding(Level.TROUBLE, "control-socket", f"no daemon runs: nothing is at {where}", advice))
    return None, findings


def probe(path: str) -> tuple[Optional[Runner], list[Finding]]:
    """Who listens on the socket at *path*; None with a finding where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(path)
        except OSError as error:
            return None, [_explain(path, error)]
        process, uid, gid = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
    return Runner(uid, frozenset({gid, *_groups_of(process)})), []


def _look(place: str, asked_for: bool) -> Optional[list[Finding]]:
    """What is wrong with *place*; None: there is a socket to be asked. Where nothing is, nothing is wrong yet."""
    try:
        status = os.lstat(place)
    except PermissionError:
        advice = "run as root, or as the user that vmaccord-host runs as"
        return [Finding(Level.TROUBLE, "control-socket", f"{place}: you may not even look there", advice)]
    except OSError:
        return []
    if not stat.S_ISSOCK(status.st_mode) and not (asked_for and stat.S_ISLNK(status.st_mode)):
        advice = "remove it, and start vmaccord-host again"
        return [Finding(Level.TROUBLE, "control-socket", f"{place}: something else than a socket is there", advice)]
    if not asked_for and not is_trusted_socket(place):
        text = f"{place}: belongs to user {status.st_uid}, who is neither you nor the service; it is not used"
        return [Finding(Level.WARNING, "control-socket", text, "if you trust that user, name it with --control")]
    return None


def _explain(path: str, error: OSError) -> Finding:
    if error.errno == errno.ECONNREFUSED:
        text = f"{path}: left behind by a daemon that ended without tidying up; nobody listens there"
        return Finding(Level.TROUBLE, "control-socket", text, _START)
    if isinstance(error, PermissionError):
        text = f"{path}: you, user {os.geteuid()}, may not open it"
        advice = "run as root, or have your group named in host.conf: operator-group = GROUP, or viewer-group = GROUP"
        return Finding(Level.TROUBLE, "control-socket", text, advice)
    if isinstance(error, (socket.timeout, BlockingIOError)):
        text = f"{path}: the daemon takes no connection: it hangs, or has far too much to do"
        return Finding(Level.TROUBLE, "control-socket", text, "look at its log: journalctl -u vmaccord-host-agent")
    return Finding(Level.TROUBLE, "control-socket", f"{path}: {error.strerror or error}", _START)


def _groups_of(process: int) -> Iterable[int]:
    """The groups of a process; nothing where it can't be looked at."""
    with (
        contextlib.suppress(OSError, ValueError),
        open(f"/proc/{process}/status", encoding="ascii", errors="replace") as file,
    ):
        for line in file:
            if line.startswith("Groups:"):
                return [int(number) for number in line.split()[1:]]
    return []
