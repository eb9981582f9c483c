"""The destination's half of a hand-off: what is answered to each request, and when a guest may be taken. Pure.

``Arrivals`` is what all connections of one daemon share: which transfers were taken, and which connection has prepared one.
A ``Destination`` is one connection. Whoever drives it hands in each request. Most are answered at once; two need work:
reading a document, and taking a guest, which counts only when it is noted on disk. For these ``receive`` gives no response;
the driver does the work and says how it went to ``prepare`` or ``conclude``.

**A transfer belongs to the connection that spoke of it last.** A source that speaks of it on a new one has given up the old
one; what was prepared there is dropped, and its ``Complete``, which may still be on its way, is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Callable, NamedTuple, Optional, Protocol, Union, cast

from . import documents, greetings, steps, window
from .documents import Container, Spec
from .errors import InvalidDocument, InvalidPayload, UnknownSpec
from .frames import Command, Request, Response, Status
from .greetings import Outcome, Welcome
from .refusals import Code, Refusal
from .steps import Phase
from .vm import Vm

#: So many transfers are remembered as taken; the oldest is forgotten first. No source stays in doubt for longer.
TAKEN_LIMIT = 10_000


class House(Protocol):
    """What the destination's daemon knows."""

    def awaits(self, vm: Vm) -> bool:
        """Whether it is known that this VM is on its way here."""

    def remembers(self) -> bool:
        """Whether it is known which transfers were taken before this run."""

    def outcomes(self, reply_ids: Iterable[str]) -> Mapping[str, Outcome]:
        """How those of the commands ended that came with a transfer and have ended."""

    def objection(self, spec: Spec, vm: Vm) -> Optional[Refusal]:
        """Why this session of that VM, as far as the source says which, can't be taken here; None: it can."""


class Terms(NamedTuple):
    """What a destination understands; lower versions play an older release."""

    api_maximum: Optional[int] = None
    protocol: int = window.NEWEST
    spec: int = documents.NEWEST

    @property
    def specs(self) -> tuple[int, ...]:
        """The session specs that it reads."""
        return tuple(number for number in documents.SPECS if number <= self.spec)


class Arrivals:
    """The transfers to one daemon.

    :param taken: those that were taken before this run, the oldest first.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken: dict[str, None] = dict.fromkeys(taken)
        #: By transfer: the connection that it belongs to.
        self._speaking: dict[str, Destination] = {}

    def is_taken(self, transfer: Optional[str]) -> bool:
        """Whether the guest of *transfer* was taken."""
        return transfer in self._taken

    def note_taken(self, transfer: Optional[str]) -> None:
        """It was."""
        if transfer is not None:
            self._taken[transfer] = None
            while len(self._taken) > TAKEN_LIMIT:
                del self._taken[next(iter(self._taken))]

    def claim(self, transfer: Optional[str], connection: Destination) -> bool:
        """*connection* speaks of *transfer*, and no older one any more; False: another one is just taking it."""
        if transfer is None:
            return True
        older = self._speaking.get(transfer, connection)
        if older is not connection:
            if older.is_taking:
                return False
            older.supersede()
        self._speaking[transfer] = connection
        return True

    def leave(self, transfer: Optional[str], connection: Destination) -> None:
        """*connection* does not speak of it any more."""
        if transfer is not None and self._speaking.get(transfer) is connection:
            del self._speaking[transfer]


class Work(enum.Enum):
    """What the driver has to do before there is a response."""

    #: ``read`` the document, and tell ``prepare``.
    READ = "read"
    #: Take the guest of ``session``, note that on disk, and tell ``conclude``; also where the connection ends meanwhile.
    TAKE = "take"


def read(document: bytes, specs: Iterable[int]) -> Union[Container, Refusal]:
    """What *document* offers, in one of these *specs*; takes a while where it is large."""
    known = tuple(specs)
    try:
        container = documents.read_container(document)
        if documents.number_of(container.spec) not in known:
            raise UnknownSpec(str(documents.number_of(container.spec)), known)
    except UnknownSpec as error:
        return Refusal(Code.UNKNOWN_SPEC.value, str(error), known)
    except InvalidDocument as error:
        return Refusal(Code.INVALID_SESSION.value, str(error))
    return container


class Destination:
    """One connection.

    :ivar phase: how far it is.
    :ivar ended: whether it is to be closed behind the last response, or is.
    :ivar protocol: the version that is spoken on it.
    :ivar transfer: what it is about, where the source says so.
    :ivar vm: what it is about, as ``Hello`` and the document say.
    :ivar session: what was prepared.
    :ivar is_taking: whether the guest is just being taken.
    """

    def __init__(self, arrivals: Arrivals, house: House, terms: Terms) -> None:
        self._arrivals = arrivals
        self._house = house
        self._terms = terms
        self._superseded = False
        self.phase = Phase.OPENED
        self.ended = False
        self.protocol = 0
        self.transfer: Optional[str] = None
        self.vm = Vm()
        self.session: Optional[Spec] = None
        self.is_taking = False

    def receive(self, request: Request) -> Union[Response, Work]:
        """What is answered, or what must be done first."""
        if self._superseded:
            return self._end(_SUPERSEDED)
        if steps.find(request.command, self.phase, self.protocol) is None:
            return self._end(_out_of_order(request.command))
        return _ANSWERS[request.command](self, request)

    def prepare(self, offer: Union[Container, Refusal]) -> Response:
        """A document was read."""
        self._drop()
        refusal = offer if isinstance(offer, Refusal) else self._objection(offer)
        if refusal is None:
            self.session = cast(Container, offer).spec
            self.phase = Phase.PREPARED
        return _OK if refusal is None else refusal.response()

    def conclude(self, refusal: Optional[Refusal]) -> Response:
        """The guest was taken and that is on disk, or with a *refusal*: it could not be, and remains the source's."""
        self.is_taking = False
        if refusal is None:
            self._arrivals.note_taken(self.transfer)
            self.phase = Phase.TAKEN
        if self.ended:
            self._arrivals.leave(self.transfer, self)
        return _OK if refusal is None else refusal.response()

    def supersede(self) -> None:
        """The source speaks of the same transfer on a newer connection."""
        self._superseded = True
        self._drop()

    def closed(self) -> None:
        """The connection is gone: what was prepared on it is as if it had never been."""
        self.ended = True
        self._drop()
        if not self.is_taking:
            self._arrivals.leave(self.transfer, self)

    # ---- What is answered ----

    def _start(self, request: Request) -> Response:
        if not window.accepts(request.version, self._terms.protocol):
            return self._end(window.refuse(request.version, self._terms.protocol))
        self.protocol = request.version
        self.phase = Phase.STARTED
        return _OK

    def _hello(self, request: Request) -> Response:
        try:
            hello = greetings.unpack_hello(request.payload)
        except InvalidPayload as error:
            return Refusal(Code.INVALID_HELLO.value, str(error)).response()
        if not self._claim(hello.transfer):
            return _BUSY.response()
        if hello.transfer is not None and not self._arrivals.is_taken(hello.transfer) and not self._house.remembers():
            return _FORGETFUL.response()
        self.vm = hello.vm
        welcome = Welcome(
            self._terms.specs,
            self._terms.api_maximum,
            self._house.awaits(hello.vm),
            self._arrivals.is_taken(hello.transfer),
            self._house.outcomes(hello.outcomes),
        )
        try:
            return Response(Status.OK, greetings.pack_welcome(welcome))
        except ValueError as error:
            return Refusal(
                Code.INVALID_HELLO.value, f"the answer can't be written: {error}: ask for fewer outcomes"
            ).response()

    def _session(self, _request: Request) -> Work:
        return Work.READ

    def _complete(self, _request: Request) -> Union[Response, Work]:
        if self.phase is Phase.TAKEN:
            return _OK
        self.is_taking = True
        return Work.TAKE

    def _abandon(self, _request: Request) -> Response:
        self._drop()
        self.phase = Phase.ABANDONED
        self.ended = True
        return _OK

    def _objection(self, offer: Container) -> Optional[Refusal]:
        if self._superseded:
            return _SUPERSEDED
        if not self._claim(offer.transfer or self.transfer):
            return _BUSY
        if self._arrivals.is_taken(self.transfer):
            return _ALREADY_TAKEN
        if not self._house.remembers():
            return _FORGETFUL
        self.vm = offer.vm.beside(self.vm)
        return self._house.objection(offer.spec, self.vm)

    def _claim(self, transfer: Optional[str]) -> bool:
        if transfer != self.transfer:
            self._arrivals.leave(self.transfer, self)
        self.transfer = transfer
        return self._arrivals.claim(transfer, self)

    def _drop(self) -> None:
        self.session = self.session if self.is_taking else None
        if self.phase is Phase.PREPARED and not self.is_taking:
            self.phase = Phase.STARTED

    def _end(self, refusal: Refusal) -> Response:
        self._drop()
        self.ended = True
        return refusal.response()


_ANSWERS: Mapping[Command, Callable[[Destination, Request], Union[Response, Work]]] = {
    Command.START: Destination._start,
    Command.HELLO: Destination._hello,
    Command.SESSION: Destination._session,
    Command.COMPLETE: Destination._complete,
    Command.ABANDON: Destination._abandon,
}

_OK = Response(Status.OK)

_SUPERSEDED = Refusal(Code.SUPERSEDED.value, "the source speaks of this transfer on a newer connection: go on there")
_FORGETFUL = Refusal(
    Code.NOT_SAVED.value,
    "the destination could not read its state file when it started, so nobody knows what it has taken: "
    "see its log, and restart it",
)
_BUSY = Refusal(Code.BUSY.value, "the destination is just taking this transfer: ask again in a moment")
_ALREADY_TAKEN = Refusal(Code.ALREADY_TAKEN.value, "the destination has taken this guest before: forget it on the source")


def _out_of_order(command: Command) -> Refusal:
    name = command.name.capitalize()
    return Refusal(Code.OUT_OF_ORDER.value, f"{name} may not come now: keep to the order Start, Hello, Session, Complete")
