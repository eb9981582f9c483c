"""Ports found in directories, as libvirt lays them out: each sub-directory is one VM and holds a Unix socket per port.

Changes are noticed through inotify, at once and without polling. An inotify event is only a reason to look: what counts is
what the file system shows then, so nothing depends on the order, the number or the loss of events. The order that leaves no
gap is: watch first, then look.

Symbolic links in a directory and its sub-directories are not followed: whoever may write to that of one VM could lead to
the socket of another. What looks like a port or a VM's directory and is none is warned of once.

A directory that does not exist yet is waited for at its nearest existing ancestor, and every ancestor is watched for being
moved or removed: a directory below it would not notice.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Callable, NamedTuple, Optional

import asyncinotify
from asyncinotify import Mask

from host_agent.exits import Exit, Failure
from host_agent.text import printable

from . import PORTS, Added, Report, is_name
from .choice import Choice, Stamp

_log = logging.getLogger(__name__)

_ENTRIES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.ATTRIB | Mask.EXCL_UNLINK | Mask.ONLYDIR
_SELF = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR

#: What is watched of a directory that is followed, of one that holds a VM's sockets, and of an ancestor.
_FOLLOWED = _ENTRIES | _SELF
_VM = _ENTRIES | Mask.DONT_FOLLOW
_ANCESTOR = _SELF | Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB

_SOMEWHERE = Path()

#: What may be where a socket should be, for people.
_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFREG: "a regular file", stat.S_IFDIR: "a directory"}

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

#: libvirt's older and newer names of a VM's sub-directory.
_OLD_STYLE = re.compile(r"domain-[0-9]+-(?=.)", re.DOTALL)
_NEW_STYLE = re.compile(r"[0-9]+-(?=.)", re.DOTALL)
_NEW_STYLE_BELOW = ("libvirt", "qemu", "channel")


class NoInotify(Failure):
    """The kernel gives no inotify instance."""

    status = Exit.NO_INOTIFY


def guest_name(directory: str, subdirectory: str) -> Optional[str]:
    """The name of the VM whose sockets are in *subdirectory* of *directory*; None where it can't be used as a name."""
    if not is_name(subdirectory):
        return None
    prefix = _OLD_STYLE.match(subdirectory)
    if prefix is None and PurePosixPath(directory).parts[-3:] == _NEW_STYLE_BELOW:
        prefix = _NEW_STYLE.match(subdirectory)
    return subdirectory[prefix.end() :] if prefix else subdirectory


class DirectoryDiscovery:
    """Reports the ports in *directories*.

    :param report: called with every event, from ``open`` and ``run``.
    """

    def __init__(self, directories: Iterable[str], report: Report) -> None:
        self._report = report
        self._choice = Choice()
        self._paths = [os.path.abspath(each) for each in directories]
        self._directories = [_Directory(each, self._found, self._lost) for each in self._paths]

    def open(self) -> None:
        """Begin to watch, and report what is there.

        :raises NoInotify: the kernel refuses.
        """
        for each in self._directories:
            each.open()

    async def settled(self) -> None:
        """Return: ``open`` has looked at everything."""

    async def run(self) -> None:
        """Report changes until cancelled."""
        tasks = [asyncio.ensure_future(each.follow()) for each in self._directories]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Stop watching."""
        for each in self._directories:
            each.close()

    def status(self) -> dict[str, Any]:
        """The directories."""
        return {"directories": list(self._paths)}

    def _found(self, name: str, path: str, stamp: Stamp) -> None:
        reported = self._choice.put(name, path, stamp)
        claims = self._choice.claims(name)
        for event in reported:
            if isinstance(event, Added) and len({os.path.dirname(each) for each in claims}) > 1:
                text = f"{len(claims)} sockets claim this name, the newest is used: {event.path}"
                _log.warning("%s: %s", printable(name), printable(text))
            self._report(event)

    def _lost(self, name: str, path: str) -> None:
        for event in self._choice.drop(name, path):
            self._report(event)


class _Port(NamedTuple):
    """The socket found in a sub-directory."""

    guest: str
    path: str
    stamp: Stamp


class _Ancestor(NamedTuple):
    """A directory on the way to the one that is followed; *below* is the next step's name."""

    path: str
    below: str
    watch: asyncinotify.Watch


class _Directory:
    """Follows one directory and its sub-directories.

    :param found: called with guest name, path and stamp whenever a socket was looked at.
    :param lost: called with guest name and path when a socket is gone.
    """

    def __init__(self, path: str, found: Callable[[str, str, Stamp], None], lost: Callable[[str, str], None]) -> None:
        self._path = path
        self._found = found
        self._lost = lost
        self._inotify: Optional[asyncinotify.Inotify] = None
        self._own: Optional[asyncinotify.Watch] = None
        self._ancestors: list[_Ancestor] = []
        #: By name of the sub-directory: its watch and its socket.
        self._watches: dict[str, asyncinotify.Watch] = {}
        self._ports: dict[str, _Port] = {}
        #: The sub-directory of each watch descriptor.
        self._names: dict[int, str] = {}
        #: Paths of which something was said already.
        self._told: set[str] = set()

    def open(self) -> None:
        try:
            self._inotify = asyncinotify.Inotify()
        except OSError as error:
            raise NoInotify(
                f"can't watch directories: {error.strerror}; raise fs.inotify.max_user_instances with sysctl"
            ) from None
        self._attach()

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    async def follow(self) -> None:
        while self._inotify is not None:
            self._take(await self._inotify.get())

    # ---- What an event gives a reason to look at ----

    def _take(self, event: asyncinotify.Event) -> None:
        if Mask.Q_OVERFLOW in event.mask:
            _log.warning("%s: too many changes at once, looking at everything again", printable(self._path))
            self._attach()
            return
        descriptor = event.watch.wd if event.watch is not None else None
        name = None if event.name is None else str(event.name)
        if self._own is not None and descriptor == self._own.wd:
            if name is None:
                self._attach()
            else:
                self._look_at(name)
        elif descriptor in self._names:
            if name in PORTS:
                self._look_at(self._names[descriptor])
        elif any(descriptor == each.watch.wd and name in (None, each.below) for each in self._ancestors):
            self._attach()

    # ---- The directory itself ----

    def _attach(self) -> None:
        """Watch the directory and the way to it, as far as they exist; then look at everything."""
        before = self._held()
        self._ancestors = list(self._walk())
        self._own = self._watch(self._path, _FOLLOWED)
        if self._own is None:
            self._say_missing()
        else:
            self._told.discard(self._path)
        held = self._held()
        for descriptor, watch in before.items():
            if descriptor not in held:
                self._unwatch(watch)
        self._look_at_all()

    def _held(self) -> dict[int, asyncinotify.Watch]:
        watches = [ancestor.watch for ancestor in self._ancestors]
        return {watch.wd: watch for watch in (*watches, self._own) if watch is not None}

    def _walk(self) -> Iterator[_Ancestor]:
        """Watch the ancestors, from the root down, each before the next is looked for."""
        way = [*reversed(PurePosixPath(self._path).parents), PurePosixPath(self._path)]
        for ancestor, below in zip(way, way[1:]):
            watch = self._watch(str(ancestor), _ANCESTOR)
            if watch is not None:
                yield _Ancestor(str(ancestor), below.name, watch)

    def _say_missing(self) -> None:
        if os.path.isdir(self._path):
            # Why it can't be watched has been said, or it was made a moment ago.
            return
        nearest = next(str(each) for each in PurePosixPath(self._path).parents if os.path.isdir(each))
        if nearest not in [ancestor.path for ancestor in self._ancestors]:
            self._warn_once(self._path, f"can't be waited for: this user may not read {nearest}; start as another user")
        elif not os.path.lexists(self._path):
            self._say_once(self._path, "does not exist yet: waiting for it", logging.INFO)
        else:
            self._warn_once(self._path, "is no directory: waiting for one in its place")

    def _look_at_all(self) -> None:
        for name in sorted({*self._entries(), *self._watches, *self._ports}):
            self._look_at(name)

    def _entries(self) -> list[str]:
        if self._own is None:
            return []
        try:
            return os.listdir(self._path)
        except OSError as error:
            if error.errno not in _GONE:
                self._warn(self._path, error)
            return []

    # ---- One sub-directory ----

    def _look_at(self, name: str) -> None:
        """Bring what is known of the sub-directory *name* up to date."""
        path = os.path.join(self._path, name)
        mode = self._mode(path)
        if not stat.S_ISDIR(mode):
            self._forget(name, is_gone=not mode)
            if stat.S_ISLNK(mode) and os.path.isdir(path):
                self._warn_once(path, "is a symbolic link to a directory: ignored; make the VM's directory itself here")
            return
        guest = guest_name(self._path, name)
        if guest is None:
            self._warn_once(path, "a name with control characters or other than UTF-8 is no VM name; ignored")
            return
        watch = self._watch(path, _VM)
        self._keep_watch(name, watch)
        self._keep_port(name, self._find_port(path, guest) if watch is not None else None)

    def _mode(self, path: str) -> int:
        """Type and permissions of what is at *path*; 0 where nothing is."""
        try:
            return os.lstat(path).st_mode if self._own is not None else 0
        except OSError:
            return 0

    def _forget(self, name: str, is_gone: bool) -> None:
        self._keep_watch(name, None)
        self._keep_port(name, None)
        if is_gone:
            path = os.path.join(self._path, name)
            self._told.difference_update((path, *(os.path.join(path, port) for port in PORTS)))

    def _keep_watch(self, name: str, watch: Optional[asyncinotify.Watch]) -> None:
        """Make *watch* the only one of the sub-directory *name*. After renames it can be one that another name had."""
        old = self._watches.pop(name, None)
        if old is not None and self._names.get(old.wd) == name:
            del self._names[old.wd]
            if watch is None or watch.wd != old.wd:
                self._unwatch(old)
        if watch is not None:
            self._watches[name] = watch
            self._names[watch.wd] = name

    def _keep_port(self, name: str, port: Optional[_Port]) -> None:
        old = self._ports.pop(name, None)
        if port is not None:
            self._ports[name] = port
            self._found(*port)
        if old is not None and (port is None or port.path != old.path):
            self._lost(old.guest, old.path)

    def _find_port(self, path: str, guest: str) -> Optional[_Port]:
        for port in PORTS:
            candidate = os.path.join(path, port)
            try:
                status = os.lstat(candidate)
            except OSError as error:
                if error.errno not in _GONE:
                    self._warn(path, error)
                continue
            if stat.S_ISSOCK(status.st_mode):
                stamp = Stamp(status.st_mtime_ns, status.st_dev, status.st_ino, status.st_ctime_ns)
                return _Port(guest, candidate, stamp)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            self._warn_once(candidate, f"is {kind}, no socket: ignored; remove it")
        return None

    # ---- Watches and warnings ----

    def _watch(self, path: str, mask: Mask) -> Optional[asyncinotify.Watch]:
        """A watch on *path*, which replaces the mask of one that is there; None where it can't be watched."""
        assert self._inotify is not None  # noqa: S101 - an open directory has one
        try:
            watch = self._inotify.add_watch(path, mask)
            # Nobody asks a watch where it is, and there is one for each VM.
            watch.path = _SOMEWHERE
            return watch
        except OSError as error:
            if error.errno not in _GONE and not (error.errno == errno.EACCES and mask == _ANCESTOR):
                self._warn(path, error)
            return None

    def _unwatch(self, watch: asyncinotify.Watch) -> None:
        if self._inotify is None:
            return
        try:
            self._inotify.rm_watch(watch)
        except OSError:
            # The kernel removes the watch of a directory that is gone by itself.
            return

    def _warn(self, path: str, error: OSError) -> None:
        if error.errno == errno.ENOSPC:
            self._warn_once("", "no more directories can be watched: raise fs.inotify.max_user_watches with sysctl")
        else:
            self._warn_once(path, f"{error.strerror}: guests there can't be found until this user may read it")

    def _warn_once(self, path: str, text: str) -> None:
        self._say_once(path, text, logging.WARNING)

    def _say_once(self, path: str, text: str, level: int) -> None:
        if path not in self._told:
            self._told.add(path)
            _log.log(level, "%s: %s", printable(path or self._path), printable(text))
