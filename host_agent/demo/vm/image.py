"""The guest's image: a Debian kernel and an initramfs with busybox, Debian's Python and this project as a user installs it.

Debian 12's python3-ujson, python3-serial and python3-psutil are the oldest releases that the project promises to work with.

What is built is cached by content, in two parts: *base* (packages) by the packages' names, versions and checksums, *project*
by the project's sources, and both by the builder's own source.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Optional

from . import cpio, kernel, packages, parts

#: The directories of the project that go into a wheel, and what is needed to build one.
SOURCES = ("common", "guest_agent", "host_agent", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")

_PYTHON = "python3.11"
_PACKAGES = (
    "base-files",
    "busybox-static",
    *(f"{_PYTHON}-minimal", f"lib{_PYTHON}-minimal", f"lib{_PYTHON}-stdlib"),
    *("python3-psutil", "python3-serial", "python3-ujson"),
    *("libc6", "libcrypt1", "libdouble-conversion3", "libexpat1", "libffi8", "libgcc-s1", "libssl3", "libstdc++6"),
    *("libuuid1", "zlib1g"),
)

#: What the virtio-serial port needs, and a file system in a file.
_DRIVERS = (*kernel.VIRTIO, "virtio_console", "loop")

#: What the guest keeps of the packages; the rest is documentation and the like.
_KEPT = ("bin/busybox", "lib/x86_64-linux-gnu", "lib64", "usr/bin/python3.11", "usr/lib", "etc/os-release")

#: Parts of those that no agent needs.
_LEFT_OUT = (
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/python3/dist-packages/psutil/tests",
    *(f"usr/lib/{_PYTHON}/{name}" for name in ("ensurepip", "lib2to3", "pydoc_data", "test", "tkinter", "unittest")),
)

#: Where Debian's Python looks for packages of the distribution, and where this project goes.
_DIST_PACKAGES = "usr/lib/python3/dist-packages"

#: Runs as process 1. The second serial line is the tests' way in: see ``guest``.
_INIT = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=755 run /run
hostname guest
for module in /lib/modules/*.ko; do insmod $module; done
stty -F /dev/ttyS1 raw -echo
while :; do
    sh /control </dev/ttyS1 >/dev/ttyS1 2>/dev/ttyS1
done
"""

#: What answers on that line, for any shell: see ``guest``.
CONTROL = b"""echo READY
while read -r token command; do
    eval "$command"
    printf '\\n%s %d\\n' "$token" $?
done
"""


@dataclasses.dataclass(frozen=True)
class Image:
    """What QEMU boots: a kernel and an initramfs, and perhaps a disk, which is never written to."""

    kernel: pathlib.Path
    initramfs: pathlib.Path
    disk: Optional[pathlib.Path] = None


@dataclasses.dataclass(frozen=True)
class _Base:
    """The part that does not depend on the project."""

    kernel: pathlib.Path
    root: pathlib.Path
    digest: str


def default_cache() -> pathlib.Path:
    """Where parts of images are kept."""
    chosen = os.environ.get("VMACCORD_VM_CACHE")
    if chosen:
        return pathlib.Path(chosen)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vmaccord"


def build(checkout: pathlib.Path, directory: pathlib.Path, cache: pathlib.Path) -> Image:
    """Build the image of the project in *checkout*; its initramfs is written into *directory*.

    :param cache: where parts are looked for, and kept.
    :raises Unavailable: a package, or the means to build a wheel, can't be had here.
    """
    base = _base(cache)
    project = _project(checkout, base, cache)
    initramfs = directory / "initramfs.cpio"
    with initramfs.open("wb") as file, cpio.Archive(file) as archive:
        archive.add_tree(base.root)
        archive.add_tree(project)
        archive.add_file("init", _INIT, 0o755)
        archive.add_file("control", CONTROL)
        archive.add_link("usr/bin/python3", _PYTHON)
        archive.add_link("bin/sh", "busybox")
        archive.add_character_device("dev/console", 5, 1)
        for mount_point in ("proc", "run", "sys", "tmp"):
            archive.add_directory(mount_point)
    return Image(base.kernel, initramfs)


# ---- The base: packages ----


def _base(cache: pathlib.Path) -> _Base:
    names = [kernel.package(), *_PACKAGES]
    wanted = packages.named(names)
    digest = parts.digest([_own_source(), *(f"{package}".encode() for package in wanted)])

    def make(part: pathlib.Path) -> None:
        files = packages.fetch(names, wanted, cache / "packages")
        with tempfile.TemporaryDirectory(dir=cache, prefix=".unpacked-") as unpacked:
            packages.unpack(files, pathlib.Path(unpacked))
            _pick(pathlib.Path(unpacked), part)
        (part / "root/var/lib/dpkg").mkdir(parents=True)
        (part / "root/var/lib/dpkg/status").write_text("\n".join(map(packages.describe, files)), encoding="utf-8")
        _compile_packages(part / "root")

    part = parts.cached(cache / f"base-{digest}", make)
    return _Base(part / "kernel", part / "root", digest)


def _pick(unpacked: pathlib.Path, part: pathlib.Path) -> None:
    """Move what the guest needs out of the *unpacked* packages."""
    root = part / "root"
    for name in _KEPT:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).rename(root / name)
    for name in _LEFT_OUT:
        shutil.rmtree(root / name, ignore_errors=True)
    kernel.pick(unpacked, _DRIVERS, part)


def _compile_packages(root: pathlib.Path) -> None:
    """Leave only bytecode: memory is what an initramfs is made of."""
    for directory in (f"usr/lib/{_PYTHON}", _DIST_PACKAGES):
        _compile(root, root, directory, "-b")
        for source in (root / directory).rglob("*.py"):
            source.unlink()


def _compile(python_root: pathlib.Path, root: pathlib.Path, directory: str, *options: str) -> None:
    """Compile *directory* with the guest's own Python; its bytecode fits no other."""
    libraries = f"{python_root}/lib/x86_64-linux-gnu:{python_root}/usr/lib/x86_64-linux-gnu"
    interpreter = [
        str(python_root / "lib64/ld-linux-x86-64.so.2"),
        *("--library-path", libraries),
        str(python_root / "usr/bin" / _PYTHON),
    ]
    trust = ["--invalidation-mode", "unchecked-hash"]
    names = ["-s", str(root), "-p", "/"]
    command = [*interpreter, "-S", "-m", "compileall", "-q", *trust, *names, *options, str(root / directory)]
    subprocess.run(command, env={"PYTHONHOME": str(python_root / "usr")}, check=True)  # noqa: S603


# ---- The project ----


def _project(checkout: pathlib.Path, base: _Base, cache: pathlib.Path) -> pathlib.Path:
    sources = {str(path.relative_to(checkout)): path.read_bytes() for name in SOURCES for path in _files(checkout / name)}
    contents = (each for name, content in sources.items() for each in (name.encode(), content))
    digest = parts.digest([_own_source(), base.digest.encode(), *contents])

    def make(part: pathlib.Path) -> None:
        with tempfile.TemporaryDirectory(dir=cache, prefix=".wheel-") as workplace:
            wheel = _build_wheel(sources, pathlib.Path(workplace))
            _install_wheel(wheel, part)
        _compile(base.root, part, _DIST_PACKAGES)

    return parts.cached(cache / f"project-{digest}", make)


def _build_wheel(sources: Mapping[str, bytes], workplace: pathlib.Path) -> pathlib.Path:
    """Build it from a copy: building leaves traces in the sources' directory."""
    for name, content in sources.items():
        copy = workplace / "sources" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    _pip("wheel", "--no-deps", "--wheel-dir", str(workplace), str(workplace / "sources"))
    return next(workplace.glob("vmaccord-*.whl"))


def _install_wheel(wheel: pathlib.Path, root: pathlib.Path) -> None:
    """Install it for the guest's Python, which is rarely the one that runs here."""
    target = root / _DIST_PACKAGES
    for_guest = ["--python-version", _PYTHON.removeprefix("python"), "--only-binary", ":all:"]
    _pip("install", "--no-deps", "--no-compile", *for_guest, "--target", str(target), str(wheel))
    shutil.move(target / "bin", root / "usr/bin")
    for script in (root / "usr/bin").iterdir():
        _, _, code = script.read_text(encoding="utf-8").partition("\n")
        script.write_text(f"#!/usr/bin/python3\n{code}", encoding="utf-8")


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise packages.Unavailable(
            f"pip {arguments[0]} failed ({reason}): give {sys.executable} a pip that reaches an index"
        )


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file() and each.suffix != ".pyc")
    return [path]


def _own_source() -> bytes:
    return parts.source(__file__, kernel.__file__, packages.__file__)
