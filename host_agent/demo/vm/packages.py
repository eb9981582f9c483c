"""Debian packages: programs that this machine lacks, and packages that are only taken apart, never installed.

Everything goes through apt and dpkg of the machine, with the sources that it is set up with.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

#: What ``apt-get download --print-uris`` says of one package.
_URI_LINE = re.compile(r"^'[^']*' (?P<file>\S+\.deb) \d+ (?P<checksum>\S+)$")


class Unavailable(Exception):
    """Something that a VM needs can't be had here; the text is one sentence that says how to get it."""


@dataclasses.dataclass(frozen=True)
class Package:
    """One package as apt would fetch it: the file name holds name, version and architecture."""

    file: str
    checksum: str


def program(name: str, package: str) -> str:
    """The path of the program *name*; it is installed where that is possible.

    :raises Unavailable: it is missing, and this user or machine can't install it.
    """
    path = shutil.which(name)
    if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install(package)
        path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is missing: apt-get install {package}")
    return path


def named(names: Sequence[str]) -> list[Package]:
    """The newest packages of these names; asks no server unless this machine has no package lists.

    :raises Unavailable: apt does not know them.
    """
    said = _up_to_date("download", "--print-uris", *names)
    found = [match for match in map(_URI_LINE.match, said.splitlines()) if match]
    return sorted((Package(each["file"], each["checksum"]) for each in found), key=lambda package: package.file)


def system(names: Sequence[str]) -> list[str]:
    """The names of all packages of the smallest system in which *names* are installed; asks no server, as ``named``.

    :raises Unavailable: apt does not know them.
    """
    nothing = ["-o", "Dir::State::status=/dev/null"]
    said = _up_to_date(*nothing, "--simulate", "--no-install-recommends", "install", "?essential", *names)
    return [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]


def fetch(names: Sequence[str], wanted: Sequence[Package], cache: pathlib.Path) -> list[pathlib.Path]:
    """The files of the packages *wanted*, called *names*; those that are not in *cache* yet are downloaded.

    :raises Unavailable: they can't be downloaded.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if not all((cache / package.file).exists() for package in wanted):
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as directory:
            _apt("download", *names, cwd=directory)
            for file in pathlib.Path(directory).iterdir():
                file.replace(cache / file.name)
    missing = [package.file for package in wanted if not (cache / package.file).exists()]
    if missing:
        raise Unavailable(f"apt fetched other packages than it named, {missing[0]} is missing: run the same again")
    return [cache / package.file for package in wanted]


def unpack(files: Sequence[pathlib.Path], directory: pathlib.Path) -> None:
    """Take packages apart below *directory*."""
    for file in files:
        subprocess.run(["dpkg-deb", "-x", str(file), str(directory)], check=True)  # noqa: S603, S607


def control(file: pathlib.Path) -> str:
    """What the package says of itself: lines of fields, without an empty one at the end."""
    said = subprocess.run(["dpkg-deb", "-f", str(file)], check=True, capture_output=True, text=True)  # noqa: S603, S607
    return f"{said.stdout.rstrip()}\n"


def describe(file: pathlib.Path) -> str:
    """The package's paragraph, as dpkg's database would hold it if the package were installed."""
    return f"{control(file)}Status: install ok installed\n"


def dependency(name: str, pattern: str) -> str:
    """The first package that the package *name* depends on and whose name matches *pattern*.

    :raises Unavailable: there is none.
    """
    said = _run(["apt-cache", "depends", name])
    for line in said.splitlines():
        relation, _, other = line.strip().partition(": ")
        if relation == "Depends" and re.fullmatch(pattern, other):
            return other
    raise Unavailable(f"no package {name} with a dependency like {pattern}: on Debian 12, run apt-get update")


def install(package: str) -> None:
    """Install *package* on this machine.

    :raises Unavailable: this user or machine can't.
    """
    _up_to_date("-o", "DPkg::Lock::Timeout=120", "install", "--yes", "--no-install-recommends", package)


def _up_to_date(*arguments: str) -> str:
    """Call apt, if need be again after a look at what its servers have."""
    try:
        return _apt(*arguments)
    except Unavailable:
        _update()
        return _apt(*arguments)


def _update() -> None:
    if os.geteuid() == 0:
        _apt("update")


def _apt(*arguments: str, cwd: str = "/") -> str:
    # As this user: the one that apt would change to may not write into a cache below somebody's home.
    return _run(["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", *arguments], cwd)


def _run(command: Sequence[str], cwd: str = "/") -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is missing: use Debian 12, or name an image of your own") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"{' '.join(command[:2])} … failed ({reason}): on Debian 12, run apt-get update")
    return done.stdout
