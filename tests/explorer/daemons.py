"""Host daemons, as far as a hand-off goes, as pure step functions: (state, operation) → (state, what goes out).

A daemon is a disk, which survives a crash, and what is in memory, which does not. It drives the real ``Source``,
``Arrivals`` and ``Destination`` by the rules that these give to whoever drives them; each rule is a method of its own, so
that a test can break it. There is one guest, and each daemon can have it.

As with the sessions (see ``machines``) a daemon runs for every *new* pair of state and operation only.
"""

from __future__ import annotations

import enum
import pickle
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional, Union

from common.handoff import convert, destination, documents, errors, frames, source, window
from common.handoff.destination import Arrivals, Destination, Work
from common.handoff.documents import Spec
from common.handoff.frames import Request, RequestReader, Response, ResponseReader
from common.handoff.greetings import Outcome
from common.handoff.refusals import Code, Refusal, Refused
from common.handoff.source import Conversation, Source
from common.handoff.spec1 import Command
from common.handoff.spec2 import Spec2
from common.handoff.vm import Vm

#: The run that all daemons take themselves for at first, as those do whose disks were cloned.
CLONED_RUN = "0" * 16

_VM = Vm("00000000-0000-0000-0000-00000000000a", "web-1")
_NOT_SAVED = Refusal(Code.NOT_SAVED.value, "the disk is full")
_MOVING = Refusal(Code.BUSY.value, "it is just being handed over from here")


class Release(NamedTuple):
    """What a daemon knows."""

    protocol: int = window.NEWEST
    spec: int = documents.NEWEST


class Transfer(NamedTuple):
    """One attempt to move the guest: the how manieth, and from where to where."""

    number: int
    source: int
    to: int

    @property
    def id(self) -> str:
        """As it stands in documents."""
        return f"{self.number:030x}{self.source:x}{self.to:x}"


def read_transfer(transfer: str) -> Transfer:
    """The transfer of that id."""
    return Transfer(int(transfer[:30], 16), int(transfer[30], 16), int(transfer[31], 16))


class Disk(NamedTuple):
    """What survives a crash.

    :ivar here: the guest is this host's, or may be.
    :ivar doubt: the transfer of which nobody here knows whether it was taken.
    :ivar taken: the transfers that were taken here, oldest first.
    :ivar in_flight: the reply ids of commands whose completion is awaited.
    """

    here: bool
    doubt: Optional[str] = None
    taken: tuple[str, ...] = ()
    in_flight: tuple[str, ...] = ()


class Goal(enum.Enum):
    """What a source talks about."""

    PREPARE = "prepare"
    COMPLETE = "complete"
    ASK = "ask"


class Attempt(NamedTuple):
    """What this daemon does as a source.

    :ivar doubted: whether it was begun, or goes on, in doubt.
    :ivar prepared: whether the destination is ready.
    """

    goal: Goal
    transfer: str
    wire: int
    doubted: bool
    prepared: bool = False
    responses: tuple[Response, ...] = ()


class Out(NamedTuple):
    """What goes out on a wire, by its number: a request, a response, or (without bytes) its end on that side."""

    wire: int
    by_source: bool
    frame: Optional[bytes] = None


class Daemon:
    """The daemon of the host *number*.

    :param api_maximum: the highest version that this host agrees on.
    :param advertised: what it says that the guest announced.
    """

    #: What all connections to it share.
    arrivals_class: type[Arrivals] = Arrivals

    def __init__(self, number: int, release: Release, owns: bool, advertised: int) -> None:
        self.number = number
        self.release = release
        self.advertised = advertised
        self.disk = Disk(owns)
        self.out: list[Out] = []
        self._start(CLONED_RUN)

    def _start(self, run: str) -> None:
        self.run = run
        self.highest = 0
        self.carried: Optional[int] = None
        self.attempt: Optional[Attempt] = None
        self.protocol = self.release.protocol
        self.arrivals = self.arrivals_class(self.disk.taken)
        self.lines: dict[int, Destination] = {}
        #: By wire: what must be done before there is a response, and with which bytes.
        self.work: dict[int, tuple[Work, bytes]] = {}

    @property
    def acts(self) -> bool:
        """Whether it takes the guest for its own."""
        return self.disk.here and self.disk.doubt is None

    # ---- What can happen to it ----

    def restart(self, run: str) -> None:
        """It is killed and started; that *run* is another one than those before, where it matters."""
        self._start(run)

    def send(self) -> None:
        """A command is sent to the guest."""
        self.highest += 1
        self.disk = self.disk._replace(in_flight=_joined(self.disk.in_flight, [f"{self.run}-{self.highest}"]))

    # ---- As a source ----

    def begin(self, transfer: str, wire: int) -> None:
        """Begin to hand the guest over."""
        self._talk(Attempt(Goal.PREPARE, transfer, wire, doubted=False))

    def again(self, wire: int) -> None:
        """In doubt, run the hand-off again."""
        assert self.disk.doubt is not None
        self._talk(Attempt(Goal.PREPARE, self.disk.doubt, wire, doubted=True))

    def ask(self, wire: int) -> None:
        """In doubt, ask."""
        assert self.disk.doubt is not None
        self._talk(Attempt(Goal.ASK, self.disk.doubt, wire, doubted=True))

    def complete(self) -> None:
        """The VM has gone: have the destination take the guest."""
        assert self.attempt is not None
        self.note_doubt(self.attempt.transfer)
        self._talk(Attempt(Goal.COMPLETE, self.attempt.transfer, self.attempt.wire, doubted=True))

    def cancel(self) -> None:
        """The VM stays: have the destination forget it, and don't wait for what it says."""
        assert self.attempt is not None
        wire = self.attempt.wire
        self.out.append(Out(wire, True, frames.pack_request(next(source.abandon()))))
        self._go_home()

    def lost(self, wire: int) -> None:
        """The connection broke, as this side sees it."""
        if self.attempt is not None and self.attempt.wire == wire:
            self.attempt = None

    def response(self, wire: int, frame: bytes) -> None:
        """The destination answers."""
        assert self.attempt is not None
        assert self.attempt.wire == wire
        (response,) = ResponseReader().feed(frame)
        self._talk(self.attempt._replace(responses=(*self.attempt.responses, response)))

    def note_doubt(self, transfer: str) -> None:
        """Before ``Complete`` is sent, it is on disk that nobody may hear what became of it."""
        self.disk = self.disk._replace(doubt=transfer)

    def is_outdated(self, attempt: Attempt) -> bool:
        """Whether the doubt has been resolved otherwise meanwhile: the guest has been handed back."""
        return attempt.doubted and self.disk.doubt != attempt.transfer

    def session(self) -> Spec:
        """The guest as it is now."""
        commands = tuple(Command(each, "echo", 60.0) for each in self.disk.in_flight)
        return Spec2(_VM.uuid, _VM.name, advertised=self.advertised, commands=commands, reply_id_floor=self.highest)

    def _talk(self, attempt: Attempt) -> None:
        """Go on: a conversation can't be kept, so it is held again from its beginning."""
        self.attempt = attempt
        conversation = self._conversation(attempt)
        try:
            request = next(conversation)
            for response in attempt.responses:
                request = conversation.send(response)
        except StopIteration as ended:
            self._learn(attempt, ended.value)
        except errors.HandoffError as error:
            self._fail(attempt, error)
        else:
            self.out.append(Out(attempt.wire, True, frames.pack_request(request)))

    def _conversation(self, attempt: Attempt) -> Conversation[Any]:
        if attempt.goal is Goal.COMPLETE:
            return source.complete()
        terms = source.Terms(None, True, False, self.protocol, self.release.spec)
        this = Source(attempt.transfer, _VM, self.session, terms)
        return this.prepare() if attempt.goal is Goal.PREPARE else this.ask()

    def _learn(self, attempt: Attempt, found: Any) -> None:
        taken = found.taken if attempt.goal is Goal.PREPARE else attempt.goal is Goal.COMPLETE or found
        if taken:
            self._forget(attempt)
        elif attempt.goal is Goal.PREPARE:
            self.attempt = attempt._replace(prepared=True, responses=())
        else:
            self._go_home()

    def _fail(self, attempt: Attempt, error: errors.HandoffError) -> None:
        if isinstance(error, Refused):
            older = window.retry_with(error.refusal, self.protocol)
            self.protocol = self.protocol if older is None else older
        if isinstance(error, Refused) and attempt.goal is Goal.COMPLETE:
            self._go_home()
        else:
            self._hang_up()

    def _forget(self, attempt: Attempt) -> None:
        """The guest is the destination's."""
        self._hang_up()
        if not self.is_outdated(attempt):
            self.disk = Disk(False, taken=self.disk.taken)

    def _go_home(self) -> None:
        """The guest is this host's without a doubt."""
        self._hang_up()
        self.disk = self.disk._replace(doubt=None)

    def _hang_up(self) -> None:
        assert self.attempt is not None
        self.out.append(Out(self.attempt.wire, True))
        self.attempt = None

    # ---- As a destination ----

    def request(self, wire: int, frame: bytes) -> None:
        """A source asks for something."""
        if wire not in self.lines:
            self.lines[wire] = Destination(self.arrivals, self, destination.Terms(None, *self.release))
        (request,) = RequestReader().feed(frame)
        self._answer(wire, self.lines[wire].receive(request), request)

    def worked(self, wire: int, saves: bool) -> None:
        """What is to be done before there is a response has been done; *saves*: the disk can be written."""
        work, document = self.work.pop(wire)
        line = self.lines[wire]
        if work is Work.READ:
            response = line.prepare(destination.read(document, destination.Terms(None, *self.release).specs))
        elif saves:
            self.take(line)
            response = line.conclude(None)
        else:
            response = line.conclude(_NOT_SAVED)
        self._answer(wire, response)

    def ended(self, wire: int) -> None:
        """The connection broke, as this side sees it; what is being taken is taken nevertheless."""
        line = self.lines.get(wire)
        if line is not None:
            line.closed()
            if not line.is_taking:
                self.work.pop(wire, None)
                del self.lines[wire]

    def take(self, line: Destination) -> None:
        """The guest is this host's: all of this is on disk at once. Only who owns it hands it over: that ends a doubt."""
        session = convert(line.session)  # type: ignore[arg-type]
        assert isinstance(session, Spec2)
        assert line.transfer is not None
        in_flight = _joined(self.disk.in_flight, (each.reply_id for each in session.commands))
        self.disk = Disk(True, self.doubt_after_taking(), (*self.disk.taken, line.transfer), in_flight)
        self.highest = self.number_above(session.floor)
        self.carried = session.advertised

    def doubt_after_taking(self) -> Optional[str]:
        """What is in doubt once the guest was taken."""
        return None

    def number_above(self, floor: int) -> int:
        """The highest number that no command may have any more."""
        return max(self.highest, floor)

    def _answer(self, wire: int, response: Union[Response, Work], request: Optional[Request] = None) -> None:
        line = self.lines[wire]
        if isinstance(response, Work):
            assert request is not None
            self.work[wire] = response, request.payload
        else:
            self.out.append(Out(wire, False, frames.pack_response(response)))
            if line.ended:
                self.out.append(Out(wire, False))
                line.closed()
                del self.lines[wire]

    # ---- ``destination.House`` ----

    def awaits(self, vm: Vm) -> bool:
        """See there."""
        return True

    def remembers(self) -> bool:
        """See there."""
        return True

    def outcomes(self, reply_ids: Iterable[str]) -> Mapping[str, Outcome]:
        """See there."""
        return {}

    def objection(self, spec: Spec, vm: Vm) -> Optional[Refusal]:
        """See there: what is just leaving does not come at the same time."""
        return _MOVING if self.attempt is not None and self.disk.doubt is None else None


class View(NamedTuple):
    """What can be seen of a daemon."""

    disk: Disk
    acts: bool
    attempt: Optional[Attempt]
    work: Mapping[int, Work]
    carried: Optional[int]


class Stepped(NamedTuple):
    """The outcome of one operation."""

    state: int
    out: tuple[Out, ...]


class DaemonMachine:
    """All states of daemons, and the steps between them."""

    def __init__(self) -> None:
        self._pickles: list[bytes] = []
        self._numbers: dict[object, int] = {}
        self._views: list[View] = []
        self._steps: dict[tuple[object, ...], Stepped] = {}

    def state_of(self, daemon: Daemon) -> int:
        """The number of *daemon*'s state."""
        key = _key(daemon)
        if key not in self._numbers:
            self._numbers[key] = len(self._pickles)
            self._pickles.append(pickle.dumps(daemon, pickle.HIGHEST_PROTOCOL))
            work = {wire: work for wire, (work, _) in daemon.work.items()}
            self._views.append(View(daemon.disk, daemon.acts, daemon.attempt, work, daemon.carried))
        return self._numbers[key]

    def view(self, state: int) -> View:
        """The daemon in that state."""
        return self._views[state]

    def step(self, state: int, operation: Callable[..., None], *arguments: object) -> Stepped:
        """Run *operation*, a method of ``Daemon``, on the daemon in that state."""
        key = (state, operation.__name__, arguments)
        if key not in self._steps:
            daemon = pickle.loads(self._pickles[state])  # noqa: S301 - what this process has written
            getattr(daemon, operation.__name__)(*arguments)
            out, daemon.out = tuple(daemon.out), []
            self._steps[key] = Stepped(self.state_of(daemon), out)
        return self._steps[key]


def _key(daemon: Daemon) -> object:
    """What makes up a daemon's state: equal for equal ones, whatever objects they are made of."""
    parts = dict(vars(daemon))
    arrivals, lines = parts.pop("arrivals"), parts.pop("lines")
    speaking = {transfer: _line_key(line) for transfer, line in arrivals._speaking.items()}
    wires = {wire: _line_key(line) for wire, line in sorted(lines.items())}
    return repr((sorted(parts.items()), sorted(arrivals._taken), sorted(speaking.items()), wires))


def _line_key(line: Destination) -> object:
    return sorted((name, value) for name, value in vars(line).items() if name not in ("_arrivals", "_house"))


def _joined(reply_ids: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*reply_ids, *more}))
