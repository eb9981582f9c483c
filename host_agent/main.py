"""``vmaccord-host``: arguments, logging, exit status."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn, Optional

from common import settings
from common.settings import SettingsError
from common.versions import Version

from . import config, exits, release
from .exits import Exit, Failure

PROGRAM = "vmaccord-host"

_log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(Exit.USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the daemon and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        configuration = config.load(options)
        if options.show_config:
            print(configuration.show())
            return Exit.OK
        _set_up_logging(configuration.log_level)
        asyncio.run(_run(configuration))
    except SettingsError as error:
        return _fail(Exit.BAD_CONFIGURATION, str(error))
    except Failure as error:
        return _fail(error.status, str(error))
    except Exception as error:  # noqa: BLE001 - people get a sentence, whatever happens
        _log.debug("unexpected error", exc_info=True)
        return _fail(Exit.UNEXPECTED, f"unexpected error, please report it: {error!r}; --log-level debug shows more")
    return Exit.OK


async def _run(configuration: config.Configuration) -> None:
    from .daemon import Daemon  # slow to import, and --help does without

    await Daemon(configuration).run()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Agree on an API version with every guest of this host, and tell what the guests say of themselves.",
        epilog=exits.epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help=f"configuration file (default: {config.DEFAULT_FILE} if it exists)")
    settings.add_options(parser, config.SETTINGS)
    parser.add_argument("--show-config", action="store_true", help="print the effective configuration and exit")
    parser.add_argument("--version", action="version", version=_version(), help="print the versions and exit")
    return parser


def _version() -> str:
    return f"{PROGRAM} {release()}\nguest API versions: {min(Version)}-{max(Version)}"


def _set_up_logging(level: str) -> None:
    """One line per event on stderr; the journal has a clock of its own."""
    when = "%(asctime)s " if sys.stderr.isatty() else ""
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format=f"{when}%(levelname)s %(message)s")
    # What the libraries say at debug level is about themselves.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


def _fail(status: Exit, text: str) -> int:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
