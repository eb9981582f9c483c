"""The agent: one selector loop that joins link, session, facts and commands.

Each turn: wait for the port, a worker, logind or a deadline; let the link read; let the session see the time; carry out what
the session reports; collect the facts that are due; answer; write. Heartbeats are measured here, because they must not wait
for anything.

Nothing here blocks, and every clock reading comes from the clock that is passed in.
"""

from __future__ import annotations

import collections
import os
import selectors
from collections.abc import Mapping
from typing import Any, Callable, Optional

from common import events, messages
from common.errors import Congested, EncodingError, LocalProtocolError, SendRefused, VersionTooLow
from common.session import GuestSession

from . import commands, logind
from .config import Configuration
from .crew import Crew
from .executor import Executor, reply_id
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

#: Seconds that reading the configuration may take.
RELOAD_PATIENCE = 10.0

#: Completions kept for a host that is not there or does not read. A command that wants one is only carried out while there
#: is room.
OUTBOX_LIMIT = 256


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
        self._outbox: collections.deque[tuple[str, messages.Message]] = collections.deque()
        self._answering_on: Optional[int] = None
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
        self._executor = Executor(
            surroundings.machine(configuration),
            _permitted(configuration),
            self._crew,
            self._quiet,
            answer=self._keep_answer,
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
        if self._reload_wanted and not self._reload_under_way:
            self._begin_reload(now)
        self._follow_logind(now)
        self._follow_events()
        self._executor.advance(now)
        if self._may_report:
            self._send_notices()
            self._facts.gather(now, self._session.allows)
        self._link.flush(now)
        self._send_answers(now)
        if not reading and not self._too_many_answers:
            self._wakeup.call()
        self._notifier.status(self._state())
        self._quiet.close_windows()

    def close(self) -> None:
        """Tell the host what is left to tell, briefly, and give back what nobody uses any more."""
        self._stopping = True
        self._notifier.stopping()
        self._facts.close()
        self._executor.close()
        self._crew.close(FAREWELL, self._clock)
        now = self._clock()
        self._follow_logind(now)
        self._link.flush(now)
        self._send_answers(now)
        self._link.close(FAREWELL, self._clock)
        self._quiet.close()
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
        ]
        if self._may_report:
            deadlines.append(self._facts.next_deadline(now))
        return max(0.0, min(each for each in deadlines if each is not None) - now)

    def _state(self) -> str:
        if not self._link.open:
            return "waiting for a port"
        return f"API {self._session.negotiation.in_use} in use" if self._link.up else "waiting for a host"

    # ---- What the session and logind report ----

    def _follow_events(self) -> None:
        for event in self._session.events():
            if isinstance(event, events.HeartbeatWanted):
                self._send_heartbeat()
            elif isinstance(event, events.FactsWanted):
                self._facts.want(*event.names)
            elif isinstance(event, events.MessageReceived):
                self._obey(event)
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

    # ---- Commands and answers ----

    @property
    def _too_many_answers(self) -> bool:
        """Whether no more commands are read: the host is to take the answers to the ones before first."""
        return len(self._outbox) >= OUTBOX_LIMIT and self._session.allows("completion")

    def _obey(self, event: events.MessageReceived) -> None:
        if isinstance(event.message, messages.Echo) and self._executor.permits(event.name):
            self._echo(event.message)
        elif len(self._outbox) < OUTBOX_LIMIT or reply_id(event.message) is None or self._session.allows("completion"):
            self._executor.carry_out(event.name, event.message)
        else:
            self._quiet.warning("outbox", f"{event.name}: not carried out: {OUTBOX_LIMIT} answers wait for a host of API 3")

    def _command_done(self, name: str) -> None:
        if name == "set-number-of-cpus":
            self._facts.want("number-of-cpus")

    def _echo(self, echo: messages.Message) -> None:
        try:
            self._session.send(echo)
        except LocalProtocolError as error:
            self._quiet.warning("answer to echo", f"echo: not answered: {error}")

    def _keep_answer(self, command: str, answer: messages.Message) -> None:
        self._outbox.append((command, answer))

    def _send_answers(self, now: float) -> None:
        """Send what can be sent now, one after the other: so it is known of each whether the port took all of it.

        An answer that the port dropped, because the host went away before it read that, is for the next host.
        """
        while self._outbox and self._link.drained:
            if self._answering_on == self._link.channel:
                self._outbox.popleft()
                self._answering_on = None
            elif self._hand_over(*self._outbox[0]):
                self._answering_on = self._link.channel
                self._link.flush(now)
            else:
                return

    def _hand_over(self, command: str, answer: messages.Message) -> bool:
        """Whether *answer* could be sent; one that never can is dropped."""
        try:
            self._session.send(answer)
        except SendRefused:
            return False
        except EncodingError as error:
            self._quiet.warning(f"answer to {command}", f"{command}: not answered: {error}")
        return True

    # ---- Facts ----

    @property
    def _may_report(self) -> bool:
        return self._link.up and not self._link.congested

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
        self._executor.configure(self._surroundings.machine(new), _permitted(new))
        self._facts.configure(self._surroundings.sources(new, self._logins.mark), new.periods, now)
        self._session.beat_every(new.heartbeat, now)
        self._link.look_again = new.heartbeat
        if new.max_api_version != old.max_api_version:
            self._follow_events()  # what the old session has heard is obeyed
            self._session = self._new_session(new)
            self._link.begin_anew(self._session, now)
        if new.port != old.port:
            self._link.change_port(now)
        self._log.info("configuration reloaded")

    def _new_session(self, configuration: Configuration) -> GuestSession:
        return GuestSession(configuration.max_api_version, self._agent_id, heartbeat_period=configuration.heartbeat)

    def _open_port(self) -> Port:
        return self._surroundings.open_port(self._configuration)


def _permitted(configuration: Configuration) -> frozenset[str]:
    """The commands that may be carried out."""
    return commands.permitted(configuration.commands_allow, configuration.commands_block)
