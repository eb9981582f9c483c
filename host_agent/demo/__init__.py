"""``vmaccord demo``: the main job, played with the shipped programs in a few seconds; no VM, no root.

Three host daemons (of API 3, of API 1, and one from before versions) and one guest agent run as processes. The VM's port
is emulated and watched, or (``--vm``) the VM is a real one that migrates live between real QEMUs. Each scenario says what
must be agreed afterwards; the demo fails when it is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Callable, Optional, Protocol

from host_agent.exits import Exit

from . import stage
from .timeline import Timeline

#: A scenario that has not come to agreement after so many seconds has failed.
PATIENCE = 10.0


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Something that happens, and the version that both must agree on afterwards."""

    name: str
    play: Callable[[stage.Stage], None]
    expected: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a scenario; None is unknown."""

    scenario: Scenario
    agreed: Optional[int]
    in_use: Optional[int]
    took: Optional[float]

    @property
    def as_expected(self) -> bool:
        """Whether both sides are where they must be."""
        return self.agreed == self.in_use == self.scenario.expected and self.took is not None

    @property
    def verdict(self) -> str:
        """The time it took, or what was expected."""
        if self.as_expected and self.took is not None:
            return f"{self.took * 1000:.1f} ms"
        return f"FAILED, expected {self.scenario.expected}"


class Witness(Protocol):
    """Who sees what the guest uses, tells what happens, and measures how long it takes."""

    def note(self, text: str) -> None:
        """Say what the demo does."""

    def begin(self) -> None:
        """A scenario begins: what was before does not count."""

    def catch_up(self) -> None:
        """Tell what has happened by now."""

    def used(self) -> Optional[int]:
        """The version that the guest said last, in this scenario, it uses."""

    def took(self, expected: int) -> Optional[float]:
        """Seconds from when both sides were there until the guest used *expected*; None: it has not."""


def _first_contact(theatre: stage.Stage) -> None:
    theatre.start_agent("1")
    theatre.move_vm("host-a")


SCENARIOS = (
    Scenario("first contact: host of API 3, agent of API 1", _first_contact, 1),
    Scenario("agent upgraded from 1 to 3", lambda theatre: theatre.start_agent("3"), 3),
    Scenario("agent downgraded from 3 to 2", lambda theatre: theatre.start_agent("2"), 2),
    Scenario("VM moved to a host of API 1", lambda theatre: theatre.move_vm("host-b"), 1),
    Scenario("VM moved to a host without versions", lambda theatre: theatre.move_vm("host-c"), 0),
    Scenario("VM moved back to the host of API 3", lambda theatre: theatre.move_vm("host-a"), 2),
    Scenario("host daemon restarted", lambda theatre: theatre.restart_host(), 2),
)


def play(scenarios: Sequence[Scenario] = SCENARIOS, patience: float = PATIENCE) -> int:
    """Play *scenarios* on the emulated port, print the timeline and the table, and return the exit status.

    :param patience: seconds within which each must come to agreement.
    """
    timeline = Timeline(teller())
    with tempfile.TemporaryDirectory(prefix="vmaccord-demo-") as root:
        return play_on(stage.EmulatedStage(pathlib.Path(root), timeline.watch), timeline, scenarios, patience)


def play_on(theatre: stage.Stage, witness: Witness, scenarios: Sequence[Scenario], patience: float) -> int:
    """Play *scenarios* on any stage; see ``play``."""
    try:
        with theatre:
            witness.note("three host daemons start: host-a (API 3), host-b (API 1), host-c (no versions)")
            for host in theatre.hosts.values():
                host.start()
            outcomes = [_play(scenario, theatre, witness, patience) for scenario in scenarios]
            said = theatre.said()
    except stage.StageError as error:
        print(f"vmaccord: the demo failed: {error}", file=sys.stderr)
        return Exit.DEMO_FAILED
    _print_table(outcomes)
    if all(outcome.as_expected for outcome in outcomes):
        slowest = max(outcome.took or 0.0 for outcome in outcomes) * 1000
        print(f"All agreed; the slowest took {slowest:.1f} ms. Heartbeats come every 5 s: none was waited for.")
        return Exit.OK
    print(f"vmaccord: the demo failed: a version is not as it should be; the daemons said\n{said}", file=sys.stderr)
    return Exit.DEMO_FAILED


def teller() -> Callable[[float, str], None]:
    """Prints lines of the timeline: the monotonic time at which something happened, and what."""
    began = time.monotonic()
    return lambda at, text: print(f"{at - began:7.3f} s  {text}", flush=True)


def seen_by_host(theatre: stage.Stage) -> tuple[Optional[int], Optional[int]]:
    """What the VM's host says: agreed, and in use."""
    guest = theatre.host.guest()
    if guest is None:
        return None, None
    return guest["api"]["agreed"], guest["api"]["in_use"]


def _play(scenario: Scenario, theatre: stage.Stage, witness: Witness, patience: float) -> Outcome:
    witness.begin()
    witness.note(scenario.name)
    scenario.play(theatre)
    expected = (scenario.expected, scenario.expected)

    def agreed() -> bool:
        witness.catch_up()
        return witness.took(scenario.expected) is not None and seen_by_host(theatre) == expected

    with contextlib.suppress(stage.StageError):
        stage.wait_for(scenario.name, agreed, theatre.said, patience)
    agreed_by_host, _ = seen_by_host(theatre)
    outcome = Outcome(scenario, agreed_by_host, witness.used(), witness.took(scenario.expected))
    witness.note(f"  => agreed {outcome.agreed}, in use {outcome.in_use}")
    return outcome


def _shown(version: Optional[int]) -> str:
    return "-" if version is None else str(version)


def _print_table(outcomes: list[Outcome]) -> None:
    # Slow to import, and only the table needs them.
    from rich import box, console, table

    drawn = table.Table(box=box.SIMPLE_HEAD)
    drawn.add_column("scenario")
    for header in ("agreed by host", "in use by guest", "took"):
        drawn.add_column(header, justify="right")
    for outcome in outcomes:
        drawn.add_row(outcome.scenario.name, _shown(outcome.agreed), _shown(outcome.in_use), outcome.verdict)
    console.Console(width=None if sys.stdout.isatty() else 100).print(drawn)
