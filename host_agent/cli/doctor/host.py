"""What the daemon says of itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common import versions
from host_agent.descriptors import RESERVE

from . import Finding, Level

#: The limit of descriptors is near when it leaves room for less than this many times the guests.
_GROWTH = 1.25


def examine(host: Mapping[str, Any], release: str) -> Iterator[Finding]:
    """Look at *host*.

    :param release: that of this command.
    """
    yield _release(host, release)
    yield _role(host["you"])
    yield _version(host["api"]["supported"])
    for connection in host["libvirt"]:
        yield _libvirt(connection)
    yield _state(host["state"])
    if "handoff" in host:
        yield _handoff(host["handoff"])
    yield _descriptors(host["descriptors"]["limit"], host["guests"])


def _release(host: Mapping[str, Any], release: str) -> Finding:
    if host["version"] == release:
        return Finding(Level.OK, "release", f"the daemon answers; it is of release {release}, as this command is")
    text = f"the daemon is of release {host['version']}, this command of {release}"
    return Finding(Level.WARNING, "release", text, "restart the daemon: systemctl restart vmaccord-host-agent")


def _role(you: Mapping[str, Any]) -> Finding:
    who = f"{you['user'] or 'a user without a name'} (uid {you['uid']})"
    if you["role"] == "operator":
        return Finding(Level.OK, "role", f"you are {who}, and may command")
    advice = "to command, be root or a member of the group that host.conf names as operator-group"
    return Finding(Level.WARNING, "role", f"you are {who}, and may only look", advice)


def _version(supported: Any) -> Finding:
    newest = int(versions.newest())
    if supported == newest:
        return Finding(Level.OK, "max-api-version", f"this host supports API {newest}, the newest there is")
    held = "no versions" if supported is None else f"API {supported} at most"
    text = f"this host supports {held}, though its release knows API {newest}"
    return Finding(Level.WARNING, "max-api-version", text, "take max-api-version out of host.conf, unless it is meant")


def _libvirt(connection: Mapping[str, Any]) -> Finding:
    uri = connection["uri"]
    if connection["connected"]:
        return Finding(Level.OK, "libvirt", f"libvirt is connected: {uri}")
    why = connection["error"] or "no connection yet"
    advice = f"see that libvirt runs and lets the daemon in: virsh --connect {uri} list"
    return Finding(Level.TROUBLE, "libvirt", f"libvirt is not connected: {uri}: {why}", advice)


def _state(state: Any) -> Finding:
    if state is None:
        return Finding(Level.OK, "state", "no state file is configured: what guests said is forgotten when the daemon ends")
    if state["failing"]:
        why = f": {state['failing']}" if isinstance(state["failing"], str) else ""
        text = f"the state file {state['path']} can't be written{why}"
        return Finding(
            Level.TROUBLE, "state", text, "see that its disk has room and its directory belongs to the daemon's user"
        )
    return Finding(Level.OK, "state", f"the state file is written: {state['path']}")


def _handoff(handoff: Mapping[str, Any]) -> Finding:
    if handoff["failing"]:
        advice = "no guest comes here by a hand-off until then; the daemon tries again by itself"
        return Finding(Level.TROUBLE, "handoff", f"no other host is let in: {handoff['failing']}", advice)
    if not handoff["listen"] and not handoff["peers"]:
        return Finding(Level.OK, "handoff", "no hand-offs are configured: a guest that moves agrees afresh on its new host")
    listening = ", ".join(f"{each['address']} ({each['security']})" for each in handoff["listen"]) or "nowhere"
    peers = ", ".join(handoff["peers"]) or "no host"
    return Finding(Level.OK, "handoff", f"other hosts are let in at {listening}; guests may be handed over to {peers}")


def _descriptors(limit: int, guests: int) -> Finding:
    text = f"the daemon may open {limit} files, and has {guests} guests"
    advice = "raise LimitNOFILE= of the service: systemctl edit vmaccord-host-agent"
    if guests + RESERVE > limit:
        return Finding(Level.TROUBLE, "descriptors", f"{text}: some can't be connected", advice)
    if guests * _GROWTH + RESERVE > limit:
        return Finding(Level.WARNING, "descriptors", f"{text}: there is not room for many more", advice)
    return Finding(Level.OK, "descriptors", text)
