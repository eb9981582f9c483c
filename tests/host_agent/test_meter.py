from __future__ import annotations

import pytest

from common.session import Counters
from host_agent.meter import ROUND_TRIPS, Histogram, Meter, Standing


def counters(**dropped: int) -> Counters:
    counters = Counters()
    counters.dropped.update(dropped)
    return counters


def test_a_value_is_counted_in_the_first_class_that_reaches_up_to_it() -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1, 5.0, 5.1, 1000.0):
        histogram.add(value)
    assert histogram.bounds == (1.0, 2.0, 5.0)
    assert histogram.counts == [2, 2, 2, 2]
    assert histogram.total == pytest.approx(1016.7)


def test_round_trips_are_told_apart_from_a_millisecond_to_minutes() -> None:
    assert ROUND_TRIPS[0] == 0.001
    assert ROUND_TRIPS[-1] == 300.0
    assert list(ROUND_TRIPS) == sorted(set(ROUND_TRIPS))
    assert Meter().round_trips.bounds == ROUND_TRIPS
    assert Meter().round_trips.counts == [0] * (len(ROUND_TRIPS) + 1)


def test_as_many_guests_stand_so_as_came_to_and_did_not_leave() -> None:
    meter = Meter()
    connecting, agreed = Standing("connecting", None), Standing("responsive", 3)
    for _ in range(3):
        meter.move(None, connecting)
    meter.move(connecting, agreed)
    assert meter.guests == {connecting: 2, agreed: 1}
    meter.move(agreed, Standing("responsive", 2))
    assert meter.guests == {connecting: 2, Standing("responsive", 2): 1}
    meter.move(connecting, None)
    assert meter.guests == {connecting: 1, Standing("responsive", 2): 1}


def test_a_standing_that_no_guest_has_any_more_is_not_there() -> None:
    meter = Meter()
    meter.move(None, Standing("absent", None))
    meter.move(Standing("absent", None), None)
    assert list(meter.guests) == []


def test_what_was_dropped_is_added_up_over_all_guests() -> None:
    present = [counters(unknown=2, overlong=1), counters(), counters(unknown=3)]
    assert Meter().drops(present) == {"unknown": 5, "overlong": 1}


def test_what_a_forgotten_guest_dropped_stays_and_is_counted_once() -> None:
    meter = Meter()
    meter.forget(counters(unknown=2))
    meter.forget(counters(unknown=1, malformed=4))
    assert meter.drops([counters(unknown=10)]) == {"unknown": 13, "malformed": 4}
    assert meter.drops([]) == {"unknown": 3, "malformed": 4}
