"""``common.handoff.members``"""

from __future__ import annotations

from typing import Any, Optional

import pytest

from common.fields import NATURAL, Kind, list_of
from common.handoff import members
from common.handoff.members import Members, member


class Inner(Members):
    """Stands in another one."""

    count: int = member("count", NATURAL)


class Outer(Members):
    """Has a member of each sort."""

    needed: int = member("needed-here", NATURAL)
    inner: Optional[Inner] = member("inner", members.nested(Inner), "the inner one", default=None)
    several: tuple[Inner, ...] = member("several", list_of(members.nested(Inner)), default=())
    free: dict[str, Any] = member("free", Kind("object", members.check_object), factory=dict)


def test_members_are_read_and_written_under_their_own_names() -> None:
    read = Outer.from_members({"needed-here": 1, "inner": {"count": 2}, "several": [{"count": 3}], "free": {"a": [1]}})
    assert read == Outer(1, Inner(2), (Inner(3),), {"a": [1]})
    assert read.to_members() == {"needed-here": 1, "inner": {"count": 2}, "several": [{"count": 3}], "free": {"a": [1]}}


def test_unknown_members_are_ignored_and_missing_ones_and_null_have_a_default() -> None:
    assert Outer.from_members({"needed-here": 1, "inner": None, "other": 1}) == Outer(1)
    assert Outer(1).to_members() == {"needed-here": 1, "several": [], "free": {}}


def test_each_record_has_a_default_of_its_own() -> None:
    assert Outer(1).free is not Outer(1).free


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({}, "needed-here: missing"),
        ({"needed-here": None}, "needed-here: missing"),
        ({"needed-here": True}, "needed-here: bool instead of int"),
        ({"needed-here": 1, "inner": 3}, "inner: no object"),
        ({"needed-here": 1, "inner": {}}, "inner: count: missing"),
        ({"needed-here": 1, "several": [{"count": -1}]}, "several: count: a negative number"),
    ],
)
def test_a_member_that_can_not_be_is_named(said: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        Outer.from_members(said)


def test_a_class_says_what_its_members_are() -> None:
    assert [each.wire for each in members.members_of(Outer)] == ["needed-here", "inner", "several", "free"]
    assert members.members_of(Outer)[1].says == "the inner one"
    assert members.members_of(Outer)[1].kind.label == "{count: int ≥ 0}"


def test_groups_of_any_sort_are_written_as_json_has_them() -> None:
    assert members.plain({"a": (Inner(1), [2, ("x",)])}) == {"a": [{"count": 1}, [2, ["x"]]]}


def test_text_is_bounded() -> None:
    assert members.text(3).check("abc") == "abc"
    for value in ("abcd", 1, None):
        with pytest.raises(ValueError, match="no string of up to 3 characters"):
            members.text(3).check(value)


@pytest.mark.parametrize(("kind", "highest"), [(members.SPAN, 31536000), (members.AGE, 3153600000)])
def test_seconds_are_numbers_within_reason(kind: Kind, highest: int) -> None:
    assert [kind.check(value) for value in (0, 0.5, highest)] == [0.0, 0.5, float(highest)]
    for value in (-0.1, highest + 1, True, "1", None, float("nan"), float("inf"), 10**400):
        with pytest.raises(ValueError, match="no number of seconds from 0 to"):
            kind.check(value)


def test_a_uuid_is_read_in_lower_case() -> None:
    assert members.UUID.check("4DEA22B3-1D52-4A1B-9B1E-6E1B1F9D2C10") == "4dea22b3-1d52-4a1b-9b1e-6e1b1f9d2c10"
    for value in ("", "4dea22b31d524a1b9b1e6e1b1f9d2c10", "4dea22b3-1d52-4a1b-9b1e-6e1b1f9d2c10\n", 5, ["a"]):
        with pytest.raises(ValueError, match="no UUID"):
            members.UUID.check(value)
