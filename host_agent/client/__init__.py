"""The control API from the outside: one blocking client, which the operator's commands stand on and other programs may use.

::

    from host_agent.client import Client, VersionTooLow

    client = Client()
    for guest in client.guests(facts=False):
        print(guest["name"], guest["api"]["agreed"])
    try:
        answer = client.send("web-1", "lifecycle-event", {"type": "before_migration"}, timeout=10)
    except VersionTooLow as refused:
        print(refused, refused.upgrade)

Descriptions are the JSON of the control API as it is. Whatever goes wrong is a ``ClientError``: see ``failures``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

from common.catalogue import CATALOGUE, Direction
from host_agent import deadlines, paths
from host_agent.text import printable

from .failures import (
    Busy,
    ClientError,
    CommandRefused,
    Congested,
    DaemonUnreachable,
    Disabled,
    HandoffFailed,
    HandoffOff,
    InDoubt,
    InvalidArguments,
    InvalidSession,
    Moved,
    Moving,
    NameTaken,
    NoSuchCommand,
    NoSuchGuest,
    NoSuchPeer,
    NotAllowed,
    NotAwaited,
    NotConnected,
    NotMoving,
    NotSaved,
    Problem,
    RefusedByPeer,
    Stopping,
    TimedOut,
    UnexpectedAnswer,
    UnreachablePeer,
    Unresponsive,
    VersionTooLow,
    WouldLose,
)
from .following import Event, Events
from .transport import Transport, no_daemon

__all__ = [
    "Answer",
    "Busy",
    "Client",
    "ClientError",
    "CommandRefused",
    "Congested",
    "DaemonUnreachable",
    "Disabled",
    "Event",
    "Events",
    "Handed",
    "HandoffFailed",
    "HandoffOff",
    "InDoubt",
    "InvalidArguments",
    "InvalidSession",
    "Moved",
    "Moving",
    "NameTaken",
    "NoSuchCommand",
    "NoSuchGuest",
    "NoSuchPeer",
    "NotAllowed",
    "NotAwaited",
    "NotConnected",
    "NotMoving",
    "NotSaved",
    "Problem",
    "RefusedByPeer",
    "Stopping",
    "TimedOut",
    "UnexpectedAnswer",
    "UnreachablePeer",
    "Unresponsive",
    "VersionTooLow",
    "WouldLose",
    "find_control",
]

#: An answer that takes longer than this, in seconds, does not come.
TIMEOUT = 10.0

#: A daemon that went away while its events are followed is waited for this long, in seconds.
PATIENCE = 60.0

#: So much longer than other answers may one take for which another host must write its disk, or a guest run its hooks, in
#: seconds.
HANDOFF = 120.0


class Answer(NamedTuple):
    """What became of a command.

    :ivar guest: the guest's name.
    :ivar name: the command's name.
    :ivar agreed: the API version at which it was sent.
    :ivar reply_id: by this the guest's completion refers to it; None: it has no completion.
    :ivar completion: what the guest answered, with ``done`` and whatever else it says; None: nothing was waited for.
    :ivar round_trip_s: seconds from the command to its completion.
    """

    guest: str
    name: str
    agreed: int
    reply_id: Optional[str]
    completion: Optional[dict[str, Any]]
    round_trip_s: Optional[float]

    @property
    def failed(self) -> bool:
        """Whether the guest says that it could not do it."""
        return self.completion is not None and self.completion.get("done") is not True

    @property
    def result(self) -> dict[str, Any]:
        """What it came to, as far as the guest says; which members it has depends on the command."""
        result = (self.completion or {}).get("result")
        return result if isinstance(result, dict) else {}

    @property
    def code(self) -> Optional[str]:
        """Why the guest could not do it, in a word of the protocol; None: it could, or does not say."""
        error = (self.completion or {}).get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return code if isinstance(code, str) else None


class Handed(NamedTuple):
    """A guest was handed over.

    :ivar guest: the guest's name.
    :ivar to: the host that has it now.
    :ivar protocol: the version of the hand-off protocol that both spoke.
    :ivar spec: the session spec that was carried.
    :ivar lost: the dotted names of all that this spec has no place for.
    """

    guest: str
    to: str
    protocol: int
    spec: int
    lost: list[str]


def find_control() -> str:
    """The control socket of the daemon of this user, in whatever environment that was started; else that of the service.

    :raises DaemonUnreachable: there is none at any place where it is by default.
    """
    places = paths.places_to_look()
    for place in places:
        if is_trusted_socket(place):
            return place
    raise DaemonUnreachable(no_daemon(" or ".join(map(printable, places))))


class Client:
    """Asks the daemon whose control socket is *control*; each method may be called from any thread.

    Every method raises DaemonUnreachable or UnexpectedAnswer where there is no answer, and NotAllowed where this user may
    not ask.

    :param control: the path; None: where a daemon of this user has it by default.
    :param timeout: seconds after which an answer does not come; the time for which a command may wait is added.
    :raises DaemonUnreachable: there is no socket at any default path.
    """

    def __init__(self, control: Optional[str] = None, timeout: float = TIMEOUT) -> None:
        self._transport = Transport(find_control() if control is None else control, timeout)

    @property
    def control(self) -> str:
        """The path of the control socket."""
        return self._transport.control

    # ---- Looking ----

    def host(self) -> dict[str, Any]:
        """The daemon itself, and who you are to it."""
        return self._object(self._transport.ask("GET", "/v1/host"))

    def guests(self, facts: bool = True, can: Optional[str] = None) -> list[dict[str, Any]]:
        """All guests, by name.

        :param facts: with facts, capabilities and counters, which are most of what is known of a guest.
        :param can: only those that can be sent the command of this name now.
        """
        return self._objects(self._transport.ask("GET", f"/v1/guests{_query(facts=None if facts else 'no', can=can)}"))

    def guest(self, name: str) -> dict[str, Any]:
        """One guest; ``obstacles`` says for each command why it can't be sent to it now.

        :raises NoSuchGuest: the daemon knows none of that name.
        """
        return self._ask_of(name, "GET", "")

    def metrics(self) -> str:
        """Metrics as Prometheus reads them."""
        return self._transport.fetch("GET", "/metrics").decode("utf-8", "replace")

    def openapi(self) -> dict[str, Any]:
        """The control API's description of itself, by OpenAPI."""
        return self._object(self._transport.ask("GET", "/openapi.json"))

    # ---- Commanding ----

    def send(
        self,
        name: str,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        timeout: Optional[float] = None,
        wait: bool = True,
        follow: bool = False,
    ) -> Answer:
        """Send *command* to the guest called *name*, and wait for its completion where it has one.

        That the guest could not do it is no error: see ``Answer.failed``.

        :param arguments: by their names on the wire, as JSON has them.
        :param timeout: seconds within which the completion must come, from 0.1 to 3600; None: what such a command has by
            default, which is 10 s more than it may take in the guest where that is known, and else 30 s.
        :param wait: whether to wait for the completion.
        :param follow: where the guest moves to another host meanwhile, have that asked for the completion.
        :raises NoSuchGuest: the daemon knows none of that name.
        :raises CommandRefused: it was not sent; the class says why: VersionTooLow, Disabled, Unresponsive, …
        :raises Moved: the guest is on another host now; with *follow* only where it was so before.
        :raises HandoffFailed: the completion can't be asked of the host that the guest has moved to.
        :raises TimedOut: it was sent, and the completion did not come in time.
        """
        wanted: dict[str, Any] = {"name": command, "arguments": dict(arguments or {}), "wait": wait}
        if follow:
            wanted["follow"] = True
        if timeout is None:
            row = CATALOGUE.find(Direction.TO_GUEST, command)
            timeout = deadlines.USUAL if row is None else deadlines.by_default(row, wanted["arguments"])
        else:
            wanted["timeout"] = timeout
        document = self._ask_of(name, "POST", "/commands", wanted, timeout)
        return Answer(*self._members(document, Answer._fields))

    def refresh(self, name: str) -> dict[str, Any]:
        """Ask the guest called *name* to say everything again, and to agree on a version anew.

        :returns: the guest's name, and the version that was agreed when it was asked.
        :raises NoSuchGuest: the daemon knows none of that name.
        :raises Unresponsive: there is no channel to it, or it does not read.
        """
        return self._ask_of(name, "POST", "/refresh", {})

    # ---- Moving to other hosts ----

    def hand_over(self, name: str, to: Optional[str] = None, allow_loss: bool = False) -> Handed:
        """Hand the guest called *name* over to another host.

        :param to: the name of a peer of the daemon's configuration; None: the one that awaits the guest.
        :param allow_loss: also where the session spec that both hosts know has no place for all.
        :raises NoSuchGuest: the daemon knows none of that name.
        :raises Moved: it is on another host already.
        :raises HandoffFailed: it was not handed over; the class says why. After InDoubt the daemon goes on by itself.
        """
        document = self._ask_of(name, "POST", "/handoff", {"to": to, "allow_loss": allow_loss}, HANDOFF)
        return Handed(*self._members(document, Handed._fields))

    def cancel_handoff(self, name: str, force: bool = False) -> dict[str, Any]:
        """Give up handing over the guest called *name*: it goes on here.

        :param force: also where nobody knows whether the other host has taken it, and where that has. Make sure that the
            VM is not there: else both hosts command it.
        :returns: the guest's name.
        :raises NoSuchGuest: the daemon knows none of that name.
        :raises NotMoving: there is nothing to give up.
        :raises Moved: the other host has it already.
        :raises HandoffFailed: it can't be given up now.
        """
        return self._ask_of(name, "DELETE", f"/handoff{_query(force='yes' if force else None)}", wait=HANDOFF)

    def handoffs(self) -> list[dict[str, Any]]:
        """The hand-offs that are under way or in doubt, and the guests that are awaited."""
        return self._objects(self._transport.ask("GET", "/v1/handoffs"))

    def expect(self, name: str, uuid: Optional[str] = None, patience: Optional[float] = None) -> dict[str, Any]:
        """Await the guest called *name* from another host, which then need not be told where to hand it over to.

        :param uuid: that of its VM; None: its name counts.
        :param patience: seconds for which it is awaited, up to a day; None: ten minutes.
        :returns: the name, the UUID, and the seconds.
        """
        wanted: dict[str, Any] = {"name": name, "uuid": uuid, **({} if patience is None else {"patience": patience})}
        return self._object(self._transport.ask("POST", "/v1/handoffs/expected", wanted))

    def export(self, name: str, spec: Optional[int] = None, allow_loss: bool = False) -> bytes:
        """What is known of the guest called *name*, as a file that another host takes; the guest stays here.

        :param spec: the session spec, an older one for an older reader; None: the newest that the daemon knows.
        :param allow_loss: also where that spec has no place for all.
        :raises NoSuchGuest: the daemon knows none of that name.
        :raises WouldLose: it has no place for all, and that was not allowed.
        :raises HandoffFailed: it can't be exported.
        """
        query = _query(spec=spec, **{"allow-loss": "yes" if allow_loss else None})
        with _named(name):
            return self._transport.fetch("GET", f"{_path_of(name)}/session{query}")

    def take_in(self, content: bytes) -> dict[str, Any]:
        """Take in the guest that *content* tells of, which an export has written.

        :returns: the guest's name, and its VM's UUID where that is known.
        :raises InvalidSession: it is no session, or can't be used.
        :raises HandoffFailed: the guest can't be taken.
        """
        return self._object(self._transport.ask("POST", "/v1/sessions", content, wait=HANDOFF))

    def migrate(self, name: str, stage: str, timeout: Optional[float] = None) -> dict[str, Any]:
        """Tell the guest called *name* where its migration stands.

        :param stage: ``"begin"`` before it begins, which is answered when the guest is ready for it; ``"failed"``, or
            ``"arrived"``, which is for the host that it has come to.
        :param timeout: of ``"begin"``: seconds within which the guest must be ready, from 0.1 to 3600; None: the usual time.
        :returns: the guest's name, the stage, and as ``completion`` and ``round_trip_s`` what the guest answered; None:
            it is too old to be told, or is not asked.
        :raises NoSuchGuest: the daemon knows none of that name.
        :raises CommandRefused: it can't be told now.
        :raises TimedOut: it was told, and did not answer in time.
        """
        wanted: dict[str, Any] = {"stage": stage, **({} if timeout is None else {"timeout": timeout})}
        return self._ask_of(name, "POST", "/migration", wanted, HANDOFF if timeout is None else timeout)

    # ---- Following ----

    def events(
        self,
        follow: bool = True,
        last_id: Optional[str] = None,
        guest: Optional[str] = None,
        recent: Optional[int] = None,
        patience: float = PATIENCE,
    ) -> Events:
        """What happens, as an iterator; see ``Events``.

        :param follow: go on with what happens from now on; else end when all is told that has happened.
        :param last_id: begin behind the event with this id.
        :param guest: only what happens to the guest of this name.
        :param recent: without *last_id*: begin with so many of the latest events.
        :param patience: seconds for which a daemon that went away is waited for.
        """
        return Events(self._transport, follow=follow, last_id=last_id, guest=guest, recent=recent, patience=patience)

    def _ask_of(
        self, name: str, method: str, what: str, document: Optional[object] = None, wait: float = 0.0
    ) -> dict[str, Any]:
        """Ask for something of the guest called *name*."""
        with _named(name):
            return self._object(self._transport.ask(method, _path_of(name) + what, document, wait=wait))

    def _members(self, document: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
        try:
            return [document[name] for name in names]
        except KeyError as missing:
            raise self._transport.unexpected(f"the answer lacks {missing}") from None

    def _objects(self, document: Any) -> list[dict[str, Any]]:
        if isinstance(document, list):
            return [self._object(each) for each in document]
        raise self._transport.unexpected("the answer has another form than expected")

    def _object(self, document: Any) -> dict[str, Any]:
        if isinstance(document, dict):
            return document
        raise self._transport.unexpected("the answer has another form than expected")


def is_trusted_socket(path: str) -> bool:
    """Whether a socket of this user or the service's is at *path*: where all may write anybody could have made another."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid in {0, os.geteuid(), paths.service_user()}


def _path_of(guest: str) -> str:
    """Where the guest of that name is.

    :raises NoSuchGuest: none can have that name.
    """
    if not guest or "/" in guest or "\0" in guest:
        raise _no_such_guest(guest)
    # A step of dots alone would be taken for the step upwards.
    return "/v1/guests/" + urllib.parse.quote(guest, safe="", errors="surrogateescape").replace(".", "%2E")


def _query(**wanted: object) -> str:
    """The parameters that are not None, as a path ends with them."""
    said = {name: value for name, value in wanted.items() if value is not None}
    return f"?{urllib.parse.urlencode(said)}" if said else ""


@contextlib.contextmanager
def _named(guest: str) -> Iterator[None]:
    """A sentence of ours where the daemon knows no such guest: its own says what to do over HTTP."""
    try:
        yield
    except NoSuchGuest as unknown:
        raise _no_such_guest(guest, unknown.document) from None


def _no_such_guest(name: str, document: Optional[Mapping[str, Any]] = None) -> NoSuchGuest:
    return NoSuchGuest(f"no guest is called {name!r}: 'vmaccord list' shows all", document)
