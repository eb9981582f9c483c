"""Two network namespaces with a cable between them: hosts of a test that have nothing else in common."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest


class Host(NamedTuple):
    """A namespace.

    :ivar inside: what stands before a command that is to run in it.
    """

    address: str
    inside: tuple[str, ...]


@contextlib.contextmanager
def two_hosts(one: str = "192.0.2.1", two: str = "192.0.2.2") -> Iterator[tuple[Host, Host]]:
    """Hosts of these IPv4 addresses. The test is left out where they can't be had."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = (f"va-{os.getpid()}-1", f"va-{os.getpid()}-2")
    with contextlib.ExitStack() as undo:
        for name in names:
            if not _ip("netns", "add", name):
                pytest.skip("this machine gives no network namespaces")
            undo.callback(_ip, "netns", "delete", name)
        peer = ("peer", "name", "va", "netns", names[1])
        if not _ip("-n", names[0], "link", "add", "va", "type", "veth", *peer):
            pytest.skip("this machine gives no cable between network namespaces")
        for name, address in zip(names, (one, two)):
            assert _ip("-n", name, "address", "add", f"{address}/24", "dev", "va")
            assert _ip("-n", name, "link", "set", "va", "up")
        yield Host(one, ("ip", "netns", "exec", names[0])), Host(two, ("ip", "netns", "exec", names[1]))


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
