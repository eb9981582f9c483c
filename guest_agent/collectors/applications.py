"""Installed packages out of a list of names, from the package databases themselves: no command is run.

As hosts expect them: ``name-version`` for Debian packages, ``name-version-release`` for RPM ones.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence

from common.messages import Applications

from . import rpm

DPKG_STATUS = "var/lib/dpkg/status"

_INSTALLED = "install ok installed"
_HELD = "hold ok installed"


def applications(root: str, patterns: Sequence[str]) -> Applications:
    """The installed packages whose name matches one of *patterns*, sorted.

    :raises OSError: a package database is there but can't be read.
    :raises ValueError: a package database is damaged.
    """
    match = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or "(?!)").match
    packages = (
        *(f"{name}-{version}" for name, version in _debian_packages(root) if match(name)),
        *rpm.packages(root, lambda name: match(name) is not None),
    )
    return Applications(applications=tuple(sorted(packages)))


def _debian_packages(root: str) -> Iterator[tuple[str, str]]:
    for fields in _paragraphs(root):
        if fields.get("Status") in {_INSTALLED, _HELD} and fields.keys() >= {"Package", "Version"}:
            yield fields["Package"], fields["Version"]


def _paragraphs(root: str) -> Iterator[dict[str, str]]:
    """The database's paragraphs, without continuation lines."""
    try:
        file = open(os.path.join(root, DPKG_STATUS), encoding="utf-8", errors="replace")  # noqa: SIM115
    except FileNotFoundError:
        return
    fields: dict[str, str] = {}
    with file:
        for line in file:
            if line == "\n":
                yield fields
                fields = {}
            elif not line.startswith((" ", "\t")):
                key, _, value = line.partition(":")
                fields[key] = value.strip()
    yield fields
