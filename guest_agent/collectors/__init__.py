"""The facts of this machine, one collector each.

A *quick* collector reads small files of ``/proc``, ``/sys`` and ``/etc``, in the agent's loop. A *slow* one may hang, or
needs a large module: it runs in a worker, and its modules are imported there only. Neither asks a name server. Where the
machine does not tell, a collector raises OSError or ValueError. A *print* shows, at the price of a stat, whether the source
of a slow fact has changed; it is None where nothing shows that.

What is read here (``/proc``, ``/etc``, sockets) is not believed unchecked: sizes are bounded, numbers are parsed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Callable, NamedTuple, Union

from common.messages import Message
from guest_agent.sessions import UserSession

from . import capabilities, cpus, memory, names, prints, system, timezone

#: Collects one fact in the loop.
Quick = Callable[[], Message]

#: Collects one fact in a worker; active-user is told as the sessions of all users.
Slow = Callable[[], Union[Message, Sequence[UserSession]]]


class Wishes(NamedTuple):
    """What the configuration says of facts: patterns with ``*`` and ``?``, and the commands that the host may give."""

    applications: Sequence[str]
    ignored_interfaces: Sequence[str]
    ignored_file_systems: Sequence[str]
    permitted: Collection[str]


class Sources(NamedTuple):
    """The collectors by the wire name of their fact; of the slow ones, those that may hang come last."""

    quick: Mapping[str, Quick]
    slow: Mapping[str, Slow]
    prints: Mapping[str, Callable[[], object]]


def sources(root: str, wishes: Wishes, clock: Callable[[], float], logins: Callable[[], object]) -> Sources:
    """The collectors of the machine whose file system begins at *root*.

    :param clock: seconds, monotonic.
    :param logins: tells whether users have come or gone, as far as that can be told.
    """
    return Sources(
        quick={
            "host-name": names.host_name,
            "fqdn": lambda: names.fqdn(root),
            "os-version": system.os_version,
            "os-info": lambda: system.os_info(root),
            "number-of-cpus": lambda: cpus.number_of_cpus(root),
            "capabilities": lambda: capabilities.capabilities(wishes.permitted),
            "timezone": lambda: timezone.timezone(root),
            "memory-stats": memory.Meter(root, clock).memory_stats,
        },
        slow={
            "active-user": lambda: _sessions(root),
            "network-interfaces": lambda: _network_interfaces(root, wishes),
            "applications": lambda: _applications(root, wishes),
            "containers": lambda: _containers(root),
            "disks-usage": lambda: _disks_usage(root, wishes),
        },
        prints={
            "active-user": lambda: (logins(), prints.sessions(root)),
            "applications": lambda: prints.applications(root),
            "containers": lambda: prints.containers(root),
        },
    )


# ---- Collectors whose modules only a worker imports ----


def _sessions(root: str) -> Sequence[UserSession]:
    from . import users

    return users.sessions(root)


def _network_interfaces(root: str, wishes: Wishes) -> Message:
    from . import network

    return network.network_interfaces(root, wishes.ignored_interfaces)


def _applications(root: str, wishes: Wishes) -> Message:
    from guest_agent import processes

    from . import applications

    return applications.applications(root, wishes.applications, processes.run)


def _containers(root: str) -> Message:
    from guest_agent import processes

    from . import containers

    return containers.containers(root, processes.run)


def _disks_usage(root: str, wishes: Wishes) -> Message:
    from . import disks

    return disks.disks_usage(root, wishes.ignored_file_systems)
