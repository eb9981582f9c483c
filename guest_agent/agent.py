"""The agent: one selector loop that joins link, session, schedule and collectors.

Each turn: wait for the port, the worker or a deadline; let the link read; let the session see the time; carry out what
the session reports; ask for the facts that are due; write. Heartbeats are collected here, because they must not wait for
anything; all other facts by the worker thread.

Every clock reading comes from the clock that is passed in.
"""

from __future__ import annotations

import logging
import selectors
import uuid
from collections.abc import Mapping
from typing import Callable, Optional

from common import events, messages
from common.errors import EncodingError, LocalProtocolError, SendRefused, VersionTooLow
from common.session import GuestSession

from .collectors import Collector
from .collectors.memory import Meter
from .config import Configuration
from .gatherer import Gatherer
from .link import Link
from .port import Port
from .quiet import QuietLog
from .schedule import Schedule
from .wakeup import Wakeup

LOG = logging.getLogger(__name__)

#: At the end, how long a host may take to read what is left, in seconds.
FAREWELL = 1.0


class Agent:
    """One run of the agent.

    :param open_port: opens the port or raises PortError.
    :param collectors: the facts' collectors by wire name.
    :param meter: measures memory for the heartbeats, in the loop.
    :param clock: seconds, monotonic.
    :param selector: waits for the port and the worker.
    """

    def __init__(
        self,
        configuration: Configuration,
        open_port: Callable[[], Port],
        collectors: Mapping[str, Collector],
        meter: Meter,
        clock: Callable[[], float],
        selector: Optional[selectors.BaseSelector] = None,
    ) -> None:
        now = clock()
        self._clock = clock
        self._meter = meter
        self._stopping = False
        self._quiet = QuietLog(LOG, clock)
        self._failing: set[str] = set()
        self._schedule = Schedule(now)
        self._session = GuestSession(
            configuration.max_api_version, uuid.uuid4().hex, heartbeat_period=configuration.heartbeat
        )
        self._selector = selector or selectors.DefaultSelector()
        self._wakeup = Wakeup()
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._gatherer = Gatherer(collectors, self._wakeup.call)
        self._link = Link(
            self._session,
            open_port,
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

    def run(self) -> None:
        """Work until ``stop``.

        :raises PortMissing: no port appeared in time.
        :raises PortUnusable: the port can't be used.
        """
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
        self._link.advance(now)
        self._session.tick(now)
        self._follow_events(now)
        self._report_results(now)
        self._gather_due(now)
        self._link.flush(now)
        self._quiet.close_windows()

    def close(self) -> None:
        """Tell the host what is left to tell, briefly, and give back what nobody uses any more."""
        self._link.close(FAREWELL, self._clock)
        self._selector.close()
        if self._gatherer.close(FAREWELL):
            self._wakeup.close()

    def _patience(self) -> float:
        deadlines = [self._link.next_deadline(), self._session.next_deadline(), self._quiet.next_deadline()]
        if self._may_report:
            deadlines.append(self._schedule.next_deadline())
        return max(0.0, min(each for each in deadlines if each is not None) - self._clock())

    # ---- What the session reports ----

    def _follow_events(self, now: float) -> None:
        for event in self._session.events():
            if isinstance(event, events.HeartbeatWanted):
                self._send_heartbeat()
            elif isinstance(event, events.FactsWanted):
                self._schedule.want(event.names, now)
            elif isinstance(event, events.MessageReceived):
                self._answer(event, now)
            elif isinstance(event, events.VersionChanged):
                self._quiet.info("version", f"API {event.old} → {event.new} in use: {event.why}")
            elif isinstance(event, events.Complaint):
                LOG.warning("%s", event.text)

    def _send_heartbeat(self) -> None:
        free_ram, memory_stat = self._measured()
        try:
            self._session.send_heartbeat(free_ram, memory_stat)
        except SendRefused as refusal:
            LOG.debug("no heartbeat: %s", refusal)

    def _measured(self) -> tuple[Optional[str], Optional[Mapping[str, int]]]:
        try:
            memory = self._meter.measure()
        except (OSError, ValueError) as error:
            self._fails("heartbeat", error)
            return None, None
        self._works("heartbeat")
        return self._meter.free_ram(memory), memory

    def _answer(self, event: events.MessageReceived, now: float) -> None:
        message = event.message
        if isinstance(message, messages.Echo):
            self._send(event.name, message)
        elif isinstance(message, messages.LifecycleEvent):
            # Without hooks to run, everything that was to be done has been done.
            if message.reply_id is not None:
                self._send(event.name, messages.Completion(reply_id=message.reply_id, done=True))
        else:
            self._quiet.warning(event.name, f"{event.name}: not carried out, this agent does not know how")
        if isinstance(message, messages.SetNumberOfCpus):
            # The answer tells what is, whatever was asked for.
            self._schedule.want(["number-of-cpus"], now)

    def _send(self, command: str, answer: messages.Message) -> None:
        try:
            self._session.send(answer)
        except LocalProtocolError as error:
            self._quiet.warning(f"answer to {command}", f"{command}: not answered: {error}")

    # ---- Facts ----

    @property
    def _may_report(self) -> bool:
        return self._link.up and not self._link.congested

    def _gather_due(self, now: float) -> None:
        if not self._may_report:
            return
        for name in self._schedule.take(now):
            if self._session.allows(name):
                self._gatherer.want(name)

    def _report_results(self, now: float) -> None:
        for name, outcome in self._gatherer.results():
            if isinstance(outcome, Exception):
                self._fails(name, outcome)
            else:
                for message in outcome:
                    self._report(name, message, now)

    def _report(self, name: str, message: messages.Message, now: float) -> None:
        try:
            self._session.send(message)
        except VersionTooLow:
            return  # the version fell while it was gathered; it is wanted again when that rises
        except SendRefused:
            self._schedule.want([name], now)
        except EncodingError as error:
            self._fails(name, error)
        else:
            self._works(name)

    def _fails(self, name: str, error: Exception) -> None:
        if name not in self._failing:
            self._failing.add(name)
            LOG.warning("%s: can't be collected, the host is told the rest: %s: %s", name, type(error).__name__, error)

    def _works(self, name: str) -> None:
        if name in self._failing:
            self._failing.discard(name)
            LOG.info("%s: can be collected again", name)
