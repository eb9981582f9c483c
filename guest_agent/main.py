"""The command ``vmaccord-guest``: arguments, configuration, logging, signals, exit status. The work is in ``agent``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Optional

from common import settings, versions
from common.settings import SettingsError

from . import config, exits, port
from .agent import Agent
from .collectors import collectors
from .collectors.memory import Meter
from .exits import Exit

PROGRAM = "vmaccord-guest"

#: Where the machine's file system begins.
ROOT = "/"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.version:
        print(f"{PROGRAM} {_release()}\nguest API versions: {min(versions.Version)}-{versions.newest()}")
        return Exit.OK
    try:
        configuration = config.load(options)
    except SettingsError as error:
        return _failed(Exit.BAD_CONFIGURATION, error)
    if options.show_config:
        print(configuration.show())
        return Exit.OK
    _set_up_logging(configuration.log_level)
    return _work(configuration)


def _work(configuration: config.Configuration) -> Exit:
    agent = Agent(
        configuration,
        open_port=lambda: port.open_port(port.find(configuration.port)),
        collectors=collectors(ROOT, configuration.application, time.monotonic),
        meter=Meter(ROOT, time.monotonic),
        clock=time.monotonic,
    )
    try:
        with _signals_stop(agent):
            agent.run()
    except port.PortMissing as error:
        return _failed(Exit.NO_PORT, error)
    except port.PortUnusable as error:
        return _failed(Exit.PORT_UNUSABLE, error)
    finally:
        agent.close()
    return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Report what this VM knows of itself to its host, over a virtio-serial port.",
        epilog=exits.epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the release and its API versions, and exit")
    parser.add_argument("--show-config", action="store_true", help="print the effective configuration, and exit")
    parser.add_argument(
        "--config", metavar="FILE", help=f"the configuration file (default: {config.DEFAULT_FILE} if it exists)"
    )
    settings.add_options(parser, config.SETTINGS)
    return parser


def _release() -> str:
    from importlib import metadata

    try:
        return metadata.version("vmaccord")
    except metadata.PackageNotFoundError:
        return "(version unknown)"


def _set_up_logging(level: str) -> None:
    """One line per event on stderr; the journal has a clock of its own."""
    when = "%(asctime)s " if sys.stderr.isatty() else ""
    logging.basicConfig(level=level.upper(), format=f"{when}{PROGRAM}: %(message)s", stream=sys.stderr)


@contextlib.contextmanager
def _signals_stop(agent: Agent) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the loop, also when they come just before it waits."""
    descriptor_before = signal.set_wakeup_fd(agent.wakeup_descriptor, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: agent.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
        signal.set_wakeup_fd(descriptor_before)


def _failed(status: Exit, error: Exception) -> Exit:
    print(f"{PROGRAM}: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
