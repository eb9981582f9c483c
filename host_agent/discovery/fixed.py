"""Ports that the configuration names: guests that are found in no other way, or that are to be called otherwise.

Nothing is looked for. Whether a socket is there shows when it is connected to, and that is tried again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from . import Added, Report


class FixedDiscovery:
    """Reports each of *ports*, a guest's name and the path of its socket, once.

    :param report: called from ``open``.
    """

    def __init__(self, ports: Iterable[tuple[str, str]], report: Report) -> None:
        self._ports = dict(ports)
        self._report = report

    def open(self) -> None:
        """Report everything."""
        for name, path in self._ports.items():
            self._report(Added(name, path))

    async def settled(self) -> None:
        """Return: ``open`` has reported everything."""

    async def run(self) -> None:
        """Wait until cancelled: nothing ever changes."""
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Nothing is held."""

    def status(self) -> dict[str, Any]:
        """The ports by name."""
        return {"fixed": dict(self._ports)}
