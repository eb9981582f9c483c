"""The facts of this machine, one collector each.

A collector takes nothing, runs no command, asks no name server and returns the message to send, or several: notices of
what has changed, then the fact. Where the machine does not tell, it raises OSError or ValueError. It may hang on a file
system: it runs in the worker thread.

What is read here (``/proc``, ``/etc``, sockets) is not believed unchecked: sizes are bounded, numbers are parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Union

from common.messages import Message

from . import applications, containers, cpus, disks, memory, names, network, system, timezone, users

#: Gathers one fact.
Collector = Callable[[], Union[Message, Sequence[Message]]]


def collectors(root: str, patterns: Sequence[str], clock: Callable[[], float]) -> dict[str, Collector]:
    """Every fact's collector by wire name; what can be slow comes last.

    :param root: where the machine's file system begins.
    :param patterns: names of the applications to report.
    :param clock: seconds, monotonic.
    """
    meter = memory.Meter(root, clock)
    return {
        "host-name": names.host_name,
        "fqdn": lambda: names.fqdn(root),
        "os-version": system.os_version,
        "os-info": lambda: system.os_info(root),
        "number-of-cpus": lambda: cpus.number_of_cpus(root),
        "timezone": lambda: timezone.timezone(root),
        "memory-stats": meter.memory_stats,
        "active-user": users.Users().report,
        "network-interfaces": network.network_interfaces,
        "applications": lambda: applications.applications(root, patterns),
        "containers": lambda: containers.containers(root),
        "disks-usage": lambda: disks.disks_usage(root),
    }
