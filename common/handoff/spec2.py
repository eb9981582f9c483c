"""Session spec 2: what people want to see at once on the destination, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, Union

from common.fields import BOOLEAN, NATURAL, Kind, list_of, mapping_of
from common.session import FEATURE_LENGTH

from .members import AGE, Members, check_object, member, nested, text
from .spec1 import Carried

Count = Union[int, Mapping[str, int]]


class Capabilities(Members):
    """What the guest let the source do, by command, and what else it can."""

    commands: Mapping[str, bool] = member("commands", mapping_of(BOOLEAN), factory=dict)
    features: tuple[str, ...] = member("features", list_of(text(FEATURE_LENGTH)), default=())


class VersionChange(Members):
    """Some time ago, in seconds, host and guest agreed on another version; *reason* is one clause for people."""

    ago_s: float = member("ago_s", AGE)
    old: int = member("old", NATURAL)
    new: int = member("new", NATURAL)
    reason: str = member("reason", text(500), default="")


def _check_count(value: Any) -> Count:
    if isinstance(value, dict):
        return dict(_GROUP.check(value))
    return int(NATURAL.check(value))


def _check_counters(value: Any) -> dict[str, Count]:
    return {name: _check_count(each) for name, each in check_object(value).items()}


_GROUP = mapping_of(NATURAL)


class Spec2(Carried):
    """A session with all that is known of it."""

    capabilities: Optional[Capabilities] = member(
        "capabilities",
        nested(Capabilities),
        "what the guest let the source do, and its features; from its `capabilities`; to look at: what counts is what it "
        "says to the destination",
        default=None,
    )
    counters: Mapping[str, Count] = member(
        "counters",
        Kind("object of int ≥ 0, or of object of int ≥ 0", _check_counters),
        "what the hosts so far counted of the guest, by name; from its session",
        factory=dict,
    )
    version_changes: tuple[VersionChange, ...] = member(
        "version_changes",
        list_of(nested(VersionChange)),
        "the last changes of the version agreed on, each some seconds ago, oldest first; from the source's history, for "
        "people",
        default=(),
    )
