"""One valid example of every message, for tests that walk through the table."""

from __future__ import annotations

from typing import Any

from common.catalogue import Direction, Row

MEMORY = {"mem_total": 2048, "mem_free": 512, "mem_unused": 256, "swap_in": 0, "pageflt": 17}

_TO_HOST: dict[str, dict[str, Any]] = {
    "heartbeat": {
        "free-ram": "512",
        "memory-stat": MEMORY,
        "apiVersion": 3,
        "apiVersionInUse": 3,
        "agentId": "run-1",
    },
    "host-name": {"name": "guest.example"},
    "os-version": {"version": "6.1.0"},
    "network-interfaces": {
        "interfaces": [{"name": "eth0", "hw": "52:54:00:00:00:01", "inet": ["192.0.2.1"], "inet6": ["2001:db8::1"]}]
    },
    "applications": {"applications": ["editor-1.0-1"]},
    "disks-usage": {
        "disks": [{"path": "/", "fs": "ext4", "total": 1 << 40, "used": 4096}],
        "mapping": {"serial-1": {"name": "/dev/vda"}},
    },
    "active-user": {"name": "None"},
    "fqdn": {"fqdn": "guest.example"},
    "memory-stats": {"memory": MEMORY},
    "session-startup": {},
    "session-shutdown": {},
    "session-logon": {},
    "session-logoff": {},
    "session-lock": {},
    "session-unlock": {},
    "uninstalled": {},
    "echo": {"anything": [1, {"at": "all"}]},
    "number-of-cpus": {"count": -1},
    "os-info": {
        "version": "12",
        "distribution": "Debian",
        "codename": "bookworm",
        "arch": "x86_64",
        "type": "linux",
        "kernel": "6.1.0",
    },
    "timezone": {"zone": "Etc/UTC", "offset": -90},
    "containers": {"list": [{"id": "c1", "names": ["web"], "image": "web:1", "command": "serve", "status": "Up 2 hours"}]},
    "completion": {
        "reply_id": "r1",
        "done": False,
        "result": {"exit_status": None, "output": "0"},
        "error": {"code": "timed-out", "message": "it took longer than 5 s"},
        "output": "0",
    },
    "capabilities": {"commands": {"exec": False, "load": True}, "features": ["repeated-completions"]},
    "unsupported": {"name": "of-the-future", "apiVersion": 5, "reason": "this agent does not know this command"},
}

_TO_GUEST: dict[str, dict[str, Any]] = {
    "refresh": {"apiVersion": 3, "hostId": "host-1"},
    "api-version": {"apiVersion": 3},
    "lock-screen": {},
    "log-off": {},
    "login": {"username": "alice@example", "password": "secret"},
    "shutdown": {"timeout": 30, "message": "maintenance", "reboot": "True"},
    "hibernate": {"state": "disk"},
    "echo": {"anything": [1, {"at": "all"}]},
    "set-number-of-cpus": {"count": 4},
    "lifecycle-event": {"type": "before_migration", "failure": True},
    "filesystem-freeze": {"thaw_after": 30, "mountpoints": ["/", "/srv"]},
    "filesystem-thaw": {},
    "filesystem-status": {},
    "filesystem-trim": {"minimum": 1 << 20},
    "set-time": {"epoch_ns": 1_800_000_000_000_000_000},
    "suspend": {"mode": "memory"},
    "load": {},
    "users": {},
    "exec": {
        "argv": ["uname", "-r"],
        "timeout": 60,
        "environment": {"LC_ALL": "C"},
        "input": "secret",
        "encoding": "base64",
    },
    "ssh-keys": {"user": "alice", "operation": "add", "keys": ["ssh-ed25519 AAAA alice@example"]},
    "set-password": {"user": "alice", "password": "secret", "crypted": True},
    "file-read": {"path": "/etc/hosts", "offset": 1, "count": 4096},
    "file-write": {"path": "/etc/hosts", "content": "AAEC", "offset": 1, "truncate": True},
}

_SAMPLES = {Direction.TO_HOST: _TO_HOST, Direction.TO_GUEST: _TO_GUEST}


def arguments_for(row: Row) -> dict[str, Any]:
    """Every argument of the message, each with a valid value, as JSON has them."""
    return dict(_SAMPLES[row.direction][row.name])
