"""The demo's machinery: the shipped programs as processes, hosts and the VM that moves between them, and waiting."""

from __future__ import annotations

import abc
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Callable, Optional

from host_agent.client import Client, ClientError

from . import emulator

VM = "web-1"

#: What has not happened after this many seconds does not happen.
PATIENCE = 20.0

_STOP_PATIENCE = 5.0

#: The configuration of this machine is not for the demo: it may name a real state file.
NO_CONFIGURATION = ("--config", os.devnull)


class StageError(Exception):
    """The demo can't go on; the text says what did not happen, and what the daemons said last."""


class Host:
    """One host: a directory of VMs, and a daemon that looks into it."""

    def __init__(self, root: pathlib.Path, name: str, maximum: str) -> None:
        self.name = name
        self.maximum = maximum
        self.vms = root / name / "vms"
        self.vms.mkdir(parents=True)
        self.client = Client(str(root / name / "control"))
        self._control = root / name / "control"
        self._process = Process(root / name / "log")

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self._process.start(
            "host_agent.main",
            *NO_CONFIGURATION,
            *("--directory", str(self.vms)),
            *("--control", str(self._control)),
            *("--max-api-version", self.maximum),
        )
        wait_for(f"the daemon of {self.name} answers", self._answers, self._process.said)

    def stop(self) -> None:
        """Stop the daemon."""
        self._process.stop()

    def guest(self) -> Optional[dict[str, Any]]:
        """What the daemon says of the VM; None while it does not know it."""
        try:
            return self.client.guest(VM)
        except ClientError:
            return None

    def said(self) -> str:
        """The daemon's last log lines."""
        return self._process.said()

    def _answers(self) -> bool:
        with contextlib.suppress(ClientError):
            self.client.host()
            return True
        return False


class Stage(abc.ABC):
    """Three hosts, one VM and its agent. Use as a context manager; leaving it stops everything."""

    def __init__(self, root: pathlib.Path) -> None:
        self.hosts = {
            "host-a": Host(root, "host-a", "3"),
            "host-b": Host(root, "host-b", "1"),
            "host-c": Host(root, "host-c", "none"),
        }
        #: The host on which the VM runs.
        self.host = self.hosts["host-a"]

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for host in self.hosts.values():
            host.stop()

    @abc.abstractmethod
    def start_agent(self, maximum: str) -> None:
        """Start the guest agent, or replace it by one of another release."""

    @abc.abstractmethod
    def move_vm(self, name: str) -> None:
        """Let the VM run on the host *name*; its agent is not told."""

    @abc.abstractmethod
    def agent_said(self) -> str:
        """The agent's last log lines."""

    def restart_host(self) -> None:
        """Restart the daemon of the host on which the VM runs."""
        self.host.stop()
        self.host.start()

    def said(self) -> str:
        """The last log lines of everybody."""
        logs = [("agent", self.agent_said()), *((host.name, host.said()) for host in self.hosts.values())]
        return "\n".join(f"--- {name}\n{text}" for name, text in logs)


class EmulatedStage(Stage):
    """The VM is nothing but its port, which is emulated and watched; its agent runs on this machine."""

    def __init__(self, root: pathlib.Path, watcher: emulator.Watcher) -> None:
        super().__init__(root)
        self._port = emulator.EmulatedPort(watcher)
        self._agent = Process(root / "agent.log")
        self._domain_id = 0

    def __enter__(self) -> EmulatedStage:
        self._port.__enter__()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._agent.stop()
        super().__exit__(kind, error, trace)
        self._port.__exit__(kind, error, trace)

    def start_agent(self, maximum: str) -> None:
        """Start the guest agent, or replace it by one of another release."""
        self._agent.stop()
        port = ("--port", self._port.guest_path)
        self._agent.start("guest_agent.main", *NO_CONFIGURATION, *port, "--max-api-version", maximum)

    def move_vm(self, name: str) -> None:
        """Let the VM run on the host *name*; its agent is not told."""
        self._port.unplug()
        self._domain_id += 1
        self.host = self.hosts[name]
        self._port.plug(self.host.vms / f"domain-{self._domain_id}-{VM}")

    def agent_said(self) -> str:
        """The agent's last log lines."""
        return self._agent.said()


class Process:
    """One of our programs, run as a process by the interpreter that runs the demo."""

    def __init__(self, log: pathlib.Path) -> None:
        self._log = log
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self, module: str, *arguments: str) -> None:
        """Start it; what it says goes to its log."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", module, *arguments],
                # A package keeps the code where no other Python looks for it.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop it as a service supervisor would."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def said(self) -> str:
        """Its last log lines."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-10:])


def wait_for(what: str, happened: Callable[[], bool], said: Callable[[], str], patience: float = PATIENCE) -> None:
    """Wait until *happened*.

    :raises StageError: it has not after *patience* seconds.
    """
    deadline = time.monotonic() + patience
    while not happened():
        if time.monotonic() > deadline:
            raise StageError(f"did not happen within {patience:g} s: {what}\n{said()}")
        time.sleep(0.005)
