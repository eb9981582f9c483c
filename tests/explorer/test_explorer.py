"""Safety, convergence and quiet in all orders of events; and the proof that the explorer can fail.

``VMACCORD_EXPLORE`` sets how far the walks go: ``quick`` for a first answer, ``normal``, or ``deep`` for one step more,
which takes several times as long and as much memory.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest

from common import negotiation, session, versions
from common.versions import Version

from .explore import Counterexample, Explorer, Promise
from .machines import (
    GuestMachine,
    HostMachine,
    WatchedGuest,
    WatchedHost,
    WatchedReferenceGuest,
    WatchedReferenceHost,
    our_guest,
    our_host,
)
from .world import MAXIMA, World, Worlds

pytestmark = [pytest.mark.explorer, pytest.mark.timeout(3600)]

#: Added to the depth of every walk.
DEEPER = {"quick": -2, "normal": 0, "deep": 1}[os.environ.get("VMACCORD_EXPLORE", "normal")]

OURS = Promise()
WITH_DEPLOYED_GUEST = Promise(heartbeats=2, guest_is_safe=False, quiet=False, patience=35)
WITH_DEPLOYED_HOST = Promise(host_is_safe=False, introduces_itself=False)

#: The deployed guest follows its first heartbeat, which says 0, with the real one.
BOTH_DEPLOYED = Promise(heartbeats=3, host_is_safe=False, guest_is_safe=False, quiet=False, introduces_itself=False)


def test_our_host_and_our_guest_keep_every_promise_in_all_orders() -> None:
    _walk(Worlds(HostMachine(our_host), GuestMachine(our_guest)), OURS, depth=6)


def test_our_host_and_a_deployed_guest_keep_every_promise_in_all_orders() -> None:
    worlds = Worlds(HostMachine(our_host), GuestMachine(WatchedReferenceGuest), notices=False)
    _walk(worlds, WITH_DEPLOYED_GUEST, depth=7)


def test_a_deployed_host_and_our_guest_keep_every_promise_in_all_orders() -> None:
    worlds = Worlds(HostMachine(WatchedReferenceHost), GuestMachine(our_guest), hands_over=True)
    _walk(worlds, WITH_DEPLOYED_HOST, depth=6)


def test_ours_agree_from_any_pair_of_states_also_from_impossible_ones() -> None:
    worlds = Worlds(HostMachine(our_host), GuestMachine(our_guest))
    walked = Explorer(worlds, Promise(host_is_safe=False, guest_is_safe=False)).walk(0, _all_pairs(worlds))
    assert walked.worlds > 10_000


def test_our_host_and_a_deployed_guest_agree_from_impossible_states_in_time() -> None:
    worlds = Worlds(HostMachine(our_host), GuestMachine(WatchedReferenceGuest), notices=False)
    a_minute = 13  # heartbeats: a host that has been pushing in vain pushes once a minute
    promise = Promise(heartbeats=a_minute, host_is_safe=False, guest_is_safe=False, quiet=False, patience=35)
    walked = Explorer(worlds, promise).walk(0, _all_pairs_with_deployed_guest(worlds))
    assert walked.worlds > 1_000


# ---- It can fail ----


def test_the_deployed_pair_has_the_known_weakness_of_a_move_to_a_lower_host() -> None:
    worlds = Worlds(HostMachine(WatchedReferenceHost), GuestMachine(WatchedReferenceGuest), hands_over=True, notices=False)
    trace = _counterexample(worlds, BOTH_DEPLOYED, depth=8)
    assert "after 3 heartbeat(s)" in trace
    assert "in its place" in trace or "restarts" in trace


class KeepsAgreed(negotiation.HostNegotiation):
    """Breaks: on every connect agreed is 0."""

    def connected(self) -> None:
        agreed = self.agreed
        super().connected()
        self.agreed = agreed


class NeverPushesZero(negotiation.HostNegotiation):
    """Breaks: a push also when agreed fell to 0."""

    def _owe_push(self) -> None:
        super()._owe_push()
        self.push_due = self.push_due and self.agreed > 0


class NeverRepairs(negotiation.HostNegotiation):
    """Breaks: a guest that says it uses something else is pushed to again."""

    def _misunderstood(self, now: float) -> bool:
        return False


class NeverDoubts(negotiation.HostNegotiation):
    """Breaks: a guest that does not show what it uses is pushed to again."""

    def _doubtful(self, now: float) -> bool:
        return False


class PushesForEver(negotiation.HostNegotiation):
    """Breaks: in the agreed state no push is sent."""

    def _misunderstood(self, now: float) -> bool:
        return True


class IgnoresRefresh(negotiation.GuestNegotiation):
    """Breaks: at every refresh in use is 0."""

    def refreshed(self, offered: Optional[int], host_repairs: bool) -> None:
        in_use = self.in_use
        super().refreshed(offered, host_repairs)
        self.in_use = in_use


class IgnoresChannel(negotiation.GuestNegotiation):
    """Breaks: in use is 0 when the host goes."""

    def channel_changed(self) -> None:
        in_use = self.in_use
        super().channel_changed()
        self.in_use = in_use


class NeverProvokes(negotiation.GuestNegotiation):
    """Breaks: an unanswered offer of a deployed host is made again."""

    @property
    def must_provoke(self) -> bool:
        return False


class OnlyRises(negotiation.GuestNegotiation):
    """Breaks: a push of a lower version is followed."""

    def pushed(self, version: int) -> None:
        self.in_use = max(self.in_use, versions.negotiate(self.supported, version))
        self.offer = negotiation.Offer.CLOSED


@pytest.mark.parametrize("rule", [KeepsAgreed, NeverPushesZero, NeverRepairs, PushesForEver])
def test_a_host_without_one_of_its_rules_is_found_out(rule: type[negotiation.HostNegotiation]) -> None:
    worlds = Worlds(HostMachine(_host_with(rule)), GuestMachine(our_guest), hands_over=True)
    _counterexample(worlds, OURS, depth=6)


@pytest.mark.parametrize("rule", [NeverRepairs, NeverDoubts])
def test_a_host_without_a_rule_for_deployed_guests_is_found_out(rule: type[negotiation.HostNegotiation]) -> None:
    worlds = Worlds(HostMachine(_host_with(rule)), GuestMachine(WatchedReferenceGuest), notices=False)
    _counterexample(worlds, WITH_DEPLOYED_GUEST, depth=8)


@pytest.mark.parametrize("rule", [IgnoresRefresh, IgnoresChannel, OnlyRises])
def test_a_guest_without_one_of_its_rules_is_found_out(rule: type[negotiation.GuestNegotiation]) -> None:
    worlds = Worlds(HostMachine(our_host), GuestMachine(_guest_with(rule)))
    _counterexample(worlds, OURS, depth=6)


def test_a_guest_that_never_provokes_a_deployed_host_is_found_out() -> None:
    worlds = Worlds(HostMachine(WatchedReferenceHost), GuestMachine(_guest_with(NeverProvokes)), hands_over=True)
    _counterexample(worlds, WITH_DEPLOYED_HOST, depth=6)


# ---- Parts ----


def _walk(worlds: Worlds, promise: Promise, *, depth: int) -> None:
    walked = Explorer(worlds, promise).walk(depth + DEEPER)
    print(f"{walked.worlds} worlds, {walked.steps} steps, depth {walked.depth}")
    assert walked.worlds > 1_000


def _counterexample(worlds: Worlds, promise: Promise, *, depth: int) -> str:
    with pytest.raises(Counterexample) as caught:
        Explorer(worlds, promise).walk(depth)
    trace = str(caught.value)
    print(trace)
    assert trace.splitlines()[-1] == f"  => {trace.splitlines()[0]}"
    assert "  1. agent" in trace
    return trace


def _host_with(rules: type[negotiation.HostNegotiation]) -> Callable[[Optional[Version], int], session.HostSession]:
    def make(supported: Optional[Version], handed_over: int) -> session.HostSession:
        host = WatchedHost(supported, "H")
        host.negotiation = rules(supported)
        host.negotiation.agreed = versions.negotiate(supported, handed_over)
        return host

    return make


def _guest_with(rules: type[negotiation.GuestNegotiation]) -> Callable[[Optional[Version]], session.GuestSession]:
    def make(supported: Optional[Version]) -> session.GuestSession:
        guest = WatchedGuest(supported, "A")
        guest.negotiation = rules(supported)
        return guest

    return make


def _all_pairs(worlds: Worlds) -> Iterator[tuple[str, World]]:
    """Every state of our host with every state of our guest, and one stray push or heartbeat between them."""
    guests = [worlds.guests.state_of(guest) for guest in _any_guests()]
    strays: list[dict[str, Any]] = [{}, *_stray_lines()]
    for host, guest in itertools.product(_any_hosts(), guests):
        state = worlds.hosts.state_of(host)
        for stray in strays:
            yield "any states", World(state, guest, introduced=host.supported is not None, **stray)


def _all_pairs_with_deployed_guest(worlds: Worlds) -> Iterator[tuple[str, World]]:
    for host, supported, in_use in itertools.product(_any_hosts(), MAXIMA, Version):
        lied = host.negotiation.trusted and 0 < in_use < host.negotiation.agreed
        if in_use <= (supported or 0) and not lied:
            guest = WatchedReferenceGuest(supported)
            guest.in_use = in_use
            guest._said_zero = True
            introduced = host.supported is not None
            yield (
                "any states",
                World(worlds.hosts.state_of(host), worlds.guests.state_of(guest), introduced=introduced),
            )


def _any_hosts() -> Iterator[WatchedHost]:
    flags = itertools.product((False, True), repeat=3)
    for (takes_pushes, newer, tried), supported, agreed, in_use, believed in itertools.product(
        list(flags), MAXIMA, Version, (None, 0, 3), (None, 0.0)
    ):
        if agreed <= (supported or 0):
            host = WatchedHost(supported, "H")
            host.connected(0.0)
            host.data_to_send()
            state = host.negotiation
            state.agreed = agreed
            state.met = takes_pushes
            state.advertised = int(agreed) if takes_pushes else None
            state.reported_in_use = in_use
            state.takes_pushes = takes_pushes and supported is not None
            state.push_due = False
            state.newer_unanswered = newer
            state.newer_answered = newer
            state.doubts = 2 if tried else 0
            state.fruitless = 4 if tried else 0
            state.trusted = tried and believed is not None
            state.believed_at = believed
            state.pushed_at = 0.0 if tried else None
            yield host


def _any_guests() -> Iterator[WatchedGuest]:
    for supported, in_use, offer, repairs in itertools.product(MAXIMA, Version, negotiation.Offer, (False, True)):
        if in_use <= (supported or 0):
            guest = WatchedGuest(supported, "A")
            guest.opened(0.0)
            guest.events()
            guest.data_to_send()
            guest.negotiation.in_use = in_use
            guest.negotiation.offer = offer
            guest.negotiation.host_repairs = repairs
            yield guest


def _stray_lines() -> Iterator[dict[str, Any]]:
    yield {"down": (b'{"__name__":"api-version","apiVersion":2}\n',)}
    yield {"up": (b'{"__name__":"heartbeat","apiVersion":2,"apiVersionInUse":1}\n',)}
    yield {"up": (b'{"__name__":"heartbeat"}\n',), "down": (b'{"__name__":"ap',)}
