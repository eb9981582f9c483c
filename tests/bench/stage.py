"""Where a measurement takes place: a directory with the ports of a fleet, two cores, and the hosts that are started."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

from .processes import Daemon, Fleet, Floor, Host

#: How many guests the figures are for, unless asked otherwise: most, and those of which fewer are enough.
MANY, FEW, MOST = 5000, 1000, 10_000

_ALLOWED = sorted(os.sched_getaffinity(0))

#: The core of the guests and of what measures, and the core of the host.
GUESTS_CORE, HOST_CORE = _ALLOWED[0], _ALLOWED[-1]


class Options(NamedTuple):
    """What is measured, and how.

    :ivar guests: numbers of guests; the heartbeat is measured with each, the rest with the one that its target is for.
    :ivar seconds: how long each figure is watched.
    :ivar calm: seconds to let pass before that, for what is put off when guests connect.
    :ivar rounds: how often daemon and floor take turns; the median counts.
    :ivar settings: further lines of the daemon's configuration; ``{place}`` stands for the directory of the measurement.
    :ivar environment: of the daemon, besides this one's.
    :ivar profile: where the daemon leaves its profile; nothing else takes turns with it then.
    """

    guests: tuple[int, ...] = (FEW, MANY, MOST)
    seconds: float = 5.0
    calm: float = 3.0
    rounds: int = 3
    settings: tuple[str, ...] = ()
    environment: Optional[dict[str, str]] = None
    profile: Optional[Path] = None

    @property
    def kinds(self) -> tuple[type[Host], ...]:
        """What takes turns; the daemon is the first."""
        return (Daemon,) if self.profile else (Daemon, Floor)

    def many(self, wanted: int) -> int:
        """The number of guests for a figure whose target is for *wanted*."""
        return wanted if wanted in self.guests else max(self.guests)


class Place:
    """A directory for one fleet and its hosts."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options
        self.ports = path / "ports"
        self.ports.mkdir()

    def start(self, kind: type[Host], *settings: str) -> Host:
        """Start a host; *settings* are for the daemon."""
        if kind is Floor:
            return Floor(self._path, HOST_CORE)
        options = self._options
        return Daemon(
            self._path,
            HOST_CORE,
            settings=[*settings, *(each.format(place=self._path) for each in options.settings)],
            environment=options.environment,
            profile=options.profile,
        )


@contextlib.contextmanager
def empty_place(options: Options) -> Iterator[Place]:
    """A place without guests."""
    with tempfile.TemporaryDirectory(prefix="vmaccord-") as directory:
        yield Place(Path(directory), options)


@contextlib.contextmanager
def crowd(options: Options, count: int, **manner: Any) -> Iterator[tuple[Place, Fleet]]:
    """A place with so many guests of that *manner*."""
    with empty_place(options) as place, Fleet(place.ports, GUESTS_CORE) as fleet:
        fleet.ask("add", first=0, count=count, **manner)
        yield place, fleet


def say(text: str) -> None:
    """Tell people what takes so long."""
    print(f"{text} ...", file=sys.stderr, flush=True)
