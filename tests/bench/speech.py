"""What simulated guests say: lines of API 3 as deployed agents write them, made beforehand so that saying one costs nothing.

No two guests and no two heartbeats in a row say the same: whoever remembers lines gains nothing.
"""

from __future__ import annotations

import random
from typing import Any

from common import codec

#: The highest version that guests speak.
NEWEST = 3

#: A prime, so that guests who take turns do not come by the same heartbeat again soon.
_MEMORIES = 997

_TOTAL = 8 * 1024 * 1024


def _memory(draw: random.Random) -> dict[str, Any]:
    free = draw.randrange(_TOTAL // 8, _TOTAL)
    return {
        "mem_total": _TOTAL,
        "mem_free": free,
        "mem_unused": free - draw.randrange(_TOTAL // 16),
        "mem_buffers": draw.randrange(20_000, 90_000),
        "mem_cached": draw.randrange(900_000, 2_000_000),
        "swap_total": 2 * 1024 * 1024,
        "swap_usage": draw.randrange(40_000),
        "swap_in": draw.randrange(30),
        "swap_out": draw.randrange(30),
        "pageflt": draw.randrange(20_000),
        "majflt": draw.randrange(40),
    }


def _beginning(memory: dict[str, Any]) -> bytes:
    """A heartbeat without its end."""
    line = codec.encode("heartbeat", {"free-ram": str(memory["mem_free"] // 1024), "memory-stat": memory})
    return line.rstrip(b"}\n") + b"}"


_draw = random.Random(5)

_BEGINNINGS = [_beginning(_memory(_draw)) for _ in range(_MEMORIES)]


def agent_id(number: int, run: int) -> str:
    """The identity of the agent in guest *number*, which has been restarted *run* times."""
    return f"{random.Random((number << 16) + run).getrandbits(128):032x}"


def heartbeat(turn: int, end: bytes) -> bytes:
    """A heartbeat; *turn* chooses what it says of memory, *end* is from ``heartbeat_end``."""
    return _BEGINNINGS[turn % _MEMORIES] + end


def heartbeat_end(number: int, supported: object, in_use: int, run: int = 0) -> bytes:
    """What heartbeats of guest *number* say of versions.

    :param supported: its ``apiVersion``, whatever it is; None: it says nothing of versions.
    :param run: how often its agent has been restarted.
    """
    if supported is None:
        return b"}\n"
    versions = {"apiVersion": supported, "apiVersionInUse": in_use, "agentId": agent_id(number, run)}
    return codec.encode("", versions).replace(b'{"__name__":"",', b",")


def facts(number: int, *, above: int, up_to: int) -> bytes:
    """All facts of guest *number* that came with a version from *above* (exclusive) to *up_to*; one line each."""
    lines = [codec.encode(name, arguments) for since, name, arguments in _facts(number) if above < since <= up_to]
    return b"".join(lines)


def completion(reply_id: object) -> bytes:
    """The answer to a command that was done."""
    return codec.encode("completion", {"reply_id": reply_id, "done": True})


def _facts(number: int) -> list[tuple[int, str, dict[str, Any]]]:
    """(since, name, arguments)."""
    draw = random.Random(number)
    name = f"web-{number}"
    hexadecimal = f"{number:04x}"
    return [
        (0, "host-name", {"name": name}),
        (0, "fqdn", {"fqdn": f"{name}.prod.example.org"}),
        (0, "os-version", {"version": "6.1.0-18-amd64"}),
        (0, "active-user", {"name": "None"}),
        (0, "memory-stats", {"memory": _memory(draw)}),
        (
            0,
            "network-interfaces",
            {
                "interfaces": [
                    {
                        "name": interface,
                        "hw": f"52:54:0{index}:{draw.randrange(16, 99)}:{hexadecimal[:2]}:{hexadecimal[2:4]}",
                        "inet": [f"10.{index}.{number >> 8 & 255}.{number & 255}"],
                        "inet6": [f"2001:db8:{index}::{hexadecimal}", f"fe80::5054:ff:fe{index:02x}:{hexadecimal}"],
                    }
                    for index, interface in enumerate(("eth0", "eth1"))
                ]
            },
        ),
        (
            0,
            "applications",
            {
                "applications": [
                    "cloud-init-22.4.2-1",
                    f"linux-image-6.1.0-{draw.randrange(10, 30)}-amd64-6.1.76-1",
                    "linux-image-amd64-6.1.76-1",
                    f"qemu-guest-agent-1:7.2+dfsg-7+deb12u{draw.randrange(9)}",
                    "spice-vdagent-0.22.1-3",
                    "vmaccord-guest-agent-0.1.0-1",
                ]
            },
        ),
        (
            0,
            "disks-usage",
            {
                "disks": [
                    {"path": path, "fs": "ext4", "total": total, "used": draw.randrange(total)}
                    for path, total in (("/", 21_003_583_488), ("/boot", 510_984_192), ("/srv", 107_374_182_400))
                ],
                "mapping": {f"{draw.getrandbits(80):020x}": {"name": f"/dev/vd{letter}"} for letter in "ab"},
            },
        ),
        (1, "number-of-cpus", {"count": draw.choice((1, 2, 4, 8))}),
        (
            2,
            "os-info",
            {
                "version": "12",
                "distribution": "Debian GNU/Linux",
                "codename": "bookworm",
                "arch": "x86_64",
                "type": "linux",
                "kernel": "6.1.0-18-amd64",
            },
        ),
        (2, "timezone", {"zone": "Europe/Berlin", "offset": 60}),
        (
            3,
            "containers",
            {
                "list": [
                    {
                        "id": f"{draw.getrandbits(256):064x}",
                        "names": [f"{service}-{number}"],
                        "image": f"registry.example.org/{service}:1.{draw.randrange(40)}",
                        "command": f"/usr/bin/{service} --listen 0.0.0.0",
                        "status": f"Up {draw.randrange(2, 30)} days",
                    }
                    for service in ("shop", "cache")
                ]
            },
        ),
    ]


#: What a guest floods with, by name: written over and over, as fast as it is read.
FLOODS = {
    "heartbeats": b"".join(heartbeat(turn, heartbeat_end(0xF100D, 3, 3)) for turn in range(150)),
    "facts": facts(0xF100D, above=-1, up_to=3) * 16,
    "garbage": b'no JSON\n{"__name__": 5}\n[]\n\xff\xfe\n{"__name__":"cut off\n' * 800,
    "unknown": b"".join(codec.encode(f"name-{turn}", {}) for turn in range(2000)),
    "endless": b"x" * 65536,
    "empty": b"\n" * 65536,
}

#: Lines that are no message, each wrong in another way.
GARBAGE = (
    b"no JSON\n",
    b"\n",
    b"[]\n",
    b'{"__name__":5}\n',
    b'{"__name__":"cut off\n',
    b'{"__name__":"no-such-message"}\n',
    b'{"__name__":"api-version","apiVersion":1}\n',
    b'{"__name__":"heartbeat","free-ram":[],"memory-stat":5}\n',
    b'{"__name__":"completion","reply_id":"nobody asked","done":true}\n',
    b"\xff\xfe\x00\x1b[2J\n",
    b"[" * 2000 + b"\n",
    b'{"__name__":"host-name","name":"\\u0000\\u001b]0;x\\u0007"}\n',
)
