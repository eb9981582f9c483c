"""The time zone: its name, and its distance from UTC now, daylight saving included."""

from __future__ import annotations

import datetime
import os
import zoneinfo

from common.messages import Timezone

from .files import read_optional

_ZONES = "/zoneinfo/"
_VARIANTS = ("posix/", "right/")


def timezone(root: str) -> Timezone:
    """The zone of ``/etc/localtime``; where that is missing, the system runs on UTC.

    :raises ValueError: the file is no time zone.
    """
    path = os.path.join(root, "etc/localtime")
    if not os.path.exists(path):
        return Timezone(zone="UTC", offset=0)
    with open(path, "rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file)
    offset = datetime.datetime.now(zone).utcoffset() or datetime.timedelta()
    return Timezone(zone=_linked_name(path) or _noted_name(root), offset=round(offset.total_seconds() / 60))


def _linked_name(path: str) -> str:
    """The name that the link says, empty where it is no link into the time zone database."""
    _, found, name = (os.readlink(path) if os.path.islink(path) else "").partition(_ZONES)
    for variant in _VARIANTS:
        if name.startswith(variant):
            name = name[len(variant) :]
    return name if found else ""


def _noted_name(root: str) -> str:
    return read_optional(root, "etc/timezone").strip()
