"""The agent: one selector loop that joins link, session, facts and commands.

Each turn: wait for the port, a worker, logind or a deadline; let the link read; let the session see the time; carry out what
the session reports; collect the facts that are due; answer; write. Heartbeats are measured here, because they must not wait
for anything.

Nothing here blocks, and every clock reading comes from the clock that is passed in. While file systems are frozen nothing
here is done that could wait for a disk: no fact is collected but what the host may do about it, no configuration is read,
and log lines stay in memory.
"""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Mapping
from typing import Any, Callable, Optional

from common import events, messages
from common.errors import Congested, EncodingError, LocalProtocolError, SendRefused, VersionTooLow
from common.session import GuestSession

from . import logind
from .answers import OUTBOX_LIMIT, Answer, Outbox, Outcome
from .config import Configuration
from .crew import Crew
from .executor import Executor
from .facts import Facts, describe
from .link import Link
from .log import Log
from .logins import Logins
from .notify import Notifier
from .port import Port
from .quiet import QuietLog
from .surroundings import Surroundings
from .wakeup import Wakeup
from .worker import Job

#: At the end, how long a host may take to read what is left, and workers to leave, in seconds each.
FAREWELL = 1.0

#: At the end, how long thawing what is frozen may take, in seconds; the agent is killed a little later.
THAWING = 6.0

#: Seconds that reading the configuration may take.
RELOAD_PATIENCE = 10.0

#: How often the host is told in one turn that a command is not supported.
REJECTIONS_PER_TURN = 50

_CAPABILITIES = "capabilities"


class Agent:
    """One run of the agent.

    :param surroundings: what the agent finds on the machine that it runs on.
    :param reload: the job of reading the configuration anew: it reports what is wrong with it, and the plain values.
    :param clock: seconds, monotonic.
    :param selector: waits for the port and the workers.
    """

    def __init__(
        self,
        configuration: Configuration,
        log: Log,
        surroundings: Surroundings,
        *,
        reload: Job,
        clock: Callable[[], float],
        notifier: Notifier,
        selector: Optional[selectors.BaseSelector] = None,
    ) -> None:
        now = clock()
        self._configuration = configuration
        self._log = log
        self._read_configuration = reload
        self._clock = clock
        self._notifier = notifier
        self._surroundings = surroundings
        self._stopping = False
        self._reload_wanted = False
        self._reload_under_way = False
        self._quiet = QuietLog(log, clock)
        self._outbox = Outbox()
        #: The answer that the port was given last, and on which channel.
        self._handed_over: Optional[tuple[Answer, int]] = None
        self._rejections = 0
        self._notices: dict[str, messages.Message] = {}
        self._meter = surroundings.meter
        self._agent_id = os.urandom(16).hex()
        self._session = self._new_session(configuration)
        self._selector = selector or selectors.DefaultSelector()
        self._wakeup = Wakeup()
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._crew = Crew(self._selector)
        self._logins = Logins(surroundings.connect_to_logind, self._selector, log)
        self._facts = Facts(
            surroundings.sources(configuration, self._logins.mark),
            configuration.periods,
            self._crew,
            log,
            now,
            self._report,
        )
        machine = surroundings.machine(configuration)
        self._freezer = surroundings.freezer(self._crew, self._quiet, machine)
        log.holds_back = lambda: self._freezer.frozen
        self._executor = Executor(
            machine,
            configuration.permitted,
            self._crew,
            self._quiet,
            loop={
                "echo": self._echo,
                "filesystem-freeze": self._freezer.freeze,
                "filesystem-thaw": self._freezer.thaw,
                "filesystem-status": self._freezer.status,
            },
            frozen=lambda: self._freezer.frozen,
            answer=self._keep_answer,
            unsupported=self._tell_unsupported,
            done=self._command_done,
        )
        self._link = Link(
            self._session,
            self._open_port,
            self._selector,
            self._quiet,
            now=now,
            patience=configuration.port_timeout,
            look_again=configuration.heartbeat,
        )
        self._freezer.recover(now)

    @property
    def wakeup_descriptor(self) -> int:
        """What to write to so that the loop takes a turn; for ``signal.set_wakeup_fd``."""
        return self._wakeup.write_end

    def stop(self) -> None:
        """Leave the loop soon. May be called from a signal handler."""
        self._stopping = True
        self._wakeup.call()

    def reload(self) -> None:
        """Read the configuration anew soon. May be called from a signal handler."""
        self._reload_wanted = True
        self._wakeup.call()

    def run(self) -> None:
        """Work until ``stop``.

        :raises PortMissing: no port appeared in time.
        :raises PortUnusable: the port can't be used.
        """
        self.turn(0)
        self._notifier.ready()
        while not self._stopping:
            self.turn(self._patience())

    def turn(self, patience: float) -> None:
        """Wait at most *patience* seconds for something to happen, then do what is due.

        :raises PortMissing: no port appeared in time.
        :raises PortUnusable: the port can't be used.
        """
        self._selector.select(patience)
        self._wakeup.clear()
        now = self._clock()
        reading = not self._too_many_answers
        self._link.advance(now, read=reading)
        self._session.tick(now)
        self._crew.advance(now)
        self._freezer.advance(now)
        if self._reload_wanted and not self._reload_under_way and not self._freezer.frozen:
            self._begin_reload(now)
        self._follow_logind(now)
        self._rejections = 0
        self._follow_events(now)
        room = not self._too_many_answers
        self._executor.advance(now, room=room)
        if self._may_report:
            self._send_notices()
            self._facts.gather(now, self._may_collect)
        self._link.flush(now)
        self._send_answers(now)
        if not (reading and room) and not self._too_many_answers:
            self._wakeup.call()
        self._notifier.status(self._state())
        self._quiet.close_windows()
        self._log.catch_up()

    def close(self) -> None:
        """Tell the host what is left to tell, briefly, and give back what nobody uses any more."""
        self._stopping = True
        self._notifier.stopping()
        self._facts.close()
        self._freezer.close(THAWING, self._clock)
        self._executor.close()
        self._crew.close(FAREWELL, self._clock)
        now = self._clock()
        self._follow_logind(now)
        self._link.flush(now)
        self._send_answers(now)
        self._link.close(FAREWELL, self._clock)
        self._quiet.close()
        self._log.close()
        self._logins.close()
        self._selector.close()
        self._wakeup.close()

    def _patience(self) -> float:
        now = self._clock()
        deadlines = [
            self._link.next_deadline(),
            self._session.next_deadline(),
            self._quiet.next_deadline(),
            self._crew.next_deadline(),
            self._freezer.next_deadline(),
        ]
        if self._may_report:
            deadlines.append(self._facts.next_deadline(now, self._may_collect))
        return max(0.0, min(each for each in deadlines if each is not None) - now)

    def _state(self) -> str:
        if not self._link.open:
            return "waiting for a port"
        return f"API {self._session.negotiation.in_use} in use" if self._link.up else "waiting for a host"

    # ---- What the session and logind report ----

    def _follow_events(self, now: float) -> None:
        for event in self._session.events():
            if isinstance(event, events.HeartbeatWanted):
                self._send_heartbeat()
            elif isinstance(event, events.FactsWanted):
                self._facts.want(*event.names)
            elif isinstance(event, events.MessageReceived):
                self._obey(event, now)
            elif isinstance(event, events.CommandRejected):
                self._reject(event)
            elif isinstance(event, events.VersionChanged):
                self._quiet.info("version", f"API {event.old} → {event.new} in use: {event.why}")
            elif isinstance(event, events.Complaint):
                self._log.warning(event.text)

    def _follow_logind(self, now: float) -> None:
        for notice in self._logins.advance(now):
            if notice is logind.Notice.SHUTTING_DOWN:
                self._report("session-shutdown", messages.SessionShutdown())
            else:
                self._facts.want("active-user")

    def _send_heartbeat(self) -> None:
        free_ram, memory_stat = self._measured()
        try:
            self._session.send_heartbeat(free_ram, memory_stat)
        except SendRefused as refusal:
            self._log.debug(f"no heartbeat: {refusal}")

    def _measured(self) -> tuple[Optional[str], Optional[Mapping[str, int]]]:
        try:
            memory = self._meter.measure()
        except (OSError, ValueError) as error:
            self._facts.fails("heartbeat", describe(error))
            return None, None
        self._facts.works("heartbeat")
        return self._meter.free_ram(memory), memory

    # ---- Commands ----

    def _obey(self, event: events.MessageReceived, now: float) -> None:
        reply_id = event.reply_id
        if reply_id is not None and self._session.identifies(event.name) and self._executor.repeats(event.name, reply_id):
            return
        if reply_id is not None and len(self._outbox) >= OUTBOX_LIMIT and not self._session.answer_allowed(event.name):
            if isinstance(event.message, messages.LifecycleEvent):
                why = f"{OUTBOX_LIMIT} answers wait for a host of API 3"
                self._quiet.warning("outbox", f"{event.name}: not carried out: {why}")
                return
            reply_id = None  # it had none at the version in use
        self._executor.carry_out(event.name, event.message, reply_id, now)

    def _reject(self, event: events.CommandRejected) -> None:
        """Tell the host what the session found: the line that it complains with is the only one in the log."""
        if event.reply_id is None:
            self._tell_unsupported(event.name, event.reason)
        else:
            self._keep_answer(Answer(event.name, event.reply_id, Outcome.refused(event.code, event.reason)))

    def _tell_unsupported(self, name: str, reason: str) -> None:
        """Tell a host that understands it; one that gives such commands in a flood needn't hear of each."""
        self._rejections += 1
        if self._rejections <= REJECTIONS_PER_TURN:
            with contextlib.suppress(SendRefused):
                self._session.send(messages.Unsupported(name, int(self._session.supported or 0), reason))

    def _command_done(self, name: str) -> None:
        if name == "set-number-of-cpus":
            self._facts.want("number-of-cpus")

    def _echo(self, echo: messages.Echo, _: float, answer: Callable[[Outcome], None]) -> None:
        try:
            self._session.send(echo)
        except LocalProtocolError as error:
            self._quiet.warning("answer to echo", f"echo: not answered: {error}")
            answer(Outcome(f"it could not be sent back: {error}"))
        else:
            answer(Outcome())

    # ---- Answers ----

    @property
    def _speaks_in_full(self) -> bool:
        """Whether a completion has a result and an error at the version in use, and a host may ask for it again."""
        return self._session.allows("completion", "error")

    @property
    def _too_many_answers(self) -> bool:
        """Whether no more commands are read: the host is to take the answers to the ones before first."""
        return self._outbox.holds_up(self._session.answer_allowed)

    def _keep_answer(self, answer: Answer) -> None:
        self._outbox.add(answer, sendable=self._session.answer_allowed(answer.command))

    def _send_answers(self, now: float) -> None:
        """Send what can be sent now, one after the other: so it is known of each whether the port took all of it.

        An answer that the port dropped, because the host went away before it read that, is for the next host.
        """
        while self._link.drained:
            self._note_taken()
            answer = self._outbox.first(self._session.answer_allowed)
            if answer is None or not self._hand_over(answer):
                return
            self._handed_over = answer, self._link.channel
            self._link.flush(now)

    def _note_taken(self) -> None:
        """The port has taken all that it was given, unless it was another channel's."""
        if self._handed_over is not None:
            answer, channel = self._handed_over
            self._handed_over = None
            if channel == self._link.channel:
                self._outbox.remove(answer)

    def _hand_over(self, answer: Answer) -> bool:
        """Whether *answer* could be sent, if only that it can't be told; at versions that can't say so it is dropped."""
        in_full = self._speaks_in_full
        try:
            self._session.send(answer.completion(in_full))
        except SendRefused:
            return False
        except EncodingError as error:
            self._quiet.warning(f"answer to {answer.command}", f"{answer.command}: not answered: {error}")
            if in_full:
                return self._hand_over_bare(answer.without_result(f"what came of it can't be told: {error}"))
        return True

    def _hand_over_bare(self, answer: Answer) -> bool:
        """The same of what is left of an answer that could not be sent as it was."""
        try:
            with contextlib.suppress(EncodingError):  # then not even its reply id fits on a line, and nobody can be told
                self._session.send(answer.completion(in_full=True))
        except SendRefused:
            return False
        return True

    # ---- Facts ----

    @property
    def _may_report(self) -> bool:
        return self._link.up and not self._link.congested

    def _may_collect(self, fact: str) -> bool:
        """Whether *fact* may be sent; while frozen, only what the host must know to do something about that."""
        return self._session.allows(fact) and (fact == _CAPABILITIES or not self._freezer.frozen)

    def _send_notices(self) -> None:
        """Tell what happened while the host did not read."""
        notices, self._notices = self._notices, {}
        for notice in notices.values():
            self._report("notice", notice)

    def _report(self, name: str, message: messages.Message) -> None:
        try:
            self._session.send(message)
        except VersionTooLow:
            return  # the version fell while it was collected; it is wanted again when that rises
        except SendRefused as refusal:
            if isinstance(message, messages.Fact):
                self._facts.want(name)
            elif isinstance(refusal, Congested):
                self._notices[type(message).__name__] = message
        except EncodingError as error:
            self._facts.fails(name, describe(error))
        else:
            self._facts.works(name)

    # ---- The configuration ----

    def _begin_reload(self, now: float) -> None:
        self._reload_wanted, self._reload_under_way = False, True
        self._notifier.reloading()
        try:
            self._crew.start(
                self._read_configuration,
                patience=RELOAD_PATIENCE,
                now=now,
                reported=self._take_configuration,
                ended=self._end_reload,
            )
        except OSError as error:
            self._end_reload(f"could not be started: {error.strerror}")

    def _take_configuration(self, report: tuple[Optional[str], Any]) -> None:
        problem, values = report
        if problem is not None:
            self._log.error(f"{problem}; the agent goes on as it was configured before")
        elif self._freezer.frozen:
            self._reload_wanted = True  # it was begun before, and comes too late
        else:
            self._configure(Configuration.from_plain(values), self._clock())

    def _end_reload(self, problem: Optional[str]) -> None:
        self._reload_under_way = False
        if self._stopping:
            return
        if problem is not None:
            self._log.error(f"reading the configuration {problem}; the agent goes on as it was configured before")
        self._notifier.ready()

    def _configure(self, new: Configuration, now: float) -> None:
        """Go on with *new*; with another maximum, in a session that begins anew."""
        old, self._configuration = self._configuration, new
        self._log.level = new.log_level
        machine = self._surroundings.machine(new)
        self._executor.configure(machine, new.permitted)
        self._freezer.configure(machine)
        self._facts.configure(self._surroundings.sources(new, self._logins.mark), new.periods, now)
        self._session.beat_every(new.heartbeat, now)
        self._link.look_again = new.heartbeat
        if new.max_api_version != old.max_api_version:
            self._follow_events(now)  # what the old session has heard is obeyed
            self._session = self._new_session(new)
            self._link.begin_anew(self._session, now)
        if new.port != old.port:
            self._link.change_port(now)
        self._log.info("configuration reloaded")

    def _new_session(self, configuration: Configuration) -> GuestSession:
        return GuestSession(configuration.max_api_version, self._agent_id, heartbeat_period=configuration.heartbeat)

    def _open_port(self) -> Port:
        return self._surroundings.open_port(self._configuration)
