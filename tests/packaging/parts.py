"""Parts for the tests of the packages: building them, and a Debian in a directory in which they are installed."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import types
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from host_agent.demo.vm import packages

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGING = ROOT / "packaging"

PACKAGES = ("vmaccord-host-agent", "vmaccord-guest-agent", "vmaccord-common")

#: The Debian that is promised.
SUITE = "bookworm"

#: When a test gives up waiting, in seconds. Nothing is asserted about time.
GIVE_UP = 60.0

#: Gives a command the machine's devices (a pty is found in no other file system than its own) for as long as it runs.
_ENTER = """
root=$1 user=$2; shift 2
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec chroot --userspec="$user" "$root" "$@"
"""

#: What changes when any package is installed or removed, what is kept of a user, and a directory that is there where RPM is.
_NOT_OURS = re.compile(
    r"/(dev|proc|run/lock|tmp|var/(cache|lib/(apt|dpkg|rpm)|log))(/|$)"
    r"|/usr/share/licenses$|/etc/(group|gshadow|passwd|shadow|subgid|subuid)-?$|/etc/\.(pwd\.lock|updated)$|/var/\.updated$"
)


def load(name: str) -> types.ModuleType:
    """The module *name* of the directory ``packaging``, which is no package."""
    spec = importlib.util.spec_from_file_location(f"packaging_{name}", PACKAGING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_sources(tree: pathlib.Path, copy: pathlib.Path) -> pathlib.Path:
    """Copy what packages are built from; the files of the copy are as new as it is."""
    copy.mkdir(exist_ok=True)
    left_out = shutil.ignore_patterns("__pycache__")
    for name in ("common", "docs", "guest_agent", "host_agent", "packaging"):
        shutil.copytree(tree / name, copy / name, ignore=left_out, copy_function=shutil.copy)
    for name in ("CHANGELOG.md", "LICENSE", "README.md", "setup.cfg"):
        shutil.copy(tree / name, copy)
    return copy


def build(output: pathlib.Path, *options: str, tree: pathlib.Path = ROOT) -> pathlib.Path:
    """Build packages of the sources *tree* into *output*.

    :raises Unavailable: the means to do so can't be had here.
    """
    built = subprocess.run(
        [str(tree / "packaging/build"), "--output", str(output), *options], capture_output=True, text=True, check=False
    )
    if "apt-get install" in built.stderr:
        raise packages.Unavailable(built.stderr.strip())
    assert built.returncode == 0, built.stderr
    return output


def wait_until(condition: Callable[[], Any]) -> Any:
    """Wait until *condition* is true; returns what it gave."""
    deadline = time.monotonic() + GIVE_UP
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


class Debian:
    """A Debian in a directory."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def run(self, *command: str) -> str:
        """Run *command* in it as root; returns what it printed."""
        ran = subprocess.run(
            self._enter(command, "root:root"), env=_environment(), capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    @contextlib.contextmanager
    def running(self, *command: str, log: pathlib.Path, user: str = "root", **environment: str) -> Iterator[None]:
        """A service that runs in it, and ends as a service does: by SIGTERM, with status 0."""
        with log.open("wb") as file:
            service = subprocess.Popen(
                self._enter(command, f"{user}:{user}"), env={**_environment(), **environment}, stdout=file, stderr=file
            )
        try:
            yield
        finally:
            service.send_signal(signal.SIGTERM)
            assert service.wait(GIVE_UP) == 0, log.read_text(encoding="utf-8")

    def install(self, *files: pathlib.Path, options: Sequence[str] = ()) -> None:
        """Install packages from *files*, with what they depend on from Debian."""
        with tempfile.TemporaryDirectory(dir=self.path / "root") as directory:
            for file in files:
                shutil.copy(file, directory)
            named = [f"/root/{pathlib.Path(directory).name}/{file.name}" for file in files]
            self.run("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *options, *named)

    def purge(self) -> None:
        """Remove our packages with all that was configured."""
        self.run("dpkg", "--purge", *PACKAGES)

    def files(self) -> set[str]:
        """All files and directories that may be ours, packaged or not."""
        return {file for file in self._all_files() if not _NOT_OURS.match(file)}

    def _all_files(self) -> Iterator[str]:
        for directory, directories, files in os.walk(self.path):
            at = directory.removeprefix(str(self.path))
            yield from (f"{at}/{name}" for name in (*directories, *files))

    def _enter(self, command: Sequence[str], user: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-euc", _ENTER, "sh", str(self.path), user, *command]


def make_debian(directory: pathlib.Path, debs: Sequence[pathlib.Path], cache: pathlib.Path) -> Debian:
    """A fresh Debian in *directory*; what *debs* depend on is downloaded, but not installed.

    :param cache: where the Debian of this week is looked for, and kept.
    :raises Unavailable: it can't be had here.
    """
    if os.geteuid() != 0:
        raise packages.Unavailable("only root can install packages below a directory: run the tests as root")
    program = packages.program("mmdebstrap", "mmdebstrap")
    names = sorted(set().union(*map(_dependencies, debs)))
    week = "-".join(map(str, datetime.datetime.now(datetime.timezone.utc).isocalendar()[:2]))
    digest = hashlib.sha256(json.dumps([names, SUITE, week]).encode()).hexdigest()[:16]
    archive = cache / f"packaging-{digest}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob("packaging-*.tar"):
            old.unlink()
        _bootstrap(program, names, archive)
    directory.mkdir()
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(directory)], check=True)
    # Nobody needs this Debian after a loss of power.
    (directory / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n", encoding="utf-8")
    return Debian(directory)


def _bootstrap(program: str, names: Sequence[str], archive: pathlib.Path) -> None:
    download = f'chroot "$1" apt-get install --yes --no-install-recommends --download-only {" ".join(names)}'
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    hook = f"--customize-hook={download}"
    command = [program, "--variant=minbase", "--format=tar", "--skip=cleanup/apt", hook, SUITE, str(unfinished)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        unfinished.unlink(missing_ok=True)
        reason = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise packages.Unavailable(f"mmdebstrap failed ({reason}): give this machine a way to Debian's servers")
    unfinished.rename(archive)


def _dependencies(deb: pathlib.Path) -> set[str]:
    """The first choice of each package that *deb* depends on, but for our own."""
    said = subprocess.run(["dpkg-deb", "-f", str(deb), "Depends"], check=True, capture_output=True, text=True).stdout
    names = {re.split(r"[ :(|]", each.strip())[0] for each in said.split(",")}
    return {name for name in names if not name.startswith("vmaccord")}


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
