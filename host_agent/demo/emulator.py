"""An emulated virtio-serial port: a pty for the guest, a Unix socket for the host, bytes carried between them.

Like the real device it has one client at a time, a guest that closes its end shows nothing to the host, and the guest is
not told when the VM moves to another host: the socket goes here and comes there. Unlike it, it shows every line that
passes to whoever watches.

Runs a thread of its own, so that a blocking program can play with it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import selectors
import socket
import threading
import time
import tty
from types import TracebackType
from typing import Callable, Optional

from common import framing

PORT_NAME = "ovirt-guest-agent.0"

#: A direction of which this many bytes wait is not read further.
_BUFFER_LIMIT = 64 * 1024

#: Called with the direction, the line and the monotonic time at which it passed; or with the name of what happened.
Watcher = Callable[[str, bytes, float], None]

TO_GUEST = "host → guest"
TO_HOST = "guest → host"
CONNECTED = "connected"
DISCONNECTED = "disconnected"


def _watch_nothing(what: str, line: bytes, at: float) -> None:
    pass


class EmulatedPort:
    """One port of one VM. Use as a context manager.

    :ivar guest_path: the device that the guest opens.
    """

    def __init__(self, watcher: Watcher = _watch_nothing) -> None:
        self._watcher = watcher
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.guest_path = os.ttyname(self._slave)
        self._listener: Optional[socket.socket] = None
        self._socket_path: Optional[pathlib.Path] = None
        self._client: Optional[socket.socket] = None
        self._to_guest = bytearray()
        self._to_host = bytearray()
        self._lines = {TO_GUEST: framing.LineSplitter(), TO_HOST: framing.LineSplitter()}
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="emulated-port", daemon=True)

    def __enter__(self) -> EmulatedPort:
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.unplug()
        self._stopping = True
        self._wake()
        self._thread.join()
        for descriptor in (self._master, self._slave, self._wake_read, self._wake_write):
            os.close(descriptor)

    def plug(self, vm_directory: pathlib.Path) -> None:
        """The VM runs on the host that looks into *vm_directory*'s parent: its socket appears there."""
        vm_directory.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = vm_directory / PORT_NAME
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        with self._lock:
            self._listener, self._socket_path = listener, path
        self._wake()

    def unplug(self) -> None:
        """The VM leaves its host: the socket vanishes, a client is cut off, what it had not read is lost."""
        with self._lock:
            if self._listener is not None and self._socket_path is not None:
                self._socket_path.unlink(missing_ok=True)
                self._socket_path.parent.rmdir()
                self._listener.close()
            self._listener = self._socket_path = None
            self._drop_client()

    def _wake(self) -> None:
        os.write(self._wake_write, b"x")

    def _run(self) -> None:
        while not self._stopping:
            # The selector is built anew for each turn: it is small, and descriptors come and go in other threads.
            with selectors.DefaultSelector() as selector:
                with self._lock:
                    self._register(selector)
                selector.select()
            with self._lock:
                self._turn()

    def _register(self, selector: selectors.BaseSelector) -> None:
        selector.register(self._wake_read, selectors.EVENT_READ)
        guest_events = selectors.EVENT_READ if len(self._to_host) < _BUFFER_LIMIT else 0
        guest_events |= selectors.EVENT_WRITE if self._to_guest else 0
        if guest_events:
            selector.register(self._master, guest_events)
        if self._client is not None:
            events = selectors.EVENT_READ if len(self._to_guest) < _BUFFER_LIMIT else 0
            events |= selectors.EVENT_WRITE if self._to_host else 0
            if events:
                selector.register(self._client, events)
        elif self._listener is not None:
            selector.register(self._listener, selectors.EVENT_READ)

    def _turn(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        self._accept()
        self._read_client()
        self._read_guest()
        self._write_guest()
        self._write_client()

    def _accept(self) -> None:
        if self._client is None and self._listener is not None:
            try:
                self._client, _ = self._listener.accept()
            except BlockingIOError:
                return
            self._client.setblocking(False)
            self._watcher(CONNECTED, b"", time.monotonic())

    def _read_client(self) -> None:
        if self._client is None or len(self._to_guest) >= _BUFFER_LIMIT:
            return
        try:
            received = self._client.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            received = b""
        if received:
            self._show(TO_GUEST, received)
            self._to_guest += received
        else:
            self._drop_client()

    def _read_guest(self) -> None:
        if len(self._to_host) >= _BUFFER_LIMIT:
            return
        try:
            received = os.read(self._master, 4096)
        except BlockingIOError:
            return
        if self._client is not None:
            self._show(TO_HOST, received)
            self._to_host += received

    def _write_guest(self) -> None:
        if self._to_guest:
            with contextlib.suppress(BlockingIOError):
                del self._to_guest[: os.write(self._master, self._to_guest)]

    def _write_client(self) -> None:
        if self._client is not None and self._to_host:
            try:
                with contextlib.suppress(BlockingIOError):
                    del self._to_host[: self._client.send(self._to_host)]
            except ConnectionError:
                self._drop_client()

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
            self._to_host.clear()
            for splitter in self._lines.values():
                splitter.reset()
            self._watcher(DISCONNECTED, b"", time.monotonic())

    def _show(self, direction: str, received: bytes) -> None:
        now = time.monotonic()
        for line in self._lines[direction].feed(received):
            if isinstance(line, bytes) and line.strip():
                self._watcher(direction, line, now)
