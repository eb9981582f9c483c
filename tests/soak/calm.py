"""What must hold when a storm is over, and is waited for: everything as it should be, and nothing left of what was not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable, Optional

from common.versions import Version, negotiate
from host_agent.client import ClientError
from tests.bench.processes import Gone

from .crowd import Crowd
from .operators import Follower
from .subject import Level, Subject

#: Of so many guests it is looked at whether they complete commands.
_SAMPLE = 100


class Calm:
    """Looks at the daemon *subject*, and at the guests that it should know everything of."""

    def __init__(self, subject: Subject, crowd: Crowd, follower: Follower) -> None:
        self._subject = subject
        self._crowd = crowd
        self._follower = follower

    def wait(self) -> None:
        """Wait until everything is as it should be.

        :raises Gone: it is not in time; the text says what is not.
        """
        self._wait("the daemon to support what it was told to", self._unsupported)
        self._wait("all guests to be agreed with", self._disagreements)
        self._wait("all guests that vanished to be forgotten", self._too_many)
        self._wait("all commands to end", self._unended)
        self._wait("the events to be followed", self._unfollowed)

    def wait_for_state(self) -> None:
        """Wait until the state file can be written; raises as ``wait``."""
        self._wait("the state to be written again", self.failing)

    def refusals(self) -> Iterator[str]:
        """Has guests that behave complete commands; a sentence for each that does not."""
        able = [name for name, state in self._crowd.states() if state["in_use"] >= Version.V3]
        for name in able[:: len(able) // _SAMPLE + 1]:
            try:
                answer = self._subject.client.send(name, "lifecycle-event", {"type": "after_migration"})
            except ClientError as error:
                yield f"{name} behaves, and did not complete a command: {error}"
            else:
                if answer.failed:
                    yield f"{name} can't complete a command"
        self._wait("the events to be followed", self._unfollowed)

    def failing(self) -> Optional[str]:
        """Why the state file can't be written; None: it can, as far as anybody knows."""
        host = self._subject.host()
        return None if host is None else host["state"]["failing"]

    def _wait(self, what: str, left: Callable[[], object]) -> None:
        try:
            self._subject.wait_for(what, lambda: not left())
        except Gone as error:
            raise Gone(f"{error}: {str(left())[:2000]}\n{self._subject.log_tail()}") from None

    # ---- What is left ----

    def _unsupported(self) -> Optional[str]:
        host = self._subject.host()
        supported = host and host["api"]["supported"]
        wanted = self._subject.maximum
        return None if host and supported == wanted else f"it supports {supported} instead of {wanted}"

    def _disagreements(self) -> list[str]:
        """Each guest with which not both sides are at the version that follows from what they support."""
        with contextlib.suppress(ClientError):
            told = {each["name"]: each for each in self._subject.client.guests(facts=False)}
            return [text for name, state in self._crowd.states() for text in self._disagreement(name, state, told.get(name))]
        return ["the daemon does not answer"]

    def _disagreement(self, name: str, state: dict[str, Any], told: Optional[dict[str, Any]]) -> Iterator[str]:
        maximum, announced = self._subject.maximum, state["announced"]
        expected = int(negotiate(None if maximum is None else Version(maximum), announced))
        if told is None:
            yield f"{name} is not known"
            return
        # What a guest without versions uses is only guessed.
        used = expected if announced is None else told["api"]["in_use"]
        seen = told["channel"]["state"], told["api"]["agreed"], used, state["in_use"]
        if seen != ("responsive", expected, expected, expected):
            yield f"{name} announces {announced} to {maximum}, and is {seen} instead of {expected}"

    def _too_many(self) -> Optional[str]:
        host = self._subject.host()
        known = host and host["guests"]
        return None if known == self._crowd.count else f"{known} are known instead of {self._crowd.count}"

    def _unended(self) -> Optional[str]:
        counters = self._subject.counters()
        left = counters["queue_commands"], counters["queue_write_bytes"], self._crowd.total("pending")
        return f"commands, unwritten bytes and answers: {left}" if any(left) else None

    def _unfollowed(self) -> Optional[str]:
        told = int(self._subject.counters()["events_total"])
        run, number = self._follower.position
        return None if run == self._subject.run and number >= told else f"{number} of {told}"


class Growth:
    """How much more the daemon takes in calms than in the first one after a storm, of the same life.

    :ivar descriptors: so many, beyond those of the guests.
    :ivar resident: so much memory, in KiB.
    :ivar threads: the most there were.
    """

    def __init__(self) -> None:
        self.descriptors = 0
        self.resident = 0
        self.threads = 0
        self._first: Optional[Level] = None
        self._guests = 0

    def look(self, level: Level, guests: int) -> None:
        """It takes *level* with so many guests connected."""
        first = self._first
        if first is None or first.run != level.run:
            self._first, self._guests = level, guests
            return
        self.descriptors = max(self.descriptors, level.descriptors - guests - (first.descriptors - self._guests))
        self.resident = max(self.resident, level.resident - first.resident)
        self.threads = max(self.threads, level.threads)
