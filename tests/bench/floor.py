"""The floor: the least that a host can do. What a daemon costs is told as a multiple of it.

A bare epoll loop that connects to all ports, sends each a ``refresh``, reads, splits lines, parses them, takes the minimum
and pushes it when it changed. It checks nothing, knows no clock, keeps nothing and finds nothing that comes later.
"""

from __future__ import annotations

import os
import select
import socket
import sys

import ujson

from .fleet import PORT_NAME

SUPPORTED = 3

_REFRESH = b'\n{"__name__":"refresh","apiVersion":3,"hostId":"floor"}\n'

_PIECE = 65536


class _Channel:
    __slots__ = ("agreed", "connection", "rest")

    def __init__(self, path: str) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.setblocking(False)
        self.connection.connect(path)
        self.connection.send(_REFRESH)
        self.agreed = 0
        self.rest = b""

    def read(self) -> bool:
        """Read once and do what follows; False: the other side is gone."""
        data = self.connection.recv(_PIECE)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            try:
                message = ujson.loads(line)
                if message["__name__"] == "heartbeat":
                    self.take(min(SUPPORTED, message["apiVersion"]))
            except (ValueError, TypeError, KeyError):
                continue
        return bool(data)

    def take(self, agreed: int) -> None:
        if agreed != self.agreed:
            self.agreed = agreed
            self.connection.send(b'{"__name__":"api-version","apiVersion":%d}\n' % agreed)


def main() -> None:
    """``python -m tests.bench.floor PLACE CONTROL``; a file CONTROL appears when all ports have been connected to."""
    place, control = sys.argv[1:]
    epoll = select.epoll()
    channels = {}
    for entry in os.scandir(place):
        channel = _Channel(os.path.join(entry.path, PORT_NAME))
        channels[channel.connection.fileno()] = channel
        epoll.register(channel.connection, select.EPOLLIN)
    os.close(os.open(control, os.O_CREAT | os.O_WRONLY))
    while True:
        for descriptor, _ in epoll.poll():
            if not channels[descriptor].read():
                epoll.unregister(descriptor)
                channels.pop(descriptor).connection.close()


if __name__ == "__main__":
    main()
