"""Why a command must not be sent to a guest now: a word for programs, and a sentence for people that says what to do.

Nothing here sends anything: what would be refused can be asked beforehand.
"""

from __future__ import annotations

from typing import Any, Optional

from common import errors
from common.catalogue import Row

from .guest import Guest, State

#: How many commands one guest may have in flight.
LIMIT = 100

#: From this version on an agent has the setting ``max-api-version``, that may keep it from supporting more.
_LIMITABLE = 4

#: Where a guest's configuration is, in the guest.
_CONFIGURATION = "/etc/vmaccord/guest.conf"


class Refused(Exception):
    """A command was not sent; the text is a sentence that says what to do.

    :ivar kind: why, as the last part of a problem document's type.
    :ivar members: further members of that document.
    """

    def __init__(self, kind: str, text: str, **members: Any) -> None:
        self.kind = kind
        self.members = members
        super().__init__(text)


def refuse(guest: Guest, row: Row) -> Optional[Refused]:
    """Why the command *row* can't be sent to *guest* now; None: it can."""
    away = refuse_away(guest)
    if away is not None:
        return away
    if guest.state is not State.RESPONSIVE:
        return _lifeless(guest)
    try:
        guest.session.require(row.name)
    except errors.SendRefused as error:
        return _explain(guest, row, error)
    if len(guest.in_flight) >= LIMIT and guest.session.answered(row.name):
        return Refused("busy", f"{guest.name} has not answered {LIMIT} commands yet: wait for them")
    return None


def refuse_away(guest: Guest) -> Optional[Refused]:
    """Why nothing can be asked of *guest* here, for it has moved, is moving or may have moved; None: it is here."""
    if guest.moved_to is not None:
        return Refused("moved", f"{guest.name} moved to {guest.moved_to}: ask there", to=guest.moved_to)
    return _moving(guest) if guest.moving else None


def _moving(guest: Guest) -> Refused:
    if guest.departure is not None:
        peer = guest.departure.peer
        what = f"may be on {peer} already: it is known as soon as {peer} answers; see 'vmaccord handoff list'"
    else:
        what = f"is just moving to another host: try again in a moment, or 'vmaccord handoff cancel {guest.name}'"
    return Refused("moving", f"{guest.name} {what}")


def _explain(guest: Guest, row: Row, error: errors.SendRefused) -> Refused:
    if isinstance(error, errors.VersionTooLow):
        return _version_too_low(guest, row, error)
    if isinstance(error, errors.Disabled):
        return _disabled(guest, row, error.want)
    if isinstance(error, errors.Congested):
        return Refused("congested", f"{guest.name} does not read what was sent before: see 'vmaccord doctor {guest.name}'")
    return Refused("not-connected", f"{guest.name} is not connected: try again when it is")


def _lifeless(guest: Guest) -> Refused:
    doctor = f"see 'vmaccord doctor {guest.name}'"
    if guest.state in (State.ABSENT, State.CONNECTING):
        what = "no port on this host" if guest.state is State.ABSENT else "nobody answers on its port"
        return Refused("not-connected", f"{guest.name} is not connected ({what}): start it, or {doctor}")
    return Refused("unresponsive", f"{guest.name} is silent: start vmaccord-guest-agent in it, or {doctor}")


def _version_too_low(guest: Guest, row: Row, error: errors.VersionTooLow) -> Refused:
    host, advertised = guest.session.supported, guest.session.negotiation.advertised
    upgrade = f"upgrade vmaccord-guest-agent in {guest.name}"
    if advertised is not None and advertised >= _LIMITABLE:
        upgrade += ", or raise its max-api-version"
    lacking = {
        "guest": (f"its agent supports {_maximum(advertised)}", upgrade),
        "host": (f"this host supports {_maximum(host)}", "upgrade vmaccord-host-agent here, or raise its max-api-version"),
    }
    sides = {"both": ("guest", "host"), None: ()}.get(error.upgrade, (error.upgrade,))
    why = " and ".join(lacking[side][0] for side in sides if side is not None) or "they have not agreed on more yet"
    what = " and ".join(lacking[side][1] for side in sides if side is not None) or "try again in a moment"
    return Refused(
        "version-too-low",
        f"{guest.name} agreed on API {error.spoken}; {row.name} needs {error.needed}; {why}: {what}",
        needed=int(error.needed),
        agreed=int(error.spoken),
        guest_supports=advertised,
        host_supports=None if host is None else int(host),
        upgrade=error.upgrade,
    )


def _disabled(guest: Guest, row: Row, want: errors.Want) -> Refused:
    if want is errors.Want.OFF:
        name_it = "name it in enable, and not in block," if row.dangerous else "take it out of block, or name it in allow,"
        where = f"in [commands] of {_CONFIGURATION} in {guest.name}"
        text = f"{guest.name} has {row.name} turned off: {name_it} {where}, and reload vmaccord-guest-agent there"
    elif want is errors.Want.NOT_OFFERED:
        agreed, upgrade = guest.session.negotiation.agreed, f"upgrade vmaccord-guest-agent in {guest.name}"
        text = f"{guest.name} agreed on API {agreed}; its agent does not offer {row.name}: {upgrade}"
    else:
        text = f"{guest.name} has not said yet what it carries out: try again in a moment"
    return Refused("disabled", text, want=want.name.lower().replace("_", "-"))


def _maximum(version: Optional[int]) -> str:
    return "no versions" if version is None else str(version)
