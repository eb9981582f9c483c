"""Typed arguments: what a message class says of each of its fields, and how an untrusted value passes.

A *kind* names a type as the documentation prints it and checks a decoded JSON value: a boolean is no integer, and what a
kind lets through is exactly what the annotation of the field promises. Kinds compose; they copy what they check, so a
message never holds members that no kind has seen.

What a missing or mistyped argument does is said field by field. A *required* one makes the message invalid when it is
missing, any one when it is mistyped: half a command must not be carried out. Only a *lenient* one takes its default then,
and is named as mistyped: what negotiates must not be lost with a bad figure beside it.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional, Union

from . import errors, records

#: More seconds than anybody waits. The system's calls that wait can't express every longer span.
YEAR = 365 * 86400


class Kind(NamedTuple):
    """A type of argument: its *label* in the documentation, and *check*, which returns the value or raises ValueError."""

    label: str
    check: Callable[[Any], Any]
    #: A type of which every value, and no other, passes unchanged.
    exact: Optional[type] = None


class Argument(NamedTuple):
    """How one field of a message travels."""

    attribute: str
    wire: str
    kind: Kind
    required: bool
    lenient: bool
    default: Any

    def read(self, arguments: Mapping[str, Any], mistyped: list[str]) -> Any:
        """This argument's value among *arguments*; the name of a mistyped lenient one is added to *mistyped*.

        :raises InvalidArguments: it is missing though required, or mistyped and not lenient.
        """
        if self.wire not in arguments:
            if self.required:
                raise errors.InvalidArguments(self.wire, "missing")
            return self.default
        try:
            return self.kind.check(arguments[self.wire])
        except ValueError as error:
            if not self.lenient:
                raise errors.InvalidArguments(self.wire, str(error)) from None
            mistyped.append(self.wire)
            return self.default

    def write(self, value: Any, arguments: dict[str, Any]) -> None:
        """Add this argument to *arguments*; None means: leave it out."""
        if value is not None:
            arguments[self.wire] = value


class Rest(NamedTuple):
    """The field of a message that takes every argument which no other field declares."""

    attribute: str
    known: frozenset[str]
    wire: str = "…"
    kind: Kind = Kind("any", lambda value: value)
    required: bool = False
    lenient: bool = False

    def read(self, arguments: Mapping[str, Any], mistyped: list[str]) -> Any:
        """Everything among *arguments* that is not declared."""
        return {name: value for name, value in arguments.items() if name not in self.known}

    def write(self, value: Any, arguments: dict[str, Any]) -> None:
        """Add the members of *value* to *arguments*, behind what is declared."""
        arguments.update((name, member) for name, member in value.items() if name not in self.known)


class _Travel(NamedTuple):
    """What the declaration of an argument says beyond what any record's field says."""

    wire: str
    kind: Kind
    lenient: bool


def argument(
    wire: str,
    kind: Kind,
    *,
    default: Any = records.REQUIRED,
    lenient: bool = False,
    secret: bool = False,
    private: bool = False,
) -> Any:
    """Declare a field as the argument *wire*; without a *default* it is required.

    A *lenient* one takes its default when it is mistyped. Neither a *secret* one nor a *private* one shows in the message's
    repr; a secret one, as a password, has no place on a command line either.
    """
    return records.field(default=default, secret=secret, private=private, meaning=_Travel(wire, kind, lenient))


def rest() -> Any:
    """Declare a field, the last one, as a mapping of all arguments that the class does not declare."""
    return records.field(factory=dict)


def arguments_of(message_class: type[records.Record]) -> tuple[Union[Argument, Rest], ...]:
    """The arguments that *message_class* declares, in order."""
    fields = records.fields_of(message_class)
    known = frozenset(field.meaning.wire for field in fields.values() if field.meaning)
    return tuple(_declaration(name, field, known) for name, field in fields.items())


def _declaration(name: str, field: records.Field, known: frozenset[str]) -> Union[Argument, Rest]:
    travel: Optional[_Travel] = field.meaning
    if travel is None:
        return Rest(name, known)
    required = field.default is records.REQUIRED
    return Argument(name, travel.wire, travel.kind, required, travel.lenient, field.default)


def _check_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{_type_of(value)} instead of str")


def _check_integer(value: Any) -> int:
    if type(value) is int:  # which a boolean is not
        return value
    raise ValueError(f"{_type_of(value)} instead of int")


def _check_natural(value: Any) -> int:
    if _check_integer(value) >= 0:
        return int(value)
    raise ValueError("a negative number")


def _check_positive(value: Any) -> int:
    if _check_integer(value) > 0:
        return int(value)
    raise ValueError("not above 0")


def _check_seconds(value: Any) -> float:
    if type(value) in (int, float) and 0 < value <= YEAR:
        return value  # type: ignore[no-any-return]
    raise ValueError("no number of seconds above 0 and up to a year")


def _check_base64(value: Any) -> str:
    text = _check_text(value)
    try:
        # Whatever the alphabet lacks would be skipped in silence.
        canonical = binascii.b2a_base64(binascii.a2b_base64(text), newline=False).decode("ascii")
    except ValueError:
        canonical = ""
    if canonical != text:
        raise ValueError("no base64")
    return text


def _check_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{_type_of(value)} instead of bool")


def _check_number_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(_check_natural(value))


ANY = Kind("any", lambda value: value)
TEXT = Kind("str", _check_text, str)
INTEGER = Kind("int", _check_integer, int)
NATURAL = Kind("int ≥ 0", _check_natural)
POSITIVE = Kind("int > 0", _check_positive)
#: A number of seconds, not a whole one perhaps; up to a year.
SECONDS = Kind("number > 0", _check_seconds)
#: Bytes in standard base64 on one line, padded.
BASE64 = Kind("base64", _check_base64)
BOOLEAN = Kind("bool", _check_boolean, bool)
#: A number that travels as a string, and that some peers write as one.
NUMBER_TEXT = Kind("str, also int", _check_number_text)


def one_of(*words: str) -> Kind:
    """One of these strings."""

    def check(value: Any) -> str:
        if _check_text(value) in words:
            return str(value)
        raise ValueError("none of " + ", ".join(words))

    return Kind(" or ".join(f"`{word}`" for word in words), check)


def list_of(kind: Kind) -> Kind:
    """A list whose every member is of *kind*; read as a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if isinstance(value, list):
            if kind.exact is not None and set(map(type, value)) <= {kind.exact}:
                return tuple(value)
            return tuple(kind.check(member) for member in value)
        raise ValueError(f"{_type_of(value)} instead of list")

    return Kind(f"list of {kind.label}", check)


def mapping_of(kind: Kind) -> Kind:
    """An object with any keys whose every value is of *kind*."""

    def check(value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            if kind.exact is not None and set(map(type, value.values())) <= {kind.exact}:
                return dict(value)
            return {key: kind.check(member) for key, member in value.items()}
        raise ValueError(f"{_type_of(value)} instead of object")

    return Kind(f"object of {kind.label}", check)


def record(**members: Kind) -> Kind:
    """An object with these members; others are left out, and one that is missing makes the whole invalid."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{_type_of(value)} instead of object")
        missing = members.keys() - value.keys()
        if missing:
            raise ValueError("without " + ", ".join(sorted(missing)))
        return {key: kind.check(value[key]) for key, kind in members.items()}

    return Kind("{" + ", ".join(f"{key}: {kind.label}" for key, kind in members.items()) + "}", check)


def _type_of(value: Any) -> str:
    names = {type(None): "null", dict: "object"}
    return names.get(type(value), type(value).__name__)
