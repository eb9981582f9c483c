"""The time zone: its name, and its distance from UTC now, daylight saving included.

The distance is asked of the C library, which reads the zone's file for this one question; the zone that the agent itself
lives in is the same afterwards. The name is what the link to that file says, or what the distribution has noted beside it.
"""

from __future__ import annotations

import os
import time
from typing import Optional

from common.messages import Timezone

from .files import read_optional, read_text

_LOCALTIME = "etc/localtime"
_ZONES = "/zoneinfo/"
_VARIANTS = ("posix/", "right/")
_MAGIC = "TZif"

#: A zone whose file the C library need not read: it forgets what it had read before.
_NEUTRAL = "UTC0"


def timezone(root: str, at: Optional[float] = None) -> Timezone:
    """The zone of ``/etc/localtime``; where that is missing, the system runs on UTC.

    :param at: seconds since the epoch for which the distance is told; now unless told otherwise.
    :raises OSError: the file can't be read.
    :raises ValueError: the file is no time zone.
    """
    link = _target(root)
    path = os.path.abspath(os.path.join(root, link.lstrip("/") if os.path.isabs(link) else _LOCALTIME))
    if not os.path.exists(path):
        return Timezone(zone="UTC", offset=0)
    if not read_text("/", path).startswith(_MAGIC):
        raise ValueError(f"{path}: no time zone; link it to one below /usr/share/zoneinfo")
    return Timezone(zone=_linked_name(link) or _noted_name(root), offset=round(_distance(path, at) / 60))


def _target(root: str) -> str:
    """What the link says, empty where there is none."""
    try:
        return os.readlink(os.path.join(root, _LOCALTIME))
    except OSError:
        return ""


def _linked_name(link: str) -> str:
    """The name that *link* says, empty where it does not lead into the time zone database."""
    _, found, name = f"/{link}".partition(_ZONES)
    for variant in _VARIANTS:
        if name.startswith(variant):
            name = name[len(variant) :]
    return name if found else ""


def _noted_name(root: str) -> str:
    return next(iter(read_optional(root, "etc/timezone").split()), "")


def _distance(path: str, at: Optional[float]) -> int:
    """Seconds east of UTC in the zone of the file *path*."""
    own = os.environ.get("TZ")
    try:
        _live_in(_NEUTRAL)
        _live_in(f":{path}")
        return time.localtime(at).tm_gmtoff
    finally:
        _live_in(own)


def _live_in(zone: Optional[str]) -> None:
    if zone is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = zone
    time.tzset()
