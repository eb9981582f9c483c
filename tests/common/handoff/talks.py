"""A source and a destination back to back: what they say goes through frames, cut as a test wants it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Optional, TypeVar

from common.handoff import destination, documents, frames, source, window
from common.handoff.destination import Arrivals, Destination, Work
from common.handoff.documents import Spec
from common.handoff.frames import Reader, Request, Response
from common.handoff.greetings import Outcome
from common.handoff.refusals import Code, Refusal, Refused
from common.handoff.source import Conversation, Prepared, Source
from common.handoff.vm import Vm

from .sessions import document

T = TypeVar("T")
F = TypeVar("F")

TRANSFER = "0123456789abcdef" * 2
ANOTHER = "f" * 32
VM = Vm("00000000-0000-0000-0000-00000000000a", "web-1")

#: A session of which only the newest spec has place for everything.
SESSION = documents.read(document("whole-2"))

NOT_SAVED = Refusal(Code.NOT_SAVED.value, "the disk is full: make room on it")


class Cut(enum.Enum):
    """How bytes are cut on their way."""

    WHOLE = "whole"
    BYTES = "byte by byte"
    TAIL = "the end behind the rest"

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """*data* in the pieces in which it arrives."""
        if self is Cut.BYTES:
            yield from (data[at : at + 1] for at in range(len(data)))
        elif self is Cut.TAIL:
            yield from (data[:-3], data[-3:])
        else:
            yield data


class Host:
    """A destination's daemon.

    :ivar disk: the transfers that are noted on its disk.
    :ivar taken: the sessions that it has taken, in order.
    :ivar disk_is_full: nothing can be noted; ``knows``: whether what was noted before this run could be read.
    :ivar awaited: the VMs that it awaits; ``ended`` how commands ended, by reply id; ``against`` why it takes nothing.
    """

    def __init__(self, protocol: int = window.NEWEST, spec: int = documents.NEWEST) -> None:
        self.terms = destination.Terms(5, protocol, spec)
        self.disk: list[str] = []
        self.taken: list[Spec] = []
        self.disk_is_full = False
        self.knows = True
        self.awaited: list[Vm] = []
        self.ended: dict[str, Outcome] = {}
        self.against: Optional[Refusal] = None
        self.asked_of: list[Vm] = []
        self.arrivals = Arrivals()

    def restart(self) -> None:
        """All but the disk is lost, if not even that."""
        self.arrivals = Arrivals(self.disk if self.knows else ())

    def connect(self, cut: Cut = Cut.WHOLE) -> Line:
        """A new connection to it."""
        return Line(self, cut)

    def answer(self, one: Destination, request: Request) -> Response:
        """Do whatever *request* asks for."""
        response = one.receive(request)
        if response is Work.READ:
            return one.prepare(destination.read(request.payload, self.terms.specs))
        if response is Work.TAKE:
            return one.conclude(self.take(one))
        assert isinstance(response, Response)
        return response

    def take(self, one: Destination) -> Optional[Refusal]:
        """Take what *one* has prepared."""
        assert one.session is not None
        if self.disk_is_full:
            return NOT_SAVED
        self.taken.append(one.session)
        if one.transfer is not None:
            self.disk.append(one.transfer)
        return None

    # ---- ``destination.House`` ----

    def awaits(self, vm: Vm) -> bool:
        """See there."""
        return vm in self.awaited

    def remembers(self) -> bool:
        """See there."""
        return self.knows

    def outcomes(self, reply_ids: Iterable[str]) -> Mapping[str, Outcome]:
        """See there."""
        return {each: self.ended[each] for each in reply_ids if each in self.ended}

    def objection(self, spec: Spec, vm: Vm) -> Optional[Refusal]:
        """See there."""
        self.asked_of.append(vm)
        return self.against


class Line:
    """One connection to *host*.

    :ivar said: the requests that crossed it.
    """

    def __init__(self, host: Host, cut: Cut) -> None:
        self.host = host
        self.destination = Destination(host.arrivals, host, host.terms)
        self.said: list[Request] = []
        self._cut = cut
        self._requests = frames.RequestReader()
        self._responses = frames.ResponseReader()

    def talk(self, conversation: Conversation[T]) -> T:
        """Lead *conversation* to its end."""
        try:
            request = next(conversation)
            while True:
                request = conversation.send(self.ask(request))
        except StopIteration as ended:
            result: T = ended.value
            return result

    def ask(self, request: Request) -> Response:
        """Send one request."""
        (received,) = self._cross(self._requests, frames.pack_request(request))
        self.said.append(received)
        (response,) = self._cross(self._responses, frames.pack_response(self.host.answer(self.destination, received)))
        return response

    def _cross(self, reader: Reader[F], data: bytes) -> Iterator[F]:
        for piece in self._cut.pieces(data):
            yield from reader.feed(piece)


def source_of(terms: source.Terms, session: Spec = SESSION, transfer: str = TRANSFER) -> Source:
    """The source that hands *session* over on these terms."""
    return Source(transfer, VM, lambda: session, terms)


def hand_over(host: Host, terms: source.Terms, session: Spec = SESSION, cut: Cut = Cut.WHOLE) -> Prepared:
    """A whole hand-off, as a source's daemon drives it: once more with an older version where that is asked for."""
    line = host.connect(cut)
    try:
        prepared = line.talk(source_of(terms, session).prepare())
    except Refused as refused:
        version = window.retry_with(refused.refusal, terms.protocol, terms.protocol)
        if version is None:
            raise
        return hand_over(host, terms._replace(protocol=version), session, cut)
    if not prepared.taken:
        line.talk(source.complete())
    return prepared
