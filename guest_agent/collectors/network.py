"""Network interfaces that are up, and their addresses. Slow: needs a large module."""

from __future__ import annotations

import fnmatch
import socket
from collections.abc import Sequence
from typing import Any

from common.messages import NetworkInterfaces

from .files import entries, read_optional

_INTERFACES = "sys/class/net"

#: As the kernel's <linux/if.h> has them.
_UP = 0x1
_LOOPBACK = 0x8


def network_interfaces(root: str, ignored: Sequence[str]) -> NetworkInterfaces:
    """All interfaces that are up, without loopback.

    :param ignored: patterns of interface names that are left out.
    :raises OSError: the kernel does not tell.
    """
    import psutil

    addresses = psutil.net_if_addrs()
    return NetworkInterfaces(
        interfaces=tuple(
            _interface(name, [each for label in addresses if _bearer(label) == name for each in addresses[label]])
            for name in entries(root, _INTERFACES)
            if _flags(root, name) & (_UP | _LOOPBACK) == _UP and not _is_ignored(name, ignored)
        )
    )


def _bearer(label: str) -> str:
    """The interface of an address with this label, which may have a part of its own, as in ``eth0:1``."""
    return label.partition(":")[0]


def _flags(root: str, name: str) -> int:
    """The interface's flags, which psutil tells in its newer releases only; 0 where it has gone."""
    try:
        return int(read_optional(root, f"{_INTERFACES}/{name}/flags"), 16)
    except ValueError:
        return 0


def _is_ignored(name: str, ignored: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)


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
