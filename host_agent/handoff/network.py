"""Connections between hosts: doors that let peers in, and calls to them, in TLS or in plain text.

TLS is driven here, on top of plain transports, so that a peer always hears why it is not let in. Every wait has its limit,
and what a peer does wrong costs it its connection. Nothing here knows what is said, but for the one answer at the door to
who must stay outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Callable, Optional, TypeVar, Union, cast

from common.handoff import frames
from common.handoff.refusals import Code, Refusal
from host_agent.config import Address, Peer
from host_agent.exits import Exit, Failure
from host_agent.text import printable

from .security import PLAIN_TEXT, Security, SecurityError, names_of

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: So many connections are inside at once, those that still shake hands among them; who comes beyond waits in the backlog.
CONNECTIONS = 16

#: How long shaking hands may take, in seconds.
HANDSHAKE_LIMIT = 5.0

_BACKLOG = 128

#: So much is read at once, and no more once so much waits, in bytes.
_CHUNK = 64 * 1024

#: How long to wait where the system lets nobody in, in seconds.
_RESPITE = 1.0

#: Of peers that were not served so many lines are logged in so many seconds.
_LOG_LIMIT, _LOG_PERIOD = 10, 60.0

#: What TLS begins with: an alert, or a greeting. No frame begins so.
_ALERT, _GREETING = b"\x15", b"\x16"

#: The alert that this version of TLS is not spoken, as those are told who speak TLS where there is none, or the reverse.
_NO_TLS = b"\x15\x03\x03\x00\x02\x02\x46"

#: What to see to where nobody answers.
_REMEDY = "see that vmaccord-host runs there, that its [handoff] listen has this address, and that no firewall is between"


class ConnectionLost(Exception):
    """The connection is over; the text is a sentence that says why."""


class Unreachable(Exception):
    """No connection came about; the text is a sentence that says whose fault it is and what to do."""


class ListenFailed(Failure):
    """An address can't be listened at."""

    status = Exit.BAD_CONFIGURATION


class _Stall(Exception):
    """The peer took too long."""


class _Ended(Exception):
    """The peer ended the connection where it should not."""


async def _within(awaited: Awaitable[T], patience: float) -> T:
    """What *awaited* gives.

    :raises _Stall: not within *patience* seconds.
    """
    try:
        return await asyncio.wait_for(awaited, patience)
    except asyncio.TimeoutError as error:
        # From Python 3.11 on this is also what the kernel calls its own limit.
        if getattr(error, "errno", None):
            raise
        raise _Stall from None


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


# ---- Bytes ----


class _Pipe(asyncio.Protocol):
    """Bytes of a transport, for one reader and one writer. What came before the end, or an error, is read before that."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._ended = False
        self._lost: Optional[OSError] = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def receive(self) -> bytes:
        """What has come; nothing: the peer says no more.

        :raises OSError: the connection broke.
        """
        await self._readable.wait()
        data = self.take()
        if not data and self._lost is not None:
            raise self._lost
        if not self._ended:
            self._readable.clear()
            self._transport.resume_reading()
        return data

    def take(self) -> bytes:
        """What has come by now."""
        data = bytes(self._received)
        self._received.clear()
        return data

    async def send(self, data: bytes) -> None:
        """Hand *data* to the kernel.

        :raises OSError: the connection broke.
        """
        if self._lost is None:
            self._transport.write(data)
            if self._transport.is_closing():
                self._writable.clear()  # until the loop tells what broke
            await self._writable.wait()
        if self._lost is not None:
            raise self._lost

    def close(self, last: bytes = b"") -> None:
        """Leave, with *last* if the peer still reads."""
        if not self._transport.get_write_buffer_size() and not self._transport.is_closing():
            self._transport.write(last)
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        self._transport.close()

    # ---- As the transport calls it ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # What was sent is the kernel's.
        self._transport.set_write_buffer_limits(0)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._readable.set()
        if len(self._received) >= _CHUNK:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._readable.set()
        return True

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._ended = True
        self._lost = error if isinstance(error, OSError) else OSError(errno.ECONNABORTED, "closed")
        self._readable.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


class _Tls:
    """TLS on a pipe.

    :param called: the name or address that was called; None: the peer calls.
    """

    def __init__(self, pipe: _Pipe, context: ssl.SSLContext, called: Optional[str]) -> None:
        self._pipe = pipe
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inside = context.wrap_bio(self._incoming, self._outgoing, called is None, called)

    async def shake_hands(self) -> tuple[str, ...]:
        """The names that the peer's certificate is for.

        :raises _Ended: the peer left.
        :raises OSError: the connection broke, or one side does not accept the other.
        """
        await self._step(self._inside.do_handshake)
        return names_of(self._inside.getpeercert())

    async def receive(self) -> bytes:
        """As of the pipe."""
        try:
            return await self._step(lambda: self._inside.read(_CHUNK))
        except (_Ended, ssl.SSLZeroReturnError):
            return b""

    async def send(self, data: bytes) -> None:
        """As of the pipe."""
        self._inside.write(data)
        try:
            await self._flush()
        except OSError:
            self._look_for_alert()
            raise

    def close(self) -> None:
        """As of the pipe, with TLS's own end."""
        with contextlib.suppress(ssl.SSLError):
            self._inside.unwrap()
        self._pipe.close(self._outgoing.read())

    async def _step(self, step: Callable[[], T]) -> T:
        """The result of *step*, for which the peer may have to say more."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
            except ssl.SSLError as error:
                # Who does not speak TLS is told nothing by OpenSSL; who broke it off knows already.
                fallback = b"" if "ALERT" in str(error.reason) else _NO_TLS
                with contextlib.suppress(OSError):
                    await self._pipe.send(self._outgoing.read() or fallback)
                raise
            else:
                await self._flush()
                return result
            data = await self._pipe.receive()
            if not data:
                raise _Ended
            self._incoming.write(data)

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await self._pipe.send(data)

    def _look_for_alert(self) -> None:
        """Who broke the connection may have said why.

        :raises ssl.SSLError: that is it.
        """
        self._incoming.write(self._pipe.take())
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while self._inside.read(_CHUNK):
                pass


# ---- Connections ----


class Connection:
    """One to a peer. It is closed when an error is raised.

    :ivar peer: what the peer is called here; else the first name of its certificate; else its address.
    """

    def __init__(self, peer: str, inside: Union[_Pipe, _Tls], security: Security) -> None:
        self.peer = printable(peer)
        self._inside = inside
        self._security = security
        self._closed = False
        #: Whether the first bytes tell that the peer speaks TLS, which is not spoken here.
        self._wary = not security.encrypted

    async def read(self, patience: float) -> bytes:
        """What has come; nothing: the peer has ended the connection.

        :param patience: how long to wait for it, in seconds.
        :raises ConnectionLost: nothing came, the connection broke, or the peer does not accept this host's certificate.
        """
        data = await self._within(self._inside.receive, patience, "said nothing")
        if self._wary and data:
            self._wary = False
            self._check_plain(data)
        return data

    async def write(self, data: bytes, patience: float) -> None:
        """Send *data*, which is the kernel's then.

        :param patience: how long the peer may take to make room for all of it, in seconds.
        :raises ConnectionLost: as of ``read``.
        """
        await self._within(lambda: self._inside.send(data), patience, "did not read")

    def close(self) -> None:
        """End it. May be called again."""
        if not self._closed:
            self._closed = True
            self._inside.close()

    async def _within(self, step: Callable[[], Awaitable[T]], patience: float, omission: str) -> T:
        if self._closed:
            raise ConnectionLost(f"the connection with {self.peer} was closed here")
        try:
            return await _within(step(), patience)
        except _Stall:
            text = f"{self.peer} {omission} for {patience:g} s: see whether that host is overloaded, or the network down"
        except OSError as error:
            text = self._security.explain(error, self.peer)
        self.close()
        raise ConnectionLost(text)

    def _check_plain(self, data: bytes) -> None:
        """:raises ConnectionLost: the peer speaks TLS."""
        if data[:1] in (_ALERT, _GREETING) and isinstance(self._inside, _Pipe):
            self._closed = True
            self._inside.close(_NO_TLS if data[:1] == _GREETING else b"")
            raise ConnectionLost(
                f"{self.peer} speaks TLS, and this host does not: set [handoff] security to tls on both hosts"
            )


async def dial(peer: Peer, security: Security, patience: float) -> Connection:
    """Call *peer*.

    Of TLS, the peer looks at this host's certificate last: if it does not accept that, the first ``read`` says so.

    :param patience: how long it may take, in seconds.
    :raises Unreachable: the peer is not there, or is not to be trusted, or this host's own files can't be used.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    called = printable(f"{peer.name} ({peer.address})")
    try:
        context = await loop.run_in_executor(None, security.client_context) if security.encrypted else None
        _, pipe = await _within(loop.create_connection(_Pipe, *peer.address), patience)
    except SecurityError as error:
        raise Unreachable(str(error)) from None
    except _Stall:
        raise Unreachable(f"{called} did not answer within {patience:g} s: {_REMEDY}") from None
    except OSError as error:
        raise Unreachable(f"{called}: {_reason(error)}: {_REMEDY}") from None
    if context is None:
        return Connection(peer.name, pipe, security)
    tls = _Tls(pipe, context, peer.address.host)
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(pipe.close)
            await _shake_hands(tls, security, called, deadline - loop.time())
            undo.pop_all()
    except ConnectionLost as error:
        raise Unreachable(str(error)) from None
    return Connection(peer.name, tls, security)


async def _shake_hands(tls: _Tls, security: Security, peer: str, patience: float) -> tuple[str, ...]:
    """The names that the peer's certificate is for.

    :raises ConnectionLost: one side does not accept the other.
    """
    try:
        return await _within(tls.shake_hands(), patience)
    except _Stall:
        text = f"{peer} did not shake hands in time: see that [handoff] security is tls there, and whether it is overloaded"
    except (_Ended, ConnectionError):
        text = f"{peer} ended the connection instead of shaking hands: see that [handoff] security is tls there, and its log"
    except OSError as error:
        text = security.explain(error, peer)
    raise ConnectionLost(text)


# ---- Doors ----


class Doors:
    """Let peers in at some addresses, and have each connection served.

    :param serve: serves one connection, which is closed after it. May raise ConnectionLost, which is logged.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, serve: Callable[[Connection], Awaitable[None]]) -> None:
        self._loop = loop
        self._serve = serve
        self._security = Security(PLAIN_TEXT)
        self._listening: dict[Address, socket.socket] = {}
        self._inside: dict[asyncio.Task[None], Address] = {}
        self._watching = False
        self._respite: Optional[asyncio.TimerHandle] = None
        self._log_from = loop.time()
        self._log_left = 0

    async def open(self, addresses: Sequence[Address], security: Security) -> None:
        """Let peers in at exactly these *addresses* from now on, by *security*; who is inside stays.

        :raises Failure: that can't be; everything is as before.
        """
        complaints: list[str] = []
        if addresses and security.encrypted:
            await self._loop.run_in_executor(None, security.server_context)
            complaints += await self._loop.run_in_executor(None, lambda: list(security.complaints()))
        fresh = _listen_at(address for address in addresses if address not in self._listening)
        self._watch(False)
        for address in set(self._listening) - set(addresses):
            self._listening.pop(address).close()
        self._listening.update(fresh)
        self._security = security
        self._watch(self._has_room())
        for complaint in complaints:
            _log.warning("%s", printable(complaint))

    async def close(self) -> None:
        """Let nobody in any more, and end the connections of those who are inside."""
        self._watch(False)
        if self._respite is not None:
            self._respite.cancel()
        for listening in self._listening.values():
            listening.close()
        self._listening.clear()
        # Once each has begun, it closes what it was given.
        await asyncio.sleep(0)
        tasks = list(self._inside)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> list[dict[str, Any]]:
        """Each address, how it is protected, and how many are inside that came in there."""
        return [
            {
                "address": str(Address(*listening.getsockname()[:2])),
                "security": self._security.mode,
                "connections": sum(door == address for door in self._inside.values()),
            }
            for address, listening in self._listening.items()
        ]

    def _has_room(self) -> bool:
        return bool(self._listening) and len(self._inside) < CONNECTIONS and self._respite is None

    def _watch(self, wanted: bool) -> None:
        """Have the loop tell when somebody comes, or not."""
        if wanted == self._watching:
            return
        self._watching = wanted
        for address, listening in self._listening.items():
            if wanted:
                self._loop.add_reader(listening, self._arrived, address)
            else:
                self._loop.remove_reader(listening)

    def _arrived(self, address: Address) -> None:
        try:
            accepted, whence = self._listening[address].accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._complain(f"{address}: {_reason(error)}: nobody can come in for a moment")
            self._respite = self._loop.call_later(_RESPITE, self._recover)
            self._watch(False)
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._attend(accepted, str(Address(*whence[:2]))))
        self._inside[task] = address
        task.add_done_callback(self._left)
        self._watch(self._has_room())

    def _recover(self) -> None:
        self._respite = None
        self._watch(self._has_room())

    def _left(self, task: asyncio.Task[None]) -> None:
        del self._inside[task]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("unexpected error in a hand-off, please report it: %r", error, exc_info=error)
        self._watch(self._has_room())

    async def _attend(self, accepted: socket.socket, whence: str) -> None:
        _, pipe = await self._loop.connect_accepted_socket(_Pipe, accepted)
        try:
            connection = await self._let_in(pipe, whence)
            try:
                await self._serve(connection)
            finally:
                connection.close()
        except (ConnectionLost, SecurityError) as error:
            self._complain(str(error))
        finally:
            pipe.close()

    async def _let_in(self, pipe: _Pipe, whence: str) -> Connection:
        """:raises ConnectionLost: the peer must stay outside."""
        security = self._security
        if not security.encrypted:
            return Connection(whence, pipe, security)
        context = await self._loop.run_in_executor(None, security.server_context)
        tls = _Tls(pipe, context, None)
        names = await _shake_hands(tls, security, whence, HANDSHAKE_LIMIT)
        known = security.known_as(names)
        if security.peers and known is None:
            await _turn_away(tls, names, whence)
        return Connection(known or (names[0] if names else whence), tls, security)

    def _complain(self, text: str) -> None:
        now = self._loop.time()
        if now >= self._log_from:
            self._log_from, self._log_left = now + _LOG_PERIOD, _LOG_LIMIT
        if self._log_left:
            self._log_left -= 1
            _log.warning("hand-off: %s", printable(text))


def _listen_at(addresses: Iterable[Address]) -> dict[Address, socket.socket]:
    """A listening socket for each.

    :raises ListenFailed: one can't be had; then there is none.
    """
    listening: dict[Address, socket.socket] = {}
    with contextlib.ExitStack() as undo:
        for address in addresses:
            listening[address] = undo.enter_context(_listen(address))
        undo.pop_all()
    return listening


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listening = socket.create_server(tuple(address), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ListenFailed(
            f"[handoff] listen {address}: {_reason(error)}; name an address of this host, and a port that is free"
        ) from None
    listening.setblocking(False)
    return listening


async def _turn_away(tls: _Tls, names: Sequence[str], whence: str) -> None:
    """Answer what a peer has asked or is about to ask: that it must stay outside.

    :raises ConnectionLost: always.
    """
    shown = ", ".join(names) or "no name"
    text = f"the certificate of {whence} is for {shown}, and no peer has that address here: name it in [handoff] peers here"
    with contextlib.suppress(_Stall, OSError):
        refusal = Refusal(code=Code.NOT_ADMITTED.value, message=printable(text))
        await _within(tls.send(frames.pack_response(refusal.response())), HANDSHAKE_LIMIT)
    tls.close()
    raise ConnectionLost(text)
