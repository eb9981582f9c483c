"""Session spec 0: what the reference hosts carry from host to host.

Names and shapes are theirs. Its API version is what the source had agreed on, and here no more than a hint.
"""

from __future__ import annotations

from typing import Optional

from common.fields import NATURAL, TEXT, list_of

from .members import Members, member, nested


class NetworkInterface(Members):
    """A network interface of the guest; an older reference host leaves out what it does not know."""

    name: str = member("name", TEXT, default="")
    hw: str = member("hw", TEXT, default="")
    inet: tuple[str, ...] = member("inet", list_of(TEXT), default=())
    inet6: tuple[str, ...] = member("inet6", list_of(TEXT), default=())


class Spec0(Members):
    """A session as the reference hosts hand it over."""

    api_version_hint: Optional[int] = member(
        "guestAgentAPIVersion",
        NATURAL,
        "the version that a reference host had agreed on with the guest: a hint for people and for the next reference host",
        default=None,
    )
    username: Optional[str] = member(
        "username", TEXT, "who is logged in, the word `None` for nobody; from `active-user`", default=None
    )
    guest_ips: str = member(
        "guestIPs", TEXT, "the guest's IP addresses, a space between two; from `network-interfaces`", default=""
    )
    guest_fqdn: Optional[str] = member(
        "guestFQDN", TEXT, "the guest's fully qualified domain name; from `fqdn`", default=None
    )
    net_ifaces: Optional[tuple[NetworkInterface, ...]] = member(
        "netIfaces",
        list_of(nested(NetworkInterface)),
        "interfaces that are up, with hardware and IP addresses; from `network-interfaces`",
        default=None,
    )
