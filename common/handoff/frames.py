"""Frames between two hosts: requests of the source, responses of the destination.

Both begin with 16 bytes, little-endian: a number of two bytes (the command, or the status), six bytes, and the length of
the payload in eight; the payload follows. A request's six bytes are a header: with ``Start`` the first two are the sender's
protocol version, the rest is ignored. A response's are zero.

A reader takes bytes as they come and gives whole frames. It judges a frame by its first 16 bytes: one that lies, or that no
such command has, is refused before a byte of its payload is kept, and the connection with it. So it holds one payload of
the allowed length at most, and what it was fed with last.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping
from typing import Generic, Optional, TypeVar

from common.framing import LINE_LIMIT
from common.records import Record

from .documents import SIZE_LIMIT
from .errors import InvalidFrame

F = TypeVar("F")

_HEAD = struct.Struct("<H6sQ")
_VERSION = struct.Struct("<H4x")

#: The size of what every frame begins with, in bytes.
HEAD_SIZE = _HEAD.size

#: The longest payload of a refusal, and of ``Hello``, in bytes.
TALK_LIMIT = 64 * 1024

#: The longest payload of a response, in bytes: the answer to ``Hello`` can hold what a guest answered, a line of its own,
#: of which the letters take three times as much in ASCII.
ANSWER_LIMIT = 4 * LINE_LIMIT

_NO_HEADER = bytes(6)


class Command(enum.IntEnum):
    """What a source asks for."""

    START = 1
    HELLO = 2
    SESSION = 3
    COMPLETE = 4
    ABANDON = 5


#: The longest payload of each command, in bytes.
LIMITS: Mapping[Command, int] = {
    Command.START: 0,
    Command.HELLO: TALK_LIMIT,
    Command.SESSION: SIZE_LIMIT,
    Command.COMPLETE: 0,
    Command.ABANDON: 0,
}

#: What each command means.
MEANINGS: Mapping[Command, str] = {
    Command.START: "bytes 0 and 1 of the header are the sender's protocol version: the destination speaks it, or refuses",
    Command.HELLO: "what the source offers and which VM it is about; since protocol version 1",
    Command.SESSION: "the document: the destination checks it and prepares, and nothing is visible yet",
    Command.COMPLETE: "the destination takes the guest; after its OK the source forgets it",
    Command.ABANDON: "both are as before, and the source goes on",
}


class Status(enum.IntEnum):
    """How a destination answers."""

    OK = 1
    ERROR = 2


class Request(Record):
    """A request; of *header* there are six bytes."""

    command: Command
    payload: bytes = b""
    header: bytes = _NO_HEADER

    @property
    def version(self) -> int:
        """The sender's protocol version, of ``Start``."""
        (version,) = _VERSION.unpack(self.header)
        return int(version)


class Response(Record):
    """A response; an error's payload is a refusal (see ``refusals``)."""

    status: Status
    payload: bytes = b""


def start(version: int) -> Request:
    """The request by which a source begins, in a protocol *version* from 0 to 65535."""
    return Request(Command.START, header=_VERSION.pack(version))


def pack_request(request: Request) -> bytes:
    """The bytes of *request*.

    :raises ValueError: its payload is longer than its command allows.
    """
    _check_payload(request.payload, LIMITS[request.command])
    return _HEAD.pack(request.command, request.header, len(request.payload)) + request.payload


def pack_response(response: Response) -> bytes:
    """The bytes of *response*.

    :raises ValueError: its payload is too long.
    """
    _check_payload(response.payload, ANSWER_LIMIT)
    return _HEAD.pack(response.status, _NO_HEADER, len(response.payload)) + response.payload


class Reader(Generic[F]):
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._held = bytearray()
        #: The first 16 bytes of the frame that is being read, once they are there and found right.
        self._head: Optional[tuple[int, bytes, int]] = None
        self._broken: Optional[str] = None

    @property
    def held(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[F]:
        """Take *data*; each frame that it completes, however the bytes were cut. Must be used up before more is fed.

        :raises InvalidFrame: behind the last good frame: the peer does not keep to the frames, now or before.
        """
        if self._broken is not None:
            raise InvalidFrame(self._broken)
        try:
            yield from self._read(data)
        except InvalidFrame as error:
            self._broken = str(error)
            self._held.clear()
            raise

    def ended(self) -> None:
        """The peer will send nothing more.

        :raises InvalidFrame: it ended in the middle of a frame.
        """
        if self._held or self._head is not None:
            raise InvalidFrame("the connection ended in the middle of a frame: try again")

    def _read(self, data: bytes) -> Iterator[F]:
        self._held += data
        while True:
            if self._head is None:
                if len(self._held) < HEAD_SIZE:
                    return
                self._head = self._checked(*_HEAD.unpack(self._take(HEAD_SIZE)))
            number, header, length = self._head
            if len(self._held) < length:
                return
            self._head = None
            yield self._make(number, header, self._take(length))

    def _take(self, length: int) -> bytes:
        taken = bytes(self._held[:length])
        del self._held[:length]
        return taken

    def _checked(self, number: int, header: bytes, length: int) -> tuple[int, bytes, int]:
        """The beginning of a frame.

        :raises InvalidFrame: no frame begins so.
        """
        raise NotImplementedError

    def _make(self, number: int, header: bytes, payload: bytes) -> F:
        """The frame that began so."""
        raise NotImplementedError


class RequestReader(Reader[Request]):
    """What a destination reads."""

    def _checked(self, number: int, header: bytes, length: int) -> tuple[int, bytes, int]:
        if number not in _COMMANDS:
            raise InvalidFrame(f"command {number} is none: speak the protocol of a hand-off on this port")
        _check_length(length, LIMITS[Command(number)], Command(number).name.capitalize())
        return number, header, length

    def _make(self, number: int, header: bytes, payload: bytes) -> Request:
        return Request(Command(number), payload, header)


class ResponseReader(Reader[Response]):
    """What a source reads."""

    def _checked(self, number: int, header: bytes, length: int) -> tuple[int, bytes, int]:
        if number not in _STATUSES or header != _NO_HEADER:
            raise InvalidFrame("the destination's answer is none: name a host daemon that takes hand-offs")
        _check_length(length, ANSWER_LIMIT, "an answer")
        return number, header, length

    def _make(self, number: int, header: bytes, payload: bytes) -> Response:
        return Response(Status(number), payload)


def _check_length(length: int, limit: int, of_what: str) -> None:
    if length > limit:
        raise InvalidFrame(f"{of_what} with {length} bytes of payload, allowed are {limit}: the connection is closed")


def _check_payload(payload: bytes, limit: int) -> None:
    if len(payload) > limit:
        raise ValueError(f"{len(payload)} bytes of payload, allowed are {limit}")


_COMMANDS = frozenset(map(int, Command))
_STATUSES = frozenset(map(int, Status))
