"""The directories in which ports are: what is missing, what the daemon may not read, and what only looks like a port.

Nothing is connected to: a port has one client at a time, and that is the daemon.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Optional

from host_agent.discovery import PORTS
from host_agent.discovery.directory import guest_name

from . import Finding, Level
from .control import Runner

#: Where QEMU's own guest agent listens, which is another program.
_QEMU_AGENT = "org.qemu.guest_agent.0"

#: A name that is at least this much like a port's is a mistake.
_ALIKE = 0.8

_READ, _ENTER = 4, 1

#: What may be where a socket should be, for people.
_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFREG: "a regular file", stat.S_IFDIR: "a directory"}

_ADD_CHANNEL = f"add a channel named {PORTS[1]} to the VM: virsh edit"


def examine(directories: Sequence[str], runner: Optional[Runner], only: Optional[str] = None) -> Iterator[Finding]:
    """Look at the *directories* of the daemon.

    :param runner: who runs the daemon; None: that is not known.
    :param only: look at nothing but the guest of this name.
    """
    some_exist = any(os.path.isdir(directory) for directory in directories)
    for directory in directories:
        yield from _examine_directory(directory, runner, only, missed=not some_exist)


def examine_fixed(fixed: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the ports that the configuration names itself, by guest."""
    for guest, path in fixed.items():
        kind = _kind(path)
        if kind is None:
            yield Finding(Level.WARNING, "fixed", f"its port {path} does not exist (yet)", "see port in host.conf", guest)
        elif kind != stat.S_IFSOCK:
            text = f"its port {path} is {_called(kind)} and no socket"
            yield Finding(Level.TROUBLE, "fixed", text, "see port in host.conf", guest)


def _examine_directory(directory: str, runner: Optional[Runner], only: Optional[str], missed: bool) -> Iterator[Finding]:
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        yield _missing(directory, missed)
        return
    except OSError as error:
        yield _unseen(directory, error)
        return
    if not stat.S_ISDIR(status.st_mode):
        text = f"{directory}: no directory"
        yield Finding(Level.TROUBLE, "directory", text, "name another one in host.conf, or make it one")
    elif runner is not None and not runner.may(status, _READ | _ENTER):
        yield _unreadable(directory, status, runner)
    else:
        yield Finding(Level.OK, "directory", f"{directory}: is there")
        for name in _names(directory):
            if only is None or guest_name(directory, name) == only:
                yield from _examine_entry(directory, name, runner)


def _examine_entry(directory: str, name: str, runner: Optional[Runner]) -> Iterator[Finding]:
    """Look at one entry of a directory, which should be that of a VM."""
    path = os.path.join(directory, name)
    guest = guest_name(directory, name)
    kind = _kind(path)
    if kind == stat.S_IFLNK and os.path.isdir(path):
        text = f"{path}: a symbolic link to a directory; it is not followed"
        yield Finding(Level.WARNING, "vm-directory", text, "make the VM's directory itself here", guest)
    elif kind == stat.S_IFSOCK and _meant(name):
        text = f"{path}: a port that is not in a directory of its VM's name; it is not used"
        yield Finding(Level.WARNING, "vm-directory", text, f"have it made as {directory}/NAME/{_meant(name)}")
    elif kind == stat.S_IFDIR and guest is None:
        text = f"{path}: a name with control characters or other than UTF-8 is no VM's name; it is ignored"
        yield Finding(Level.WARNING, "vm-directory", text, "call the VM otherwise")
    elif kind == stat.S_IFDIR:
        yield from _examine_vm(path, str(guest), runner)


def _examine_vm(path: str, guest: str, runner: Optional[Runner]) -> Iterator[Finding]:
    """Look at the directory of a VM."""
    try:
        status = os.lstat(path)
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        return
    except OSError as error:
        yield _unseen(path, error, guest)
        return
    if runner is not None and not runner.may(status, _READ | _ENTER):
        yield _unreadable(path, status, runner, guest)
    ports = [name for name in PORTS if name in names]
    if ports:
        yield from _examine_ports(path, ports, guest)
    else:
        yield from _without_port(path, names, guest)


def _examine_ports(path: str, ports: Iterable[str], guest: str) -> Iterator[Finding]:
    for port in ports:
        kind = _kind(os.path.join(path, port))
        if kind not in (None, stat.S_IFSOCK):
            text = f"{path}/{port}: {_called(kind)} where the port should be; it is not followed or read"
            yield Finding(Level.TROUBLE, "port", text, "remove it, and start the VM anew", guest)


def _without_port(path: str, names: Sequence[str], guest: str) -> Iterator[Finding]:
    for name in names:
        meant = _meant(name)
        if meant:
            text = f"{path}/{name}: nearly the name of a port, which is {meant}; it is not used"
            advice = f"rename the channel: virsh edit, <target type='virtio' name='{meant}'/>"
            yield Finding(Level.WARNING, "port-name", text, advice, guest)
            return
    if _QEMU_AGENT in names:
        text = f"{path}: has the channel of QEMU's guest agent ({_QEMU_AGENT}), and none of ours"
        yield Finding(Level.WARNING, "no-port", text, _ADD_CHANNEL, guest)
    elif names:
        yield Finding(Level.WARNING, "no-port", f"{path}: has no channel for an agent", _ADD_CHANNEL, guest)


def _meant(name: str) -> Optional[str]:
    """The port's name that *name* stands for, or was meant to be; None: it is something else."""
    alike = [port for port in PORTS if SequenceMatcher(None, name.lower(), port).ratio() >= _ALIKE]
    return alike[0] if alike else None


def _missing(directory: str, missed: bool) -> Finding:
    if missed:
        text = f"{directory}: does not exist (yet), nor does any other directory that is looked into"
        advice = "start a VM with a channel, or name the directory of its sockets in host.conf: directory = PATH"
        return Finding(Level.WARNING, "directory", text, advice)
    return Finding(Level.OK, "directory", f"{directory}: does not exist (yet)")


def _unseen(path: str, error: OSError, guest: Optional[str] = None) -> Finding:
    return Finding(Level.WARNING, "directory", f"{path}: you can't look there: {error.strerror}", "run this as root", guest)


def _unreadable(path: str, status: os.stat_result, runner: Runner, guest: Optional[str] = None) -> Finding:
    text = f"{path}: the daemon, user {runner.uid}, may not read it ({stat.filemode(status.st_mode)}, group {status.st_gid})"
    advice = "make its user a member of that group: usermod --append --groups GROUP vmaccord; then restart it"
    return Finding(Level.TROUBLE, "unreadable", text, advice, guest)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _kind(path: str) -> Optional[int]:
    """What is at *path*; None: nothing, or that can't be seen."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return None


def _called(kind: Optional[int]) -> str:
    return _KINDS.get(kind or 0, "something else")
