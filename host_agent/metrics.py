"""What operators measure the daemon by, in Prometheus' text format: its counters, its guests and its own process.

There is no series for a guest, and no label takes a word of one: labels come from our own tables, each with all its values
from the start, and whatever is in none of them is counted under ``(other)``. So the number of series is fixed, however many
guests there are and however hostile they are.

What only a look at every guest tells is looked at in small pieces, between which the loop serves others; the text is written
in a thread. So no scrape holds up a guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Callable, NamedTuple, Optional

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from common.catalogue import CATALOGUE, Direction
from common.events import Reason
from common.versions import Version

from . import release
from .guest import Guest, State
from .meter import Histogram, Meter, Standing
from .registry import Registry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: What the name of every metric begins with, also of those of the process: an exporter that hands these on has its own.
NAMESPACE = "vmaccord"

#: Stands for every value that a label does not have.
OTHER = "(other)"

#: So many guests are looked at in one go; it takes a fraction of a millisecond.
BATCH = 200

#: Upper ends of the classes of ages of heartbeats, in seconds: a guest sends one every 5 s, and is silent after 15 s.
AGES = (1.0, 2.5, 5.0, 6.0, 10.0, 15.0, 30.0, 60.0, 300.0, 3600.0)

#: Why a message is dropped: what sessions and guests count.
DROPS = (
    "malformed",
    "overlong",
    "unknown",
    "wrong-direction",
    "newer-than-supported",
    "invalid-arguments",
    "facts-too-large",
)

#: Why a command is not sent: the kinds of refusals.
REFUSALS = (
    "no-such-command",
    "invalid-arguments",
    "not-connected",
    "unresponsive",
    "version-too-low",
    "disabled",
    "congested",
    "busy",
    "moving",
    "moved",
    "stopping",
)

#: What becomes of hand-offs.
HANDOFFS = ("handed-over", "taken-over", "failed")

_CLOSED = (State.ABSENT, State.CONNECTING)


class Levels(NamedTuple):
    """What the parts of a daemon hold at one moment.

    :ivar supported: the host's highest API version; None: it knows no versions.
    :ivar commands: commands in flight.
    :ivar unsent: bytes that wait for guests to read.
    :ivar events: happenings in the ring.
    :ivar events_ever: happenings of this run.
    :ivar state_rows: rows that wait to be written to the state file.
    :ivar state_failing: whether that can't be written now.
    :ivar lost_sources: how many sources of guests don't answer.
    """

    supported: Optional[int]
    commands: int
    unsent: int
    events: int
    events_ever: int
    state_rows: int = 0
    state_failing: bool = False
    lost_sources: int = 0


class Metrics:
    """The metrics of one daemon.

    :param clock: the clock in which guests tell when they were heard.
    :param levels: tells the levels of now.
    :param started_at: when the daemon started, in seconds since the epoch.
    """

    def __init__(
        self,
        meter: Meter,
        registry: Registry,
        clock: Callable[[], float],
        levels: Callable[[], Levels],
        started_at: float,
    ) -> None:
        self._meter = meter
        self._registry = registry
        self._clock = clock
        self._levels = levels
        self._unchanging = [
            InfoMetricFamily(f"{NAMESPACE}_build", "The release of the daemon.", {"version": release()}),
            _gauge("process_start_time_seconds", "When the daemon started, in seconds since the epoch.", started_at),
        ]

    async def render(self) -> tuple[bytes, str]:
        """The text of now, and its content type."""
        survey = await self._look_around()
        families = [
            *self._unchanging,
            *_of_guests(self._meter, survey),
            *_of_counters(self._meter, survey),
            *_of_levels(self._levels()),
        ]
        return await asyncio.get_running_loop().run_in_executor(None, _write, families), CONTENT_TYPE

    async def _look_around(self) -> _Survey:
        survey = _Survey(self._meter)
        guests = list(self._registry)
        for start in range(0, len(guests), BATCH):
            survey.add(guests[start : start + BATCH], self._clock())
            await asyncio.sleep(0)
        return survey


class _Survey:
    """What all guests come to together.

    :ivar ages: how long ago those whose channel is open sent their last heartbeat.
    :ivar oldest: the greatest of these.
    """

    def __init__(self, meter: Meter) -> None:
        self.ages = Histogram(AGES)
        self.oldest = 0.0
        self.throttled = 0
        self.doubtful = 0
        self.dropped = meter.drops(())

    def add(self, guests: Iterable[Guest], now: float) -> None:
        for guest in guests:
            self.throttled += guest.throttled
            self.doubtful += guest.departure is not None
            if guest.session.counters.dropped:
                self.dropped.update(guest.session.counters.dropped)
            heartbeat = guest.facts.get("heartbeat")
            if heartbeat is not None and guest.state not in _CLOSED:
                age = max(0.0, now - heartbeat.heard_at)
                self.ages.add(age)
                self.oldest = max(self.oldest, age)


class _Collected(Collector):
    """What was collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _write(families: list[Metric]) -> bytes:
    """The text of *families* and of the process, of which the kernel may need some time to count the descriptors."""
    registry = CollectorRegistry()
    registry.register(_Collected([*families, *_of_process()]))
    return generate_latest(registry)


# ---- The families ----


def _of_guests(meter: Meter, survey: _Survey) -> Iterator[Metric]:
    guests = GaugeMetricFamily(
        f"{NAMESPACE}_guests",
        "Guests by the state of their channel and the API version agreed on.",
        labels=["state", "agreed"],
    )
    for standing in _standings():
        agreed = "none" if standing.agreed is None else str(standing.agreed)
        guests.add_metric([standing.state, agreed], meter.guests[standing])
    yield guests
    yield _gauge("throttled_guests", "Guests that send too much and are read from slowly.", survey.throttled)
    yield _gauge("handoffs_in_doubt", "Guests of which nobody here knows whether another host took them.", survey.doubtful)
    yield GaugeHistogramMetricFamily(
        f"{NAMESPACE}_heartbeat_age_seconds",
        "Time since the last heartbeat of each guest whose channel is open.",
        buckets=_buckets(survey.ages),
        gsum_value=survey.ages.total,
    )
    yield _gauge("oldest_heartbeat_seconds", "The longest time since the last heartbeat of such a guest.", survey.oldest)


def _of_counters(meter: Meter, survey: _Survey) -> Iterator[Metric]:
    changes = {_slug(reason): meter.changes[reason.value] for reason in Reason}
    yield _by_reason("agreed_changes", "Agreements with guests, the first of each channel included", changes, changes)
    messages = CounterMetricFamily(f"{NAMESPACE}_messages", "Messages of the table.", labels=["direction", "name"])
    for label, direction, counts in (("in", Direction.TO_HOST, meter.received), ("out", Direction.TO_GUEST, meter.sent)):
        names = [row.name for row in CATALOGUE.rows if row.direction is direction]
        for name, count in _folded(counts, names):
            messages.add_metric([label, name], count)
    yield messages
    size = CounterMetricFamily(f"{NAMESPACE}_bytes", "Bytes over the channels of all guests.", labels=["direction"])
    size.add_metric(["in"], meter.bytes_received)
    size.add_metric(["out"], meter.bytes_sent)
    yield size
    yield _by_reason("dropped", "Messages of guests that were dropped", survey.dropped, DROPS)
    yield _counter("throttled", "How often a guest began to be read from slowly for sending too much.", meter.throttlings)
    yield HistogramMetricFamily(
        f"{NAMESPACE}_completion_seconds",
        "Time from a command to its completion.",
        buckets=_buckets(meter.round_trips),
        sum_value=meter.round_trips.total,
    )
    yield _counter("late_completions", "Completions that came after their command's time.", meter.late)
    yield _counter("unknown_completions", "Completions of commands that nobody knows.", meter.unknown)
    yield _counter("timed_out_commands", "Commands whose completion did not come in time.", meter.timeouts)
    yield _by_reason("refused_commands", "Commands that were not sent", meter.refusals, REFUSALS)
    yield _by_reason(
        "handoffs", "Guests that went to other hosts, came from them, or could not go", meter.handoffs, HANDOFFS
    )


def _of_levels(levels: Levels) -> Iterator[Metric]:
    yield _gauge("queue_commands", "Commands whose completion is awaited.", levels.commands)
    yield _gauge("queue_write_bytes", "Bytes that wait for guests to read.", levels.unsent)
    yield _gauge("queue_events", "Events kept for those who follow them.", levels.events)
    yield _gauge("queue_state_rows", "Rows that wait to be written to the state file.", levels.state_rows)
    yield _counter("events", "Events that were told.", levels.events_ever)
    yield _gauge("state_failing", "1: the state file can't be written now.", levels.state_failing)
    yield _gauge("lost_sources", "Sources of guests, such as libvirt, that do not answer now.", levels.lost_sources)
    supported = -1 if levels.supported is None else levels.supported
    yield _gauge("supported_api_version", "The highest API version of this host; -1: it knows no versions.", supported)


def _of_process() -> Iterator[Metric]:
    yield _counter("process_cpu_seconds", "CPU time of the daemon, in user and in kernel mode.", time.process_time())
    yield _gauge("process_max_fds", "How many file descriptors may be open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    # Where no descriptor is left to look at these with, all else is still worth telling.
    with contextlib.suppress(OSError):
        yield _gauge("process_open_fds", "How many file descriptors are open.", len(os.listdir("/proc/self/fd")))
        with open("/proc/self/statm", encoding="ascii") as sizes:
            virtual, resident, *_ = (int(pages) * resource.getpagesize() for pages in sizes.read().split())
        yield _gauge("process_resident_memory_bytes", "Resident memory of the daemon.", resident)
        yield _gauge("process_virtual_memory_bytes", "Virtual memory of the daemon.", virtual)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(f"{NAMESPACE}_{name}", documentation, value)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", documentation, value)


def _by_reason(name: str, documentation: str, counts: Mapping[str, int], reasons: Iterable[str]) -> Metric:
    family = CounterMetricFamily(f"{NAMESPACE}_{name}", f"{documentation}, by reason.", labels=["reason"])
    for reason, count in _folded(counts, reasons):
        family.add_metric([reason], count)
    return family


def _standings() -> Iterator[Standing]:
    """How a guest can stand."""
    for state in State:
        if state in _CLOSED:
            yield Standing(state.value, None)
        else:
            yield from (Standing(state.value, int(version)) for version in Version)


def _folded(counts: Mapping[str, int], known: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The count of each of the *known*, and then of all others together."""
    others = sum(counts.values())
    for each in known:
        count = counts.get(each, 0)
        others -= count
        yield each, count
    yield OTHER, others


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Each upper end as text, with how many values are not above it."""
    ends = [*map(repr, histogram.bounds), "+Inf"]
    return list(zip(ends, accumulate(map(float, histogram.counts))))


def _slug(reason: Reason) -> str:
    return reason.name.lower().replace("_", "-")
