"""The command ``vmaccord-guest``: arguments, configuration, logging, signals, exit status. The work is in ``agent``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn, Optional

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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(Exit.USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.version:
        print(f"{PROGRAM} {_release()}\nguest API versions: {min(versions.Version)}-{versions.newest()}")
        return Exit.OK
    try:
        configuration = config.load(options)
        if options.show_config:
            print(configuration.show())
            return Exit.OK
        _set_up_logging(configuration.log_level)
        _work(configuration)
    except SettingsError as error:
        return _failed(Exit.BAD_CONFIGURATION, str(error))
    except port.PortMissing as error:
        return _failed(Exit.NO_PORT, str(error))
    except port.PortUnusable as error:
        return _failed(Exit.PORT_UNUSABLE, str(error))
    except Exception as error:  # noqa: BLE001 - people get a sentence, whatever happens
        return _failed(Exit.UNEXPECTED, f"unexpected error, please report it: {_trail(error)}")
    return Exit.OK


def _work(configuration: config.Configuration) -> None:
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
    finally:
        agent.close()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
    logging.basicConfig(level=level.upper(), format=f"{when}%(levelname)s %(message)s", stream=sys.stderr)


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


def _trail(error: Exception) -> str:
    """What *error* is and the way to it; without its text, which may quote a password."""
    places = (
        f"{os.path.basename(frame.f_code.co_filename)}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)
    )
    return f"{type(error).__name__} at {', '.join(places)}"


def _failed(status: Exit, text: str) -> Exit:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
