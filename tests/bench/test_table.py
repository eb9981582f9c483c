from __future__ import annotations

import pytest

from tests.bench.table import MISSED, REACHED, UNKNOWN, Row, draw, percentile

pytestmark = pytest.mark.once


def test_a_row_is_judged_by_what_it_must_not_exceed() -> None:
    assert Row("memory", "KiB", 6.0, at_most=6.0).verdict == REACHED
    assert Row("memory", "KiB", 6.1, at_most=6.0).verdict == MISSED
    assert Row("memory", "KiB", None, at_most=6.0).verdict == UNKNOWN


def test_a_row_is_judged_by_how_many_times_the_floor_it_is() -> None:
    assert Row("CPU", "µs", 30.0, 10.0, times_floor=3.0).verdict == REACHED
    assert Row("CPU", "µs", 31.0, 10.0, times_floor=3.0).verdict == MISSED
    assert Row("CPU", "µs", 30.0, None, times_floor=3.0).verdict == UNKNOWN


def test_without_a_target_there_is_no_verdict() -> None:
    assert Row("CPU", "µs", 30.0, 10.0).verdict == ""


def test_a_table_is_drawn_in_columns_with_a_line_of_headers() -> None:
    rows = [
        Row("CPU", "µs", 45.25, 15.0, times_floor=3.0, note="busy"),
        Row("growth", "", None, at_most=1.3),
        Row("plain", "ms", 1234.5),
    ]
    assert draw(rows).splitlines() == [
        "           daemon  floor  ratio  target",
        "CPU, µs      45.2     15   3.02  ≤ 3 × floor  MISSED  busy",
        "growth          -                ≤ 1.3        -",
        "plain, ms    1234",
    ]


def test_a_program_gets_what_people_see() -> None:
    document = Row("CPU", "µs", 45.0, 15.0, times_floor=3.0).as_mapping()
    assert (document["daemon"], document["ratio"], document["verdict"]) == (45.0, 3.0, REACHED)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4)])
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    assert percentile([4, 2, 1, 3], share) == expected


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5) is None
