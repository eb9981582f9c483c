"""What is measured: one function per scenario, each returns rows of the table. docs/performance.md says why so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union

from .conversation import Conversation
from .fleet import name_of
from .processes import Daemon, Fleet, Floor, Host
from .speech import FLOODS
from .stage import FEW, MANY, Options, crowd, empty_place, say
from .table import Row, percentile

#: The heartbeat's period as deployed, in seconds.
PERIOD = 5.0

#: How many heartbeats all guests together send in a second while CPU is measured: what 10,000 guests send. Fewer guests are
#: sped up to that.
RATE = 2000.0

#: Silence that makes a guest unresponsive, in periods: sped up with the rest, so that timers ring as often per heartbeat.
SILENCE = 3

#: The two rhythms: heartbeats go out so many at once that waking up costs next to nothing, or each by itself.
RHYTHMS = {"bunched": 20, "single": 1}

#: While latencies are measured, a guest announces another version after so many heartbeats.
TURNS_TO, TURNS_EVERY = 2, 5

#: While guests turn to other versions, at least this share of them is agreed whenever one looks.
_ENOUGH = 0.99


class _Cost(NamedTuple):
    """What one window of steady heartbeats showed: CPU seconds each, how many a second, CPU share, how many a wake-up."""

    cpu: float
    rate: float
    busy: float
    a_wakeup: float


def measure_heartbeats(options: Options) -> list[Row]:
    """CPU for each heartbeat, with every number of guests."""
    rows = {count: _heartbeat_rows(options, count) for count in options.guests}
    return [row for rhythm in RHYTHMS for row in (*(rows[count][rhythm] for count in rows), *_growth(rows, rhythm))]


def _heartbeat_rows(options: Options, count: int) -> dict[str, Row]:
    costs: dict[str, dict[type[Host], list[_Cost]]] = {rhythm: {kind: [] for kind in options.kinds} for rhythm in RHYTHMS}
    period = count / RATE
    with crowd(options, count, facts=False) as (place, fleet):
        for _ in range(options.rounds):
            for kind in options.kinds:
                say(f"heartbeats of {count} guests, {kind.__name__.lower()}")
                fleet.ask("rate", heartbeats=RATE)
                with place.start(kind, f"unresponsive-after = {max(period * SILENCE, 1.0):g}") as host:
                    _until_all_agreed(host, fleet, count)
                    time.sleep(options.calm)
                    for rhythm in RHYTHMS:
                        costs[rhythm][kind].append(_watch(host, fleet, options.seconds, RHYTHMS[rhythm]))
    return {rhythm: _heartbeat_row(options, count, rhythm, costs[rhythm]) for rhythm in RHYTHMS}


def _watch(host: Host, fleet: Fleet, seconds: float, at_once: int) -> _Cost:
    """What *host* uses in so many seconds of steady heartbeats."""
    fleet.ask("rate", heartbeats=RATE, at_once=at_once)
    before, used_before = fleet.ask("report", reset=True), host.usage()
    time.sleep(seconds)
    after, used = fleet.ask("report"), host.usage()
    host.check()
    heartbeats, took, cpu = after["heartbeats"], after["now"] - before["now"], used.cpu - used_before.cpu
    return _Cost(cpu / heartbeats, heartbeats / took, cpu / took, heartbeats / max(1, used.sleeps - used_before.sleeps))


def _heartbeat_row(options: Options, count: int, rhythm: str, costs: dict[type[Host], list[_Cost]]) -> Row:
    daemon = _median_cost(costs[Daemon])
    floor = _median_cost(costs[Floor]) if Floor in costs else None
    note = f"{daemon.rate:.0f}/s, daemon {daemon.busy:.0%} busy, {daemon.a_wakeup:.0f} a wake-up"
    note += f" (floor {floor.a_wakeup:.0f})" if floor else ""
    return Row(
        f"CPU a heartbeat, {rhythm}, {count} guests",
        "µs",
        daemon.cpu * 1e6,
        floor.cpu * 1e6 if floor else None,
        times_floor=3.0 if rhythm == "bunched" and count == options.many(MANY) else None,
        note=note if daemon.rate > 0.95 * RATE else f"{note}, TOO FEW WERE SENT",
    )


def _median_cost(costs: Sequence[_Cost]) -> _Cost:
    return _Cost(*(statistics.median(column) for column in zip(*costs)))


def _growth(rows: dict[int, dict[str, Row]], rhythm: str) -> Iterator[Row]:
    """How the cost grows from the fewest to the most guests."""
    fewest, most = min(rows), max(rows)
    few, many = rows[fewest][rhythm], rows[most][rhythm]
    if fewest < most and few.daemon and many.daemon:
        floor = many.floor / few.floor if few.floor and many.floor else None
        limit = 1.3 if rhythm == "bunched" else None
        yield Row(f"… growth from {fewest} to {most} guests", "", many.daemon / few.daemon, floor, at_most=limit)


# ---- From start until all agreed ----


class _Start(NamedTuple):
    """Seconds from the start of a process, and the CPU seconds that it used until then."""

    took: float
    cpu: float


_Starts = dict[type[Host], list[_Start]]


def measure_start(options: Options) -> list[Row]:
    """From the start of the daemon until all guests have agreed."""
    count = options.many(MANY)
    empty = _empty_starts(options)
    rows = [_start_row("start with no guests, until ready", empty, "took")]
    for said, facts in (("all facts", True), ("no facts", False)):
        full = _full_starts(options, count, facts)
        beyond = {kind: [_beyond(each, empty[kind]) for each in starts] for kind, starts in full.items()}
        rows += [
            _start_row(f"start until {count} agreed, {said}", full, "took", 3.0),
            _start_row("… beyond a start with no guests", beyond, "took", 3.0),
            _start_row("… CPU, beyond a start with no guests", beyond, "cpu"),
        ]
    return rows


def _start_row(name: str, starts: _Starts, what: str, times_floor: Optional[float] = None) -> Row:
    medians = {kind: statistics.median(getattr(each, what) for each in starts[kind]) for kind in starts}
    return Row(name, "s", medians[Daemon], medians.get(Floor), times_floor=times_floor)


def _beyond(start: _Start, empty: Sequence[_Start]) -> _Start:
    """What of *start* is for the guests: the rest is the interpreter, its imports and what is set up without guests."""
    return _Start(
        start.took - statistics.median(each.took for each in empty),
        start.cpu - statistics.median(each.cpu for each in empty),
    )


def _empty_starts(options: Options) -> _Starts:
    starts: _Starts = {kind: [] for kind in options.kinds}
    with empty_place(options) as place:
        for _ in range(options.rounds):
            for kind in options.kinds:
                with place.start(kind) as host:
                    starts[kind].append(_Start(host.until_ready(), host.usage().cpu))
    return starts


def _full_starts(options: Options, count: int, facts: bool) -> _Starts:
    starts: _Starts = {kind: [] for kind in options.kinds}
    with crowd(options, count, facts=facts) as (place, fleet):
        for _ in range(options.rounds):
            for kind in options.kinds:
                say(f"start with {count} guests, {kind.__name__.lower()}")
                fleet.ask("report", reset=True)
                with place.start(kind) as host:
                    _until_all_agreed(host, fleet, count)
                    cpu = host.usage().cpu
                    starts[kind].append(_Start(fleet.ask("report")["all_agreed"] - host.began, cpu))
                _until_alone(fleet)
    return starts


# ---- Memory ----


def measure_memory(options: Options) -> list[Row]:
    """Resident memory for each guest: what the daemon has beyond what it has without guests."""
    count = options.many(MANY)
    with empty_place(options) as place, place.start(Daemon) as host:
        host.until_ready()
        time.sleep(options.calm)
        empty = host.memory()
    rows = [Row("resident with no guests", "MiB", empty.resident / 1024, note=f"{empty.unshared / 1024:.1f} unshared")]
    for said, facts, limit in (("idle", False, 6.0), ("all facts", True, 20.0)):
        with crowd(options, count, facts=facts) as (place, fleet):
            say(f"memory with {count} guests, {said}")
            fleet.ask("rate", heartbeats=count / PERIOD)
            with place.start(Daemon) as host:
                _until_all_agreed(host, fleet, count)
                time.sleep(options.calm + options.seconds)
                host.check()
                full = host.memory()
        grown, unshared = ((now - then) / count for now, then in zip(full, empty))
        rows.append(
            Row(f"resident a guest, {said}, {count} guests", "KiB", grown, at_most=limit, note=f"{unshared:.1f} unshared")
        )
    return rows


# ---- While one guest floods ----


def measure_floods(options: Options) -> list[Row]:
    """From heartbeat to agreed, for all others, while one guest writes as fast as it is read."""
    count = options.many(MANY)
    found: dict[tuple[type[Host], Optional[str]], _Latencies] = {}
    with crowd(options, count, facts=False, turns_to=TURNS_TO, turns_every=TURNS_EVERY) as (place, fleet):
        fleet.ask("behave", first=0, count=len(FLOODS), turns_every=0)
        fleet.ask("rate", heartbeats=count / PERIOD)
        for kind in options.kinds:
            with place.start(kind) as host:
                host.until(lambda: bool(fleet.ask("report")["agreed"] >= _ENOUGH * count))
                time.sleep(options.calm)
                # The floor has no defence; without a flood it shows what the measurement itself takes.
                for flood in (None, *FLOODS) if kind is Daemon else (None,):
                    say(f"flood of {flood or 'nothing'}, {count} guests, {kind.__name__.lower()}")
                    found[kind, flood] = _latencies(options, host, fleet, flood)
            _until_alone(fleet)
    return [_latency_row(flood, found[Daemon, flood], found.get((Floor, flood))) for flood in (None, *FLOODS)]


class _Latencies(NamedTuple):
    """From heartbeat to agreed, in seconds; and how much of the flood was read, in KiB a second."""

    seconds: list[float]
    read: float


def _latencies(options: Options, host: Host, fleet: Fleet, flood: Optional[str]) -> _Latencies:
    # Each flood is another guest's, so that none suffers for the one before it.
    guest = list(FLOODS).index(flood) if flood else 0
    fleet.ask("behave", first=guest, count=1, flood=flood)
    fleet.ask("latencies")
    fleet.ask("report", reset=True)
    time.sleep(options.seconds)
    seconds, report = fleet.ask("latencies"), fleet.ask("report")
    host.check()
    fleet.ask("behave", first=guest, count=1, flood=None)
    return _Latencies(seconds, report["flooded"] / options.seconds / 1024)


def _latency_row(flood: Optional[str], daemon: _Latencies, floor: Optional[_Latencies]) -> Row:
    note = f"median {_milliseconds(daemon.seconds, 0.5) or 0:.2f} of {len(daemon.seconds)}"
    return Row(
        f"heartbeat to agreed, {f'flood of {flood}' if flood else 'no flood'}, 99th percentile",
        "ms",
        _milliseconds(daemon.seconds, 0.99),
        _milliseconds(floor.seconds, 0.99) if floor else None,
        at_most=100.0 if flood else None,
        note=f"{note}, {daemon.read:.0f} KiB/s read" if flood else note,
    )


def _milliseconds(seconds: Sequence[float], share: float) -> Optional[float]:
    found = percentile(seconds, share)
    return None if found is None else found * 1000


# ---- Commands ----


def measure_commands(options: Options) -> list[Row]:
    """Round trip of a command with a completion, over one connection to the control socket."""
    count = options.many(FEW)
    asked = max(100, int(options.seconds * 200))
    command = {"name": "lifecycle-event", "arguments": {"type": "before_migration"}}
    with crowd(options, count, facts=False) as (place, fleet):
        fleet.ask("rate", heartbeats=count / PERIOD)
        say(f"{asked} commands to {count} guests")
        with place.start(Daemon) as host:
            _until_all_agreed(host, fleet, count)
            with Conversation(str(host.control)) as conversation:
                bare = [_trip(conversation, "GET", "/v1/host") for _ in range(asked)]
                paths = [f"/v1/guests/{name_of(each % count)}/commands" for each in range(asked)]
                trips = [_trip(conversation, "POST", path, command) for path in paths]
    return [
        *_trip_rows("GET /v1/host", bare, None),
        *_trip_rows(f"command with completion, {count} guests", trips, 2.0),
    ]


def _trip(conversation: Conversation, method: str, path: str, document: Optional[Any] = None) -> Union[float, str]:
    """Seconds until the answer; where it is a problem, what that says."""
    began = time.perf_counter()
    status, body = conversation.ask(method, path, document)
    took = time.perf_counter() - began
    return took if status == 200 else f"{status} {body[:200].decode('utf-8', 'replace')}"


def _trip_rows(name: str, trips: Sequence[Union[float, str]], limit: Optional[float]) -> list[Row]:
    took = [each for each in trips if isinstance(each, float)]
    problems = [each for each in trips if isinstance(each, str)]
    note = f"{len(problems)} of {len(trips)} FAILED: {problems[0]}" if problems else f"{len(took)} measured"
    return [
        Row(f"{name}, median", "ms", _milliseconds(took, 0.5), at_most=limit, note=note),
        Row(f"{name}, 99th percentile", "ms", _milliseconds(took, 0.99)),
    ]


# ---- Waiting ----


def _until_all_agreed(host: Host, fleet: Fleet, count: int) -> None:
    host.until(lambda: bool(fleet.ask("report")["agreed"] == count))


def _until_alone(fleet: Fleet) -> None:
    """Wait until every guest has noticed that its host is gone."""
    while fleet.ask("report")["connected"]:
        time.sleep(0.02)


#: By name, in the order of the table.
SCENARIOS: dict[str, Callable[[Options], list[Row]]] = {
    "heartbeat": measure_heartbeats,
    "start": measure_start,
    "memory": measure_memory,
    "flood": measure_floods,
    "command": measure_commands,
}
