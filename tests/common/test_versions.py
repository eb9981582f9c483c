"""``common.versions``"""

from __future__ import annotations

from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import versions
from common.versions import Version


def test_every_version_is_its_number() -> None:
    assert {version.name: int(version) for version in Version} == {f"V{number}": number for number in range(len(Version))}


def test_versions_0_to_3_are_taken_by_the_deployed_agents() -> None:
    assert [Version.V0, Version.V1, Version.V2, Version.V3] == [0, 1, 2, 3]


def test_versions_4_and_5_are_our_own() -> None:
    assert [Version.V4, Version.V5] == [4, 5]


def test_every_version_says_what_it_added() -> None:
    assert list(versions.ADDED) == list(Version)
    assert all(versions.ADDED.values())


def test_a_version_prints_as_its_number() -> None:
    assert str(Version.V2) == f"{Version.V2}" == "2"


def test_the_newest_version_is_the_highest_one() -> None:
    assert versions.newest() == len(Version) - 1


@pytest.mark.parametrize("value", [0, 3, 4, 2**70, 10**4000])
def test_an_integer_from_0_on_is_a_version_however_large(value: int) -> None:
    assert versions.read(value) == value


@pytest.mark.parametrize("value", [None, True, False, 3.0, -1, "3", " 3 ", "3_0", "٣", [3], {"v": 3}, b"3"])
def test_anything_else_is_no_version(value: Any) -> None:
    assert versions.read(value) is None


@pytest.mark.parametrize("supported", list(Version))
@pytest.mark.parametrize("announced", [*range(len(Version) + 2), 2**70])
def test_two_sides_agree_on_the_lower_maximum(supported: Version, announced: int) -> None:
    agreed = versions.negotiate(supported, announced)
    assert agreed == min(supported, announced)
    assert isinstance(agreed, Version)


@pytest.mark.parametrize(("supported", "announced"), [(None, 3), (Version.V3, None), (None, None)])
def test_with_a_side_that_knows_no_versions_0_is_agreed(supported: Optional[Version], announced: Optional[int]) -> None:
    assert versions.negotiate(supported, announced) is Version.V0


@given(st.sampled_from([None, *Version]), st.integers() | st.text("0123_ ") | st.none() | st.booleans() | st.floats())
def test_negotiating_is_total_on_whatever_a_peer_announces(supported: Optional[Version], value: object) -> None:
    agreed = versions.negotiate(supported, versions.read(value))
    assert 0 <= agreed <= (supported or 0)
