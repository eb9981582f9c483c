"""The settings of ``vmaccord-host``: one table for the command line, the file and the documentation.

What the settings mean stands here, next to their defaults; how a value wins over another in ``common.settings``.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable
from typing import Any, Optional

from common import session, settings
from common.settings import Setting, SettingsError
from common.versions import Version

from .paths import default_control

#: The only section of the file.
SECTION = "host"

#: The file that is read, where it exists, unless ``--config`` names another.
DEFAULT_FILE = "/etc/vmaccord/host.conf"


def _read_path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return os.path.abspath(text)


def _read_optional_path(text: str) -> Optional[str]:
    return _read_path(text) if text else None


def _show_optional_path(path: Optional[str]) -> str:
    return path or ""


SETTINGS = (
    Setting(
        name="directory",
        help="directory whose sub-directories hold one VM's ports each",
        read=_read_path,
        allowed="a path",
        default=("/var/lib/libvirt/qemu/channel/target", "/run/libvirt/qemu/channel"),
        metavar="DIRECTORY",
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
    Setting(
        name="state",
        help="SQLite file that keeps what guests said last over restarts (default: nothing is kept)",
        read=_read_optional_path,
        allowed="a path, or nothing",
        default=None,
        metavar="FILE",
        show=_show_optional_path,
    ),
    settings.max_api_version("highest API version to agree on; none: behave as a host from before versions"),
    settings.seconds("unresponsive-after", "seconds of silence after which a guest is unresponsive", session.SILENCE_LIMIT),
    settings.seconds("forget-after", "seconds after which a guest whose socket vanished is forgotten", 3600.0),
    settings.LOG_LEVEL,
)


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The effective values, one attribute per setting."""

    directory: tuple[str, ...]
    control: str
    state: Optional[str]
    max_api_version: Optional[Version]
    unresponsive_after: float
    forget_after: float
    log_level: str

    def show(self) -> str:
        """The values as a configuration file that has the same effect."""
        return settings.show(SETTINGS, SECTION, vars(self))


def load(options: argparse.Namespace, default_file: str = DEFAULT_FILE) -> Configuration:
    """What the command line, the file and the defaults say together.

    :param options: parsed arguments, among them ``config``: the file that was asked for, or None.
    :raises SettingsError: a file can't be read, or a value is not allowed.
    """
    values: dict[str, Any] = settings.resolve(SETTINGS, options, SECTION, _files(options.config, default_file))
    values["control"] = values["control"] or default_control()
    if not values["directory"]:
        raise SettingsError("directory: none is named; name at least one, or leave the key out for the default")
    values["directory"] = tuple(dict.fromkeys(values["directory"]))
    return Configuration(**values)


def _files(asked_for: Optional[str], default_file: str) -> Iterable[tuple[str, str]]:
    if asked_for is not None:
        return [(asked_for, _read_file(asked_for))]
    if os.path.exists(default_file):
        return [(default_file, _read_file(default_file))]
    return []


def _read_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return settings.decode(path, file.read(settings.FILE_LIMIT + 1))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name a readable file with --config") from None
