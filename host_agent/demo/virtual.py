"""``vmaccord demo --vm``: the same story on a real VM, which migrates live between QEMU processes.

Nobody taps the wire here: what the guest uses is what its heartbeats say to the host, and the time runs from when the
newcomer was there (the VM resumed, the agent started, the daemon answered) until the host knows that both agree.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import sys
import tempfile
import time
from types import TracebackType
from typing import Callable, Optional

from host_agent.exits import Exit

from . import SCENARIOS, play_on, seen_by_host, stage, teller
from .vm import image, packages
from .vm.guest import GuestError
from .vm.machine import Emulator, Machine, MachineError, accelerator
from .vm.monitor import MonitorError

#: A scenario that has not come to agreement after so many seconds has failed; emulated processors are slow.
PATIENCE = 30.0


def play() -> int:
    """Play the story on a real VM and return the exit status."""
    tell = teller()
    with tempfile.TemporaryDirectory(prefix="vmaccord-demo-") as directory:
        root = pathlib.Path(directory)
        try:
            tell(time.monotonic(), "getting QEMU and a guest's image ready; the first time this downloads 40 MB")
            emulator = _emulator(root)
        except packages.Unavailable as missing:
            print(f"vmaccord: the demo needs a VM: {missing}", file=sys.stderr)
            return Exit.DEMO_FAILED
        theatre = VirtualStage(root, emulator, tell)
        return play_on(theatre, HostWitness(theatre, tell), SCENARIOS, PATIENCE)


class VirtualStage(stage.Stage):
    """The VM is a real one: it boots on the first host and migrates live to the others.

    :ivar newcomer_at: monotonic time at which the last newcomer was there.
    """

    def __init__(self, root: pathlib.Path, emulator: Emulator, tell: Callable[[float, str], None]) -> None:
        super().__init__(root)
        self.newcomer_at = 0.0
        self._root = root
        self._emulator = emulator
        self._tell = tell
        self._machine: Optional[Machine] = None
        self._machines = 0
        self._agent = 0
        self._agent_maximum = ""

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._machine is not None:
            self._machine.end()
        super().__exit__(kind, error, trace)

    def start_agent(self, maximum: str) -> None:
        """Start the guest agent, or replace it by one of another release."""
        self._agent_maximum = maximum
        if self._machine is not None:
            if self._agent:
                self._machine.guest.stop_agent(self._agent)
            self._agent = self._machine.guest.start_agent("--max-api-version", maximum)
            self.newcomer_at = time.monotonic()

    def move_vm(self, name: str) -> None:
        """Boot the VM on the host *name*, or migrate it there while it runs."""
        try:
            self._boot(name) if self._machine is None else self._migrate(self._machine, name)
        except (GuestError, MachineError, MonitorError) as error:
            raise stage.StageError(f"the VM did not come to {name}: {error}") from error

    def restart_host(self) -> None:
        """Restart the daemon of the host on which the VM runs."""
        super().restart_host()
        self.newcomer_at = time.monotonic()

    def agent_said(self) -> str:
        """The agent's last log lines."""
        if self._machine is None:
            return ""
        return "\n".join(f"    {line}" for line in self._machine.guest.agent_said().splitlines()[-10:])

    def _boot(self, name: str) -> None:
        self.host = self.hosts[name]
        machine = self._next_machine()
        self._tell(time.monotonic(), f"  the VM boots on {name} ({self._emulator.accelerator})")
        machine.boot()
        self._machine = machine
        self._tell(time.monotonic(), "  the VM has booted, its agent starts")
        self.start_agent(self._agent_maximum)

    def _migrate(self, source: Machine, name: str) -> None:
        self.host = self.hosts[name]
        destination = self._next_machine()
        address = destination.await_migration()
        stage.wait_for(f"{name} is connected to the VM that comes", self._is_awaited, self.host.said)
        self._tell(time.monotonic(), f"  live migration to {name} begins")
        source.migrate(address)
        resumed = destination.monitor.await_event("RESUME").at
        self.newcomer_at = time.monotonic() - (time.time() - resumed)  # noqa: TID251 - QEMU stamps with its wall clock
        self._tell(self.newcomer_at, f"  the VM runs on {name}")
        self._machine = destination
        source.end()

    def _is_awaited(self) -> bool:
        guest = self.host.guest()
        return guest is not None and guest["channel"]["state"] == "connected"

    def _next_machine(self) -> Machine:
        self._machines += 1
        directory = self._root / f"machine-{self._machines}"
        return Machine(self._emulator, directory, self.host.vms, stage.VM, self._machines)


class HostWitness:
    """Sees what the VM's host sees; see ``Witness``."""

    def __init__(self, theatre: VirtualStage, tell: Callable[[float, str], None]) -> None:
        self._theatre = theatre
        self._tell = tell
        self._seen: tuple[Optional[int], Optional[int]] = (None, None)
        self._agreed_at: dict[int, float] = {}

    def note(self, text: str) -> None:
        """Say what the demo does."""
        self._tell(time.monotonic(), text)

    def begin(self) -> None:
        """A scenario begins: what was before does not count."""
        self._agreed_at.clear()

    def catch_up(self) -> None:
        """Tell what has changed on the host."""
        seen = seen_by_host(self._theatre)
        now = time.monotonic()
        agreed, in_use = seen
        if agreed is not None and agreed == in_use:
            self._agreed_at.setdefault(agreed, now)
        if seen != self._seen and agreed is not None:
            used = "not known yet" if in_use is None else in_use
            self._tell(now, f"  {self._theatre.host.name}: agreed {agreed}, in use {used}")
        self._seen = seen

    def used(self) -> Optional[int]:
        """The version that the guest said last it uses."""
        return self._seen[1]

    def took(self, expected: int) -> Optional[float]:
        """Seconds from the newcomer's coming until the host knew that both agree on *expected*."""
        agreed_at = self._agreed_at.get(expected)
        return None if agreed_at is None else agreed_at - self._theatre.newcomer_at


def _emulator(root: pathlib.Path) -> Emulator:
    program = os.environ.get("VMACCORD_VM_QEMU") or packages.program("qemu-system-x86_64", "qemu-system-x86")
    checkout = pathlib.Path(__file__).resolve().parents[2]
    if not (checkout / "setup.cfg").exists():
        raise packages.Unavailable("the image is built from the sources: run make demo-vm in a checkout")
    built = image.build(checkout, root, image.default_cache())
    chosen = os.environ.get("VMACCORD_VM_ACCELERATOR") or accelerator(program, built.kernel)
    return Emulator(program, chosen, built, tuple(shlex.split(os.environ.get("VMACCORD_VM_ARGUMENTS", ""))))
