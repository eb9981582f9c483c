"""Installed packages out of a list of names, from the package databases themselves. Slow: these are large.

As hosts expect them: ``name-version`` for packages of Debian, Alpine and Arch, ``name-version-release`` for RPM ones (see
``rpm``, which runs a program only for databases that nothing else can read). Where several package systems have left
databases, all of them count.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from common.messages import Applications

from . import files, rpm
from .prints import APK_INSTALLED, DPKG_STATUS, DPKG_STATUS_FILES, PACMAN_LOCAL

if TYPE_CHECKING:
    from guest_agent.processes import Run

#: What dpkg calls a package that is there, whatever is wanted of it.
_INSTALLED = frozenset({"installed", "triggers-awaited", "triggers-pending"})

#: Longer lines of a package database are cut, in characters.
_LINE_LIMIT = 1024 * 1024


def applications(root: str, patterns: Sequence[str], run: Run) -> Applications:
    """The installed packages whose name matches one of *patterns*, sorted, each once.

    :param run: runs the rpm program, where only that can read the database.
    :raises OSError: a package database is there but can't be read.
    :raises ValueError: a package database is damaged.
    :raises ProgramError: rpm could not be run.
    """
    match = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or "(?!)").match
    packages = (*_debian(root), *_alpine(root), *_arch(root), *rpm.packages(root, lambda name: match(name) is not None, run))
    return Applications(applications=tuple(sorted({f"{name}-{version}" for name, version in packages if match(name)})))


def _debian(root: str) -> Iterator[tuple[str, str]]:
    for fields in _paragraphs(root, DPKG_STATUS):
        if fields.get("Status", "").rpartition(" ")[2] in _INSTALLED and fields.keys() >= {"Package", "Version"}:
            yield fields["Package"], fields["Version"]
    for name in files.entries(root, DPKG_STATUS_FILES):
        for fields in _paragraphs(root, f"{DPKG_STATUS_FILES}/{name}"):
            if fields.keys() >= {"Package", "Version"}:
                yield fields["Package"], fields["Version"]


def _alpine(root: str) -> Iterator[tuple[str, str]]:
    for fields in _paragraphs(root, APK_INSTALLED):
        if fields.keys() >= {"P", "V"}:
            yield fields["P"], fields["V"]


def _arch(root: str) -> Iterator[tuple[str, str]]:
    """Each package has a directory, and its name says everything."""
    for entry in files.entries(root, PACMAN_LOCAL):
        name, *version = entry.rsplit("-", 2)
        if len(version) == len(("version", "release")):
            yield name, "-".join(version)


def _paragraphs(root: str, path: str) -> Iterator[Mapping[str, str]]:
    """The paragraphs of the file *path*, without continuation lines; none where there is no such file."""
    try:
        file = open(os.path.join(root, path), encoding="utf-8", errors="replace", newline="\n")  # noqa: SIM115
    except (FileNotFoundError, IsADirectoryError):
        return
    fields: dict[str, str] = {}
    with file:
        for line in iter(lambda: file.readline(_LINE_LIMIT), ""):
            if line == "\n":
                yield fields
                fields = {}
            elif not line.startswith((" ", "\t")):
                key, _, value = line.partition(":")
                fields.setdefault(key, value.strip())
    yield fields
