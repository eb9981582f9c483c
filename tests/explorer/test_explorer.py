"""Safety, convergence and quiet in all orders of events; and the proof that the explorer can fail.

``VMACCORD_EXPLORE`` sets how far the walks go: ``quick`` for a first answer, ``normal``, or ``deep`` for one step more,
which takes several times as long and as much memory.

Versions from 4 on negotiate as those before do: no rule tells one number from another. So the walks that go furthest stay
among the maxima of deployed peers, and among 3, 4 and the newest, where what a guest lets its host do comes and goes, once
more from where both have agreed; all pairs of maxima are walked one or two steps less far. In CPU seconds of one core,
measured at normal depth: ours with ours 17 + 5 + 5 + 13, our host with deployed guests 13 + 2, deployed hosts with our guest
15 + 5, all else 25. Each step further takes about five times as long.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, NamedTuple, Optional

import pytest

from common import codec, errors, events, messages, negotiation, session, versions
from common.catalogue import Row
from common.versions import Version

from .explore import Counterexample, Explorer, Promise
from .machines import (
    GuestMachine,
    HostMachine,
    WatchedGuest,
    WatchedHost,
    WatchedReferenceGuest,
    WatchedReferenceHost,
    capabilities,
    deployed_guest,
    our_guest,
    our_host,
)
from .world import MAXIMA, OLD_MAXIMA, Maxima, World, Worlds

pytestmark = [pytest.mark.explorer, pytest.mark.timeout(3600)]

#: Added to the depth of every walk.
DEEPER = {"quick": -2, "normal": 0, "deep": 1}[os.environ.get("VMACCORD_EXPLORE", "normal")]

NEWEST = versions.newest()

#: Where capabilities come and go.
NEW_MAXIMA: Maxima = (Version.V3, Version.V4, NEWEST)

OURS = Promise()
WITH_DEPLOYED_GUEST = Promise(heartbeats=2, guest_is_safe=False, quiet=False, patience=35)
WITH_DEPLOYED_HOST = Promise(host_is_safe=False, introduces_itself=False)

#: The deployed guest follows its first heartbeat, which says 0, with the real one.
BOTH_DEPLOYED = Promise(heartbeats=3, host_is_safe=False, guest_is_safe=False, quiet=False, introduces_itself=False)


@pytest.mark.parametrize(
    ("maxima", "reloads", "depth"),
    [(OLD_MAXIMA, False, 6), (NEW_MAXIMA, True, 6), (MAXIMA, True, 5)],
    ids=["up to 3", "from 3 on", "all"],
)
def test_our_host_and_our_guest_keep_every_promise_in_all_orders(maxima: Maxima, reloads: bool, depth: int) -> None:
    _walk(_ours(maxima, reloads=reloads), OURS, depth=depth)


def test_our_host_and_our_guest_keep_every_promise_in_all_orders_once_they_have_agreed() -> None:
    worlds = _ours(NEW_MAXIMA, reloads=True)
    _walk(worlds, OURS, depth=5, starts=worlds.agreed())


@pytest.mark.parametrize(("maxima", "depth"), [(OLD_MAXIMA, 7), (MAXIMA, 5)], ids=["up to 3", "all"])
def test_our_host_and_a_deployed_guest_keep_every_promise_in_all_orders(maxima: Maxima, depth: int) -> None:
    _walk(_with_deployed_guest(HostMachine(our_host), maxima), WITH_DEPLOYED_GUEST, depth=depth)


@pytest.mark.parametrize(("maxima", "depth"), [(OLD_MAXIMA, 6), (MAXIMA, 5)], ids=["up to 3", "all"])
def test_a_deployed_host_and_our_guest_keep_every_promise_in_all_orders(maxima: Maxima, depth: int) -> None:
    _walk(_with_deployed_host(GuestMachine(our_guest), maxima), WITH_DEPLOYED_HOST, depth=depth)


@pytest.mark.parametrize("new", [False, True], ids=["up to 3", "from 3 on"])
def test_ours_agree_from_any_pair_of_states_also_from_impossible_ones(new: bool) -> None:
    worlds = _ours(MAXIMA)
    promise = Promise(host_is_safe=False, guest_is_safe=False)
    walked = Explorer(worlds, promise).walk(0, _all_pairs(worlds, NEW_STATES if new else OLD_STATES))
    assert walked.worlds > 10_000


def test_our_host_and_a_deployed_guest_agree_from_impossible_states_in_time() -> None:
    worlds = _with_deployed_guest(HostMachine(our_host), MAXIMA)
    a_minute = 13  # heartbeats: a host that has been pushing in vain pushes once a minute
    promise = Promise(heartbeats=a_minute, host_is_safe=False, guest_is_safe=False, quiet=False, patience=35)
    walked = Explorer(worlds, promise).walk(0, _all_pairs_with_deployed_guest(worlds))
    assert walked.worlds > 1_000


# ---- It can fail ----


def test_the_deployed_pair_has_the_known_weakness_of_a_move_to_a_lower_host() -> None:
    worlds = Worlds(
        HostMachine(WatchedReferenceHost),
        GuestMachine(deployed_guest),
        host_maxima=OLD_MAXIMA,
        guest_maxima=OLD_MAXIMA,
        hands_over=True,
        notices=False,
    )
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
    worlds = _ours(OLD_MAXIMA, hosts=HostMachine(_host_with(rule)), hands_over=True)
    _counterexample(worlds, OURS, depth=6)


@pytest.mark.parametrize("rule", [NeverRepairs, NeverDoubts])
def test_a_host_without_a_rule_for_deployed_guests_is_found_out(rule: type[negotiation.HostNegotiation]) -> None:
    worlds = _with_deployed_guest(HostMachine(_host_with(rule)), OLD_MAXIMA)
    _counterexample(worlds, WITH_DEPLOYED_GUEST, depth=8)


@pytest.mark.parametrize("rule", [IgnoresRefresh, IgnoresChannel, OnlyRises])
def test_a_guest_without_one_of_its_rules_is_found_out(rule: type[negotiation.GuestNegotiation]) -> None:
    worlds = _ours(OLD_MAXIMA, guests=GuestMachine(_guest_with(rule)))
    _counterexample(worlds, OURS, depth=6)


def test_a_guest_that_never_provokes_a_deployed_host_is_found_out() -> None:
    worlds = _with_deployed_host(GuestMachine(_guest_with(NeverProvokes)), OLD_MAXIMA)
    _counterexample(worlds, WITH_DEPLOYED_HOST, depth=6)


# ---- It can fail: what a guest lets its host do ----


class KeepsCapabilitiesOverChannels(WatchedHost):
    """Breaks: a new channel begins without capabilities."""

    def _start(self, reason: events.Reason, now: float) -> None:
        said = self.capabilities
        super()._start(reason, now)
        self.capabilities = said


class KeepsCapabilitiesOfAnotherAgent(WatchedHost):
    """Breaks: what another run of the agent said counts no longer."""

    def _notice_agent(self, agent_id: Optional[str], arguments: Mapping[str, Any]) -> None:
        said = self.capabilities
        super()._notice_agent(agent_id, arguments)
        self.capabilities = said


class KeepsCapabilitiesBelow4(WatchedHost):
    """Breaks: below version 4 no capabilities count."""

    def _negotiate(self, heartbeat: messages.Heartbeat, arguments: Mapping[str, Any], now: float) -> None:
        said = self.capabilities
        super()._negotiate(heartbeat, arguments, now)
        self.capabilities = said


class TakesEarlyCapabilities(WatchedHost):
    """Breaks: capabilities that come before version 4 is agreed are the tail of an older agreement."""

    def _receive_message(self, received: Any, message: messages.Message, now: float) -> None:
        super()._receive_message(received, message, now)
        if isinstance(message, messages.Capabilities):
            self.capabilities = message


class TakesCapabilitiesOnce(WatchedHost):
    """Breaks: the newest capabilities count."""

    def _receive_message(self, received: Any, message: messages.Message, now: float) -> None:
        said = self.capabilities
        super()._receive_message(received, message, now)
        if isinstance(message, messages.Capabilities):
            self.capabilities = said or self.capabilities


class SendsWhatIsTurnedOff(WatchedHost):
    """Breaks: a command that the guest has turned off is refused."""

    def _wanting(self, row: Row) -> Optional[errors.Want]:
        want = super()._wanting(row)
        return None if want is errors.Want.OFF else want


class SendsWhatWasNotSaid(WatchedHost):
    """Breaks: a command that needs a capability is refused until the guest has said something."""

    def _wanting(self, row: Row) -> Optional[errors.Want]:
        want = super()._wanting(row)
        return None if want is errors.Want.UNSAID else want


class SaysCapabilitiesOnce(GuestMachine):
    """Breaks: the guest says what it carries out once in a while, in case that got lost."""

    def _period(self, peer: Any, long: object) -> None:
        super()._period(peer, False)


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        (KeepsCapabilitiesOverChannels, "would send"),
        (KeepsCapabilitiesOfAnotherAgent, "would send"),
        (KeepsCapabilitiesBelow4, "would send"),
        (TakesEarlyCapabilities, "would send"),
        (TakesCapabilitiesOnce, "the host takes commands to be on, but they are off"),
        (SendsWhatIsTurnedOff, "would send"),
        (SendsWhatWasNotSaid, "would send"),
    ],
)
def test_a_host_without_a_rule_for_capabilities_is_found_out(host: type[WatchedHost], problem: str) -> None:
    maxima = (Version.V4, NEWEST)
    worlds = _ours(maxima, hosts=HostMachine(_capable_host(host)), hands_over=True, reloads=True)
    assert problem in _counterexample(worlds, OURS, depth=6, starts=worlds.agreed()).splitlines()[0]


def test_a_guest_that_says_its_capabilities_only_once_is_found_out() -> None:
    worlds = _ours(NEW_MAXIMA, guests=SaysCapabilitiesOnce(our_guest), reloads=True)
    trace = _counterexample(worlds, OURS, depth=6, starts=worlds.agreed())
    assert trace.splitlines()[0] == "the host takes commands to be unsaid, but they are on"


# ---- Parts ----


def _ours(
    maxima: Maxima,
    *,
    hosts: Optional[HostMachine] = None,
    guests: Optional[GuestMachine] = None,
    hands_over: bool = False,
    reloads: bool = False,
) -> Worlds:
    return Worlds(
        hosts or HostMachine(our_host),
        guests or GuestMachine(our_guest),
        host_maxima=maxima,
        guest_maxima=maxima,
        hands_over=hands_over,
        reloads=reloads,
    )


def _with_deployed_guest(hosts: HostMachine, maxima: Maxima) -> Worlds:
    return Worlds(hosts, GuestMachine(deployed_guest), host_maxima=maxima, guest_maxima=OLD_MAXIMA, notices=False)


def _with_deployed_host(guests: GuestMachine, maxima: Maxima) -> Worlds:
    hosts = HostMachine(WatchedReferenceHost)
    return Worlds(hosts, guests, host_maxima=OLD_MAXIMA, guest_maxima=maxima, hands_over=True)


Starts = Optional[Iterable[tuple[str, World]]]


def _walk(worlds: Worlds, promise: Promise, *, depth: int, starts: Starts = None) -> None:
    walked = Explorer(worlds, promise).walk(depth + DEEPER, starts)
    print(f"{walked.worlds} worlds, {walked.steps} steps, depth {walked.depth}")
    assert walked.worlds > 1_000


def _counterexample(worlds: Worlds, promise: Promise, *, depth: int, starts: Starts = None) -> str:
    with pytest.raises(Counterexample) as caught:
        Explorer(worlds, promise).walk(depth, starts)
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


def _capable_host(host_class: type[WatchedHost]) -> Callable[[Optional[Version], int], session.HostSession]:
    """Hosts of that class; where the one before had agreed on version 4 or more, they have been told something before."""

    def make(supported: Optional[Version], handed_over: int) -> session.HostSession:
        host = host_class(supported, "H")
        host.capabilities = capabilities(True) if handed_over >= Version.V4 else None
        return host

    return make


def _guest_with(rules: type[negotiation.GuestNegotiation]) -> Callable[[Optional[Version], bool], session.GuestSession]:
    def make(supported: Optional[Version], turned_on: bool) -> session.GuestSession:
        guest = our_guest(supported, turned_on)
        guest.negotiation = rules(supported)
        return guest

    return make


class States(NamedTuple):
    """What the states of a pair are made of.

    :ivar maxima: what is supported.
    :ivar versions: what is agreed and in use.
    :ivar in_use: what a host takes for in use.
    :ivar believed: when a host has seen proof of that.
    :ivar capable: whether a host takes commands to be turned on.
    :ivar turned_on: whether the guest has them turned on.
    :ivar strays: chunks that are under way.
    """

    maxima: Maxima
    versions: tuple[Version, ...]
    in_use: tuple[Optional[int], ...]
    believed: tuple[Optional[float], ...]
    capable: tuple[Optional[bool], ...]
    turned_on: tuple[bool, ...]
    strays: tuple[Mapping[str, Any], ...]


_CAPABLE = codec.encode("capabilities", capabilities(True).to_arguments())

OLD_STATES = States(
    maxima=OLD_MAXIMA,
    versions=(Version.V0, Version.V1, Version.V2, Version.V3),
    in_use=(None, 0, 3),
    believed=(None, 0.0),
    capable=(None,),
    turned_on=(True,),
    strays=(
        {},
        {"down": (b'{"__name__":"api-version","apiVersion":2}\n',)},
        {"up": (b'{"__name__":"heartbeat","apiVersion":2,"apiVersionInUse":1}\n',)},
        {"up": (b'{"__name__":"heartbeat"}\n',), "down": (b'{"__name__":"ap',)},
    ),
)
NEW_STATES = States(
    maxima=(Version.V4, NEWEST),
    versions=(Version.V0, Version.V3, Version.V4, NEWEST),
    in_use=(0, int(NEWEST)),
    believed=(None,),
    capable=(None, False, True),
    turned_on=(False, True),
    strays=({}, {"up": (_CAPABLE,)}, {"up": (_CAPABLE[:9],), "down": (b'{"__name__":"api-version","apiVersion":4}\n',)}),
)


def _all_pairs(worlds: Worlds, states: States) -> Iterator[tuple[str, World]]:
    """Every state of our host with every state of our guest, and one stray line between them."""
    guests = [worlds.guests.state_of(guest) for guest in _any_guests(states)]
    for host, guest in itertools.product(_any_hosts(states), guests):
        state = worlds.hosts.state_of(host)
        for stray in states.strays:
            yield "any states", World(state, guest, introduced=host.supported is not None, **stray)


def _all_pairs_with_deployed_guest(worlds: Worlds) -> Iterator[tuple[str, World]]:
    hosts = _any_hosts(OLD_STATES._replace(maxima=MAXIMA, versions=tuple(Version)))
    for host, supported, in_use in itertools.product(hosts, OLD_MAXIMA, OLD_STATES.versions):
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


def _any_hosts(states: States) -> Iterator[WatchedHost]:
    flags = itertools.product((False, True), repeat=3)
    for (takes_pushes, newer, tried), supported, agreed, in_use, believed, capable in itertools.product(
        list(flags), states.maxima, states.versions, states.in_use, states.believed, states.capable
    ):
        if agreed <= (supported or 0):
            host = WatchedHost(supported, "H")
            host.connected(0.0)
            host.data_to_send()
            host.capabilities = None if capable is None else capabilities(capable)
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


def _any_guests(states: States) -> Iterator[WatchedGuest]:
    for supported, in_use, offer, repairs, turned_on in itertools.product(
        states.maxima, states.versions, negotiation.Offer, (False, True), states.turned_on
    ):
        if in_use <= (supported or 0):
            guest = our_guest(supported, turned_on)
            guest.opened(0.0)
            guest.events()
            guest.data_to_send()
            guest.negotiation.in_use = in_use
            guest.negotiation.offer = offer
            guest.negotiation.host_repairs = repairs
            yield guest
