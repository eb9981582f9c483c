"""A libvirt daemon of the tests' own, with one domain: it keeps its configuration, sockets and state in a directory.

That is what libvirt calls a session, the daemon of a user who is not root; where root runs the tests, it is that of the user
of nothing. A daemon of the system, its domains and its paths are not touched. Domains are emulated in software.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import uuid
from typing import Optional

from host_agent.demo.vm import packages
from host_agent.demo.vm.guest import Guest
from host_agent.demo.vm.image import Image
from host_agent.demo.vm.machine import MEMORY
from tests.needs import ROOT

from .hosts import PATIENCE, wait_for

#: What the packages bring for those who want to add the port to a domain.
CHANNEL = ROOT / "packaging/libvirt/ovirt-guest-agent.xml"

#: The user of nothing, and his group.
_NOBODY = 65534

#: Otherwise another daemon would be started to write QEMU's logs.
_QEMU_CONFIGURATION = 'stdio_handler = "file"\n'

_CRASH = re.compile(r"BUG:|Oops|Kernel panic|general protection fault|Unable to handle kernel")

_DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <cpu mode='maximum'/>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{directory}/kernel</kernel>
    <initrd>{directory}/initramfs</initrd>
    <cmdline>console=ttyS0 quiet panic=0 nowatchdog</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <serial type='file'><source path='{directory}/console'/></serial>
    <serial type='unix'><source mode='bind' path='{directory}/shell'/></serial>
    {channel}
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Libvirtd:
    """The daemon, which is not running yet, in *directory*.

    :param directory: its path must be short: that of a socket is limited.
    :param host: the name of its host where domains migrate: none migrates to where it is. That takes root.
    :raises Unavailable: libvirt is missing, or root is.
    """

    def __init__(self, directory: pathlib.Path, host: Optional[str] = None) -> None:
        if host is not None and os.geteuid() != 0:
            raise packages.Unavailable("two hosts on one machine need root")
        self._program = packages.program("libvirtd", "libvirt-daemon")
        self._virsh = packages.program("virsh", "libvirt-clients")
        self.directory = directory
        self._host = host
        self._socket = directory / "run/libvirt/libvirt-sock"
        self.log = directory / "libvirtd.log"
        self._process: Optional[subprocess.Popen[bytes]] = None
        (directory / "config/libvirt").mkdir(parents=True)
        (directory / "config/libvirt/qemu.conf").write_text(_QEMU_CONFIGURATION, encoding="utf-8")
        daemon = directory / "config/libvirt/libvirtd.conf"
        daemon.write_text(f'host_uuid = "{uuid.uuid4()}"\n', encoding="utf-8")
        for name in ("cache", "run", "share"):
            (directory / name).mkdir()
        _give_away(directory)

    @property
    def uri(self) -> str:
        """By this libvirt's library finds it."""
        return f"qemu+unix:///session?socket={self._socket}"

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        places = {f"XDG_{name}_HOME": str(self.directory / name.lower()) for name in ("CONFIG", "CACHE")}
        places |= {"XDG_RUNTIME_DIR": str(self.directory / "run"), "XDG_DATA_HOME": str(self.directory / "share")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                env={**os.environ, "HOME": str(self.directory), **places},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for("libvirtd answers", lambda: self._attempt("uri").returncode == 0, self.said)

    def stop(self) -> None:
        """End the daemon; its domains run on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def call(self, *arguments: object) -> str:
        """What virsh says to this command."""
        done = self._attempt(*map(str, arguments))
        assert done.returncode == 0, f"virsh {arguments}: {done.stderr}\n{self.said()}"
        return done.stdout.strip()

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """virsh at work on this command."""
        return subprocess.Popen(self._asking(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def kill_machine(self, domain: str) -> None:
        """End the QEMU of a domain, if there is one, also where the daemon does not run."""
        process_id = self.directory / f"run/libvirt/qemu/run/{domain}.pid"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(process_id.read_text(encoding="ascii")), signal.SIGKILL)

    def said(self) -> str:
        """The end of the log."""
        return f"--- libvirtd\n{self.log.read_text(errors='replace')[-3000:]}" if self.log.exists() else ""

    def _command(self) -> list[str]:
        if os.geteuid() != 0:
            return [self._program]
        nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", self._program]
        if self._host is None:
            return nobody
        return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self._host, *nobody]

    def _attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._asking(*arguments), capture_output=True, text=True, check=False, timeout=PATIENCE)

    def _asking(self, *arguments: str) -> list[str]:
        return [self._virsh, "--connect", self.uri, "--quiet", *arguments]


class Domain:
    """The domain *name* of *daemon*, defined but not started; its files are in *directory*."""

    def __init__(self, daemon: Libvirtd, directory: pathlib.Path, name: str, emulator: str, image: Image) -> None:
        self.name = name
        self._shell: Optional[Guest] = None
        self._daemon = daemon
        self._directory = directory
        directory.mkdir()
        shutil.copyfile(image.kernel, directory / "kernel")
        shutil.copyfile(image.initramfs, directory / "initramfs")
        description = directory / "domain.xml"
        channel = CHANNEL.read_text(encoding="utf-8")
        description.write_text(
            _DOMAIN.format(name=name, memory=MEMORY, directory=directory, emulator=emulator, channel=channel),
            encoding="utf-8",
        )
        _give_away(directory)
        daemon.call("define", description)
        self.uuid = daemon.call("domuuid", name)

    @property
    def console(self) -> pathlib.Path:
        """The file of what the guest's console shows."""
        return self._directory / "console"

    @property
    def guest(self) -> Guest:
        """The shell in the guest."""
        assert self._shell is not None, "the domain does not run"
        return self._shell

    def boot(self) -> None:
        """Start the domain and wait until its guest has booted."""
        self._daemon.call("start", self.uuid)
        self._find_shell()
        self.guest.await_shell()

    def destroy(self) -> None:
        """End it without warning to anybody."""
        self._lose_shell()
        self._daemon.call("destroy", self.uuid)

    def rename(self, name: str) -> None:
        """Call it otherwise."""
        self._daemon.call("domrename", self.uuid, name)
        self.name = name

    def unplug_port(self) -> None:
        """Take the port out of the running domain."""
        described = self._daemon.call("dumpxml", self.uuid)
        [channel] = re.findall(r"<channel.*?</channel>", described, re.DOTALL)
        [alias] = re.findall(r"<alias name='(.*?)'/>", channel)
        self._daemon.call("detach-device-alias", self.uuid, alias, "--live")

    def plug_port(self) -> None:
        """Put it into the running domain."""
        self._daemon.call("attach-device", self.uuid, CHANNEL, "--live")

    def save(self) -> None:
        """Write it to a file; it does not run any more."""
        self._lose_shell()
        self._daemon.call("save", self.uuid, self._saved)

    def restore(self) -> None:
        """Let it go on from there."""
        self._daemon.call("restore", self._saved)
        self._find_shell()

    def start_migration(self, there: Libvirtd, *options: str) -> subprocess.Popen[str]:
        """Begin to move it, live, to the daemon of another host, and return virsh, which ends when that has ended."""
        directory = there.directory / self._directory.name
        directory.mkdir(exist_ok=True)
        description = directory / "migrates.xml"
        described = self._daemon.call("dumpxml", self.uuid, "--migratable")
        for file in ("console", "shell"):
            described = described.replace(str(self._directory / file), str(directory / file))
        description.write_text(described, encoding="utf-8")
        _give_away(directory)
        return self._daemon.begin(
            *("migrate", "--live", *options, "--xml", str(description), "--domain", self.uuid),
            *("--desturi", there.uri, "--migrateuri", f"unix://{directory / 'migration'}"),
        )

    def follow(self, there: Libvirtd) -> None:
        """It has moved to that daemon."""
        self._lose_shell()
        self._daemon, self._directory = there, there.directory / self._directory.name
        self._find_shell()

    def kill(self) -> None:
        """End its QEMU, if there is one, also where libvirt does not run."""
        self._daemon.kill_machine(self.name)

    def close(self) -> None:
        """End everything."""
        self.kill()
        self._lose_shell()

    @property
    def crash(self) -> Optional[str]:
        """What the guest's console shows from where its kernel crashed; None: it did not."""
        said = self.console.read_text(errors="replace") if self.console.exists() else ""
        crash = _CRASH.search(said)
        return said[crash.start() :][:3000] if crash else None

    def _find_shell(self) -> None:
        self._shell = Guest(self._directory / "shell")

    def _lose_shell(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None

    @property
    def _saved(self) -> pathlib.Path:
        return self._directory / "saved"


def _give_away(directory: pathlib.Path) -> None:
    """Let the daemon's user have what root made."""
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)
