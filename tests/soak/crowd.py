"""All guests of a soak, wherever the daemon finds them: those in a directory, and those that are libvirt's domains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from tests.bench.stage import GUESTS_CORE

from .domains import Domains
from .guests import Guests, Reply
from .plan import Scale, Step, versions


class Crowd:
    """The guests below *place*. Use as a context manager.

    :param period: seconds between two heartbeats of a guest.
    :ivar ports: the directory that the daemon is to look into.
    :ivar count: how many guests there are when all are there.
    :ivar names: what they were called when it was last looked.
    """

    def __init__(self, place: Path, seed: int, scale: Scale, period: float) -> None:
        self.ports = place / "ports"
        self.count = scale.guests + scale.domains
        self.names: list[str] = []
        self._place = place
        self._seed = seed
        self._scale = scale
        self._period = period
        self._closing = contextlib.ExitStack()
        self._domains: Optional[Domains] = None

    def __enter__(self) -> Crowd:
        with contextlib.ExitStack() as opened:
            self._guests = self._open_fleet(opened, self.ports, self._scale.guests)
            self._fleets = [self._guests]
            if self._scale.domains:
                self._open_domains(opened, self._scale.domains)
            self._closing = opened.pop_all()
        self._find_names()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def libvirt(self) -> Optional[str]:
        """The URI of the libvirt that has to be asked; None: there is none."""
        return None if self._domains is None else self._domains.uri

    # ---- What is done ----

    def take(self, step: Step) -> None:
        """Do what a plan says."""
        if step.whom == "guests":
            self._guests.ask(step.do, **step.arguments)
        elif self._domains is not None:
            self._domains.do(step.do, step.arguments)
        if step.do in ("rename", "return_all"):
            self._find_names()

    def calm(self) -> None:
        """Have all guests there, and behave."""
        self._guests.ask("return_all", first=0, count=self._scale.guests)
        if self._domains is not None:
            self._domains.calm()
        for fleet in self._fleets:
            fleet.ask("calm")
        self._find_names()

    # ---- What can be seen ----

    def states(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What each guest is called by the daemon, and what it announces and uses."""
        for state in self._guests.ask("states"):
            yield state["name"], state
        if self._domains is not None:
            yield from zip(self._domains.names, self._fleets[1].ask("states"))

    def total(self, what: str) -> int:
        """What the fleets report, added up."""
        return sum(fleet.ask("report")[what] for fleet in self._fleets)

    def replies(self) -> list[Reply]:
        """The commands that came since the last call."""
        return [reply for fleet in self._fleets for reply in fleet.settle_replies()]

    def mistakes(self) -> list[str]:
        """What the daemon told guests and must never have told."""
        return [text for fleet in self._fleets for text in fleet.ask("mistakes")]

    # ---- The beginning ----

    def _open_fleet(self, opened: contextlib.ExitStack, ports: Path, count: int) -> Guests:
        ports.mkdir()
        fleet = opened.enter_context(Guests(ports, GUESTS_CORE))
        fleet.ask("add", first=0, count=count)
        for position, version in enumerate(versions(self._seed, ports.name, count)):
            fleet.ask("behave", first=position, count=1, version=version)
        fleet.ask("rate", heartbeats=count / self._period)
        return fleet

    def _open_domains(self, opened: contextlib.ExitStack, count: int) -> None:
        ports = self._place / "virtual"
        self._fleets.append(self._open_fleet(opened, ports, count))
        self._domains = Domains(self._place / "libvirt", ports, count, self._seed)
        opened.callback(self._domains.close)
        self._domains.start_libvirt()

    def _find_names(self) -> None:
        self.names = [name for name, _ in self.states()]
