"""What the agent finds on the machine that it runs on, put together from the configuration."""

from __future__ import annotations

import functools
import time
from typing import Callable, NamedTuple, Optional

from . import collectors, commands, logind, port
from .collectors import Sources
from .collectors.memory import Meter
from .config import Configuration
from .crew import Crew
from .freezer import Freezer
from .quiet import QuietLog

#: Where the machine's file system begins.
ROOT = "/"


class Surroundings(NamedTuple):
    """What the agent finds on the machine that it runs on.

    :ivar open_port: opens the port or raises PortError.
    :ivar sources: the collectors; takes what tells whether users have come or gone.
    :ivar machine: what commands act on.
    :ivar freezer: makes what freezes and thaws the machine's file systems.
    :ivar meter: measures memory for the heartbeats, in the loop.
    :ivar connect_to_logind: connects to logind; None: there is none.
    """

    open_port: Callable[[Configuration], port.Port]
    sources: Callable[[Configuration, Callable[[], object]], Sources]
    machine: Callable[[Configuration], commands.Machine]
    freezer: Callable[[Crew, QuietLog, commands.Machine], Freezer]
    meter: Meter
    connect_to_logind: Callable[[], Optional[logind.Logind]]


def here() -> Surroundings:
    """Those of this machine."""
    return Surroundings(
        open_port=_open_port,
        sources=_sources,
        machine=_machine,
        freezer=Freezer,
        meter=Meter(ROOT, time.monotonic),
        connect_to_logind=functools.partial(logind.connect, ROOT),
    )


def _open_port(configuration: Configuration) -> port.Port:
    return port.open_port(port.find(configuration.port))


def _sources(configuration: Configuration, logins: Callable[[], object]) -> Sources:
    wishes = collectors.Wishes(
        configuration.application,
        configuration.ignore_interface,
        configuration.ignore_file_system,
        configuration.permitted,
    )
    return collectors.sources(ROOT, wishes, time.monotonic, logins)


def _machine(configuration: Configuration) -> commands.Machine:
    return commands.Machine(
        root=ROOT,
        login_helper=configuration.commands_login_helper,
        hooks_directory=configuration.hooks_directory,
        hooks_deadline=configuration.hooks_deadline,
        deadline=configuration.commands_deadline,
        read_roots=configuration.files_read,
        write_roots=configuration.files_write,
        freeze_limit=configuration.freeze_limit,
    )
