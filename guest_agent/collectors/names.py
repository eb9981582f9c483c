"""The machine's names: what it calls itself and what ``/etc/hosts`` makes of that. No name server is asked: it may hang."""

from __future__ import annotations

import os
from collections.abc import Iterator

from common.messages import Fqdn, HostName

from .files import read_optional


def host_name() -> HostName:
    """What the kernel holds as node name."""
    return HostName(name=os.uname().nodename)


def fqdn(root: str) -> Fqdn:
    """The host name with its domain where that is known here, else without."""
    name = os.uname().nodename
    if "." in name:
        return Fqdn(fqdn=name)
    return Fqdn(fqdn=next(_full_names(read_optional(root, "etc/hosts"), name), name))


def _full_names(hosts: str, name: str) -> Iterator[str]:
    """The names in *hosts* that are *name* with a domain."""
    for line in hosts.splitlines():
        for known in line.partition("#")[0].split()[1:]:
            host, _, domain = known.partition(".")
            if host == name and domain:
                yield known
