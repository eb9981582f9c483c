"""Protocol versions of a hand-off, and what becomes of a source that speaks another one.

A destination speaks its newest version and the one before. Any other is refused with a list of what it speaks; the source
may try again, once, with the newest older version of that list that it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from .refusals import Code, Refusal

#: What each protocol version brought. 0, the legacy one, is what a header of zeros says.
VERSIONS: Mapping[int, str] = {
    0: "legacy: Start, Session, Complete, Abandon",
    1: "Hello",
}

NEWEST = max(VERSIONS)


def supported(newest: int = NEWEST) -> tuple[int, ...]:
    """The protocol versions that a destination speaks whose newest one is *newest*, lowest first."""
    return tuple(version for version in VERSIONS if newest - 1 <= version <= newest)


def accepts(sender_version: int, newest: int = NEWEST) -> bool:
    """Whether a destination speaks the *sender_version* of ``Start``."""
    return sender_version in supported(newest)


def refuse(sender_version: int, newest: int = NEWEST) -> Refusal:
    """What a source is told whose version is not spoken."""
    versions = supported(newest)
    spoken = " and ".join(map(str, versions))
    message = (
        f"hand-off protocol version {sender_version} is not spoken here, spoken is {spoken}: "
        f"try again with one of these, or upgrade the older host"
    )
    return Refusal(Code.UNSUPPORTED_VERSION.value, message, versions)


def retry_with(refusal: Refusal, refused: int, newest: int = NEWEST) -> Optional[int]:
    """With which version a source, whose newest is *newest*, tries again after *refused* was; None: with none."""
    known = [version for version in VERSIONS if version <= newest and version < refused]
    return max((version for version in known if version in refusal.supported), default=None)
