"""The control socket: made so that nobody can open it who should not, and so that two daemons never fight for it.

While it is made the directory is locked: what a dead daemon left behind is replaced, and a live daemon's socket is not
touched. The file is there with its final permissions from the first moment: those of its owner only, or of everybody where
the daemon looks at each connection itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator

from host_agent.exits import Exit, Failure

#: How many bytes a Unix socket's path may have, without its terminating zero.
PATH_LIMIT = 107

_BACKLOG = 128

#: The file's permissions when only its owner may open it, and when everybody may.
_PRIVATE, _SHARED = 0o600, 0o666


class ControlSocketError(Failure):
    """The control socket can't be made."""

    status = Exit.CONTROL_SOCKET


class Listener:
    """The listening socket at *path*.

    :param shared: whether every user may connect.
    :raises ControlSocketError: it can't be made.
    """

    def __init__(self, path: str, shared: bool = False) -> None:
        self.path = path
        self._mode = _SHARED if shared else _PRIVATE
        if len(os.fsencode(path)) > PATH_LIMIT:
            raise self._error(f"the path is longer than {PATH_LIMIT} bytes; name a shorter one with --control")
        try:
            self._make_directory()
            with self._locked():
                self._remove_leftover()
                self.socket, self._identity = _bind(path, self._mode)
        except OSError as error:
            raise self._error(f"{error.strerror or error}; name another one with --control") from None

    def share(self, shared: bool) -> None:
        """Let every user connect from now on, or its owner only.

        :raises ControlSocketError: the permissions can't be changed.
        """
        self._mode = _SHARED if shared else _PRIVATE
        try:
            if _identity(self.path) == self._identity:
                os.chmod(self.path, self._mode)
        except OSError as error:
            raise self._error(f"{error.strerror or error}; start the daemon again") from None

    def close(self) -> None:
        """Close it, and remove the file if it is still ours."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                os.unlink(self.path)

    def _make_directory(self) -> None:
        directory = os.path.dirname(self.path)
        is_root = os.geteuid() == 0
        os.makedirs(directory, mode=0o755 if is_root or self._mode == _SHARED else 0o700, exist_ok=True)
        owner = os.stat(directory).st_uid
        if not is_root and owner not in (0, os.geteuid()):
            raise self._error(f"{directory} belongs to another user; name another path with --control")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise self._error("another daemon is just starting there; try again") from None
        finally:
            os.close(directory)

    def _remove_leftover(self) -> None:
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise self._error("something else than a socket is there; remove it or name another path with --control")
        if _is_alive(self.path):
            raise self._error("in use by another daemon; stop that one or name another path with --control")
        os.unlink(self.path)

    def _error(self, text: str) -> ControlSocketError:
        return ControlSocketError(f"control socket {self.path}: {text}")


def _bind(path: str, mode: int) -> tuple[socket.socket, tuple[int, int]]:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~mode)
    try:
        listening.bind(path)
        listening.listen(_BACKLOG)
        return listening, _identity(path)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(umask)


def _is_alive(path: str) -> bool:
    """Whether anybody listens at *path*. A full queue is a sign of life, too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
