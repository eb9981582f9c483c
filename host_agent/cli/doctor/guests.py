"""What the daemon says of its guests. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from host_agent.cli import views

from . import Finding, Level

#: Seconds that a guest may take to let the host in, to say something, and to follow what was agreed.
_CONNECTING, _SPEAKING, _FOLLOWING = 10.0, 30.0, 30.0

#: How a guest's own port is looked at in it.
_IN_GUEST = "in it: systemctl status vmaccord-guest-agent; vmaccord-guest --check"


def examine_all(guests: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Look at all *guests*: what is wrong with each, and how many are well."""
    well = 0
    for guest in guests:
        findings = list(_examine(guest))
        well += not findings and guest["channel"]["state"] == "responsive"
        yield from findings
    yield Finding(Level.OK, "guests", f"{well} of {len(guests)} guests are well")


def examine_one(guests: Sequence[Mapping[str, Any]], name: str) -> Iterator[Finding]:
    """Look at the one of *guests* that is called *name*."""
    for guest in guests:
        if guest["name"] == name:
            yield from _examine_closely(guest)
            return
    close = get_close_matches(name, [guest["name"] for guest in guests], n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    advice = "start the VM, with a channel named ovirt-guest-agent.0"
    yield Finding(Level.TROUBLE, "guest", f"the daemon knows no guest called {name}{meant}", advice, name)


def _examine_closely(guest: Mapping[str, Any]) -> Iterator[Finding]:
    """As in a row with others, but a guest that is not there is missed, and one that is well is said to be."""
    name, channel = guest["name"], guest["channel"]
    if channel["state"] == "absent":
        text = f"has had no port on this host for {views.duration(channel['since_s'])}"
        yield Finding(Level.TROUBLE, "guest", text, "start the VM, with a channel named ovirt-guest-agent.0", name)
        return
    findings = list(_examine(guest))
    yield from findings
    if not findings:
        agreed = guest["api"]["agreed"]
        text = f"is {channel['state']}" + ("" if agreed is None else f", agreed on API {agreed}")
        yield Finding(Level.OK, "guest", text, guest=name)


def _examine(guest: Mapping[str, Any]) -> Iterator[Finding]:
    name, channel = guest["name"], guest["channel"]
    state, since = channel["state"], channel["since_s"]
    for_long = f"for {views.duration(since)}"
    if state == "connecting" and since > _CONNECTING:
        text = f"nobody has answered on its socket {channel['path']} {for_long}"
        advice = "see whether the VM runs (virsh list); what a VM that ended badly left behind can be removed"
        yield Finding(Level.TROUBLE, "refused", text, advice, name)
    elif state == "connected" and since > _SPEAKING:
        text = f"connected, and nothing was heard {for_long}: no agent speaks in it"
        advice = f"install vmaccord-guest-agent in it, or {_IN_GUEST}"
        yield Finding(Level.WARNING, "silent", text, advice, name)
    elif state == "unresponsive":
        text = f"its agent has been silent {for_long}, though it spoke before"
        yield Finding(Level.TROUBLE, "unresponsive", text, f"see whether the VM is paused (virsh list); {_IN_GUEST}", name)
    elif state == "responsive":
        yield from _examine_versions(name, guest["api"])
    yield from _examine_handoff(name, guest["handoff"])
    if channel["throttled"]:
        text = "sends more than it may, and is read from slowly"
        advice = f"see what it sends: vmaccord show {name}; the limits are in host.conf, section [limits]"
        yield Finding(Level.WARNING, "throttled", text, advice, name)


def _examine_handoff(name: str, handoff: Mapping[str, Any]) -> Iterator[Finding]:
    peer = handoff["peer"]
    if handoff["state"] == "in-doubt":
        text = f"whether {peer} has taken it is not known, so it is sent nothing"
        advice = (
            f"see that vmaccord-host runs on {peer} and can be reached; if it never will be, and the VM runs here: "
            f"vmaccord handoff cancel --force {name}"
        )
        yield Finding(Level.TROUBLE, "in-doubt", text, advice, name)
    elif handoff["state"] == "moved":
        text = f"its port is still here, and it was handed over to {peer}"
        yield Finding(
            Level.WARNING,
            "moved",
            text,
            f"if its VM stays here, have it handed back: vmaccord handoff send {name}, on {peer}",
            name,
        )


def _examine_versions(name: str, api: Mapping[str, Any]) -> Iterator[Finding]:
    host, agent = api["supported"], api["advertised"]
    if host is not None and (agent is None or agent < host):
        says = "no versions" if agent is None else f"API {agent}"
        text = f"its agent supports {says}, this host API {host}"
        yield Finding(Level.WARNING, "agent-older", text, f"upgrade vmaccord-guest-agent in {name}", name)
    elif agent is not None and (host is None or agent > host):
        says = "no versions" if host is None else f"API {host} at most"
        text = f"its agent is newer: this host supports {says}"
        yield Finding(
            Level.WARNING, "agent-newer", text, "upgrade vmaccord-host-agent here, or raise its max-api-version", name
        )
    in_use, settled = api["in_use"], (api["last_change_s"] or 0.0) > _FOLLOWING
    if in_use is not None and in_use != api["agreed"] and settled:
        text = f"API {api['agreed']} was agreed on, but its agent uses {in_use}"
        yield Finding(Level.WARNING, "not-following", text, f"restart the agent: {_IN_GUEST}", name)
