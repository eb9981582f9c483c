"""``common.fields``"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import pytest

from common import errors, fields
from common.fields import (
    ANY,
    BASE64,
    BOOLEAN,
    INTEGER,
    NATURAL,
    NUMBER_TEXT,
    POSITIVE,
    SECONDS,
    TEXT,
    Argument,
    Kind,
    Rest,
    argument,
    arguments_of,
    list_of,
    mapping_of,
    one_of,
    record,
    rest,
)
from common.records import Record

#: What would overflow or never end where somebody waits for it, and what is no number.
NO_SECONDS = [0, 0.0, -1, True, "1", None, [], 365 * 86400 + 1, 1e300, 10**400, float("inf"), float("nan")]

#: Not padded, padded too much, on two lines, with another alphabet, with what is skipped, with bits that mean nothing.
NO_BASE64 = ["A", "AA", "AAA", "AA=", "AA===", "AAEC\n", "AA\nEC", " AAEC", "AA-_", "AA*EC", "AAé=", "AB==", "===="]

_WORD = one_of("on", "off")
_TEXTS = list_of(TEXT)
_COUNTS = mapping_of(INTEGER)
_DISK = record(path=TEXT, used=NATURAL)


class _Example(Record):
    """One field of every sort."""

    count: int = argument("the-count", NATURAL)
    mood: str = argument("mood", _WORD, default="off")
    note: Optional[str] = argument("note", TEXT, default=None, lenient=True)
    secret: Optional[str] = argument("secret", TEXT, default=None, secret=True)
    more: Mapping[str, Any] = rest()


def _argument(wire: str) -> Argument:
    return next(each for each in arguments_of(_Example) if isinstance(each, Argument) and each.wire == wire)


# ---- Kinds ----


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (TEXT, ""),
        (TEXT, "word"),
        (INTEGER, -1),
        (INTEGER, 2**70),
        (NATURAL, 0),
        (POSITIVE, 1),
        (BOOLEAN, False),
        (NUMBER_TEXT, "512"),
        (ANY, None),
        (ANY, [1]),
        (SECONDS, 1),
        (SECONDS, 0.001),
        (SECONDS, 365 * 86400),
        (BASE64, ""),
        (BASE64, "AA=="),
        (BASE64, "+/8="),
        (BASE64, "AAECAwQF"),
        (_WORD, "on"),
        (_COUNTS, {}),
        (_COUNTS, {"any": 1, "": 2}),
        (mapping_of(NATURAL), {"any": 1}),
        (_DISK, {"path": "/", "used": 0}),
    ],
)
def test_a_kind_lets_its_own_values_through_unchanged(kind: Kind, value: Any) -> None:
    assert kind.check(value) == value
    assert type(kind.check(value)) is type(value)


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (TEXT, 1, "int instead of str"),
        (TEXT, None, "null instead of str"),
        (TEXT, {}, "object instead of str"),
        (INTEGER, True, "bool instead of int"),
        (INTEGER, 1.0, "float instead of int"),
        (INTEGER, "1", "str instead of int"),
        (NATURAL, -1, "a negative number"),
        (NATURAL, False, "bool instead of int"),
        (POSITIVE, 0, "not above 0"),
        (POSITIVE, True, "bool instead of int"),
        (BOOLEAN, 1, "int instead of bool"),
        (BOOLEAN, "True", "str instead of bool"),
        (NUMBER_TEXT, -1, "a negative number"),
        (NUMBER_TEXT, 1.5, "float instead of int"),
        (NUMBER_TEXT, True, "bool instead of int"),
        *((SECONDS, value, "no number of seconds above 0 and up to a year") for value in NO_SECONDS),
        *((BASE64, value, "no base64") for value in NO_BASE64),
        (BASE64, 1, "int instead of str"),
        (_WORD, "loud", "none of on, off"),
        (_WORD, ["on"], "list instead of str"),
        (_TEXTS, "word", "str instead of list"),
        (_TEXTS, ["word", 1], "int instead of str"),
        (_COUNTS, [], "list instead of object"),
        (_COUNTS, {"a": 1, "b": None}, "null instead of int"),
        (_COUNTS, {"a": 1, "b": True}, "bool instead of int"),
        (list_of(INTEGER), [1, False], "bool instead of int"),
        (list_of(BOOLEAN), [True, 1], "int instead of bool"),
        (list_of(NATURAL), [1, -1], "a negative number"),
        (mapping_of(NATURAL), {"a": -1}, "a negative number"),
        (list_of(list_of(TEXT)), [["a"], [1]], "int instead of str"),
        (_DISK, [], "list instead of object"),
        (_DISK, {}, "without path, used"),
        (_DISK, {"path": "/"}, "without used"),
        (_DISK, {"path": "/", "used": -1}, "a negative number"),
    ],
)
def test_a_kind_refuses_everything_else_and_says_why(kind: Kind, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"^{problem}$"):
        kind.check(value)


def test_a_number_that_travels_as_text_may_come_as_a_number() -> None:
    assert NUMBER_TEXT.check(512) == "512"


def test_a_number_too_long_to_be_text_is_refused_like_any_wrong_value() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — the interpreter words it
        NUMBER_TEXT.check(10**5000)


@pytest.mark.parametrize("values", [[], ["a"], ["a", "b"]])
def test_a_list_is_read_as_a_tuple(values: list[str]) -> None:
    assert _TEXTS.check(values) == tuple(values)


@pytest.mark.parametrize("kind", [TEXT, INTEGER, BOOLEAN])
def test_a_kind_with_an_exact_type_takes_every_value_of_that_type_and_no_other(kind: Kind) -> None:
    for value in ["", "a", 0, -1, 2**70, True, False, 1.0, None, [], {}]:
        if type(value) is kind.exact:
            assert kind.check(value) is value
        else:
            with pytest.raises(ValueError, match="instead of"):
                kind.check(value)


def test_a_record_leaves_members_out_that_no_kind_has_seen() -> None:
    assert _DISK.check({"path": "/", "used": 1, "evil": object()}) == {"path": "/", "used": 1}


def test_what_a_kind_has_checked_is_a_copy() -> None:
    counts = {"a": 1}
    checked = _COUNTS.check(counts)
    counts["a"] = -1
    assert checked == {"a": 1}


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        (_WORD, "`on` or `off`"),
        (_TEXTS, "list of str"),
        (_COUNTS, "object of int"),
        (_DISK, "{path: str, used: int ≥ 0}"),
        (list_of(mapping_of(NATURAL)), "list of object of int ≥ 0"),
    ],
)
def test_a_composed_kind_is_labelled_by_its_parts(kind: Kind, label: str) -> None:
    assert kind.label == label


# ---- Declarations ----


def test_a_class_declares_its_arguments_in_order() -> None:
    assert [each.wire for each in arguments_of(_Example)] == ["the-count", "mood", "note", "secret", "…"]
    assert [each.attribute for each in arguments_of(_Example)] == ["count", "mood", "note", "secret", "more"]


def test_an_argument_without_a_default_is_required() -> None:
    assert [each.required for each in arguments_of(_Example)] == [True, False, False, False, False]


def test_a_secret_argument_never_shows() -> None:
    shown = repr(_Example(count=1, secret="hunter2"))
    assert "hunter2" not in shown
    assert "count=1" in shown


# ---- Reading ----


def test_an_argument_is_read_by_its_wire_name() -> None:
    assert _argument("the-count").read({"the-count": 3, "count": 4}, []) == 3


def test_a_missing_required_argument_is_an_error_that_names_it() -> None:
    with pytest.raises(errors.InvalidArguments, match=r"^the-count: missing$"):
        _argument("the-count").read({}, [])


def test_a_missing_optional_argument_takes_its_default() -> None:
    assert _argument("mood").read({}, []) == "off"


def test_a_mistyped_argument_is_an_error_even_when_it_is_optional() -> None:
    mistyped: list[str] = []
    with pytest.raises(errors.InvalidArguments, match=r"^mood: none of on, off$") as caught:
        _argument("mood").read({"mood": "loud"}, mistyped)
    assert caught.value.argument == "mood"
    assert mistyped == []


def test_a_mistyped_lenient_argument_takes_its_default_and_is_named() -> None:
    mistyped: list[str] = []
    assert _argument("note").read({"note": 1}, mistyped) is None
    assert mistyped == ["note"]


def test_null_is_a_mistyped_argument_and_not_a_missing_one() -> None:
    with pytest.raises(errors.InvalidArguments, match=r"^secret: null instead of str$"):
        _argument("secret").read({"secret": None}, [])


def test_the_rest_takes_what_no_other_field_declares() -> None:
    more = arguments_of(_Example)[-1]
    assert isinstance(more, Rest)
    assert more.read({"the-count": 1, "other": [1], "count": 2}, []) == {"other": [1], "count": 2}


# ---- Writing ----


def test_an_argument_is_written_under_its_wire_name() -> None:
    written: dict[str, Any] = {}
    _argument("the-count").write(3, written)
    assert written == {"the-count": 3}


def test_none_is_left_out() -> None:
    written: dict[str, Any] = {}
    _argument("note").write(None, written)
    assert written == {}


def test_the_rest_is_written_beside_what_is_declared_and_never_over_it() -> None:
    written: dict[str, Any] = {"the-count": 1}
    arguments_of(_Example)[-1].write({"the-count": 2, "other": 3}, written)
    assert written == {"the-count": 1, "other": 3}


def test_the_rest_is_documented_as_anything() -> None:
    more = fields.Rest("more", frozenset())
    assert (more.wire, more.kind.label, more.kind.check([1])) == ("…", "any", [1])
