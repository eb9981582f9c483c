"""The port to the host: finding it, opening it, and reading and writing it without ever blocking.

A virtio-serial port is a bare character device; a serial line is a tty and goes through pyserial. They differ in what an
end of file means. On a virtio-serial port it says that no host is connected *now*: the descriptor stays good, and poll
reports a hang-up for as long as that lasts. On a tty a hang-up is final.

Because that hang-up is a level, a plain poll loop would spin. So the descriptor is watched by an edge-triggered epoll of
its own, and whoever waits for the port waits on that epoll: each change is reported once. Two consequences: read until
nothing more comes (``receive`` returns None or ``b""``), and look again now and then while no host is there, since not
every change of the host raises an event.

A line handed over is written whole or not at all, as far as that is up to us: when the host goes away lines not begun are
dropped, and the remainder of a begun one is kept, so that it completes instead of being glued to the next one.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import stat
import termios
from collections.abc import Sequence
from typing import Callable, Optional

#: How much one read asks for, in bytes; a virtio-serial port gives at most 4,096.
READ_SIZE = 4096

#: The symbolic rate of a serial line; virtual ones ignore it.
BAUD_RATE = 115200

_NEWLINE = b"\n"
_NAME_ONE = "name a virtio-serial port or a serial line with --port"
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO})
_HELD = frozenset({errno.EBUSY, errno.EAGAIN})


class PortError(Exception):
    """A port can't be used; the text is one sentence that says what to do."""


class PortMissing(PortError):
    """No port exists."""


class PortBusy(PortError):
    """Another program holds the port."""


class PortUnusable(PortError):
    """The port exists but is nothing that this agent can use."""


class PortVanished(PortError):
    """The opened port is no more: unplugged, or its other end was closed for good."""


class Port:
    """An opened port.

    :param descriptor: of the device, non-blocking.
    :param path: its name, for people.
    :param tty: whether an end of file with a hang-up is final.
    :param close_device: gives the descriptor back.
    :raises OSError: the descriptor can't be watched.
    """

    def __init__(
        self, descriptor: int, path: str, *, tty: bool = False, close_device: Optional[Callable[[], None]] = None
    ) -> None:
        self.path = path
        #: Whether nothing has been written since it was opened.
        self.untouched = True
        self._descriptor = descriptor
        self._tty = tty
        self._close_device = close_device or functools.partial(os.close, descriptor)
        self._pending = bytearray()
        self._line_begun = False
        self._hang_up = select.poll()
        self._hang_up.register(descriptor, 0)
        self._watching_output = False
        self._watch = select.epoll()
        self._watch.register(descriptor, _edges(self._watching_output))

    def fileno(self) -> int:
        """What to wait on; it becomes readable once for each change."""
        return self._watch.fileno()

    @property
    def pending(self) -> int:
        """How many bytes wait to be written."""
        return len(self._pending)

    def acknowledge(self) -> None:
        """Take note of the changes so far: the next one makes ``fileno`` readable again."""
        self._watch.poll(0)

    def watch_output(self, wanted: bool) -> None:
        """Whether room for output is a change too; on a virtio-serial port, so is then the arrival of a host."""
        if wanted is not self._watching_output:
            self._watching_output = wanted
            self._watch.modify(self._descriptor, _edges(wanted))

    def has_host(self) -> bool:
        """Whether a host is connected, as far as the port knows."""
        return not self._hang_up.poll(0)

    def receive(self) -> Optional[bytes]:
        """The next bytes from the host; None: nothing now; empty: no host is connected.

        :raises PortVanished: the port is no more.
        """
        try:
            received = self._read()
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._vanished(error.strerror) from None
        if received or not self._tty:
            return received
        if not self.has_host():
            raise self._vanished("hung up")
        return None

    def queue(self, lines: bytes) -> None:
        """Hand over whole lines; ``flush`` writes them."""
        self._pending += lines

    def flush(self) -> int:
        """Write what the port takes now.

        :returns: how many bytes that were.
        :raises PortVanished: the port is no more.
        """
        written = 0
        while self._pending:
            try:
                taken = self._write(self._pending)
            except BlockingIOError:
                break
            except OSError as error:
                raise self._vanished(error.strerror) from None
            self._line_begun = not self._pending.endswith(_NEWLINE, 0, taken)
            del self._pending[:taken]
            written += taken
        if written:
            self.untouched = False
        return written

    def drop_unbegun(self) -> None:
        """Forget the lines of which nothing has been written."""
        end = self._pending.find(_NEWLINE) + 1 if self._line_begun else 0
        del self._pending[end:]

    def drain(self, seconds: float, clock: Callable[[], float]) -> None:
        """Write what is pending, for at most *seconds* and only while the host takes it.

        :raises PortVanished: the port is no more.
        """
        until = clock() + seconds
        writable = select.poll()
        writable.register(self._descriptor, select.POLLOUT)
        self.flush()
        while self._pending:
            left = until - clock()
            if left <= 0 or not writable.poll(left * 1000) or not self.flush():
                return

    def close(self) -> None:
        """Give the device back; what is pending is lost."""
        self._watch.close()
        self._close_device()

    def _read(self) -> bytes:
        return os.read(self._descriptor, READ_SIZE)

    def _write(self, data: bytearray) -> int:
        return os.write(self._descriptor, data)

    def _vanished(self, why: Optional[str]) -> PortVanished:
        return PortVanished(f"{self.path}: the port vanished ({why})")


def find(candidates: Sequence[str], dev: str = "/dev", sys: str = "/sys") -> str:
    """The path of the first candidate that exists.

    Where nobody made the links in ``/dev/virtio-ports``, the port of that name is looked up in sysfs.

    :raises PortMissing: none exists.
    """
    for candidate in candidates:
        if os.path.exists(candidate):
            return candidate
        directory, name = os.path.split(candidate)
        device = _device_named(name, dev, sys) if directory == os.path.join(dev, "virtio-ports") else None
        if device is not None:
            return device
    raise PortMissing(
        f"no port exists of: {', '.join(candidates)}; give the VM a virtio-serial channel of that name, "
        "or name its port with --port"
    )


def open_port(path: str) -> Port:
    """Open the virtio-serial port or serial line *path*.

    :raises PortMissing: it is gone again.
    :raises PortBusy: another program holds it.
    :raises PortUnusable: it is no such device, or must not be opened.
    """
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            raise PortUnusable(f"{path} is no character device; {_NAME_ONE}")
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _why_not(path, error) from None
    if os.isatty(descriptor):
        try:
            return _open_tty(path)
        finally:
            # Only now: a pty whose last descriptor closes would be hung up in between.
            os.close(descriptor)
    try:
        return Port(descriptor, path)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EPERM:
            raise PortUnusable(f"{path} can't be waited for, it is no port; {_NAME_ONE}") from None
        raise _why_not(path, error) from None


def _open_tty(path: str) -> Port:
    import serial

    try:
        line = serial.Serial(path, baudrate=BAUD_RATE, timeout=0, exclusive=True)
        os.set_blocking(line.fileno(), False)
        return Port(line.fileno(), path, tty=True, close_device=line.close)
    except OSError as error:
        raise _why_not(path, error) from None
    except termios.error as error:
        raise PortMissing(f"{path} was hung up while it was opened ({error.args[-1]}); name another with --port") from None


def _why_not(path: str, error: OSError) -> PortError:
    if error.errno in _GONE:
        return PortMissing(f"{path} does not exist; name another port with --port")
    if error.errno in _HELD:
        return PortBusy(f"{path} is held by another program; stop that one")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return PortUnusable(f"{path} can't be opened: {reason}; run as root, or name another port with --port")


def _device_named(name: str, dev: str, sys: str) -> Optional[str]:
    """The device of the virtio-serial port that is called *name*."""
    directory = os.path.join(sys, "class", "virtio-ports")
    for device in sorted(_entries(directory)):
        path = os.path.join(dev, device)
        if _name_of(os.path.join(directory, device, "name")) == name and os.path.exists(path):
            return path
    return None


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _name_of(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(READ_SIZE).rstrip("\n")
    except OSError:
        return None


def _edges(output: bool) -> int:
    edges = select.EPOLLIN | select.EPOLLHUP | select.EPOLLET
    return edges | select.EPOLLOUT if output else edges
