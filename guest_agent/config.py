"""The settings of ``vmaccord-guest``: one table for the command line, the file and the documentation.

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

#: The only section of the file.
SECTION = "guest"

#: The file that is read, where it exists, unless ``--config`` names another.
DEFAULT_FILE = "/etc/vmaccord/guest.conf"


def _read_path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return os.path.abspath(text)


SETTINGS = (
    Setting(
        name="port",
        help="virtio-serial port or serial line to the host; the first one that exists is used",
        read=_read_path,
        allowed="a path",
        default=("/dev/virtio-ports/com.redhat.rhevm.vdsm", "/dev/virtio-ports/ovirt-guest-agent.0"),
        metavar="PATH",
        repeated=True,
    ),
    settings.max_api_version("highest API version to offer; none: behave as an agent from before versions"),
    settings.seconds("heartbeat", "seconds between heartbeats", session.HEARTBEAT_PERIOD),
    settings.seconds("port-timeout", "seconds to wait at start for a port to appear", 3.0),
    Setting(
        name="application",
        help="name of packages to report as installed, with * and ? as wildcards",
        read=str,
        allowed="a package name, or a pattern of one",
        default=(
            "cloud-init",
            "kernel",
            "kernel-core",
            "linux-image-*",
            "ovirt-guest-agent*",
            "qemu-guest-agent*",
            "spice-vdagent",
            "vmaccord*",
        ),
        metavar="PATTERN",
        repeated=True,
    ),
    settings.LOG_LEVEL,
)


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The effective values, one attribute per setting."""

    port: tuple[str, ...]
    max_api_version: Optional[Version]
    heartbeat: float
    port_timeout: float
    application: tuple[str, ...]
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
