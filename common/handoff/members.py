"""What a document's records say of their members, and how untrusted members become a record.

A member has the name that it has in the document, a kind (see ``common.fields``) that its value must pass, and a sentence
on what it means, in which unit, and where it comes from; the documentation prints that sentence. A member without a value
is left out of the document, and ``null`` counts as left out; one that is not known is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional, TypeVar

from common.fields import Kind
from common.records import REQUIRED, Record, dataclass_transform, field, fields_of

M = TypeVar("M", bound="Members")

_YEAR = 365 * 86400


class Member(NamedTuple):
    """How a field stands in the document."""

    wire: str
    kind: Kind
    says: str


def member(
    wire: str, kind: Kind, says: str = "", *, default: Any = REQUIRED, factory: Optional[Callable[[], Any]] = None
) -> Any:
    """Declare a field as the member *wire*; without a *default* and a *factory* it is required."""
    return field(default=default, factory=factory, meaning=Member(wire, kind, says))


@dataclass_transform(frozen_default=True, field_specifiers=(member,))
class Members(Record):
    """Base of all records that stand in a document."""

    @classmethod
    def from_members(cls: type[M], members: Mapping[str, Any]) -> M:
        """The record that *members* describe.

        :raises ValueError: one is missing or can't be; the error names it.
        """
        values: dict[str, Any] = {}
        for attribute, declared in fields_of(cls).items():
            wire = declared.meaning.wire
            if members.get(wire) is not None:
                values[attribute] = _check(declared.meaning, members[wire])
            elif declared.default is REQUIRED and declared.factory is None:
                raise ValueError(f"{wire}: missing")
        return cls(**values)

    def to_members(self) -> dict[str, Any]:
        """The members as the document has them."""
        return {each.wire: plain(value) for each, value in self.declared_values() if value is not None}

    def declared_values(self) -> list[tuple[Member, Any]]:
        """Each member with its value, in order."""
        return [(declared.meaning, getattr(self, name)) for name, declared in fields_of(type(self)).items()]


def members_of(record_class: type[Members]) -> list[Member]:
    """The members that *record_class* declares, in order."""
    return [declared.meaning for declared in fields_of(record_class).values()]


def plain(value: Any) -> Any:
    """*value* as JSON has it."""
    if isinstance(value, Members):
        return value.to_members()
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value


def nested(record_class: type[Members]) -> Kind:
    """An object that *record_class* describes."""

    def check(value: Any) -> Members:
        return record_class.from_members(check_object(value))

    members = ", ".join(f"{each.wire}: {each.kind.label}" for each in members_of(record_class))
    return Kind(f"{{{members}}}", check)


def check_object(value: Any) -> dict[str, Any]:
    """*value*, if it is an object.

    :raises ValueError: it is none.
    """
    if isinstance(value, dict):
        return value
    raise ValueError("no object")


def text(limit: int) -> Kind:
    """A string of so many characters at most."""

    def check(value: Any) -> str:
        if isinstance(value, str) and len(value) <= limit:
            return value
        raise ValueError(f"no string of up to {limit} characters")

    return Kind(f"str (up to {limit})", check)


def _seconds(limit: float) -> Kind:
    def check(value: Any) -> float:
        if type(value) in (int, float) and 0 <= value <= limit:
            return float(value)
        raise ValueError(f"no number of seconds from 0 to {limit:.0f}")

    return Kind("number ≥ 0", check)


def _check_uuid(value: Any) -> str:
    if isinstance(value, str) and _UUID.fullmatch(value):
        return value.lower()
    raise ValueError("no UUID")


def _check(declared: Member, value: Any) -> Any:
    try:
        return declared.kind.check(value)
    except ValueError as error:
        raise ValueError(f"{declared.wire}: {error}") from None


def _check_transfer(value: Any) -> str:
    if isinstance(value, str) and _TRANSFER.fullmatch(value):
        return value
    raise ValueError("no transfer")


_TRANSFER = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

#: How long ago something was; up to a century.
AGE = _seconds(100 * _YEAR)
#: How long something will be waited for; up to a year, more than which nobody waits.
SPAN = _seconds(_YEAR)
#: Of a VM; read in lower case.
UUID = Kind("UUID", _check_uuid)
#: One attempt to move one guest: 32 hexadecimal digits that the source draws.
TRANSFER = Kind("32 hexadecimal digits", _check_transfer)
