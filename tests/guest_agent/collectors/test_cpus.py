"""Online CPUs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import pytest

from guest_agent.collectors import cpus


@pytest.mark.parametrize(("ranges", "expected"), [("0", 1), ("0-3", 4), ("0-3,6", 5), ("0,2,4-5", 4), ("3-1", 0)])
def test_a_cpu_list_is_counted(ranges: str, expected: int) -> None:
    assert cpus.count(ranges) == expected


@pytest.mark.parametrize("ranges", ["", "a", "0-", "-1", "0,,1", "٣", "0-99999999999", "0-1-2", "0 1"])
def test_what_is_no_cpu_list_is_refused(ranges: str) -> None:
    with pytest.raises(ValueError, match="no CPU list"):
        cpus.count(ranges)


def test_this_machine_has_as_many_as_the_c_library_says() -> None:
    assert cpus.number_of_cpus("/").count == os.sysconf("SC_NPROCESSORS_ONLN")


@pytest.mark.parametrize("text", [None, "", "garbage\n", "0-\x00\n"])
def test_an_unknown_number_is_minus_one(text: Optional[str], tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
        (tmp_path / "sys/devices/system/cpu/online").write_text(text, encoding="utf-8")
    assert cpus.number_of_cpus(str(tmp_path)).count == -1
