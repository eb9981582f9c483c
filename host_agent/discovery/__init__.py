"""Discovery: which guests have a port on this host, and where.

The contract of every source of ports: it reports ``Added`` when a guest's port is found, found at another place, or made
or opened up anew at the same one (so that whoever waits to try again tries at once), and ``Removed`` when the guest has no
port any more. A name has at most one port at a time. ``directory``, ``libvirt`` and ``fixed`` are sources, and ``combined``
makes one of several.
"""

from __future__ import annotations

import enum
from typing import Any, Callable, NamedTuple, Optional, Protocol, Union

#: Names of the ports that agents listen on; the legacy one is preferred where a VM has both.
PORTS = ("com.redhat.rhevm.vdsm", "ovirt-guest-agent.0")


class Added(NamedTuple):
    """The port of the guest called *name* is the Unix socket at *path*.

    :ivar uuid: of the VM; None where the source does not know it.
    """

    name: str
    path: str
    uuid: Optional[str] = None


class Removed(NamedTuple):
    """The guest called *name* has no port any more; the last one was at *path*."""

    name: str
    path: str


Event = Union[Added, Removed]
Report = Callable[[Event], None]


class Tell(Protocol):
    """Told what operators want to know besides: of the kinds ``migration`` and ``discovery`` of the feed."""

    def __call__(self, kind: str, guest: Optional[str] = None, **details: Any) -> None: ...


class Migration(enum.Enum):
    """Where the migration of a VM stands, as this host sees it."""

    # ---- On the destination ----

    #: The VM is on its way here.
    INCOMING = "incoming"
    #: It runs here, or could: whoever migrated it wanted it paused.
    ARRIVED = "arrived"
    #: It won't come: the migration failed.
    TURNED_BACK = "turned back"

    # ---- On the source ----

    #: It runs here, while its memory is sent to another host.
    BEGINS = "begins"
    #: It was stopped, to run on another host.
    LEAVING = "leaving"
    #: It is gone; it runs on another host.
    LEFT = "left"
    #: The migration failed or was cancelled; the VM stays, unless it ended meanwhile.
    FAILED = "failed"


#: Called with where a migration stands, and the VM's name and UUID.
Moving = Callable[[Migration, str, Optional[str]], None]


def ignore(_migration: Migration, _name: str, _uuid: Optional[str]) -> None:
    """Take no notice of a migration."""


class Source(Protocol):
    """Something that knows of guests and their ports; what it finds it reports in the thread of the event loop."""

    def open(self) -> None:
        """Get ready, and report what is known at once.

        :raises Failure: it can't work on this machine.
        """

    async def settled(self) -> None:
        """Return when everything has been looked at for the first time, which can take until something answers."""

    async def run(self) -> None:
        """Report changes until cancelled."""

    def close(self) -> None:
        """Let go of everything. What was reported stays as it is."""

    def status(self) -> dict[str, Any]:
        """Its part of what the control API says of this host."""


def is_name(text: str) -> bool:
    """Whether *text* can be used as a guest's name.

    One with control characters, or that is not UTF-8, would garble every log line and answer it appears in.
    """
    return bool(text) and not any(each < " " or "\x7f" <= each <= "\x9f" or "\ud800" <= each <= "\udfff" for each in text)
