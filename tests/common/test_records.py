"""``common.records``"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any, Callable

import pytest

from common.records import REQUIRED, Field, Record, field, fields_of


class Point(Record):
    """A field of each simple sort."""

    x: int
    y: int = 0


class Named(Point):
    """Fields behind those of its base."""

    name: str = ""
    tags: Mapping[str, str] = field(factory=dict)


class Account(Record):
    """Says more of its fields."""

    user: str
    password: str = field(default="", secret=True, meaning="do not tell")


class Nothing(Record):
    """No field at all."""


class NothingElse(Record):
    """No field either."""


class Other(Record):
    """The same fields as a point."""

    x: int
    y: int = 0


class Mixin:
    """No record."""

    note: str = "of a class that is no record"


class Mixed(Mixin, Point):
    """A field of its own beside what the mixin has."""

    z: Unheard = None  # type: ignore[name-defined]  # noqa: F821


# ---- Making ----


@pytest.mark.parametrize(
    "make",
    [
        lambda: Point(1, 2),
        lambda: Point(1, y=2),
        lambda: Point(x=1, y=2),
        lambda: Point(y=2, x=1),
    ],
)
def test_values_are_given_in_order_or_by_name(make: Callable[[], Point]) -> None:
    point = make()
    assert (point.x, point.y) == (1, 2)
    assert point == Point(1, 2)


def test_a_field_that_is_not_given_takes_its_default() -> None:
    assert Point(1).y == 0
    assert Account("alice").password == ""


def test_a_default_that_can_be_changed_is_made_for_each_record() -> None:
    one, another = Named(x=1, name="a"), Named(x=1, name="a")
    assert one.tags == {}
    assert one.tags is not another.tags


def test_what_is_given_counts_for_more_than_any_default() -> None:
    assert Named(x=1, name="a", tags={"k": "v"}).tags == {"k": "v"}


def test_a_record_may_have_no_field() -> None:
    assert repr(Nothing()) == "Nothing()"


def test_a_class_has_the_fields_of_its_bases_before_its_own() -> None:
    assert list(fields_of(Named)) == ["x", "y", "name", "tags"]
    assert Named(1, 2, "a") == Named(x=1, y=2, name="a")


def test_a_base_that_is_no_record_adds_no_field_and_no_annotation_is_evaluated() -> None:
    assert list(fields_of(Mixed)) == ["x", "y", "z"]
    assert Mixed(1).note == "of a class that is no record"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda make: make(), "Point lacks x"),
        (lambda make: make(y=1), "Point lacks x"),
        (lambda make: make(1, z=2), "Point has no field named z"),
        (lambda make: make(1, b=2, a=3), "Point has no field named a, b"),
        (lambda make: make(z=2), "Point has no field named z"),
        (lambda make: make(1, x=1), "Point: a field was given both in order and by name"),
        (lambda make: make(1, 2, 3), "Point has 2 fields, but 3 values were given"),
        (lambda make: make(1, 2, y=3), "Point has 2 fields, but 3 values were given"),
    ],
)
def test_values_that_do_not_fit_the_fields_are_an_error_that_says_why(make: Callable[[Any], Any], problem: str) -> None:
    with pytest.raises(TypeError, match=rf"^{problem}$"):
        make(Point)


def test_an_error_never_shows_a_value() -> None:
    account: Any = Account
    for arguments in ({"password": "hunter2"}, {"user": "alice", "pass": "hunter2"}):
        with pytest.raises(TypeError) as caught:
            account(**arguments)
        assert "hunter2" not in str(caught.value)


def test_a_record_made_of_its_fields_values_is_like_any_other() -> None:
    values = {"x": 1, "y": 2}
    point = Point.of_fields(values)
    assert type(point) is Point
    assert point == Point(1, 2)
    assert hash(point) == hash(Point(1, 2))
    assert repr(Named.of_fields({"tags": {}, "name": "a", "y": 0, "x": 1})) == repr(Named(1, 0, "a"))
    values["x"] = 3
    assert point.x == 1
    with pytest.raises(AttributeError, match="frozen"):
        setattr(point, "x", 4)  # noqa: B010 - no type checker would let it be said otherwise


def test_a_record_made_of_its_fields_values_shows_no_secret() -> None:
    assert repr(Account.of_fields({"user": "alice", "password": "hunter2"})) == "Account(user='alice')"


# ---- Being ----


def test_a_record_cannot_be_changed() -> None:
    point: Any = Point(1)
    for name in ("x", "z"):
        with pytest.raises(AttributeError, match=rf"^Point is frozen: {name} can't be set; "):
            setattr(point, name, 2)
        with pytest.raises(AttributeError, match=rf"^Point is frozen: {name} can't be deleted; "):
            delattr(point, name)
    assert point == Point(1)


def test_equal_are_records_of_one_class_with_equal_fields() -> None:
    assert Point(1) == Point(1, 0)
    assert Point(1) != Point(2)
    assert Nothing() == Nothing()
    different: list[Any] = [Other(1), Mixed(1), (1, 0), Nothing()]
    assert all(Point(1) != other and other != Point(1) for other in different)


def test_equal_records_have_equal_hashes() -> None:
    assert len({Point(1), Point(y=0, x=1), Other(1), Nothing(), Nothing(), NothingElse()}) == 4


def test_a_record_with_a_value_that_has_no_hash_has_none() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Named(x=1, name="a"))


def test_a_record_shows_its_class_and_its_fields_in_order() -> None:
    assert repr(Point(y=2, x=1)) == "Point(x=1, y=2)"
    assert repr(Named(x=1, name="a")) == "Named(x=1, y=0, name='a', tags={})"


def test_a_secret_field_never_shows() -> None:
    account = Account("alice", "hunter2")
    assert f"{account} {[account]}" == "Account(user='alice') [Account(user='alice')]"
    assert account.password == "hunter2"


def _through_pickle(record: Record) -> Any:
    return pickle.loads(pickle.dumps(record))  # noqa: S301 - what this test has written


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, _through_pickle])
def test_a_record_can_be_copied_and_pickled(again: Callable[[Any], Any]) -> None:
    named = Named(x=1, name="a", tags={"k": "v"})
    assert again(named) == named


# ---- Declarations ----


def test_a_class_tells_what_was_declared() -> None:
    assert fields_of(Account) == {"user": Field(REQUIRED), "password": Field("", None, True, "do not tell")}


def test_a_declaration_is_not_taken_for_a_value() -> None:
    assert not hasattr(Account, "password")


def test_a_record_without_fields_declares_none() -> None:
    assert fields_of(Nothing) == {}
