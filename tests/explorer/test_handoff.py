"""One owner and the right version in all orders of what can happen to a hand-off; and the proof that the explorer can fail.

These walks end where nothing new can follow: within their limits they are complete. ``VMACCORD_EXPLORE`` sets the limits:
``quick``, ``normal`` (about 45 CPU seconds of one core), or ``deep`` (about six times as long).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any, Optional

import pytest

from common import events
from common.handoff import documents, window
from common.handoff.destination import Arrivals, Destination
from common.versions import Version

from .daemons import Attempt, Daemon, Release
from .machines import WatchedHost
from .moving import Broken, Limits, Walk, World, Worlds

pytestmark = [pytest.mark.explorer, pytest.mark.timeout(3600)]

HOW_FAR = os.environ.get("VMACCORD_EXPLORE", "normal")

#: The guest speaks 4: the first host agrees on that, the second one on less, the third one on what the first did.
MAXIMA = (Version.V5, Version.V3, Version.V4)

#: By how far to go: the number of hosts, and how much happens to them.
WALKS = {
    "quick": [(2, Limits(1, 2)), (2, Limits(1, 1, 1, True))],
    "normal": [(2, Limits(2, 2)), (2, Limits(2, 1, 2)), (2, Limits(2, 1, 1, True)), (3, Limits(3, 1))],
    "deep": [
        *[(2, Limits(1, 3)), (2, Limits(2, 2)), (2, Limits(2, 1, 2, True)), (2, Limits(1, 2, 1, True))],
        *[(3, Limits(3, 1, 1)), (3, Limits(2, 1, 1, True)), (3, Limits(2, 2))],
    ],
}

RELEASES = [Release(protocol, spec) for protocol in window.VERSIONS for spec in documents.SPECS]


@pytest.mark.parametrize(("hosts", "limits"), WALKS[HOW_FAR])
def test_a_guest_has_one_owner_in_all_orders(hosts: int, limits: Limits) -> None:
    worlds = _worlds([Release()] * hosts, limits)
    walk = Walk(worlds)
    walk.run()
    print(f"{hosts} hosts, {limits}: {len(walk)} worlds")
    owners = {worlds.owner(world) for world in walk.worlds}
    assert owners == set(range(hosts)), "otherwise it was never handed over"
    assert any(_is_back_in_doubt(worlds, world) for world in walk.worlds) == (limits.transfers > 1)


@pytest.mark.parametrize("protocols", list(itertools.product(window.VERSIONS, repeat=2)))
def test_a_guest_has_one_owner_whichever_protocols_two_hosts_speak(protocols: tuple[int, int]) -> None:
    # The first transfer can be used up by the refusal of its version.
    _walk([Release(protocol) for protocol in protocols], Limits(1 + (protocols == (1, 0)), 2))


@pytest.mark.parametrize("releases", list(itertools.product(RELEASES, repeat=2)))
def test_a_guest_has_one_owner_whatever_two_hosts_know(releases: tuple[Release, Release]) -> None:
    _walk(releases, Limits(2, 1))


# ---- It can fail ----


class LetsOlderConnectionsComplete(Arrivals):
    """Breaks: a transfer belongs to the connection that spoke of it last."""

    def claim(self, transfer: Optional[str], connection: Destination) -> bool:
        return True


class SpeaksOfWhatIsBeingTaken(Arrivals):
    """Breaks: about what is just being taken nothing is said."""

    def claim(self, transfer: Optional[str], connection: Destination) -> bool:
        super().claim(transfer, connection)
        return True


class ForgetsWhatWasTaken(Arrivals):
    """Breaks: what was taken is known to every run."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        super().__init__()


class DoesNotFence(Daemon):
    """With the first of these."""

    arrivals_class = LetsOlderConnectionsComplete


class IsNotBusy(Daemon):
    """With the second."""

    arrivals_class = SpeaksOfWhatIsBeingTaken


class HasNoMemory(Daemon):
    """With the third."""

    arrivals_class = ForgetsWhatWasTaken


class NotesNoDoubt(Daemon):
    """Breaks: before Complete is sent, the doubt is on disk."""

    def note_doubt(self, transfer: str) -> None:
        pass


class BelievesOldAnswers(Daemon):
    """Breaks: that a transfer was taken means nothing once the guest is back."""

    def is_outdated(self, attempt: Attempt) -> bool:
        return False


class DoubtsWhatIsBack(Daemon):
    """Breaks: a guest that is handed back is in doubt no longer."""

    def doubt_after_taking(self) -> Optional[str]:
        return self.disk.doubt


class NumbersFromItsOwn(Daemon):
    """Breaks: reply ids rise above those that came along."""

    def number_above(self, floor: int) -> int:
        return self.highest


@pytest.mark.parametrize(
    ("daemon_class", "problem"),
    [
        (DoesNotFence, "0 takes the guest for its own, but it is 1's"),
        (IsNotBusy, "0 takes the guest for its own, but it is 1's"),
        (HasNoMemory, "0 takes the guest for its own, but it is 1's"),
        (NotesNoDoubt, "0 takes the guest for its own, but it is 1's"),
        (BelievesOldAnswers, "the guest is 0's, and 0 does not have it"),
        (DoubtsWhatIsBack, "the guest is 0's, and 0 does not have it"),
    ],
)
def test_a_host_without_one_of_its_rules_is_found_out(daemon_class: type[Daemon], problem: str) -> None:
    assert problem in _problem(_worlds([Release()] * 2, Limits(2, 2), daemon_class=daemon_class))


def test_a_host_that_numbers_from_its_own_is_found_out() -> None:
    worlds = _worlds([Release()] * 2, Limits(1, 1, 2), daemon_class=NumbersFromItsOwn)
    assert _problem(worlds) == "a reply id was given twice: ('0000000000000000-1', '0000000000000000-1')"


class StartsFromWhatWasCarried(WatchedHost):
    """Breaks: what another host had agreed on is a hint for people."""

    carried: Version

    def _start(self, reason: events.Reason, now: float) -> None:
        super()._start(reason, now)
        self.negotiation.agreed = self.carried


def test_a_host_that_starts_from_what_was_carried_is_found_out() -> None:
    def make(supported: Optional[Version], carried: int) -> WatchedHost:
        host = StartsFromWhatWasCarried(supported, "H")
        host.carried = Version(carried)
        return host

    worlds = _worlds([Release()] * 2, Limits(1, 1, 0, True), make_host=make)
    assert _problem(worlds) == "at 1 agreed is 4, in use is 4, expected is 0"


# ---- Parts ----


def _worlds(releases: Iterable[Release], limits: Limits, **parts: Any) -> Worlds:
    return Worlds(releases, limits, maxima=MAXIMA, guest=Version.V4, **parts)


def _walk(releases: Iterable[Release], limits: Limits) -> None:
    worlds = _worlds(releases, limits)
    walk = Walk(worlds)
    walk.run()
    assert {worlds.owner(world) for world in walk.worlds} == {0, 1}


def _problem(worlds: Worlds) -> str:
    """The first line of the first violation that a walk finds."""
    with pytest.raises(Broken) as caught:
        Walk(worlds).run()
    return str(caught.value).splitlines()[0]


def _is_back_in_doubt(worlds: Worlds, world: World) -> bool:
    """Whether the guest comes back to a host that is in doubt about having handed it over."""
    views = [worlds.view(world, host) for host in range(len(world.daemons))]
    coming = {wire.to for wire in world.wires if wire is not None}
    return any(view.disk.doubt is not None and host in coming for host, view in enumerate(views))
