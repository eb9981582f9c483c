"""Prints: what shows, at the price of a few stats, whether the source of a slow fact has changed.

The agent takes them in its loop, so the modules that collect those facts need not be in its memory. What must be looked at
for that stands here, the collectors read it at the same places.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

from .files import entries, fingerprint, size

DPKG_STATUS = "var/lib/dpkg/status"
#: One file per package, as images without a package tool have them.
DPKG_STATUS_FILES = "var/lib/dpkg/status.d"
APK_INSTALLED = "lib/apk/db/installed"
PACMAN_LOCAL = "var/lib/pacman/local"

#: Where distributions keep a database of rpm that is SQLite's; the first one that is there counts.
RPM_SQLITE = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")

#: Databases of rpm that only the rpm program can read: ndb (SUSE), Berkeley DB (RHEL 8).
RPM_FOREIGN = ("usr/lib/sysimage/rpm/Packages.db", "var/lib/rpm/Packages.db", "var/lib/rpm/Packages")

#: Of each package database, what changes whenever a package comes or goes; SQLite notes that in a second file at first.
_PACKAGES = (
    DPKG_STATUS,
    DPKG_STATUS_FILES,
    APK_INSTALLED,
    PACMAN_LOCAL,
    *RPM_SQLITE,
    *(f"{database}-wal" for database in RPM_SQLITE),
    *RPM_FOREIGN,
)

#: Where container engines listen.
DOCKER_SOCKET = "run/docker.sock"
PODMAN_SOCKET = "run/podman/podman.sock"

PODMAN = "usr/bin/podman"

#: Where podman keeps its lists of containers: those that last, and those that do not outlive a boot.
PODMAN_STORAGE = "var/lib/containers/storage"
_PODMAN_STORAGES = (PODMAN_STORAGE, "run/containers/storage")
_PODMAN_LISTS = ("containers.json", "volatile-containers.json")

#: No list with a container in it is as short, in bytes.
_EMPTY_LIST = len("null\n")

UTMP = "run/utmp"
LOGIND_SESSIONS = "run/systemd/sessions"


class Engines(NamedTuple):
    """Whom to ask about containers: engines on *sockets*, and the podman *program* where that has none."""

    sockets: tuple[str, ...]
    program: bool


def applications(root: str) -> object:
    """Changes whenever a package database does."""
    return fingerprint(root, _PACKAGES)


def containers(root: str) -> object:
    """Stays the same as long as there is nobody to ask; None where there is: nothing shows what an engine would say."""
    found = engines(root)
    return None if any(found) else found


def sessions(root: str) -> object:
    """Changes when a session begins, ends or comes to the front; of locked screens older logind tells by signals only."""
    return fingerprint(root, (UTMP, LOGIND_SESSIONS))


def engines(root: str) -> Engines:
    """The container engines that may have something to tell."""
    docker, podman = (os.path.join(root, path) for path in (DOCKER_SOCKET, PODMAN_SOCKET))
    # Podman may be there under Docker's name.
    sockets = [docker] if os.path.exists(docker) and os.path.realpath(docker) != os.path.realpath(podman) else []
    has_containers = _podman_has_containers(root)
    if os.path.exists(podman):
        return Engines((*sockets, podman) if has_containers is not False else tuple(sockets), program=False)
    return Engines(tuple(sockets), program=has_containers is True and os.path.exists(os.path.join(root, PODMAN)))


def _podman_has_containers(root: str) -> Optional[bool]:
    """Running ones or others; None where it has not stored anything at its usual place."""
    if not os.path.isdir(os.path.join(root, PODMAN_STORAGE)):
        return None
    return any(
        size(root, f"{storage}/{driver}/{name}") > _EMPTY_LIST
        for storage in _PODMAN_STORAGES
        for driver in entries(root, storage)
        if driver.endswith("-containers")
        for name in _PODMAN_LISTS
    )
