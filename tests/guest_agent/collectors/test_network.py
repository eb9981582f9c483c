"""Network interfaces."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from guest_agent.collectors.network import network_interfaces


def state(up: bool, flags: str) -> Any:
    return SimpleNamespace(isup=up, flags=flags)


def address(family: int, text: str) -> Any:
    return SimpleNamespace(family=family, address=text)


def test_interfaces_that_are_up_are_reported_with_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {
        "lo": state(True, "up,loopback,running"),
        "eth1": state(False, "broadcast"),
        "eth0": state(True, "up,broadcast,running"),
        "tun0": state(True, "up,pointopoint"),
    }
    addresses = {
        "lo": [address(socket.AF_INET, "127.0.0.1")],
        "eth0": [
            address(socket.AF_INET, "192.0.2.7"),
            address(socket.AF_INET, "192.0.2.8"),
            address(socket.AF_INET6, "fe80::1%eth0"),
            address(socket.AF_PACKET, "52:54:00:00:00:01"),
        ],
    }
    monkeypatch.setattr(psutil, "net_if_stats", lambda: states)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    assert network_interfaces().interfaces == (
        {"name": "eth0", "hw": "52:54:00:00:00:01", "inet": ["192.0.2.7", "192.0.2.8"], "inet6": ["fe80::1"]},
        {"name": "tun0", "hw": "", "inet": [], "inet6": []},
    )


def test_this_machines_loopback_is_left_out() -> None:
    assert "lo" not in [interface["name"] for interface in network_interfaces().interfaces]
