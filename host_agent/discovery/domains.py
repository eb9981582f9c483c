"""The ports of libvirt's domains: what a domain's XML says of its port, and which domains have one. Pure.

A domain is known by its UUID, so that one that is called otherwise is still the same. No two domains have one name at a
time; where it seems so, what was seen last is right, and what has become of the other one is about to be seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional
from xml.etree import ElementTree

from . import PORTS, Added, Event, Removed, is_name


class Unusable(Exception):
    """No port can be taken from a domain's XML; the text is one sentence that says what to do next."""


def port_of(xml: str) -> Optional[Added]:
    """The port of the running domain that *xml* describes; None where it does not run or has none.

    :raises Unusable: this can't be told, or the domain's name can't be used.
    """
    try:
        domain = ElementTree.fromstring(xml)  # noqa: S314 - libvirt made it
    except ElementTree.ParseError as error:
        raise Unusable(f"libvirt describes it in XML that can't be read ({error}); restart libvirt's daemon") from None
    path = _path(domain) if domain.get("id") is not None else None
    if path is None:
        return None
    name = domain.findtext("name", "")
    if not is_name(name):
        raise Unusable("a name with control characters is no guest's name; rename the domain")
    return Added(name, path, domain.findtext("uuid"))


def _path(domain: ElementTree.Element) -> Optional[str]:
    """The socket on which the hypervisor listens for the host's side of the port."""
    paths = dict(map(_channel, domain.iterfind("devices/channel[@type='unix']")))
    return next((paths[port] for port in PORTS if paths.get(port)), None)


def _channel(channel: ElementTree.Element) -> tuple[Optional[str], Optional[str]]:
    """The channel's name in the guest and its socket on the host, each only where it can be of use here."""
    target = channel.find("target[@type='virtio']")
    source = channel.find("source[@mode='bind']")
    return (None if target is None else target.get("name"), None if source is None else source.get("path"))


class Domains:
    """The domains that have a port."""

    def __init__(self) -> None:
        self._ports: dict[str, Added] = {}
        self._uuids: dict[str, str] = {}

    def put(self, uuid: str, port: Optional[Added]) -> list[Event]:
        """The domain has this port, or none; what that changes."""
        before = self._ports.get(uuid)
        if port == before:
            return []
        if port is None:
            return self._drop(uuid)
        gone = self._drop(self._uuids[port.name]) if self._uuids.get(port.name, uuid) != uuid else []
        if before is not None and before.name != port.name:
            gone += self._drop(uuid)
        self._ports[uuid] = port
        self._uuids[port.name] = uuid
        return [*gone, port]

    def keep(self, uuids: Collection[str]) -> list[Event]:
        """No other domains than these run; what that changes."""
        return [event for uuid in list(self._ports) if uuid not in uuids for event in self._drop(uuid)]

    def _drop(self, uuid: str) -> list[Event]:
        port = self._ports.pop(uuid)
        del self._uuids[port.name]
        return [Removed(port.name, port.path)]
