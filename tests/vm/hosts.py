"""The hosts: shipped daemons as processes, and a bare client of the port for what no daemon would do."""

from __future__ import annotations

import collections
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Callable, Optional

from common import codec, errors, framing
from common.session import HostSession
from common.versions import Version
from host_agent.client import Answer, Client, ClientError

VM = "web-1"

#: What has not happened after this many seconds does not happen; a guest under software emulation is slow.
PATIENCE = 60.0

#: Seconds between two looks. Each costs CPU time that the emulator would otherwise have.
_PAUSE = 0.02


class Host:
    """A host whose daemon supports API versions up to *maximum*; it is not started yet."""

    def __init__(self, root: pathlib.Path, name: str, maximum: str) -> None:
        self.name = name
        self.maximum = maximum
        self.vms = root / name / "vms"
        self.vms.mkdir(parents=True)
        #: The configuration file of its daemons.
        self.configuration = pathlib.Path(os.devnull)
        #: What this host's daemons counted that must not be, over all their runs.
        self.faults: collections.Counter[str] = collections.Counter()
        self._control = root / name / "control"
        self._log = root / name / "log"
        self._client = Client(str(self._control))
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._asking: list[subprocess.Popen[str]] = []

    def start(self, maximum: Optional[str] = None) -> None:
        """Start the daemon, perhaps one that supports another version, and wait until it answers."""
        self.maximum = maximum or self.maximum
        options = ["--config", str(self.configuration)]
        options += ["--directory", str(self.vms), "--control", str(self._control), "--max-api-version", self.maximum]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "host_agent.main", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(f"the daemon of {self.name} answers", lambda: self._host() is not None, self.said)

    def ask(self, *words: str) -> subprocess.Popen[str]:
        """Have our command-line tool ask the daemon; it is ended with this host at the latest."""
        command = [sys.executable, "-m", "host_agent.cli", "--control", str(self._control), *words]
        self._asking.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return self._asking[-1]

    def close(self) -> None:
        """End everything."""
        self.stop()
        for process in self._asking:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the daemon; with SIGKILL without warning."""
        if self._process is None:
            return
        self._note_faults()
        self._process.send_signal(how)
        status = self._process.wait(PATIENCE)
        self._process = None
        assert status == (0 if how == signal.SIGTERM else -how), self.said()

    def guest(self) -> Optional[dict[str, Any]]:
        """What the daemon says of the VM; None where it says nothing."""
        try:
            return self._client.guest(VM)
        except ClientError:
            return None

    def send(self, command: str, **arguments: Any) -> Answer:
        """Have the VM carry *command* out, and wait for its answer; one that it fails at shows its *error*."""
        return self._client.send(VM, command, arguments, PATIENCE)

    def counted(self, name: str) -> Any:
        """A counter of the VM's session."""
        guest = self.guest()
        return guest["counters"][name] if guest else 0

    def await_state(self, state: str) -> None:
        """Wait until the channel to the VM is in *state*."""
        self.await_that(f"the VM is {state}", lambda guest: guest["channel"]["state"] == state)

    def await_that(self, what: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until what the daemon says of the VM *holds*."""

        def look() -> bool:
            guest = self.guest()
            return guest is not None and holds(guest)

        wait_for(f"{self.name}: {what}", look, self.said)

    def times_said(self, text: str) -> int:
        """How often the daemons' log has *text*."""
        return self._read_log().count(text)

    def said(self) -> str:
        """The end of the daemons' log, and what the running one knows of the VM."""
        return f"--- {self.name}\n{self._read_log()[-3000:]}\n{self.guest()}"

    def _read_log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _note_faults(self) -> None:
        guest = self.guest()
        if guest:
            counters = guest["counters"]
            self.faults.update(counters["dropped"])
            self.faults.update(mistyped=counters["mistyped"], invalid_versions=counters["invalid_versions"])
            self.faults = +self.faults

    def _host(self) -> Optional[Mapping[str, Any]]:
        try:
            return self._client.host()
        except ClientError:
            return None


class Line(dict[str, Any]):
    """One message from the guest: its arguments."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self.name = name


class BareHost:
    """A client of the port that reads only when it is told to, speaks the protocol, and keeps every line.

    Use as a context manager.
    """

    def __init__(self, port: pathlib.Path, supported: Version) -> None:
        self.lines: list[Line] = []
        self.malformed: list[bytes] = []
        self.bytes = 0
        self.session = HostSession(supported, "bare")
        self._splitter = framing.LineSplitter()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(port))
        self._socket.setblocking(False)
        self.session.connected(time.monotonic())
        self._unsent = bytearray(self.session.data_to_send())

    def __enter__(self) -> BareHost:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def in_use(self) -> Optional[int]:
        """The version that the guest said last it uses."""
        heartbeat = self.said_last("heartbeat")
        return heartbeat.get("apiVersionInUse") if heartbeat else None

    def said_last(self, name: str) -> Optional[Line]:
        """The last message *name* from the guest."""
        return next((line for line in reversed(self.lines) if line.name == name), None)

    @property
    def unsent(self) -> int:
        """How many bytes the guest has not taken yet."""
        return len(self._unsent)

    def send(self, data: bytes) -> int:
        """Write *data* without reading anything; how many bytes the port took."""
        self._unsent += data
        taken = 0
        while self._unsent and select.select([], [self._socket], [], 0)[1]:
            written = self._socket.send(self._unsent[:65536])
            del self._unsent[:written]
            taken += written
        return taken

    def read_until(self, what: str, holds: Callable[[], bool]) -> None:
        """Take part in the conversation until something *holds*."""

        def look() -> bool:
            self._exchange()
            return holds()

        wait_for(f"the bare host sees that {what}", look, self.said)

    def said(self) -> str:
        """The last lines."""
        return "\n".join(f"{line.name} {str(line)[:200]}" for line in self.lines[-10:])

    def _exchange(self) -> None:
        self.send(self.session.data_to_send())
        while select.select([self._socket], [], [], 0)[0]:
            received = self._socket.recv(65536)
            if not received:
                return
            self.bytes += len(received)
            self._keep(received)
            self.session.receive_data(received, time.monotonic())
            self.session.events()
            self.send(self.session.data_to_send())

    def _keep(self, received: bytes) -> None:
        for line in self._splitter.feed(received):
            assert isinstance(line, bytes), "an over-long line"
            try:
                self.lines.append(Line(*codec.decode(line)))
            except errors.MalformedLine:
                self.malformed.append(line)


def wait_for(what: str, holds: Callable[[], bool], said: Callable[[], str]) -> None:
    """Wait until something *holds*.

    :param said: tells what everybody said last.
    """
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"did not happen within {PATIENCE:g} s: {what}\n{said()}"
        time.sleep(_PAUSE)
