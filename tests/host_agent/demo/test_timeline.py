"""The timeline tells what passed, and how long an agreement took."""

from __future__ import annotations

from host_agent.demo import emulator
from host_agent.demo.timeline import Timeline


def _timeline() -> tuple[Timeline, list[str]]:
    told: list[str] = []
    return Timeline(lambda at, text: told.append(text.strip())), told


def _heartbeat(timeline: Timeline, maximum: int, in_use: int, at: float) -> None:
    line = f'{{"__name__": "heartbeat", "apiVersion": {maximum}, "apiVersionInUse": {in_use}}}'
    timeline.watch(emulator.TO_HOST, line.encode(), at)


def test_what_negotiates_is_told_and_the_rest_is_counted() -> None:
    timeline, told = _timeline()
    timeline.watch(emulator.CONNECTED, b"", 1.0)
    timeline.watch(emulator.TO_GUEST, b'{"__name__": "refresh"}', 1.0)
    timeline.watch(emulator.TO_HOST, b'{"__name__": "host-name", "name": "x"}', 1.0)
    timeline.watch(emulator.TO_HOST, b"not json", 1.0)
    _heartbeat(timeline, 3, 0, 1.0)
    timeline.watch(emulator.TO_GUEST, b'{"__name__": "api-version", "apiVersion": 2}', 1.0)
    timeline.note("done")
    assert told == [
        "host connected",
        "host → guest  refresh: host knows no versions",
        "guest → host  facts and notices: 2",
        "guest → host  heartbeat: guest supports up to 3, uses 0",
        "host → guest  api-version: use 2",
        "done",
    ]


def test_the_time_runs_from_when_both_are_there_to_the_heartbeat_that_shows_agreement() -> None:
    timeline, _ = _timeline()
    timeline.begin()
    timeline.watch(emulator.CONNECTED, b"", 1.0)
    timeline.watch(emulator.TO_HOST, b'{"__name__": "session-startup"}', 2.0)
    _heartbeat(timeline, 3, 0, 2.25)
    _heartbeat(timeline, 3, 3, 2.5)
    timeline.catch_up()
    assert timeline.took(3) == 0.5
    assert timeline.took(0) == 0.25
    assert timeline.took(2) is None
    assert timeline.used() == 3


def test_what_was_before_a_scenario_does_not_count() -> None:
    timeline, _ = _timeline()
    timeline.watch(emulator.CONNECTED, b"", 1.0)
    _heartbeat(timeline, 3, 3, 2.0)
    timeline.begin()
    assert timeline.used() is None
    assert timeline.took(3) is None
    _heartbeat(timeline, 3, 3, 3.0)
    timeline.catch_up()
    assert timeline.took(3) is None
