"""Who may ask the control API for what: the kernel says which user is at the other end of a connection, and in which groups.

What it says are the credentials with which the connection was opened; nothing that a client sends counts. Root and the
daemon's own user may command, as may the members of one configured group; the members of another may only look.

Looking is what changes nothing, by the method of the question. That includes a session that is exported: it shows what is
known of a guest, and no argument of a command. Handing one over, taking one in and saying that one is awaited is commanding.
"""

from __future__ import annotations

import array
import asyncio
import enum
import grp
import os
import pwd
import socket
import struct
from collections.abc import Awaitable
from typing import Callable, NamedTuple, Optional

from aiohttp import web

from host_agent.text import printable

from .problems import Problem

#: Methods that change nothing.
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})

#: The kernel's number for the supplementary groups of a peer, which Python has no name for.
_SO_PEERGROUPS = 59

#: As many bytes as Python lets the kernel answer; each group takes four.
_GROUPS_SIZE = 1024

_CREDENTIALS = struct.Struct("iII")


class Role(enum.Enum):
    """What a user may do."""

    OPERATOR = "operator"
    VIEWER = "viewer"
    STRANGER = "stranger"


class Peer(NamedTuple):
    """Who is at the other end of a connection.

    :ivar groups: the numbers of all groups, the primary one among them.
    """

    uid: int
    groups: frozenset[int]


#: Finds out who asks.
Identify = Callable[[web.Request], Awaitable[Peer]]


class Roles:
    """Which role whoever asks has. A configured group that does not exist has no members.

    :param operators: name of the group whose members may command.
    :param viewers: name of the group whose members may look.
    """

    def __init__(self, operators: Optional[str] = None, viewers: Optional[str] = None) -> None:
        self._operators = operators
        self._viewers = viewers
        self._operator_group = _number_of(operators)
        self._viewer_group = _number_of(viewers)
        self._own_user = os.geteuid()

    @property
    def shared(self) -> bool:
        """Whether the control socket must be open to all users, for a group is to get in."""
        return self._operators is not None or self._viewers is not None

    def role_of(self, peer: Peer) -> Role:
        """The role of *peer*."""
        if peer.uid in (0, self._own_user) or self._operator_group in peer.groups:
            return Role.OPERATOR
        return Role.VIEWER if self._viewer_group in peer.groups else Role.STRANGER

    def check(self, peer: Peer, method: str) -> None:
        """Let through what *peer* may do.

        :raises Problem: it may not.
        """
        role = self.role_of(peer)
        if role is Role.STRANGER:
            raise Problem("not-allowed", f"user {peer.uid} may not ask this daemon; {self._remedy(looking=True)}")
        if role is Role.VIEWER and method not in _LOOKING:
            raise Problem("not-allowed", f"user {peer.uid} may only look; {self._remedy(looking=False)}")

    def _remedy(self, looking: bool) -> str:
        groups = [name for name in (self._operators, self._viewers if looking else None) if name is not None]
        if not groups:
            return "ask as root, or as the user that vmaccord-host runs as"
        return f"ask as root, or as a member of the group {' or '.join(groups)}"


def restrict(roles: Callable[[], Roles], identify: Identify) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A middleware that lets through what whoever asks may do.

    :param roles: gives the roles that count now.
    """

    @web.middleware
    async def restriction(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        roles().check(await identify(request), request.method)
        return await handler(request)

    return restriction


async def identify(request: web.Request) -> Peer:
    """Who asks, by the socket that *request* came over.

    :raises Problem: the connection is gone.
    """
    transport = request.transport
    try:
        connection = transport and transport.get_extra_info("socket")
        if not connection:
            raise OSError
        return await peer_of(connection)
    except OSError:
        raise Problem("not-allowed", "the connection ended before it could be seen who asks") from None


async def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end of *connection*, a Unix socket.

    :raises OSError: it has been closed.
    """
    uid, group = credentials(connection)
    try:
        groups = array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE))
    except OSError:
        # More of them than fit: then those of the database, which may be a slow one.
        groups = await asyncio.get_running_loop().run_in_executor(None, _groups_in_database, uid, group)
    return Peer(uid, frozenset((group, *groups)))


def credentials(connection: socket.socket) -> tuple[int, int]:
    """User and primary group at the other end of *connection*, a Unix socket.

    :raises OSError: it has been closed.
    """
    _, uid, group = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid, group


def name_of(uid: int) -> Optional[str]:
    """The user's name, where there is one. Asks the database, which may be a slow one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


async def shown(peer: Peer) -> str:
    """*peer* as the log names it."""
    name = await asyncio.get_running_loop().run_in_executor(None, name_of, peer.uid)
    return f"user {peer.uid}" if name is None else f"user {peer.uid} ({printable(name)})"


def _groups_in_database(uid: int, group: int) -> array.array[int]:
    name = name_of(uid)
    return array.array("I", [] if name is None else os.getgrouplist(name, group))


def _number_of(group: Optional[str]) -> Optional[int]:
    try:
        return None if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        return None
