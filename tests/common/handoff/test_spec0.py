"""``common.handoff.spec0``"""

from __future__ import annotations

from common.handoff.members import members_of
from common.handoff.spec0 import NetworkInterface, Spec0


def test_it_has_exactly_the_members_of_the_reference_hosts() -> None:
    names = [each.wire for each in members_of(Spec0)]
    assert names == ["guestAgentAPIVersion", "username", "guestIPs", "guestFQDN", "netIfaces"]


def test_what_an_older_reference_host_leaves_out_of_an_interface_is_empty() -> None:
    assert Spec0.from_members({"netIfaces": [{"name": "eth0"}]}).net_ifaces == (NetworkInterface("eth0", "", (), ()),)


def test_what_was_said_to_be_empty_is_told_from_what_was_not_said() -> None:
    said = Spec0.from_members({"username": "", "guestFQDN": "", "netIfaces": []})
    assert (said.username, said.guest_fqdn, said.net_ifaces) == ("", "", ())
    assert (Spec0().username, Spec0().guest_fqdn, Spec0().net_ifaces) == (None, None, None)
