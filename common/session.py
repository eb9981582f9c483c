"""Sessions: what a channel drives. Bytes in, bytes and events out; time is passed in.

The contract with a shell (a socket, a port, a test)::

    session.receive_data(data, now)      # never raises, whatever a peer sends
    session.tick(now)                    # when next_deadline() has passed
    for event in session.events(): …     # after every call above
    write(session.data_to_send())        # after every call above and every send

A shell whose peer does not read calls ``pause_writing`` and later ``resume_writing``. While writing is paused a session
queues nothing: commands are refused, and what follows from the state (a push, a heartbeat, facts) is remembered as due,
not as bytes. So a session's memory is bounded by one line in and a few lines out.

What a peer does wrong is counted, costs its own line, and is complained about at most once a minute.

Any command may carry a *reply id*, which asks for a completion; it is the session that adds it and takes it. What came to a
message later than the message itself is written only to a peer that is spoken to at that version.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from . import codec, errors, events, framing, messages, negotiation
from .catalogue import CATALOGUE, Catalogue, Direction, Row
from .fields import TEXT
from .versions import Version

#: At most one complaint in this many seconds.
COMPLAINT_PERIOD = 60.0

#: A peer that was silent for this long is unresponsive, in seconds: three heartbeats of a deployed guest.
SILENCE_LIMIT = 15.0

#: The heartbeat's period, in seconds.
HEARTBEAT_PERIOD = 5.0

#: How many different names of dropped messages are counted apart, and how much of each name is kept.
DROPPED_NAMES_LIMIT = 20
DROPPED_NAME_LENGTH = 40

#: How many features of a guest are kept, and how long a name of one is at most.
FEATURES_LIMIT, FEATURE_LENGTH = 50, 100

#: How much is kept of the name of a command that is not known, in characters.
REJECTED_NAME_LENGTH = 100

#: A longer reply id is none, in characters; but of commands that had one before version 4.
REPLY_ID_LENGTH = 200

#: The argument that every command may have.
REPLY_ID = "reply_id"

#: A maximum above this is no version that anybody will ever have.
_LARGE = 1_000_000

_NEGOTIATING = (messages.Refresh, messages.ApiVersion, messages.Heartbeat)

#: What a host writes to each of its guests in the same words, and in the same moment when it starts.
_SHARED = (messages.Refresh, messages.ApiVersion)

#: The messages that stand for whole rules of version 4.
_CAPABILITIES, _UNSUPPORTED = "capabilities", "unsupported"

#: What says that something failed, and why.
_COMPLETION, _ERROR = "completion", "error"

#: Stands for all names beyond the limit.
OTHER_NAMES = "(other)"


class Counters:
    """What a session counts. Bounded, however hostile the peer."""

    def __init__(self) -> None:
        self.lines = 0
        self.bytes = 0
        self.pushes = 0
        self.invalid_versions = 0
        self.without_version = 0
        self.newer_than_agreed = 0
        self.mistyped = 0
        self.dropped: collections.Counter[str] = collections.Counter()
        self.dropped_names: collections.Counter[str] = collections.Counter()

    def count_dropped(self, name: str) -> None:
        """Count a message that was dropped for its name."""
        name = name[:DROPPED_NAME_LENGTH]
        if name not in self.dropped_names and len(self.dropped_names) >= DROPPED_NAMES_LIMIT:
            name = OTHER_NAMES
        self.dropped_names[name] += 1

    def as_mapping(self) -> dict[str, Any]:
        """All counters by name."""
        values = dict(vars(self))
        values["dropped"] = dict(self.dropped)
        values["dropped_names"] = dict(self.dropped_names)
        return values


class _Complaints:
    """Turns any number of reports into at most one line in a period."""

    __slots__ = ("_quiet_until", "_swallowed")

    def __init__(self) -> None:
        self._quiet_until: Optional[float] = None
        self._swallowed = 0

    def report(self, text: str, now: float) -> Optional[str]:
        if self._quiet_until is not None and now < self._quiet_until:
            self._swallowed += 1
            return None
        self._quiet_until = now + COMPLAINT_PERIOD
        swallowed, self._swallowed = self._swallowed, 0
        return f"{text} ({swallowed} more like this since the last line)" if swallowed else text


class _Received(NamedTuple):
    """A line of which the name stands in the table."""

    row: Row
    arguments: dict[str, Any]
    line: bytes


class Session:
    """What both halves share: lines in and out, the table's filter, counters, complaints."""

    _inbound: Direction
    _outbound: Direction
    #: Whether complaints may quote bad lines: not those of a peer that sends passwords, for any cut can lay one bare.
    _quotes_lines: bool

    def __init__(
        self, supported: Optional[Version], catalogue: Catalogue, sent: Optional[collections.Counter[str]] = None
    ) -> None:
        self.supported = supported
        self.counters = Counters()
        self._catalogue = catalogue
        self._sent = sent
        self._splitter = framing.LineSplitter()
        self._complaints = _Complaints()
        self._open = False
        self._paused = False
        self._out: list[bytes] = []
        self._events: list[events.Event] = []

    # ---- For the shell ----

    def receive_data(self, data: bytes, now: float) -> None:
        """Take what came over the channel. Whatever it is, each line costs at most itself.

        What comes when no channel is open belongs to one that is gone, and is ignored.
        """
        if not self._open:
            return
        self.counters.bytes += len(data)
        for line in self._splitter.feed(data):
            if isinstance(line, framing.Overlong):
                self._drop("overlong", f"a line reached {framing.LINE_LIMIT} bytes{self._shown(line.evidence)}", now)
            elif line.strip():
                self.counters.lines += 1
                self._receive_line(line, now)
        self._settle(now)

    def data_to_send(self) -> bytes:
        """What must be written now; handed out once."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def events(self) -> list[events.Event]:
        """What happened since the last call, in order."""
        happened, self._events = self._events, []
        return happened

    def pause_writing(self) -> None:
        """The peer does not read: queue nothing from now on."""
        self._paused = True

    def resume_writing(self, now: float) -> None:
        """The peer reads again: what is due is written."""
        self._paused = False
        self._settle(now)

    def send(self, message: messages.Message, reply_id: Optional[str] = None) -> None:
        """Queue a message for the peer; not one that negotiates, for these follow from the state.

        :param reply_id: what the completion of a command will have to be known by; only where ``answered`` says so.
        :raises SendRefused: it must not be sent now; the error says why and what to do.
        :raises EncodingError: it can't be put on a line.
        """
        if isinstance(message, _NEGOTIATING):
            raise errors.NotForCallers(f"{type(message).__name__}: the session sends it by its own rules")
        self._queue(message, reply_id)

    def require(self, name: str) -> None:
        """Look whether the message *name* may be sent now.

        :raises SendRefused: it must not be sent; as ``send`` would.
        """
        row = self._catalogue.find(self._outbound, name)
        if row is None:
            raise errors.NotInCatalogue(f"{name} is no message {self._outbound.value}")
        self._require(row)

    # ---- For the halves ----

    @property
    def _spoken(self) -> Version:
        """The version up to which this side may send."""
        raise NotImplementedError

    def _receive_name(self, row: Row, now: float) -> None:
        """A message of the table came in, of which nothing but the name has been looked at."""

    def _receive_message(self, received: _Received, message: messages.Message, now: float) -> None:
        """A message of the table came in, not newer than supported, with valid arguments."""
        raise NotImplementedError

    def _settle(self, now: float) -> None:
        """Write what has become due, where writing is possible."""
        raise NotImplementedError

    def _begin(self) -> None:
        """The channel starts anew: nothing of an old one may leak into it."""
        self._open = True
        self._paused = False
        self._splitter.reset()
        self._out.clear()

    def _end(self) -> None:
        self._open = False
        self._splitter.reset()
        self._out.clear()

    @property
    def _writable(self) -> bool:
        return self._open and not self._paused

    def _queue(self, message: messages.Message, reply_id: Optional[str] = None) -> None:
        """Queue *message* if the table allows it now.

        :raises SendRefused: it must not be sent; nothing was queued.
        :raises EncodingError: it can't be put on a line.
        """
        row = self._catalogue.row_of(self._outbound, message)
        if row is None:
            raise errors.NotInCatalogue(f"{type(message).__name__} is no message {self._outbound.value}")
        self._require(row)
        if isinstance(message, _SHARED):
            line = _encode_shared(row.name, message)
        else:
            line = codec.encode(row.name, self._arguments(row, message, reply_id))
        self._out.append(line)
        if self._sent is not None:
            self._sent[row.name] += 1

    def _arguments(self, row: Row, message: messages.Message, reply_id: Optional[str]) -> dict[str, Any]:
        arguments = message.to_arguments()
        for wire, since in row.later.items():
            if since > self._spoken:
                arguments.pop(wire, None)
        if reply_id is not None:
            if not row.is_answered(self._spoken):
                raise errors.VersionTooLow(
                    f"the completion of {row.name}", needed=row.answered or row.since, spoken=self._spoken
                )
            arguments[REPLY_ID] = reply_id
        return arguments

    def _require(self, row: Row) -> None:
        if not self._open:
            raise errors.NotConnected(f"{row.name}: there is no channel to the peer")
        if row.since > self._spoken:
            raise self._version_too_low(row)
        if self._paused:
            raise errors.Congested(f"{row.name}: the peer does not read")

    def _version_too_low(self, row: Row) -> errors.VersionTooLow:
        return errors.VersionTooLow(row.name, needed=row.since, spoken=self._spoken)

    def _complain(self, text: str, now: float) -> bool:
        """Report *text*, unless there was a complaint in the last minute; whether it was reported."""
        line = self._complaints.report(text, now)
        if line is not None:
            self._events.append(events.Complaint(line))
        return line is not None

    # ---- Inbound ----

    def _receive_line(self, line: bytes, now: float) -> None:
        try:
            name, arguments = codec.decode(line)
        except errors.MalformedLine as error:
            self._drop("malformed", f"{error}{self._shown(error.evidence)}", now)
            return
        row = self._catalogue.find(self._inbound, name)
        if row is None:
            self._drop_unknown(name, arguments, now)
            return
        self._receive_name(row, now)
        if row.since > (self.supported or Version.V0):
            self._reject_newer(row, arguments, now)
        else:
            self._read_arguments(_Received(row, arguments, line), now)

    def _read_arguments(self, received: _Received, now: float) -> None:
        row, arguments, _ = received
        try:
            message, mistyped = self._read_message(row, arguments)
        except errors.InvalidArguments as error:
            self._drop("invalid-arguments", f"{row.name}: {error}", now)
            self._reject(row.name, arguments, messages.Code.INVALID_ARGUMENTS, f"{row.name}: {error}")
            return
        if mistyped:
            self._note_mistyped(row, mistyped, arguments, now)
        self._receive_message(received, message, now)

    def _read_message(self, row: Row, arguments: Mapping[str, Any]) -> tuple[messages.Message, list[str]]:
        """The message, and the names of lenient arguments that were mistyped.

        :raises InvalidArguments: an argument is missing or mistyped.
        """
        return row.message_class.from_arguments(arguments)

    def _note_mistyped(self, row: Row, mistyped: list[str], arguments: Mapping[str, Any], now: float) -> None:
        """Lenient arguments were ignored."""
        self.counters.mistyped += 1
        self._complain(f"{row.name}: mistyped and ignored: {', '.join(mistyped)}", now)

    def _reject(self, name: str, arguments: Mapping[str, Any], code: messages.Code, reason: str) -> None:
        """What came in is dropped; whoever sent it may be told."""

    def _drop_unknown(self, name: str, arguments: Mapping[str, Any], now: float) -> None:
        if self._catalogue.find(self._outbound, name) is not None:
            self.counters.count_dropped(name)
            self._drop("wrong-direction", f"{name} only goes {self._outbound.value}", now)
        else:
            self.counters.count_dropped(name if self._quotes_lines else OTHER_NAMES)
            self._drop("unknown", f"a message that the table does not have{self._shown(name.encode())}", now)
            self._reject(name, arguments, messages.Code.UNSUPPORTED, "this agent does not know this command; upgrade it")

    def _reject_newer(self, row: Row, arguments: Mapping[str, Any], now: float) -> None:
        supported = "no versions" if self.supported is None else f"API {self.supported}"
        self.counters.count_dropped(row.name)
        self._drop("newer-than-supported", f"{row.name} needs API {row.since}, this side supports {supported}", now)
        why = f"it needs API {row.since}, this agent is configured to support {supported}; raise max-api-version there"
        self._reject(row.name, arguments, messages.Code.UNSUPPORTED, why)

    def _drop(self, why: str, text: str, now: float) -> None:
        self.counters.dropped[why] += 1
        self._complain(f"dropped: {text}", now)

    def _shown(self, evidence: bytes) -> str:
        """What a complaint may show of a bad line."""
        return f": {_quote(evidence)}" if self._quotes_lines else ""


class HostSession(Session):
    """The host's half: the negotiated state of one guest, living over connections.

    :param supported: this host's highest version; None: behave as a host from before versions.
    :param host_id: identity of this daemon run.
    :param silence_limit: seconds without a message after which the guest is unresponsive.
    :param sent: where messages that are written are counted, by name; sessions may share one.
    """

    _inbound = Direction.TO_HOST
    _outbound = Direction.TO_GUEST
    _quotes_lines = True

    def __init__(
        self,
        supported: Optional[Version],
        host_id: str,
        *,
        silence_limit: float = SILENCE_LIMIT,
        catalogue: Catalogue = CATALOGUE,
        sent: Optional[collections.Counter[str]] = None,
    ) -> None:
        super().__init__(supported, catalogue, sent)
        self.negotiation = negotiation.HostNegotiation(supported)
        self.heard_at: Optional[float] = None
        self.responsive = False
        self._host_id = host_id
        self.silence_limit = silence_limit
        #: The run of the agent that speaks on this channel, as far as it says so.
        self.agent_id: Optional[str] = None
        #: What the guest said on this channel that it lets the host do; None: nothing, or nothing that counts now.
        self.capabilities: Optional[messages.Capabilities] = None
        self._agent_restarted = False
        self._sends_version = False
        self._reported: Optional[Version] = None
        self._advertised_then: Optional[int] = None
        self._invalid_said = False
        self._refresh_due = False

    @property
    def _spoken(self) -> Version:
        return self.negotiation.agreed

    def connected(self, now: float) -> None:
        """A channel to the guest was opened.

        The first byte is a newline: it ends whatever half line an earlier host left in the guest's buffer.
        """
        self._begin()
        self.responsive = False
        self._out.append(b"\n")
        self._start(events.Reason.CHANNEL, now)

    def support(self, supported: Optional[Version], now: float) -> None:
        """Have another highest version from now on; under an open channel everything is agreed on afresh."""
        self.supported = self.negotiation.supported = supported
        if self._open:
            self._start(events.Reason.HOST_RECONFIGURED, now)

    def disconnected(self) -> None:
        """The channel is gone."""
        self._end()
        self.responsive = False

    def refresh(self, now: float) -> None:
        """Ask the guest for everything.

        :raises SendRefused: there is no channel, or the guest does not read.
        """
        if self.supported is None:
            self._queue(messages.Refresh())
        else:
            self._queue(messages.Refresh(api_version=int(self.supported), host_id=self._host_id))
        self._refresh_due = False

    def _start(self, reason: events.Reason, now: float) -> None:
        """Forget what belonged to another channel or another maximum, and ask the guest for everything."""
        self._report_end_of_agreement(reason)
        self.negotiation.connected()
        self.agent_id = None
        self.capabilities = None
        self._agent_restarted = False
        self._reported = None
        self._invalid_said = False
        self._refresh_due = True
        self._settle(now)

    def next_deadline(self) -> Optional[float]:
        """When ``tick`` wants to be called next."""
        if self.responsive and self.heard_at is not None:
            return self.heard_at + self.silence_limit
        return None

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.responsive and self.heard_at is not None and now >= self.heard_at + self.silence_limit:
            self.responsive = False
            self._events.append(events.Unresponsive(now - self.heard_at))

    def _receive_message(self, received: _Received, message: messages.Message, now: float) -> None:
        row, arguments, line = received
        self._hear(now)
        if isinstance(message, messages.Heartbeat):
            self._notice_agent(message.agent_id, arguments)
            self._negotiate(message, arguments, now)
        elif row.since > self.negotiation.agreed:
            self.counters.newer_than_agreed += 1
        elif isinstance(message, messages.Capabilities):
            self.capabilities = self._meaningful(message)
        seen = {"name": row.name, "message": message, "line": line, "reply_id": None}
        self._events.append(events.MessageReceived.of_fields(seen))

    def _receive_name(self, row: Row, now: float) -> None:
        """A name alone shows what the guest uses, whatever becomes of its message."""
        if row.message_class is not messages.Heartbeat:
            self.negotiation.heard(row.since, now)

    def _reject_newer(self, row: Row, arguments: Mapping[str, Any], now: float) -> None:
        super()._reject_newer(row, arguments, now)
        self._hear(now)

    def _hear(self, now: float) -> None:
        self.heard_at = now
        if not self.responsive:
            self.responsive = True
            self._events.append(events.Responsive())

    def _notice_agent(self, agent_id: Optional[str], arguments: Mapping[str, Any]) -> None:
        if agent_id is None and "agentId" in arguments:
            return
        if self.agent_id is not None and agent_id != self.agent_id:
            self._events.append(events.AgentRestarted())
            self._agent_restarted = True
            self.capabilities = None
        self.agent_id = agent_id

    def _negotiate(self, heartbeat: messages.Heartbeat, arguments: Mapping[str, Any], now: float) -> None:
        self._sends_version = "apiVersion" in arguments
        if not self._sends_version:
            self.counters.without_version += 1
        before = self.negotiation.agreed
        self.negotiation.heartbeat(self._sends_version, heartbeat.api_version, heartbeat.api_version_in_use, now)
        if self.negotiation.agreed != before and not self._allowed(_CAPABILITIES):
            self.capabilities = None

    def _note_mistyped(self, row: Row, mistyped: list[str], arguments: Mapping[str, Any], now: float) -> None:
        """A version that is none is counted on its own and said once, however many heartbeats carry it."""
        others = [wire for wire in mistyped if wire != "apiVersion"]
        if others:
            super()._note_mistyped(row, others, arguments, now)
        else:
            self.counters.mistyped += 1
        if others != mistyped:
            self.counters.invalid_versions += 1
            if not self._invalid_said:
                shown = _quote(repr(arguments["apiVersion"]).encode("utf-8", "replace"))
                self._invalid_said = self._complain(f"apiVersion is no integer ≥ 0, taken as 0: {shown}", now)

    def _report_agreement(self) -> None:
        """Report what the heartbeats of one reading came to: the first agreement of a channel, and each change.

        A guest that provokes a push sends two heartbeats in one go; what lies between them is of no interest.
        """
        state = self.negotiation
        if state.met and state.agreed != self._reported:
            reason = self._reason()
            why = f"{reason.value}: it supports {self._guest_maximum()}, this host {_maximum(self.supported)}"
            self._events.append(events.VersionChanged(self._reported or Version.V0, state.agreed, reason, why))
            self._reported = state.agreed
            self._agent_restarted = False
        self._advertised_then = state.advertised

    def _report_end_of_agreement(self, reason: events.Reason) -> None:
        if self._reported:
            self._events.append(events.VersionChanged(self._reported, Version.V0, reason, reason.value))

    def _reason(self) -> events.Reason:
        advertised = self.negotiation.advertised
        if advertised is None:
            return events.Reason.GUEST_INVALID_VERSION if self._sends_version else events.Reason.GUEST_WITHOUT_VERSION
        if self._reported is None:
            return events.Reason.FIRST_AGREEMENT
        if self._agent_restarted:
            return events.Reason.AGENT_RESTARTED
        upgraded = advertised > (self._advertised_then or 0)
        return events.Reason.GUEST_UPGRADED if upgraded else events.Reason.GUEST_DOWNGRADED

    def _guest_maximum(self) -> str:
        advertised = self.negotiation.advertised
        return "an unknown version" if advertised is None and self._sends_version else _maximum(advertised)

    def _settle(self, now: float) -> None:
        self._report_agreement()
        if self._refresh_due and self._writable:
            self.refresh(now)
        if self.negotiation.push_due and self._writable:
            self._queue(messages.ApiVersion(api_version=int(self.negotiation.agreed)))
            self.negotiation.pushed(now)
            self.counters.pushes += 1

    def answered(self, name: str) -> bool:
        """Whether the command *name* may carry a reply id now, and so has a completion."""
        row = self._catalogue.find(self._outbound, name)
        return row is not None and row.is_answered(self._spoken)

    def _allowed(self, name: str) -> bool:
        """Whether the guest may send the message *name* at what is agreed."""
        row = self._catalogue.find(self._inbound, name)
        return row is not None and row.since <= self._spoken

    def _require(self, row: Row) -> None:
        super()._require(row)
        want = self._wanting(row) if row.is_command else None
        if want is not None:
            raise errors.Disabled(row.name, want)

    def _meaningful(self, capabilities: messages.Capabilities) -> messages.Capabilities:
        """What of *capabilities* is kept: what this host has a word for, of features a bounded number."""
        commands = {name: on for name, on in capabilities.commands.items() if name in self._catalogue.names(self._outbound)}
        features = tuple(name for name in capabilities.features[:FEATURES_LIMIT] if len(name) <= FEATURE_LENGTH)
        return messages.Capabilities(commands, features)

    def _wanting(self, row: Row) -> Optional[errors.Want]:
        """What the capabilities lack for *row*."""
        if self.capabilities is None:
            return errors.Want.UNSAID if row.needs_capability else None
        enabled = self.capabilities.commands.get(row.name, None if row.needs_capability else True)
        if enabled is None:
            return errors.Want.NOT_OFFERED
        return None if enabled else errors.Want.OFF

    def _version_too_low(self, row: Row) -> errors.VersionTooLow:
        guest_lacks = self.negotiation.met and (self.negotiation.advertised or 0) < row.since
        host_lacks = (self.supported or 0) < row.since
        upgrade = {(True, True): "both", (True, False): "guest", (False, True): "host"}.get((guest_lacks, host_lacks))
        return errors.VersionTooLow(row.name, needed=row.since, spoken=self._spoken, upgrade=upgrade)


class GuestSession(Session):
    """The guest's half.

    The session says *when* a heartbeat or a fact is wanted; the agent collects it and hands it back.

    :param supported: this agent's highest version; None: behave as an agent from before versions.
    :param agent_id: identity of this agent run.
    :param heartbeat_period: seconds between heartbeats.
    """

    _inbound = Direction.TO_GUEST
    _outbound = Direction.TO_HOST
    _quotes_lines = False

    def __init__(
        self,
        supported: Optional[Version],
        agent_id: str,
        *,
        heartbeat_period: float = HEARTBEAT_PERIOD,
        catalogue: Catalogue = CATALOGUE,
    ) -> None:
        super().__init__(supported, catalogue)
        self.negotiation = negotiation.GuestNegotiation(supported)
        self._agent_id = agent_id
        self._period = heartbeat_period
        self._heartbeat_at: Optional[float] = None
        self._startup_due = False
        self._heartbeat_due = False
        self._facts_due: frozenset[str] = frozenset()

    @property
    def _spoken(self) -> Version:
        return self.negotiation.in_use

    def opened(self, now: float) -> None:
        """The port was opened, with a host on the other end as far as anybody can tell."""
        self._change_channel()
        self._begin()
        self._startup_due = True
        self._heartbeat_at = now + self._period
        self._heartbeat_due = True
        self._want_facts()
        self._settle(now)

    def host_gone(self) -> None:
        """The port shows that no host is connected: be silent until one comes."""
        self._change_channel()
        self._end()
        self._heartbeat_at = None
        self._heartbeat_due = False
        self._facts_due = frozenset()

    def host_came(self, now: float) -> None:
        """A host is connected again. It speaks first; should that get lost, the next heartbeat asks it."""
        self._begin()
        self._heartbeat_at = now + self._period
        self._settle(now)

    def beat_every(self, seconds: float, now: float) -> None:
        """Send heartbeats in another rhythm from now on."""
        if seconds != self._period:
            self._period = seconds
            if self._heartbeat_at is not None:
                self._heartbeat_at = now + seconds

    def send_heartbeat(self, free_ram: Optional[str], memory_stat: Optional[Mapping[str, int]]) -> None:
        """Answer ``HeartbeatWanted``.

        :param free_ram: MiB, decimal.
        :param memory_stat: KiB, and events per second.
        :raises SendRefused: it must not be sent now.
        """
        heartbeat = messages.Heartbeat(free_ram=free_ram, memory_stat=memory_stat)
        if self.negotiation.must_provoke:
            self._queue(self._advertising(heartbeat, 0))
        self._queue(self._advertising(heartbeat, self.supported))

    def allows(self, name: str, argument: Optional[str] = None) -> bool:
        """Whether the message *name*, and with it that *argument*, may be sent at the version in use."""
        row = self._catalogue.find(self._outbound, name)
        return row is not None and row.later.get(argument or "", row.since) <= self._spoken

    def answer_allowed(self, command: str) -> bool:
        """Whether a completion of *command*, known or not, may be sent at the version in use."""
        row = self._catalogue.find(self._inbound, command)
        return (row is not None and row.is_answered(self._spoken)) or self.allows(_COMPLETION, _ERROR)

    def identifies(self, command: str) -> bool:
        """Whether a reply id stands for one *command* only, so that one that comes again with it is the same one.

        Of commands that had reply ids before version 4 that is not said before it.
        """
        row = self._catalogue.find(self._inbound, command)
        return not (row is not None and _is_answered_early(row)) or self.allows(_COMPLETION, _ERROR)

    def next_deadline(self) -> Optional[float]:
        """When ``tick`` wants to be called next."""
        return self._heartbeat_at

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_due = True
            self._heartbeat_at += self._period
            if self._heartbeat_at <= now:
                self._heartbeat_at = now + self._period
        self._settle(now)

    def _change_channel(self) -> None:
        before = self.negotiation.in_use
        self.negotiation.channel_changed()
        self._report_change(before, events.Reason.CHANNEL)

    def _receive_message(self, received: _Received, message: messages.Message, now: float) -> None:
        if isinstance(message, messages.Refresh):
            self._refresh(message)
        elif isinstance(message, messages.ApiVersion):
            self._follow(message)
        else:
            reply_id = self._reply_id(received.row, received.arguments)
            self._events.append(events.MessageReceived(received.row.name, message, reply_id=reply_id))

    def _reply_id(self, row: Row, arguments: Mapping[str, Any]) -> Optional[str]:
        """By what the host will know the answer to a command; None: it wants none, or none that this side could give."""
        return _read_reply_id(row, arguments) if row.is_answered(self.supported or Version.V0) else None

    def _read_message(self, row: Row, arguments: Mapping[str, Any]) -> tuple[messages.Message, list[str]]:
        read = super()._read_message(row, arguments)
        if _is_answered_early(row) and REPLY_ID in arguments:
            try:
                TEXT.check(arguments[REPLY_ID])
            except ValueError as error:
                raise errors.InvalidArguments(REPLY_ID, str(error)) from None
        return read

    def _reject(self, name: str, arguments: Mapping[str, Any], code: messages.Code, reason: str) -> None:
        row = self._catalogue.find(self._inbound, name)
        if self.allows(_UNSUPPORTED) and (row is None or row.is_command):
            rejected = events.CommandRejected(name[:REJECTED_NAME_LENGTH], _read_reply_id(row, arguments), code, reason)
            self._events.append(rejected)

    def _refresh(self, refresh: messages.Refresh) -> None:
        before = self.negotiation.in_use
        self.negotiation.refreshed(refresh.api_version, refresh.host_id is not None)
        self._report_change(before, events.Reason.REFRESH)
        self._heartbeat_due = True
        self._want_facts()

    def _follow(self, push: messages.ApiVersion) -> None:
        before = self.negotiation.in_use
        self.negotiation.pushed(push.api_version)
        self._report_change(before, events.Reason.PUSH)
        self._heartbeat_due = True
        self._want_facts(above=before)

    def _want_facts(self, above: int = -1) -> None:
        """Want the facts that came above that version and are allowed now; none is wanted that no longer is."""
        allowed = self._catalogue.facts(up_to=self._spoken)
        risen = self._catalogue.facts(above=above, up_to=self._spoken)
        self._facts_due = (self._facts_due & allowed) | risen

    def _report_change(self, before: Version, reason: events.Reason) -> None:
        in_use = self.negotiation.in_use
        if in_use != before:
            self._events.append(events.VersionChanged(before, in_use, reason, reason.value))

    def _advertising(self, heartbeat: messages.Heartbeat, version: Optional[int]) -> messages.Heartbeat:
        if self.supported is None or version is None:
            return heartbeat
        return messages.Heartbeat(
            free_ram=heartbeat.free_ram,
            memory_stat=heartbeat.memory_stat,
            api_version=int(version),
            api_version_in_use=int(self._spoken),
            agent_id=self._agent_id,
        )

    def _settle(self, now: float) -> None:
        if not self._writable:
            return
        if self._startup_due:
            self._startup_due = False
            self._queue(messages.SessionStartup())
        if self._facts_due:
            self._events.append(events.FactsWanted(self._facts_due))
            self._facts_due = frozenset()
        if self._heartbeat_due:
            self._heartbeat_due = False
            self._events.append(events.HeartbeatWanted())


def _maximum(version: Optional[int]) -> str:
    """A maximum, for people; a peer may announce one of thousands of digits."""
    if version is None:
        return "no versions"
    return f"up to API {version}" if version < _LARGE else "any API"


@functools.lru_cache(maxsize=16)
def _encode_shared(name: str, message: messages.Message) -> bytes:
    """The line of *message*, which need not be made for each guest anew."""
    return codec.encode(name, message.to_arguments())


def _is_answered_early(row: Row) -> bool:
    """Whether the command had reply ids before all commands did: those are taken as they were then."""
    return row.is_answered(Version.V3)


def _read_reply_id(row: Optional[Row], arguments: Mapping[str, Any]) -> Optional[str]:
    reply_id = arguments.get(REPLY_ID)
    if not isinstance(reply_id, str):
        return None
    bounded = row is None or not _is_answered_early(row)
    return None if bounded and len(reply_id) > REPLY_ID_LENGTH else reply_id


def _quote(evidence: bytes) -> str:
    """The beginning of what a peer sent, safe for a log."""
    return ascii(evidence[: errors.EVIDENCE_LIMIT].decode("utf-8", "replace"))
