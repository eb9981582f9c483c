"""What can be configured: one table for the command line, the files and the documentation, and the reading of all of them.

What the settings mean stands here, next to their defaults; how a value wins over another in ``common.settings``. The agent
itself never imports this module, which is large: a worker reads the configuration for it.
"""

from __future__ import annotations

import argparse
import glob
import math
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn, Optional

from common import session, settings, versions
from common.settings import Setting, SettingsError

from . import exits
from .collectors import disks
from .commands import COMMANDS, dangerous
from .config import Configuration
from .exits import Exit
from .schedule import NEVER, PERIODS
from .worker import Report

PROGRAM = "vmaccord-guest"

#: The file's section whose settings are options too.
SECTION = "guest"

#: The file that is read, where it exists, unless ``--config`` names another.
DEFAULT_FILE = "/etc/vmaccord/guest.conf"

_NEVER = "never"

#: Without it a host sends few commands.
_NEEDED_FACT = "capabilities"


def _read_path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return os.path.abspath(text)


def _read_absolute_path(text: str) -> str:
    """A path that only files name: nobody knows from where the agent is started."""
    if not text.startswith("/"):
        raise ValueError(text)
    return _read_path(text)


def _read_optional_path(text: str) -> Optional[str]:
    return _read_absolute_path(text) if text else None


def _show_optional_path(path: Optional[str]) -> str:
    return path or ""


def _read_period(text: str) -> float:
    return NEVER if text == _NEVER else settings.read_seconds(text)


def _show_period(seconds: float) -> str:
    return _NEVER if math.isinf(seconds) else settings.show_seconds(seconds)


def _period(fact: str) -> Setting:
    needed = fact == _NEEDED_FACT
    return Setting(
        name=fact,
        section="periods",
        help=f"seconds between two reports of {fact}",
        read=settings.read_seconds if needed else _read_period,
        allowed=settings.ALLOWED_SECONDS if needed else f"{settings.ALLOWED_SECONDS}, or {_NEVER}",
        default=PERIODS[fact],
        metavar="SECONDS",
        show=_show_period,
    )


def _patterns(name: str, help: str, allowed: str, default: tuple[str, ...] = ()) -> Setting:  # noqa: A002 - as in Setting
    return Setting(name=name, help=help, read=str, allowed=allowed, default=default, metavar="PATTERN", repeated=True)


def _commands(name: str, help: str, names: Collection[str] = COMMANDS) -> Setting:  # noqa: A002 - as in Setting
    return Setting(
        name=name,
        section="commands",
        help=help,
        read=settings.read_choice(*names),
        allowed=f"names out of {', '.join(sorted(names))}",
        default=(),
        metavar="NAMES",
        repeated=True,
        words=True,
    )


def _roots(name: str, help: str) -> Setting:  # noqa: A002 - as in Setting
    return Setting(
        name=name,
        section="files",
        help=help,
        read=_read_absolute_path,
        allowed="an absolute path",
        default=(),
        metavar="DIRECTORY",
        repeated=True,
    )


def _within(section: str, setting: Setting) -> Setting:
    import dataclasses

    return dataclasses.replace(setting, section=section)


SETTINGS = (
    Setting(
        name="port",
        help="virtio-serial port or serial line to the host; the first one that exists is used",
        read=_read_path,
        allowed="at least one path",
        default=("/dev/virtio-ports/com.redhat.rhevm.vdsm", "/dev/virtio-ports/ovirt-guest-agent.0"),
        metavar="PATH",
        repeated=True,
        needed=True,
    ),
    settings.max_api_version("highest API version to offer; none: behave as an agent from before versions"),
    settings.seconds("heartbeat", "seconds between heartbeats", session.HEARTBEAT_PERIOD),
    settings.seconds("port-timeout", "seconds to wait at start for a port to appear", 3.0),
    _patterns(
        "application",
        "name of packages to report as installed, with * and ? as wildcards",
        "a package name, or a pattern of one",
        (
            "cloud-init",
            "kernel",
            "kernel-core",
            "linux-image-*",
            "ovirt-guest-agent*",
            "qemu-guest-agent*",
            "spice-vdagent",
            "vmaccord*",
        ),
    ),
    _patterns(
        "ignore-interface",
        "name of network interfaces not to report, with * and ? as wildcards",
        "an interface's name, or a pattern of one",
    ),
    _patterns(
        "ignore-file-system",
        "type of file systems not to report, with * and ? as wildcards; those without a disk are never reported",
        "a file system's type, or a pattern of one",
        disks.IGNORED,
    ),
    settings.LOG_LEVEL,
    *map(_period, PERIODS),
    _commands(
        "allow",
        "commands that the host may give; none named: all but the dangerous ones, which a name here turns on as enable does",
    ),
    _commands("block", "commands that the host may not give, whatever allow or enable name"),
    _commands(
        "enable",
        "dangerous commands that the host may give beside those: each gives it power over everything in this VM",
        dangerous(),
    ),
    Setting(
        name="login-helper",
        section="commands",
        help="program that logs a user in: it reads the user's name and the password, a line each (default: there is none)",
        read=_read_optional_path,
        allowed="an absolute path, or nothing",
        default=None,
        metavar="PATH",
        show=_show_optional_path,
    ),
    _within("commands", settings.seconds("deadline", "seconds that a command may take", 60.0)),
    Setting(
        name="directory",
        section="hooks",
        help="directory of the hooks: before_migration/, after_migration/, before_hibernation/, after_hibernation/, "
        "before_freeze/ and after_thaw/",
        read=_read_absolute_path,
        allowed="an absolute path",
        default="/etc/vmaccord/hooks.d",
        metavar="DIRECTORY",
    ),
    _within("hooks", settings.seconds("deadline", "seconds that one hook may take", 30.0)),
    _roots("read", "directory below which the host may read files, with file-read"),
    _roots("write", "directory below which the host may write files, with file-write"),
    _within("freeze", settings.seconds("limit", "seconds that the host may keep file systems frozen", 600.0)),
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(Exit.USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")

    def print_help(self, file: object = None) -> None:
        say(self.format_help().rstrip("\n"))


def begin(arguments: Optional[Sequence[str]], report: Report) -> None:
    """Do what the command line asks for, or report the configuration for the agent to run with.

    :raises SystemExit: the command line or the configuration is wrong, or that was all.
    """
    options = parser().parse_args(arguments)
    if options.version:
        say(f"{PROGRAM} {_release()}\nguest API versions: {min(versions.Version)}-{versions.newest()}")
        return
    if options.thaw:
        raise SystemExit(_thaw(options))
    try:
        configuration = load(options)
    except SettingsError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        raise SystemExit(Exit.BAD_CONFIGURATION) from None
    if options.show_config:
        say(show(configuration))
    elif options.check:
        from . import check, surroundings

        raise SystemExit(check.check(configuration, surroundings.here(), say))
    else:
        report(configuration.plain())


def _thaw(options: argparse.Namespace) -> Exit:
    """Thaw what is noted as frozen. A configuration that can't be used keeps nothing frozen: then the defaults count."""
    from . import freezing, surroundings

    try:
        configuration = load(options)
    except SettingsError as error:
        print(f"{PROGRAM}: {error}; going by the defaults", file=sys.stderr)
        configuration = load(parser().parse_args(["--config", os.devnull]))
    undone = freezing.thaw_now(surroundings.here().machine(configuration))
    if undone is None:
        say("nothing is noted as frozen")
        return Exit.OK
    thawed, problems = undone
    for path in thawed:
        say(f"{path}: thawed")
    for problem in problems:
        print(f"{PROGRAM}: {problem}", file=sys.stderr)
    return Exit.UNEXPECTED if problems else Exit.OK


def say(text: str) -> None:
    """Print *text*, in a worker.

    :raises SystemExit: the standard output does not take it, which is said.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # What is still kept there to be written must not fail again at the worker's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"{PROGRAM}: the standard output can't be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(Exit.UNEXPECTED) from None


def reload(arguments: Optional[Sequence[str]], report: Report) -> None:
    """Report why the configuration can't be used, and the configuration."""
    try:
        report((None, load(parser().parse_args(arguments)).plain()))
    except SettingsError as error:
        report((str(error), None))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog=PROGRAM,
        description="Report to its host what this VM knows of itself, over a virtio-serial port, and do what the host asks.",
        epilog=exits.epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="store_true", help="print the release and its API versions, and exit")
    made.add_argument("--show-config", action="store_true", help="print the effective configuration, and exit")
    made.add_argument(
        "--check", action="store_true", help="tell what works on this machine and what does not, and why; and exit"
    )
    made.add_argument(
        "--thaw", action="store_true", help="thaw what an agent that is gone has left frozen, and exit; no host is needed"
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        help=f"the configuration file (default: {DEFAULT_FILE} if it exists); FILE.d/*.conf are read after it",
    )
    settings.add_options(made, SETTINGS)
    return made


def load(options: argparse.Namespace, default_file: str = DEFAULT_FILE) -> Configuration:
    """What the command line, the files and the defaults say together.

    :param options: parsed arguments, among them ``config``: the file that was asked for, or None.
    :raises SettingsError: a file can't be read, or a value is not allowed.
    """
    values: dict[str, Any] = settings.resolve(SETTINGS, options, SECTION, _files(options.config, default_file))
    values["periods"] = {name: values.pop(_period(name).attribute) for name in PERIODS}
    return Configuration(**values)


def show(configuration: Configuration) -> str:
    """The values as a configuration file that has the same effect."""
    periods = {_period(name).attribute: period for name, period in configuration.periods.items()}
    return settings.show(SETTINGS, SECTION, {**configuration._asdict(), **periods})


def _files(asked_for: Optional[str], default_file: str) -> Iterator[tuple[str, str]]:
    """The text of the configuration file, then those of the files that are dropped in beside it."""
    file = asked_for if asked_for is not None else default_file
    if asked_for is not None or os.path.exists(file):
        yield file, _read_file(file, "name a readable file with --config")
    for dropped_in in sorted(glob.glob(os.path.join(glob.escape(f"{file}.d"), "*.conf"))):
        yield dropped_in, _read_file(dropped_in, "make it readable, or remove it")


def _read_file(path: str, remedy: str) -> str:
    try:
        with open(path, "rb") as file:
            return settings.decode(path, file.read(settings.FILE_LIMIT + 1))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; {remedy}") from None


def _release() -> str:
    from importlib import metadata

    try:
        return metadata.version("vmaccord")
    except metadata.PackageNotFoundError:
        return "(version unknown)"
