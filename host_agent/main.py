"""``vmaccord-host``: arguments, logging, the event loop, exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import functools
import gc
import importlib
import logging
import os
import sys
from collections.abc import Coroutine, Sequence
from types import ModuleType
from typing import Any, Callable, NoReturn, Optional

from common import settings
from common.handoff import documents, window
from common.settings import SettingsError
from common.versions import Version

from . import config, exits, release
from .exits import Exit, Failure

PROGRAM = "vmaccord-host"

#: The environment's variable that names the event loop; ``asyncio`` is the standard library's, which is always there.
LOOP_VARIABLE = "VMACCORD_LOOP"

_log = logging.getLogger(__name__)


#: When garbage is looked for: what guests cost lives long, and looking through it again and again finds nothing.
_GARBAGE = (20_000, 20, 50)


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
        if options.check:
            return _check(configuration)
        _set_up_logging(configuration.log_level)
        # The service manager's watchdog ends a daemon that hangs by SIGABRT: then the log tells where it did.
        if not faulthandler.is_enabled():
            faulthandler.enable()
        _run_in_loop(_run(configuration, functools.partial(config.load, options)))
    except SettingsError as error:
        return _fail(Exit.BAD_CONFIGURATION, str(error))
    except Failure as error:
        return _fail(error.status, str(error))
    except Exception as error:  # noqa: BLE001 - people get a sentence, whatever happens
        _log.debug("unexpected error", exc_info=True)
        return _fail(Exit.UNEXPECTED, f"unexpected error, please report it: {error!r}; --log-level debug shows more")
    return Exit.OK


def _check(configuration: config.Configuration) -> int:
    complaints = list(config.complaints(configuration))
    for complaint in complaints:
        _fail(Exit.BAD_CONFIGURATION, complaint)
    if complaints:
        return Exit.BAD_CONFIGURATION
    print("the configuration can be used")
    return Exit.OK


async def _run(configuration: config.Configuration, reload: Callable[[], config.Configuration]) -> None:
    from .daemon import Daemon  # slow to import, and --help does without

    await Daemon(configuration, reload=reload).run()


def _run_in_loop(program: Coroutine[Any, Any, None]) -> None:
    """Run *program* in the fastest event loop that is there."""
    gc.set_threshold(*_GARBAGE)
    gc.freeze()
    fast = _uvloop()
    _log.debug("event loop: %s", "asyncio" if fast is None else f"uvloop {fast.__version__}")
    if fast is None:
        asyncio.run(program)
    elif sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=fast.new_event_loop) as runner:
            runner.run(program)
    else:
        fast.install()
        asyncio.run(program)


def _uvloop() -> Optional[ModuleType]:
    """The package uvloop, unless it is not there or not wanted."""
    if os.environ.get(LOOP_VARIABLE) == "asyncio":
        return None
    with contextlib.suppress(ImportError):
        return importlib.import_module("uvloop")
    return None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Agree on an API version with every guest of this host, and tell what the guests say of themselves.",
        epilog=exits.epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"configuration file (default: {config.DEFAULT_FILE} if it exists); FILE.d/*.conf are read after it",
    )
    settings.add_options(parser, config.SETTINGS)
    parser.add_argument("--show-config", action="store_true", help="print the effective configuration and exit")
    parser.add_argument(
        "--check", action="store_true", help="say what is wrong with the configuration, if anything, and exit"
    )
    parser.add_argument("--version", action="version", version=_version(), help="print the versions and exit")
    return parser


def _version() -> str:
    return "\n".join(
        (
            f"{PROGRAM} {release()}",
            f"guest API versions: {min(Version)}-{max(Version)}",
            f"hand-off protocol versions: {min(window.VERSIONS)}-{max(window.VERSIONS)}",
            f"session specs: {min(documents.SPECS)}-{max(documents.SPECS)}",
        )
    )


def _set_up_logging(level: str) -> None:
    """One line per event on stderr; the journal has a clock of its own."""
    when = "%(asctime)s " if sys.stderr.isatty() else ""
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format=f"{when}%(levelname)s %(message)s")
    # Where a line was logged, and in which thread, nobody asks; finding out costs more than the line.
    logging._srcfile = None  # as the standard library's manual has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # What the libraries say at debug level is about themselves.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


def _fail(status: Exit, text: str) -> int:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
