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
import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from common import session, settings
from common.settings import Said, Setting, SettingsError
from common.versions import Version

from .handoff.security import PLAIN_TEXT, TLS, Security
from .paths import default_control

#: The section of the files whose settings are options too.
SECTION = "host"

#: The file that is read, where it exists, unless ``--config`` names another.
DEFAULT_FILE = "/etc/vmaccord/host.conf"

#: What a running daemon keeps as it is, whatever its files say now: places that are in use, and what sessions are made with.
ONLY_AT_START = frozenset({"control", "state"})

#: A URI without a user or host: of a daemon on this machine.
_LOCAL_URI = re.compile(r"[a-z][a-z0-9+.-]*://(/[!-~]*)?")

#: What a host on the network may be called; an IPv6 address stands in brackets.
_HOST = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class Port(NamedTuple):
    """A guest that the configuration names.

    :ivar path: the Unix socket of its port.
    """

    name: str
    path: str


class Address(NamedTuple):
    """Where a host takes hand-offs.

    :ivar host: a name or an IP address.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Peer(NamedTuple):
    """Another host, to and from which guests are handed.

    :ivar name: what it is called here.
    """

    name: str
    address: Address

    def __str__(self) -> str:
        return f"{self.name}={self.address}"


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


def _read_named(text: str) -> tuple[str, str]:
    """The two parts of ``NAME=REST``."""
    name, _, rest = (part.strip() for part in text.partition("="))
    if not name or not name.isprintable() or "/" in name:
        raise ValueError(text)
    return name, rest


def _read_port(text: str) -> Port:
    name, path = _read_named(text)
    return Port(name, _read_path(path))


def _show_port(port: Port) -> str:
    return f"{port.name}={port.path}"


def _read_address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(text)
    return Address(_read_host(host), int(port))


def _read_host(text: str) -> str:
    if text.startswith("[") and text.endswith("]") and "%" not in text:
        return str(ipaddress.IPv6Address(text[1:-1]))
    if not _HOST.fullmatch(text):
        raise ValueError(text)
    is_name = not text.rpartition(".")[2].isdigit()
    return text if is_name else str(ipaddress.IPv4Address(text))


def _read_own_address(text: str) -> Address:
    address = _read_address(text)
    ipaddress.ip_address(address.host)
    return address


def _read_peer(text: str) -> Peer:
    name, address = _read_named(text)
    return Peer(name, _read_address(address))


def _read_yes(text: str) -> bool:
    return settings.read_choice("yes", "no")(text) == "yes"


def _show_yes(value: bool) -> str:
    return "yes" if value else "no"


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


def _handoff(
    name: str,
    help: str,  # noqa: A002 - as in Setting
    read: Callable[[str], Any],
    allowed: str,
    default: Any,
    show: Callable[[Any], str] = str,
) -> Setting:
    return Setting(
        name=name,
        section="handoff",
        help=help,
        read=read,
        allowed=allowed,
        default=default,
        metavar="VALUE",
        show=show,
        repeated=default == (),
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
    _handoff(
        "listen",
        "ADDRESS:PORT at which this host takes guests from others; none: it takes none",
        read=_read_own_address,
        allowed="an IP address of this host (IPv6 in brackets), a colon, and a port",
        default=(),
    ),
    _handoff(
        "peers",
        "NAME=ADDRESS:PORT: what another host is called here, and where it takes guests; one that hands guests to this host "
        "needs a certificate for one of these addresses, or, where none is named, any of the CA",
        read=_read_peer,
        allowed="NAME=ADDRESS:PORT, with no / in the name; the address is a name or an IP address (IPv6 in brackets)",
        default=(),
    ),
    _handoff(
        "certificate",
        "file with this host's certificate, by which it is known to its peers, for clients and servers",
        read=_read_path,
        allowed="a path",
        default="/etc/vmaccord/handoff/cert.pem",
    ),
    _handoff(
        "key",
        "file with the key of the certificate",
        read=_read_path,
        allowed="a path",
        default="/etc/vmaccord/handoff/key.pem",
    ),
    _handoff(
        "ca",
        "file with the certificate of the CA that issues those of all hosts",
        read=_read_path,
        allowed="a path",
        default="/etc/vmaccord/handoff/ca.pem",
    ),
    _handoff(
        "security",
        "plain-text: whoever can reach the port may read, change and hand over sessions; only for tests",
        read=settings.read_choice(TLS, PLAIN_TEXT),
        allowed=f"{TLS}, {PLAIN_TEXT}",
        default=TLS,
    ),
    _handoff(
        "allow-loss",
        "whether a guest is handed to an older host that has no place for all that is known of it",
        read=_read_yes,
        allowed="yes, no",
        default=False,
        show=_show_yes,
    ),
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
    handoff_listen: tuple[Address, ...]
    handoff_peers: tuple[Peer, ...]
    handoff_certificate: str
    handoff_key: str
    handoff_ca: str
    handoff_security: str
    handoff_allow_loss: bool

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
    for several in ("directory", "libvirt", "port", "handoff_listen", "handoff_peers"):
        values[several] = tuple(dict.fromkeys(values[several]))
    if "port" in said:
        _check_pairs(said["port"], _show_port, "each name and each path once")
    if "handoff_peers" in said:
        _check_pairs(said["handoff_peers"], str, "each name and each address once")
    values["control"] = values["control"] or default_control()
    return Configuration(**values)


def _check_pairs(said: Said, show: Callable[[Any], str], allowed: str) -> None:
    """A name leads to one place, and a place belongs to one name: a guest's port serves one client, and a host is one peer.

    :raises SettingsError: it is not so.
    """
    names: dict[str, tuple[Any, ...]] = {}
    places: dict[Any, tuple[Any, ...]] = {}
    for pair in said.value:
        name, place = pair
        other = names.setdefault(name, pair), places.setdefault(place, pair)
        if other != (pair, pair):
            before = next(each for each in other if each != pair)
            raise SettingsError(f"{said.where}: {show(before)!r} and {show(pair)!r} exclude each other; allowed: {allowed}")


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
    if configuration.handoff_listen or configuration.handoff_peers:
        yield from Security.of(configuration).complaints()


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
