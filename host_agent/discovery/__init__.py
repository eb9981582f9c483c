"""Discovery: which guests have a port on this host, and where.

The contract of every source of ports: it reports ``Added`` when a guest's port is found, found at another place, or made
or opened up anew at the same one (so that whoever waits to try again tries at once), and ``Removed`` when the guest has no
port any more. Of several sockets that claim one name, exactly one is reported: see ``choice``.
"""

from __future__ import annotations

import dataclasses
from typing import Union

#: Names of the ports that agents listen on; the legacy one is preferred where a VM has both.
PORTS = ("com.redhat.rhevm.vdsm", "ovirt-guest-agent.0")


@dataclasses.dataclass(frozen=True)
class Added:
    """The port of the guest called *name* is the Unix socket at *path*."""

    name: str
    path: str


@dataclasses.dataclass(frozen=True)
class Removed:
    """The guest called *name* has no port any more; the last one was at *path*."""

    name: str
    path: str


Event = Union[Added, Removed]
