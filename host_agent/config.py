"""The settings of ``vmaccord-host``: one table for the command line, the files and the documentation.

What the settings mean stands here, next to their defaults, and which of them a running daemon can take over; how a value
wins over another in ``common.settings``.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import grp
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional

from common import session, settings
from common.settings import Said, Setting, SettingsError
from common.versions import Version

from .paths import default_control

#: The section of the files whose settings are options too.
SECTION = "host"

#: The file that is read, where it exists, unless ``--config`` names another.
DEFAULT_FILE = "/etc/vmaccord/host.conf"

#: What a running daemon keeps as it is, whatever its files say now: places that are in use, and what sessions are made with.
ONLY_AT_START = frozenset({"control", "state"})

#: A URI without a user or host: of a daemon on this machine.
_LOCAL_URI = re.compile(r"[a-z][a-z0-9+.-]*://(/[!-~]*)?")


class Port(NamedTuple):
    """A guest that the configuration names.

    :ivar path: the Unix socket of its port.
    """

    name: str
    path: str


def _read_path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return os.path.abspath(text)


def _read_optional_path(text: str) -> Optional[str]:
    return _read_path(text) if text else None


def _read_uri(text: str) -> str:
    if not _LOCAL_URI.fullmatch(text):
        raise ValueError(text)
    return text


def _read_port(text: str) -> Port:
    name, _, path = (part.strip() for part in text.partition("="))
    if not name or not name.isprintable() or "/" in name:
        raise ValueError(text)
    return Port(name, _read_path(path))


def _show_port(port: Port) -> str:
    return f"{port.name}={port.path}"


def _read_group(text: str) -> Optional[str]:
    if not text.isprintable() or set(text) & set(" :,/"):
        raise ValueError(text)
    return text or None


def _show_optional(value: Optional[str]) -> str:
    return value or ""


def _group(name: str, help: str) -> Setting:  # noqa: A002 - as in Setting
    return Setting(
        name=name,
        help=f"{help} (default: no group)",
        read=_read_group,
        allowed="a group's name, or nothing",
        default=None,
        metavar="GROUP",
        show=_show_optional,
    )


def _limit(name: str, help: str, default: int, lowest: int, highest: int) -> Setting:  # noqa: A002 - as in Setting
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
            raise ValueError(text)
        return int(text)

    return Setting(
        name=name,
        section="limits",
        help=help,
        read=read,
        allowed=f"a whole number from {lowest} to {highest}",
        default=default,
        metavar="NUMBER",
    )


SETTINGS = (
    Setting(
        name="directory",
        help="directory whose sub-directories hold one VM's ports each; the default counts only where no libvirt is named",
        read=_read_path,
        allowed="a path",
        default=("/var/lib/libvirt/qemu/channel/target", "/run/libvirt/qemu/channel"),
        metavar="DIRECTORY",
        repeated=True,
    ),
    Setting(
        name="libvirt",
        help="URI of a libvirt daemon on this machine that is asked for guests and their ports, such as qemu:///system",
        read=_read_uri,
        allowed="a URI without a host, such as qemu:///system",
        default=(),
        metavar="URI",
        repeated=True,
    ),
    Setting(
        name="port",
        help="NAME=PATH: name of a guest that is found in no other way, and the Unix socket of its port",
        read=_read_port,
        allowed="NAME=PATH, with no / in the name",
        default=(),
        metavar="PORT",
        show=_show_port,
        repeated=True,
    ),
    Setting(
        name="control",
        help="path of the control socket (default: /run/vmaccord/control.sock for root, "
        "$XDG_RUNTIME_DIR/vmaccord/control.sock or a private directory below the temporary one for others)",
        read=_read_path,
        allowed="a path",
        default=None,
        metavar="PATH",
    ),
    _group("operator-group", "group whose members may command guests through the control socket, as root may"),
    _group("viewer-group", "group whose members may look at guests through the control socket, but not command them"),
    Setting(
        name="state",
        help="SQLite file that keeps what guests said last over restarts (default: nothing is kept)",
        read=_read_optional_path,
        allowed="a path, or nothing",
        default=None,
        metavar="FILE",
        show=_show_optional,
    ),
    settings.max_api_version("highest API version to agree on; none: behave as a host from before versions"),
    settings.seconds("unresponsive-after", "seconds of silence after which a guest is unresponsive", session.SILENCE_LIMIT),
    settings.seconds("forget-after", "seconds after which a guest whose socket vanished is forgotten", 3600.0),
    settings.seconds("drain", "seconds that commands in flight are given to complete when the daemon stops", 5.0),
    settings.LOG_LEVEL,
    _limit(
        "message-rate",
        "messages a second that one guest may send for long; ten seconds' worth of them may come at once",
        default=200,
        lowest=1,
        highest=1_000_000,
    ),
    _limit(
        "byte-rate",
        "bytes a second that one guest may send for long; ten seconds' worth of them may come at once",
        default=1024 * 1024,
        lowest=1024,
        highest=1024**3,
    ),
    _limit("facts-size", "bytes that the facts of one guest may take", default=256 * 1024, lowest=1024, highest=1024**3),
)


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The effective values, one attribute per setting; those of other sections than the main one begin with its name."""

    directory: tuple[str, ...]
    libvirt: tuple[str, ...]
    port: tuple[Port, ...]
    control: str
    operator_group: Optional[str]
    viewer_group: Optional[str]
    state: Optional[str]
    max_api_version: Optional[Version]
    unresponsive_after: float
    forget_after: float
    drain: float
    log_level: str
    limits_message_rate: int
    limits_byte_rate: int
    limits_facts_size: int

    def show(self) -> str:
        """The values as a configuration file that has the same effect."""
        return settings.show(SETTINGS, SECTION, vars(self))


def load(options: argparse.Namespace, default_file: str = DEFAULT_FILE) -> Configuration:
    """What the command line, the files and the defaults say together.

    :param options: parsed arguments, among them ``config``: the file that was asked for, or None.
    :raises SettingsError: a file can't be read, or a value is not allowed.
    """
    said = settings.said(SETTINGS, options, SECTION, _files(options.config, default_file))
    values: dict[str, Any] = {setting.attribute: setting.default for setting in SETTINGS}
    values.update((attribute, each.value) for attribute, each in said.items())
    if values["libvirt"] and "directory" not in said:
        values["directory"] = ()
    if not values["directory"] and not values["libvirt"] and not values["port"]:
        raise SettingsError(
            f"{said['directory'].where}: none is named, nor any libvirt or port; "
            "name where guests are, or leave the key out for the default directories"
        )
    for several in ("directory", "libvirt", "port"):
        values[several] = tuple(dict.fromkeys(values[several]))
    _check_ports(said)
    values["control"] = values["control"] or default_control()
    return Configuration(**values)


def _check_ports(said: Mapping[str, Said]) -> None:
    """A name leads to one port, and a port, which serves one client, belongs to one name.

    :raises SettingsError: it is not so.
    """
    if "port" not in said:
        return
    names: dict[str, Port] = {}
    paths: dict[str, Port] = {}
    for port in said["port"].value:
        other = names.setdefault(port.name, port), paths.setdefault(port.path, port)
        if other != (port, port):
            before = next(each for each in other if each != port)
            raise SettingsError(
                f"{said['port'].where}: {_show_port(before)!r} and {_show_port(port)!r} exclude each other; "
                "allowed: each name and each path once"
            )


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


# ---- On this machine ----


def complaints(configuration: Configuration) -> Iterator[str]:
    """What *configuration* asks for and this machine does not have, a sentence each."""
    if configuration.libvirt and importlib.util.find_spec("libvirt") is None:
        yield "libvirt: Python's libvirt is missing; install python3-libvirt (with pip: libvirt-python), or name directories"
    for name, group in (("operator-group", configuration.operator_group), ("viewer-group", configuration.viewer_group)):
        if group is not None and not _is_group(group):
            yield f"{name}: there is no group {group!r}; make it with groupadd, or name another"
    directory = os.path.dirname(configuration.state or "/")
    if not os.path.isdir(directory):
        yield f"state: there is no directory {directory!r}; make it, or name a file in another"


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


# ---- While the daemon runs ----


class Changes(NamedTuple):
    """What a running daemon makes of a configuration that it has read again.

    :ivar configuration: what counts from now on.
    :ivar now: the settings that have changed, as a person knows them.
    :ivar at_start: those that were changed as well, and wait for the next start.
    """

    configuration: Configuration
    now: tuple[str, ...]
    at_start: tuple[str, ...]


def changes(old: Configuration, new: Configuration) -> Changes:
    """What becomes different when a daemon that runs with *old* reads *new*."""
    different = [each for each in SETTINGS if getattr(old, each.attribute) != getattr(new, each.attribute)]
    waiting = [each for each in different if each.name in ONLY_AT_START]
    kept = {each.attribute: getattr(old, each.attribute) for each in waiting}
    return Changes(
        dataclasses.replace(new, **kept),
        tuple(_full_name(each) for each in different if each not in waiting),
        tuple(map(_full_name, waiting)),
    )


def _full_name(setting: Setting) -> str:
    return f"[{setting.section}] {setting.name}" if setting.section else setting.name
