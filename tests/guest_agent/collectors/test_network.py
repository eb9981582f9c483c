"""Network interfaces."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from guest_agent.collectors.network import network_interfaces

UP, BROADCAST, LOOPBACK, RUNNING = 0x1, 0x2, 0x8, 0x40


def address(family: int, text: str) -> Any:
    return SimpleNamespace(family=family, address=text)


def has_interface(root: Path, name: str, flags: str) -> None:
    (root / "sys/class/net" / name).mkdir(parents=True)
    (root / "sys/class/net" / name / "flags").write_text(flags, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with some interfaces."""
    has_interface(tmp_path, "lo", hex(UP | LOOPBACK | RUNNING))
    has_interface(tmp_path, "eth0", f"{UP | BROADCAST | RUNNING:#x}\n")
    has_interface(tmp_path, "eth1", hex(BROADCAST))
    has_interface(tmp_path, "tun0", hex(UP))
    has_interface(tmp_path, "docker0", hex(UP | BROADCAST))
    addresses = {
        "lo": [address(socket.AF_INET, "127.0.0.1")],
        "eth0": [
            address(socket.AF_INET, "192.0.2.7"),
            address(socket.AF_INET, "192.0.2.8"),
            address(socket.AF_INET6, "fe80::1%eth0"),
            address(socket.AF_PACKET, "52:54:00:00:00:01"),
        ],
        "eth0:1": [address(socket.AF_INET, "192.0.2.9")],
        "eth00": [address(socket.AF_INET, "192.0.2.10")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    return tmp_path


def names(root: Path, *ignored: str) -> list[str]:
    return [interface["name"] for interface in network_interfaces(str(root), ignored).interfaces]


def test_interfaces_that_are_up_are_reported_with_their_addresses(root: Path) -> None:
    assert network_interfaces(str(root), ["docker*"]).interfaces == (
        {
            "name": "eth0",
            "hw": "52:54:00:00:00:01",
            "inet": ["192.0.2.7", "192.0.2.8", "192.0.2.9"],
            "inet6": ["fe80::1"],
        },
        {"name": "tun0", "hw": "", "inet": [], "inet6": []},
    )


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        ((), ["docker0", "eth0", "tun0"]),
        (("*",), []),
        (("docker?", "t[au]n*", "eth"), ["eth0"]),
        (("ETH*", "tun"), ["docker0", "eth0", "tun0"]),
    ],
)
def test_interfaces_that_match_a_pattern_are_left_out(ignored: tuple[str, ...], expected: list[str], root: Path) -> None:
    assert names(root, *ignored) == expected


@pytest.mark.parametrize("flags", ["", "garbage\n", "0x\n"])
def test_an_interface_whose_flags_are_unknown_is_left_out(flags: str, root: Path) -> None:
    has_interface(root, "strange0", flags)
    (root / "sys/class/net/bonding_masters").write_text("bond0\n", encoding="utf-8")
    assert names(root) == ["docker0", "eth0", "tun0"]


def test_a_kernel_that_does_not_tell_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def net_if_addrs() -> Any:
        raise OSError("no netlink")

    monkeypatch.setattr(psutil, "net_if_addrs", net_if_addrs)
    with pytest.raises(OSError, match="no netlink"):
        names(root)


def test_this_machines_loopback_is_left_out() -> None:
    assert "lo" not in names(Path("/"))
