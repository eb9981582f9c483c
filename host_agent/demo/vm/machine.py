"""One VM: a QEMU process, its monitor, its guest's shell, and the Unix socket of the port under test.

The port's socket lies where libvirt would put it, ``<directory of the host>/domain-<id>-<name>/ovirt-guest-agent.0``, so
that a host daemon finds it by itself. It appears with the QEMU process, as under libvirt, unless it is asked to stay
hidden; that is how a host is made to come late.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
from typing import Optional

from host_agent.demo.stage import wait_for

from .guest import Guest
from .image import Image
from .monitor import Monitor, MonitorError

PORT_NAME = "ovirt-guest-agent.0"

#: Megabytes of the guest's memory: with 128 the image does not boot.
MEMORY = 192

#: Seconds in which a kernel that really runs on KVM has come to the end of a boot without a disk.
_KVM_PATIENCE = 5.0

#: Seconds that a migration may take.
_MIGRATION_PATIENCE = 60.0

#: Bytes a second; loopback is not to be the bottleneck.
_BANDWIDTH = 1 << 30

_CRASH = re.compile(r"BUG:|Oops|Kernel panic|general protection fault|Unable to handle kernel")


class MachineError(Exception):
    """QEMU did not do what it was told."""


@dataclasses.dataclass(frozen=True)
class Emulator:
    """How QEMU is run: the same for all machines between which a VM may move."""

    program: str
    accelerator: str
    image: Image
    arguments: tuple[str, ...] = ()


def accelerator(program: str, kernel: pathlib.Path) -> str:
    """``kvm`` where it really works, else ``tcg``.

    That ``/dev/kvm`` can be opened says little: inside some VMs a guest on it hangs. So *kernel* is booted with nothing to
    boot from; it panics, and QEMU ends, or KVM does not work.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    options = ["-accel", "kvm", "-cpu", "max", "-m", "128", "-nodefaults", "-no-user-config", "-display", "none"]
    boot = ["-M", "q35", "-no-reboot", "-kernel", str(kernel), "-append", "panic=-1 quiet"]
    command = [program, *options, *boot]
    try:
        probe = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_KVM_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return "tcg"
    return "tcg" if probe.returncode else "kvm"


class Machine:
    """A QEMU process with the VM *name*, in *directory*, on the host whose VMs are in *vms*.

    Begin with one of ``boot``, ``restore`` and ``await_migration``; finish with ``end``.

    :param domain_id: the number that libvirt would give this run of the VM.
    :param hidden: whether the port's socket stays out of *vms* until ``reveal``.
    :param plugged: whether the port is in the VM from the beginning.
    """

    def __init__(
        self,
        emulator: Emulator,
        directory: pathlib.Path,
        vms: pathlib.Path,
        name: str,
        domain_id: int,
        hidden: bool = False,
        plugged: bool = True,
    ) -> None:
        self.monitor: Monitor
        self.guest: Guest
        self.console = directory / "console"
        self._emulator = emulator
        self._directory = directory
        self._channels = vms / f"domain-{domain_id}-{name}"
        self._hidden = directory / "hidden" if hidden else None
        self._plugged = plugged
        self._process: Optional[subprocess.Popen[bytes]] = None

    @property
    def port(self) -> pathlib.Path:
        """The socket of the port under test."""
        return (self._hidden or self._channels) / PORT_NAME

    def boot(self) -> None:
        """Start the VM and wait until the guest has booted.

        :raises MachineError: QEMU does not start.
        :raises GuestError: the guest does not boot.
        """
        self._start()
        self.guest.await_shell()

    def restore(self, state: pathlib.Path) -> None:
        """Start the VM from what ``save`` wrote; it goes on where it was.

        :raises MachineError: QEMU does not start.
        :raises MonitorError: the state can't be used.
        """
        self._start("-incoming", "defer")
        self.monitor.execute("migrate-incoming", uri=f"exec:cat '{state}'")
        self.monitor.await_event("MIGRATION", matches=lambda event: event.arguments["status"] == "completed")
        self.monitor.execute("cont")

    def await_migration(self) -> str:
        """Start a QEMU that waits for the VM, and return the address to migrate it to.

        :raises MachineError: QEMU does not start.
        """
        self._start("-incoming", "defer")
        address = f"unix:{self._directory / 'migration'}"
        self.monitor.execute("migrate-incoming", uri=address)
        return address

    def reveal(self) -> None:
        """Let the host see the port."""
        if self._hidden is not None:
            self._hidden.rename(self._channels)
            self._hidden = None

    def save(self, state: pathlib.Path) -> None:
        """Write the VM to a file. It stays stopped."""
        self.monitor.execute("stop")
        self.migrate(f"exec:cat > '{state}'")

    def migrate(self, address: str) -> None:
        """Move the VM to *address* and wait until it is there; what stays here is a stopped VM.

        :raises MonitorError: the migration failed.
        """
        before = self.monitor.mark()
        self.start_migration(address)
        self.await_migration_status("completed", before)
        wait_for("QEMU has let go of the VM", lambda: self.status == "postmigrate", self.said)

    def start_migration(self, address: str, bandwidth: int = _BANDWIDTH, stop_before_the_switch: bool = False) -> None:
        """Begin to move the VM to *address*.

        :param bandwidth: bytes a second.
        :param stop_before_the_switch: whether the VM is to be held, stopped, at status ``pre-switchover``.
        """
        hold = {"capability": "pause-before-switchover", "state": stop_before_the_switch}
        self.monitor.execute("migrate-set-capabilities", capabilities=[hold])
        self.monitor.execute("migrate-set-parameters", max_bandwidth=bandwidth)
        self.monitor.execute("migrate", uri=address)

    def await_migration_status(self, status: str, since: int = 0) -> None:
        """Wait until the migration has come to *status*.

        :raises MonitorError: it failed, or did not get there.
        """
        ends = {status, "failed", "cancelled"}
        event = self.monitor.await_event(
            "MIGRATION", since, lambda event: event.arguments["status"] in ends, _MIGRATION_PATIENCE
        )
        if event.arguments["status"] != status:
            raise MonitorError(f"the migration did not come to {status}: {self.monitor.execute('query-migrate')}")

    def unplug_port(self) -> None:
        """Take the port under test out of the running VM."""
        before = self.monitor.mark()
        self.monitor.execute("device_del", id="port")
        self.monitor.await_event("DEVICE_DELETED", before, lambda event: event.arguments.get("device") == "port")

    def plug_port(self) -> None:
        """Put it into the running VM."""
        driver, properties = _port_device()
        self.monitor.execute("device_add", driver=driver, **properties)

    def end(self) -> None:
        """End QEMU without warning to anybody; the port's socket vanishes from the host, as under libvirt."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        with contextlib.suppress(AttributeError):  # it ended before it answered
            self.monitor.close()
            self.guest.close()
        self.port.unlink(missing_ok=True)
        self.port.parent.rmdir()

    @property
    def status(self) -> str:
        """Whether the VM is running, paused or something else, in QEMU's words."""
        return str(self.monitor.execute("query-status")["status"])

    @property
    def crash(self) -> Optional[str]:
        """What the guest's console shows from where its kernel crashed; None: it did not."""
        said = self.console.read_text(errors="replace") if self.console.exists() else ""
        crash = _CRASH.search(said)
        return said[crash.start() :][:3000] if crash else None

    def said(self) -> str:
        """The end of what the guest's console and QEMU said."""
        files = (self.console, self._log)
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-2000:]}" for file in files if file.exists())

    @property
    def _log(self) -> pathlib.Path:
        return self._directory / "qemu.log"

    def _start(self, *arguments: str) -> None:
        self._directory.mkdir(parents=True)
        self.port.parent.mkdir(parents=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - QEMU, with our own arguments
                [*self._command(), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_for("QEMU answers on its monitor", self._answers, self.said)
        self.guest = Guest(self._directory / "shell")
        self.monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise MachineError(f"QEMU ended with status {self._process.returncode}\n{self.said()}")
        path = self._directory / "monitor"
        if path.exists():
            with contextlib.suppress(MonitorError):
                self.monitor = Monitor(path)
                return True
        return False

    def _command(self) -> list[str]:
        emulator, directory = self._emulator, self._directory
        return [
            emulator.program,
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-M", "q35", "-accel", emulator.accelerator, "-cpu", "max", "-smp", "1", "-m", str(MEMORY)),
            *("-kernel", str(emulator.image.kernel), "-initrd", str(emulator.image.initramfs)),
            # A host that is busy elsewhere for a while is no bug of the guest.
            *("-append", "console=ttyS0 quiet panic=0 nowatchdog"),
            *("-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=shell,path={directory / 'shell'},server=on,wait=off", "-serial", "chardev:shell"),
            *("-chardev", f"socket,id=channel,path={self.port},server=on,wait=off"),
            *("-device", "virtio-serial-pci,id=ports"),
            *(_as_option(*_port_device()) if self._plugged else ()),
            *(_disk(emulator.image.disk) if emulator.image.disk else ()),
            *("-qmp", f"unix:{directory / 'monitor'},server=on,wait=off"),
            *emulator.arguments,
        ]


def _port_device() -> tuple[str, dict[str, str]]:
    return "virtserialport", {"id": "port", "bus": "ports.0", "nr": "1", "chardev": "channel", "name": PORT_NAME}


def _as_option(driver: str, properties: dict[str, str]) -> list[str]:
    return ["-device", ",".join([driver, *(f"{name}={value}" for name, value in properties.items())])]


def _disk(file: pathlib.Path) -> list[str]:
    backend = f"driver=raw,node-name=disk,read-only=on,file.driver=file,file.filename={file}"
    return ["-blockdev", backend, *_as_option("virtio-blk-pci", {"id": "disk", "drive": "disk"})]
