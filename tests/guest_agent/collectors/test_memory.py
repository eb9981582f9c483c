"""Memory figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_agent.collectors.memory import Meter
from tests.guest_agent.parts import Clock

MEMINFO = """\
MemTotal:       24684096 kB
MemFree:        23023660 kB
MemAvailable:   24000000 kB
Buffers:           28768 kB
Cached:          1051000 kB
SwapTotal:          5000 kB
SwapFree:           1000 kB
HugePages_Total:       0
"""


def vmstat(*counters: int) -> str:
    names = ("pswpin", "pswpout", "pgfault", "pgmajfault")
    return "".join(f"{name} {counter}\n" for name, counter in zip(names, counters))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(MEMINFO, encoding="utf-8")
    (tmp_path / "proc/vmstat").write_text(vmstat(10, 20, 1000, 5), encoding="utf-8")
    return tmp_path


@pytest.fixture
def meter(root: Path, clock: Clock) -> Meter:
    return Meter(str(root), clock)


def test_amounts_are_those_that_a_deployed_agent_reported_on_such_a_machine(meter: Meter) -> None:
    measured = meter.measure()
    assert measured == {
        "mem_total": 24684096,
        "mem_free": 24103428,
        "mem_unused": 23023660,
        "mem_buffers": 28768,
        "mem_cached": 1051000,
        "swap_total": 5000,
        "swap_usage": 4000,
        "swap_in": 0,
        "swap_out": 0,
        "pageflt": 0,
        "majflt": 0,
    }
    assert Meter.free_ram(measured) == "23538"


def test_rates_are_per_second_since_the_measurement_before(meter: Meter, root: Path, clock: Clock) -> None:
    meter.measure()
    clock.advance(5.0)
    (root / "proc/vmstat").write_text(vmstat(20, 120, 6000, 5), encoding="utf-8")
    measured = meter.measure()
    assert [measured[name] for name in ("swap_in", "swap_out", "pageflt", "majflt")] == [2, 20, 1000, 0]


def test_counters_that_go_back_are_no_negative_rates(meter: Meter, root: Path, clock: Clock) -> None:
    meter.measure()
    clock.advance(5.0)
    (root / "proc/vmstat").write_text(vmstat(0, 0, 0, 0), encoding="utf-8")
    assert meter.measure()["pageflt"] == 0


def test_two_measurements_at_once_have_no_rate(meter: Meter, root: Path) -> None:
    meter.measure()
    (root / "proc/vmstat").write_text(vmstat(9, 9, 9999, 9), encoding="utf-8")
    assert meter.measure()["pageflt"] == 0


def test_meters_do_not_disturb_each_other(meter: Meter, root: Path, clock: Clock) -> None:
    other = Meter(str(root), clock)
    meter.measure()
    clock.advance(10.0)
    (root / "proc/vmstat").write_text(vmstat(10, 20, 2000, 5), encoding="utf-8")
    assert other.memory_stats().memory["pageflt"] == 0
    assert meter.memory_stats().memory["pageflt"] == 100


def test_a_kernel_without_swap_and_with_strange_lines_is_understood(meter: Meter, root: Path) -> None:
    (root / "proc/meminfo").write_text("\nMemTotal: 100 kB\nMemFree: many kB\nBuffers:\nCached: ٣ kB\n", encoding="utf-8")
    measured = meter.measure()
    assert (measured["mem_total"], measured["mem_free"], measured["swap_usage"]) == (100, 0, 0)


def test_a_kernel_that_does_not_count_paging_has_no_rates(meter: Meter, root: Path, clock: Clock) -> None:
    meter.measure()
    clock.advance(5.0)
    (root / "proc/vmstat").write_text("pgfault\npswpin -7\nnr_free_pages 12\n", encoding="utf-8")
    assert meter.measure()["pageflt"] == 0


def test_without_a_total_there_is_no_measurement(meter: Meter, root: Path) -> None:
    (root / "proc/meminfo").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="MemTotal"):
        meter.measure()


def test_a_kernel_that_does_not_tell_is_an_error(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(FileNotFoundError):
        Meter(str(tmp_path), clock).measure()
