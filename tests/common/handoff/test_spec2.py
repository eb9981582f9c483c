"""``common.handoff.spec2``"""

from __future__ import annotations

import pytest

from common.handoff.members import members_of
from common.handoff.spec1 import Spec1
from common.handoff.spec2 import Capabilities, Spec2, VersionChange
from common.session import Counters


def test_it_has_what_spec_1_has_and_three_more() -> None:
    names = [each.wire for each in members_of(Spec2)]
    assert names == [each.wire for each in members_of(Spec1)] + ["capabilities", "counters", "version_changes"]


def test_it_is_no_spec_1() -> None:
    assert not issubclass(Spec2, Spec1)
    assert Spec2() != Spec1()


def test_the_counters_of_a_session_can_be_carried() -> None:
    counters = Counters()
    counters.count_dropped("of-tomorrow")
    said = counters.as_mapping()
    assert Spec2.from_members({"counters": said}).counters == said


@pytest.mark.parametrize("value", [-1, 1.5, True, "1", [1], {"a": {}}, {"a": -1}])
def test_a_counter_is_a_number_or_a_group_of_them(value: object) -> None:
    with pytest.raises(ValueError, match=r"^counters: "):
        Spec2.from_members({"counters": {"lines": value}})


def test_capabilities_and_changes_are_read() -> None:
    said = {
        "capabilities": {"commands": {"exec": False}, "features": ["x"]},
        "version_changes": [{"ago_s": 1, "old": 0, "new": 5}],
    }
    read = Spec2.from_members(said)
    assert read.capabilities == Capabilities({"exec": False}, ("x",))
    assert read.version_changes == (VersionChange(1.0, 0, 5, ""),)
