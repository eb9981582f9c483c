"""Frames over a connection: a source's conversation, and what a destination is asked.

Every wait has its limit; a peer that stalls, lies about lengths or sends what is no frame costs it its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Callable, Generic, Optional, Protocol, TypeVar

from common.handoff import frames
from common.handoff.destination import Destination
from common.handoff.errors import InvalidFrame
from common.handoff.frames import Request, RequestReader, Response, ResponseReader
from common.handoff.source import Conversation
from common.handoff.steps import Phase

from .network import ConnectionLost

T = TypeVar("T")
F = TypeVar("F")

#: How long the other side may take to ask, to answer, or to read, in seconds.
PATIENCE = 15.0

#: How long a source may take until it is prepared, in seconds: its place is wanted by others.
LIFETIME = 120.0

#: How long a prepared source may take: a VM that is stopped on its host may still have to send memory.
PREPARED_PATIENCE = 900.0


class Connection(Protocol):
    """See ``network``."""

    async def read(self, patience: float) -> bytes: ...

    async def write(self, data: bytes, patience: float) -> None: ...

    def close(self) -> None: ...


class Line:
    """The source's end of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._responses = _Frames(connection, ResponseReader())

    async def converse(self, conversation: Conversation[T]) -> T:
        """Ask what *conversation* asks, and return what it finds out.

        :raises HandoffError: what it raises, or the destination does not keep to the frames.
        :raises ConnectionLost: the connection broke.
        """
        try:
            request = next(conversation)
            while True:
                await self._connection.write(frames.pack_request(request), PATIENCE)
                response = await self._responses.next(PATIENCE)
                if response is None:
                    raise ConnectionLost("the destination ended the connection before it answered: look into its log")
                request = conversation.send(response)
        except StopIteration as ended:
            result: T = ended.value
            return result

    def close(self) -> None:
        """End the connection; what the destination prepared on it is as if it had never been."""
        self._connection.close()


async def attend(connection: Connection, destination: Destination, answer: Callable[[Request], Awaitable[Response]]) -> None:
    """Have *answer* give a response to each request that comes, until one side ends the connection.

    :raises InvalidFrame: the source does not keep to the frames.
    :raises ConnectionLost: the connection broke.
    """
    requests = _Frames(connection, RequestReader())
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LIFETIME
    while not destination.ended:
        patience = min(PATIENCE, max(0.0, deadline - loop.time()))
        if destination.phase is Phase.PREPARED:
            patience = PREPARED_PATIENCE
        request = await requests.next(patience)
        if request is None:
            return
        await connection.write(frames.pack_response(await answer(request)), PATIENCE)


class _Frames(Generic[F]):
    """Whole frames, one by one."""

    def __init__(self, connection: Connection, reader: frames.Reader[F]) -> None:
        self._connection = connection
        self._reader = reader
        self._read: list[F] = []
        #: What is wrong behind the frames that were read.
        self._broken: Optional[InvalidFrame] = None

    async def next(self, patience: float) -> Optional[F]:
        """The next frame, within *patience* seconds however slowly its bytes come; None: the connection ended behind it.

        :raises InvalidFrame: there is none.
        :raises ConnectionLost: it does not come.
        """
        loop = asyncio.get_running_loop()
        deadline, left = loop.time() + patience, patience
        while not self._read:
            if self._broken is not None:
                raise self._broken
            data = await self._connection.read(left)
            if not data:
                self._reader.ended()
                return None
            self._take(data)
            left = max(0.0, deadline - loop.time())
        return self._read.pop(0)

    def _take(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._read.append(frame)
        except InvalidFrame as error:
            self._broken = error
