"""The source's half of a hand-off: what it asks, and what follows from the answers. Pure.

Whoever drives it has a connection, and sends each request that a conversation yields and hands in the response. A
conversation returns when its part is done and raises what is wrong; the connection means nothing then.

**The source owns the guest until it knows that the destination has taken it.** The one request after which it may not know
is ``Complete``. Before that is sent, whoever drives notes on disk that the source is *in doubt*, with the transfer. If
then the answer does not come, the source prepares the *same transfer* on a new connection: the destination says that it has
taken it, or that it has not, and does not any more on an older connection; then the guest is the source's without a doubt.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Callable, NamedTuple, Optional, TypeVar

from . import conversions, documents, frames, greetings, window
from .documents import Spec
from .errors import HandoffError
from .frames import Command, Request, Response, Status
from .greetings import Hello, Outcome, Welcome
from .refusals import Code, Refused, unpack
from .vm import Vm

T = TypeVar("T")

#: Yields requests, is handed responses, and returns what it found out.
Conversation = Generator[Request, Response, T]


class NotAwaited(HandoffError):
    """The destination does not await this VM."""


class NoCommonSpec(HandoffError):
    """There is no session spec that both sides know."""


class Prepared(NamedTuple):
    """The destination is ready to take the guest, or has taken it.

    :ivar taken: it has, on an earlier connection.
    :ivar protocol: the version that is spoken.
    :ivar spec: of the document; None where none was sent.
    :ivar lost: the dotted names of what that spec has no place for.
    """

    taken: bool
    protocol: int
    spec: Optional[int] = None
    lost: tuple[str, ...] = ()


class Terms(NamedTuple):
    """What a source is ready to do.

    :ivar allow_loss: send an older spec where something gets lost by it.
    :ivar only_awaited: send the document only to a destination that says that it awaits the VM.
    :ivar protocol: the version to begin with, and the highest *spec* to write; lower ones play an older release.
    """

    api_maximum: Optional[int] = None
    allow_loss: bool = False
    only_awaited: bool = False
    protocol: int = window.NEWEST
    spec: int = documents.NEWEST

    @property
    def specs(self) -> tuple[int, ...]:
        """The session specs that it can write."""
        return tuple(number for number in documents.SPECS if number <= self.spec)


class Source:
    """One transfer on one connection.

    :param session: gives the session as it is now; the newest spec.
    """

    def __init__(self, transfer: str, vm: Vm, session: Callable[[], Spec], terms: Terms) -> None:
        self._transfer = transfer
        self._vm = vm
        self._session = session
        self._terms = terms

    def prepare(self) -> Conversation[Prepared]:
        """Have the destination prepare to take the guest, or find out that it has taken it.

        :raises Refused: it will not; see ``window.retry_with`` for what to do about its protocol version.
        :raises NotAwaited, NoCommonSpec, WouldLose, HandoffError: nothing was handed over.
        """
        yield from start(self._terms.protocol)
        specs = self._terms.specs
        if self._terms.protocol >= _HELLO_SINCE:
            welcome = yield from self._greet()
            if welcome.taken:
                return Prepared(True, self._terms.protocol)
            specs = self._shared(welcome)
        elif self._terms.only_awaited:
            raise NotAwaited("the destination can't say whether it awaits this VM: name it, or upgrade its vmaccord-host")
        return (yield from self._offer(specs, self._terms.allow_loss))

    def ask(self) -> Conversation[bool]:
        """Find out whether the destination has taken the guest; if not, it does not any more on an older connection.

        In the legacy protocol that can't be asked, and a destination that has never heard of transfers prepares the same one
        again and again. So it is asked to take the guest once more: then it has, whatever was before.

        :raises Refused: it does not say.
        """
        yield from start(self._terms.protocol)
        if self._terms.protocol >= _HELLO_SINCE:
            return (yield from self._greet()).taken
        prepared = yield from self._offer(self._terms.specs, allow_loss=True)
        if not prepared.taken:
            yield from complete()
        return True

    def _greet(self) -> Conversation[Welcome]:
        hello = Hello(self._terms.specs, self._terms.api_maximum, self._vm, self._transfer)
        return (yield from greet(hello))

    def _shared(self, welcome: Welcome) -> tuple[int, ...]:
        if self._terms.only_awaited and not welcome.awaits:
            raise NotAwaited("the destination does not await this VM: have it await it, or name the destination")
        spec = greetings.common_spec(self._terms.specs, welcome.specs)
        if spec is None:
            raise NoCommonSpec(
                f"the destination reads session specs {_listed(welcome.specs)}, "
                f"written here are {_listed(self._terms.specs)}: upgrade the older vmaccord-host"
            )
        return (spec,)

    def _offer(self, specs: tuple[int, ...], allow_loss: bool) -> Conversation[Prepared]:
        """Send the document in the newest of *specs*, and once more in the newest that a refusal names."""
        try:
            return (yield from self._send(max(specs), allow_loss))
        except Refused as refused:
            # Whatever word an older release has for it: it says what it reads.
            spec = greetings.common_spec((each for each in specs if each < max(specs)), refused.refusal.supported)
            if spec is None:
                raise
        return (yield from self._send(spec, allow_loss))

    def _send(self, number: int, allow_loss: bool) -> Conversation[Prepared]:
        document, lost = conversions.convert_telling(self._session(), number, allow_loss)
        try:
            yield from say(Request(Command.SESSION, documents.write(document, self._transfer, self._vm)))
        except Refused as refused:
            if refused.refusal.code != Code.ALREADY_TAKEN.value:
                raise
            return Prepared(True, self._terms.protocol)
        return Prepared(False, self._terms.protocol, number, lost)


def start(protocol: int) -> Conversation[None]:
    """Begin in that version of the protocol.

    :raises Refused: the destination does not speak it.
    """
    yield from say(frames.start(protocol))


def greet(hello: Hello) -> Conversation[Welcome]:
    """Say *hello*; only where the protocol has it.

    :raises Refused: it can't be answered.
    :raises InvalidPayload: its answer can't be read.
    """
    response = yield from say(Request(Command.HELLO, greetings.pack_hello(hello)))
    return greetings.unpack_welcome(response.payload)


def ask_for(protocol: int, reply_id: str) -> Conversation[Optional[Outcome]]:
    """Ask for the outcome of a command that went along with a guest; None: there is none yet.

    :raises Refused: the destination does not say.
    """
    yield from start(protocol)
    welcome = yield from greet(Hello(outcomes=(reply_id,)))
    return welcome.outcomes.get(reply_id)


def complete() -> Conversation[None]:
    """Have the destination take the guest. Before the request is sent, the doubt must be on disk.

    :raises Refused: the destination has not taken it.
    """
    yield from say(Request(Command.COMPLETE))


def abandon() -> Conversation[None]:
    """Have the destination forget what it prepared.

    :raises Refused: it could not; the end of the connection does the same.
    """
    yield from say(Request(Command.ABANDON))


def say(request: Request) -> Conversation[Response]:
    """Ask for one thing.

    :raises Refused: the destination refused it.
    :raises InvalidPayload: nobody knows why it refused.
    """
    response = yield request
    if response.status is Status.ERROR:
        raise Refused(unpack(response.payload))
    return response


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:10])) or "none"


#: The protocol version that brought ``Hello``.
_HELLO_SINCE = 1
