"""The rules by which two sides agree on a version. Pure state: no bytes, no events, no clock of its own.

Theory of operation
-------------------
*supported* is a side's own maximum (None: it knows no versions), *advertised* the maximum that the guest announces,
*agreed* what the host holds, *in use* what the guest sends at. Both sides begin at 0 and fall back to 0 with every new
channel; what was agreed before is never a fact.

The host computes agreed from every heartbeat and pushes it when it changed. The channel may lose, cut or double any line,
and may lead to another host without anybody noticing; so nothing is done once only:

- *repair* by the host: a guest that says what it uses is pushed to at each heartbeat that says something else. One that
  does not say (a deployed oVirt guest) is pushed to when it sends what is newer than agreed, and while it sends nothing
  that shows it has been told. What it sends at exactly the agreed version shows that. What it sends above version 0 but
  below agreed may come from an older agreement: it begins a belief but does not renew it, until the guest has been told
  again.
- *repeated offer* by the guest: while a host's offer has not been answered by a push, the heartbeats ask again. A host
  that does not repair (it sends no host id) pushes only when its stored value changes, so it is sent two heartbeats, the
  first with version 0.

A *push* is a debt (``push_due``), not an event: it is owed until it has been written.

Instants (attributes ``…_at``) are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

import enum
from typing import Optional

from . import versions
from .versions import Version

#: How long a message above version 0 makes the host believe a guest that does not say what it uses, in seconds. At versions
#: above 0 it sends number-of-cpus every 60 s.
BELIEF_LASTS = 150.0

#: A guest that is not believed is pushed to at this many heartbeats at once …
PROMPT_REPAIRS = 2

#: … and then at most once in this many seconds.
REPAIR_PERIOD = 60.0

#: A guest that says it uses something else is pushed to at this many heartbeats in a row …
PROMPT_FRUITLESS = 20

#: … and then at most once in this many seconds. Its heartbeats come every few seconds: only answers to pushes come faster.
FRUITLESS_PERIOD = 1.0


class HostNegotiation:
    """The host's half, for one guest."""

    def __init__(self, supported: Optional[Version]) -> None:
        self.supported = supported
        self.agreed = Version.V0
        #: Whether a heartbeat has come on this channel; until then nothing is known of the guest.
        self.met = False
        self.advertised: Optional[int] = None
        self.reported_in_use: Optional[int] = None
        #: Whether this guest may be pushed to at all: it sends the field, and this host knows versions.
        self.takes_pushes = False
        self.push_due = False
        #: A message newer than agreed came after the last push.
        self.newer_unanswered = False
        #: Such a message has been answered since the last heartbeat.
        self.newer_answered = False
        #: Pushes in a row for want of belief.
        self.doubts = 0
        #: Repairs in a row of a guest that says what it uses and does not follow.
        self.fruitless = 0
        #: What it sends below the agreed version renews a belief.
        self.trusted = False
        self.believed_at: Optional[float] = None
        self.pushed_at: Optional[float] = None

    @property
    def in_use(self) -> Optional[int]:
        """What the guest sends at, or None where this host can't know."""
        if not self.met or self.reported_in_use is not None:
            return self.reported_in_use
        if self.agreed > 0:
            return self.agreed if self.believed_at is not None else None
        return None if self.newer_unanswered else 0

    def connected(self) -> None:
        """A channel was opened: start from nothing."""
        self.agreed = Version.V0
        self.met = False
        self.advertised = None
        self.reported_in_use = None
        self.takes_pushes = False
        self._forget_evidence()

    def heartbeat(self, present: bool, advertised: Optional[int], in_use: Optional[int], now: float) -> None:
        """A heartbeat came.

        :param present: whether it had the field ``apiVersion`` at all, valid or not.
        :param advertised: the valid value of that field.
        :param in_use: the valid value of ``apiVersionInUse``.
        """
        self.met = True
        self.advertised = advertised
        self.reported_in_use = in_use
        self.takes_pushes = present and self.supported is not None
        self.push_due = self.push_due and self.takes_pushes
        before, self.agreed = self.agreed, versions.negotiate(self.supported, advertised)
        if self.agreed != before:
            self._forget_evidence()
            self._owe_push()
        elif self._misunderstood(now):
            self._owe_push()
        self.newer_unanswered = False
        self.newer_answered = False

    def heard(self, since: int, now: float) -> None:
        """A message other than a heartbeat came, one that may be sent from version *since* on."""
        if 0 < since <= self.agreed:
            self._take_as_proof(since, now)
        if since > self.agreed and self.reported_in_use is None:
            self.newer_unanswered = True
            if self.takes_pushes and not self.newer_answered:
                self.newer_answered = True
                self._owe_push()

    def pushed(self, now: float) -> None:
        """The push that was due has been written."""
        self.push_due = False
        self.newer_unanswered = False
        self.pushed_at = now

    def _owe_push(self) -> None:
        self.push_due = self.takes_pushes

    def _misunderstood(self, now: float) -> bool:
        """Whether a heartbeat that changed nothing shows that the guest does not use what is agreed."""
        if self.reported_in_use is not None:
            return self._disobeyed(now)
        return self.newer_unanswered or self._doubtful(now)

    def _disobeyed(self, now: float) -> bool:
        """Whether a guest that says it uses something else must be told again.

        At once, but not for ever: one that answers each push with a heartbeat and never follows would keep both sides busy.
        """
        if self.reported_in_use == self.agreed:
            self.fruitless = 0
            return False
        if self.fruitless >= PROMPT_FRUITLESS and self.pushed_at is not None and now - self.pushed_at < FRUITLESS_PERIOD:
            return False
        self.fruitless = min(self.fruitless + 1, PROMPT_FRUITLESS)
        return True

    def _doubtful(self, now: float) -> bool:
        """Whether a guest that does not say what it uses must be told again, for want of belief."""
        if self.agreed == 0 or self._believed(now):
            self.doubts = 0
            return False
        if self.doubts >= PROMPT_REPAIRS and self.pushed_at is not None and now - self.pushed_at < REPAIR_PERIOD:
            return False
        self.doubts = min(self.doubts + 1, PROMPT_REPAIRS)
        self.trusted = self.trusted or self.believed_at is not None
        self.believed_at = None
        return True

    def _believed(self, now: float) -> bool:
        return self.believed_at is not None and now - self.believed_at <= BELIEF_LASTS

    def _take_as_proof(self, since: int, now: float) -> None:
        """A message from above version 0, not newer than agreed, came."""
        self.trusted = self.trusted or since == self.agreed
        if self.trusted or self.believed_at is None:
            self.believed_at = now

    def _forget_evidence(self) -> None:
        """What the guest showed about a version that is no longer agreed says nothing about the new one."""
        self.push_due = False
        self.newer_unanswered = False
        self.newer_answered = False
        self.doubts = 0
        self.fruitless = 0
        self.trusted = False
        self.believed_at = None
        self.pushed_at = None


class Offer(enum.Enum):
    """What the guest knows of its host's will to negotiate."""

    UNSEEN = "no refresh has been seen on this channel"
    OPEN = "the host offered a version and has not pushed yet"
    CLOSED = "the host knows no versions, or has pushed"


class GuestNegotiation:
    """The guest's half."""

    def __init__(self, supported: Optional[Version]) -> None:
        self.supported = supported
        self.in_use = Version.V0
        self.offer = Offer.UNSEEN
        self.host_repairs = False

    def channel_changed(self) -> None:
        """The port was opened, or the host went away: start from nothing."""
        self.in_use = Version.V0
        self.offer = Offer.UNSEEN
        self.host_repairs = False

    def refreshed(self, offered: Optional[int], host_repairs: bool) -> None:
        """A refresh came; *offered* is the valid value of its ``apiVersion``, *host_repairs* whether it had a ``hostId``."""
        self.in_use = Version.V0
        self.offer = Offer.CLOSED if offered is None else Offer.OPEN
        self.host_repairs = host_repairs

    def pushed(self, version: int) -> None:
        """A valid ``api-version`` came."""
        self.in_use = versions.negotiate(self.supported, version)
        self.offer = Offer.CLOSED

    @property
    def must_provoke(self) -> bool:
        """Whether a heartbeat needs one with version 0 before it, to make a host push that would not otherwise."""
        return bool(self.supported) and self.offer is not Offer.CLOSED and not self.host_repairs
