"""Network interfaces that are up, and their addresses."""

from __future__ import annotations

import socket
from typing import Any

from common.messages import NetworkInterfaces


def network_interfaces() -> NetworkInterfaces:
    """All interfaces that are up, without loopback."""
    import psutil

    states = psutil.net_if_stats()
    addresses = psutil.net_if_addrs()
    return NetworkInterfaces(
        interfaces=tuple(
            _interface(name, addresses.get(name, []))
            for name, state in sorted(states.items())
            if state.isup and "loopback" not in state.flags.split(",")
        )
    )


def _interface(name: str, addresses: list[Any]) -> dict[str, Any]:
    def of(family: int) -> list[str]:
        return [each.address.partition("%")[0] for each in addresses if each.family == family]

    hardware = of(socket.AF_PACKET)
    return {
        "name": name,
        "hw": hardware[0] if hardware else "",
        "inet": of(socket.AF_INET),
        "inet6": of(socket.AF_INET6),
    }
