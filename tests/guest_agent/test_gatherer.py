"""The worker thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Callable

import pytest

from common.messages import ActiveUser, Fqdn, HostName, Message, SessionLogon
from guest_agent.collectors import Collector
from guest_agent.gatherer import Gathered, Gatherer

from .parts import GIVE_UP, wait_until

Make = Callable[[Mapping[str, Collector]], Gatherer]


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def make(woken: threading.Event) -> Iterator[Make]:
    made: list[Gatherer] = []

    def make(collectors: Mapping[str, Collector]) -> Gatherer:
        made.append(Gatherer(collectors, woken.set))
        return made[-1]

    yield make
    assert all(each.close(GIVE_UP) for each in made)


def results(gatherer: Gatherer, woken: threading.Event, count: int) -> list[Gathered]:
    found: list[Gathered] = []

    def step() -> None:
        woken.wait(0.1)
        woken.clear()
        found.extend(gatherer.results())

    wait_until(lambda: len(found) >= count, step)
    return found


def test_a_wanted_fact_is_gathered_and_the_loop_is_woken(make: Make, woken: threading.Event) -> None:
    gatherer = make({"host-name": lambda: HostName(name="a")})
    gatherer.want("host-name")
    assert woken.wait(GIVE_UP)
    assert gatherer.results() == [("host-name", [HostName(name="a")])]
    assert gatherer.results() == []


def test_a_collector_that_fails_costs_its_own_fact_only(make: Make, woken: threading.Event) -> None:
    def fail() -> Message:
        raise KeyError("strange")

    gatherer = make({"host-name": fail, "fqdn": lambda: Fqdn(fqdn="a.example")})
    gatherer.want("host-name")
    gatherer.want("fqdn")
    (_, error), (_, fact) = results(gatherer, woken, 2)
    assert isinstance(error, KeyError)
    assert fact == [Fqdn(fqdn="a.example")]


def test_a_collector_may_have_several_messages_to_send(make: Make, woken: threading.Event) -> None:
    gatherer = make({"active-user": lambda: [SessionLogon(), ActiveUser(name="a")]})
    gatherer.want("active-user")
    assert results(gatherer, woken, 1) == [("active-user", [SessionLogon(), ActiveUser(name="a")])]


def test_a_fact_under_way_is_not_gathered_twice(make: Make, woken: threading.Event) -> None:
    release = threading.Event()
    calls: list[Any] = []

    def slow() -> Message:
        calls.append(None)
        release.wait(GIVE_UP)
        return HostName(name="a")

    gatherer = make({"host-name": slow})
    for _ in range(10):
        gatherer.want("host-name")
    release.set()
    results(gatherer, woken, 1)
    gatherer.want("host-name")
    results(gatherer, woken, 1)
    assert len(calls) == 2


def test_a_collector_that_hangs_holds_up_no_exit(woken: threading.Event) -> None:
    release = threading.Event()

    def hang() -> Message:
        release.wait(GIVE_UP)
        return HostName(name="a")

    gatherer = Gatherer({"host-name": hang}, woken.set)
    gatherer.want("host-name")
    assert gatherer.close(0) is False
    release.set()
    assert gatherer.close(GIVE_UP) is True
