from __future__ import annotations

import pytest

from tests.bench import table
from tests.bench.scenarios import RHYTHMS, SCENARIOS
from tests.bench.speech import FLOODS
from tests.bench.stage import Options

pytestmark = pytest.mark.once

#: So few guests, and so short, that the figures mean nothing.
OPTIONS = Options(guests=(2, 20), seconds=0.5, calm=0.0, rounds=1)


@pytest.mark.parametrize(
    ("scenario", "rows"),
    [("heartbeat", 3 * len(RHYTHMS)), ("start", 7), ("memory", 3), ("flood", 1 + len(FLOODS)), ("command", 4)],
)
def test_a_scenario_measures_the_real_daemon(scenario: str, rows: int) -> None:
    measured = SCENARIOS[scenario](OPTIONS)
    assert len(measured) == rows
    assert table.draw(measured)
    if scenario == "flood":
        # So few guests hardly ever turn to another version in so short a time; that they are measured is all.
        assert all(row.note.endswith("KiB/s read") for row in measured[1:])
    else:
        assert all(row.daemon is not None for row in measured)
    if scenario in ("heartbeat", "start"):
        assert all(row.floor for row in measured)
