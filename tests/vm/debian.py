"""A whole Debian for VMs: systemd, udev and dbus as every user has them, on which our packages are tried.

Its system is built by mmdebstrap out of packages that apt fetches, cached by their names, versions and checksums, and
attached as a disk that is never written to: what the guest changes is in its memory, so that a saved VM is whole. A small
initramfs lays that memory over the disk, and brings the files that are to be tried into ``PACKAGES``.
"""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import tempfile
from collections.abc import Iterable, Sequence

from host_agent.demo.vm import cpio, kernel, packages, parts
from host_agent.demo.vm.image import CONTROL, Image

#: Where the guest finds what is to be tried.
PACKAGES = "/root/packages"

#: Megabytes of the guest's memory.
MEMORY = 384

#: With what apt would bring by itself. The second line is what our package for guests depends on.
_NAMES = (
    *("dbus", "kmod", "systemd", "systemd-sysv", "tzdata", "udev", "usr-is-merged"),
    *("python3", "python3-jeepney", "python3-psutil", "python3-serial", "python3-ujson"),
)

#: What the initramfs needs to come to the disk. The driver of the port under test is udev's work.
_DRIVERS = (*kernel.VIRTIO, "virtio_blk", "overlay")

_BUSYBOX = "busybox-static"

#: Units that cost time under emulation, and that nothing here is about.
_MASKED = (
    *("dpkg-db-backup.timer", "fstrim.timer", "systemd-tmpfiles-clean.timer"),
    *("getty-static.service", "getty@.service", "serial-getty@.service"),
    *("systemd-firstboot.service", "systemd-pstore.service", "systemd-random-seed.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
)

_CONTROL_UNIT = b"""[Unit]
Description=A shell for the tests on the second serial line

[Service]
ExecStart=/usr/local/sbin/control
KillMode=process

[Install]
WantedBy=multi-user.target
"""

_CONTROL_LOOP = b"""#!/bin/sh
stty -F /dev/ttyS1 raw -echo
exec sh /usr/local/share/control </dev/ttyS1 >/dev/ttyS1 2>&1
"""

#: Files of the system that no package has.
_OWN_FILES = {
    "etc/hostname": b"guest\n",
    "etc/systemd/system/control.service": _CONTROL_UNIT,
    "usr/local/sbin/control": _CONTROL_LOOP,
    "usr/local/share/control": CONTROL,
}

_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
for driver in /lib/modules/*.ko; do insmod $driver; done
mount -t ext4 -o ro /dev/vda /disk
mount -t tmpfs changes /changes
mkdir /changes/files /changes/work
mount -t overlay -o lowerdir=/disk,upperdir=/changes/files,workdir=/changes/work root /system
cp -r /packages /system{PACKAGES}
mount --move /dev /system/dev
exec switch_root /system /sbin/init
""".encode()


def build(directory: pathlib.Path, cache: pathlib.Path, files: Iterable[pathlib.Path]) -> Image:
    """Build the image; its initramfs, with *files* for ``PACKAGES``, is written into *directory*.

    :param cache: where parts are looked for, and kept.
    :raises packages.Unavailable: a package, or a program that is needed to build it, can't be had here.
    """
    system = _system(cache)
    initramfs = directory / "debian.cpio"
    with initramfs.open("wb") as file, cpio.Archive(file) as archive:
        archive.add_tree(system / "root")
        archive.add_file("init", _INIT, 0o755)
        archive.add_character_device("dev/console", 5, 1)
        for mount_point in ("changes", "disk", "system"):
            archive.add_directory(mount_point)
        for each in files:
            archive.add_file(f"packages/{each.name}", each.read_bytes())
    return Image(system / "kernel", initramfs, system / "disk.ext2")


def _system(cache: pathlib.Path) -> pathlib.Path:
    """The part that depends on Debian only."""
    names = packages.system(_NAMES)
    system, boot = packages.named(names), packages.named([kernel.package(), _BUSYBOX])
    own_source = parts.source(__file__, kernel.__file__, packages.__file__)
    digest = parts.digest([own_source, *(f"{package}".encode() for package in [*system, *boot])])

    def make(part: pathlib.Path) -> None:
        builder = packages.program("mmdebstrap", "mmdebstrap")
        packages.program("genext2fs", "genext2fs")
        with tempfile.TemporaryDirectory(prefix="vmaccord-debian-") as directory:
            workplace = pathlib.Path(directory)
            workplace.chmod(0o755)  # mmdebstrap may not be this user
            packages.unpack(packages.fetch([kernel.package(), _BUSYBOX], boot, cache / "packages"), workplace / "boot")
            version = _pick(workplace / "boot", part)
            _add_own_files(workplace / "boot", workplace / "added")
            _make_archive(packages.fetch(names, system, cache / "packages"), workplace / "archive")
            _bootstrap(builder, workplace, version, part / "disk.ext2")

    return parts.cached(cache / f"debian-{digest}", make)


def _pick(unpacked: pathlib.Path, part: pathlib.Path) -> str:
    """Move what boots out of the *unpacked* packages, and return the kernel's version."""
    (part / "root/bin").mkdir(parents=True)
    (unpacked / "bin/busybox").rename(part / "root/bin/busybox")
    kernel.pick(unpacked, _DRIVERS, part)
    return next((unpacked / "lib/modules").iterdir()).name


def _add_own_files(unpacked: pathlib.Path, added: pathlib.Path) -> None:
    for name, content in _OWN_FILES.items():
        (added / name).parent.mkdir(parents=True, exist_ok=True)
        (added / name).write_bytes(content)
    (added / "usr/local/sbin/control").chmod(0o755)
    for unit in _MASKED:
        (added / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (added / "usr/lib").mkdir()
    (unpacked / "lib/modules").rename(added / "usr/lib/modules")


def _make_archive(files: Sequence[pathlib.Path], archive: pathlib.Path) -> None:
    """An archive for apt with only those packages."""
    archive.mkdir()
    for file in files:
        (archive / file.name).write_bytes(file.read_bytes())
    (archive / "Packages").write_text("\n".join(map(_index_entry, files)), encoding="utf-8")


def _index_entry(file: pathlib.Path) -> str:
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{packages.control(file)}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {checksum}\n"


def _bootstrap(builder: str, workplace: pathlib.Path, version: str, disk: pathlib.Path) -> None:
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    command = [
        *(builder, "--quiet", "--variant=essential", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"),
        *(f"--include={','.join(_NAMES)}", *left_out),
        f"--customize-hook=sync-in {workplace / 'added'} /",
        f'--customize-hook=chroot "$1" depmod {version}',
        '--customize-hook=chroot "$1" systemctl enable control.service',
        *("", str(disk), f"deb [trusted=yes] copy:{workplace / 'archive'} ./"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "; ".join(line for line in done.stderr.splitlines() if line.startswith("E: "))
        raise packages.Unavailable(f"mmdebstrap built no Debian ({said}): run as root, on Debian 12")
