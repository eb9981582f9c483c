"""A shell in the guest, over its second serial line: nothing that is done to the virtio-serial port can disturb it.

The guest reads lines of a token and a command, runs the command in its shell, and answers with the output and a line of
the token and the exit status. Background jobs of one command are known to the next ones.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import pathlib
import posixpath
import re
import socket
import time

from host_agent.demo.stage import wait_for

#: What has not been answered after this many seconds is not answered. A guest under software emulation is slow.
PATIENCE = 60.0

#: What the guest's shell says when it is ready for the first command.
READY = b"READY\r\n"

_AGENT_LOG = "/tmp/agent.log"  # noqa: S108 - in the guest, where nobody else is
_CLOCK_TICKS = 100


class GuestError(Exception):
    """A command in the guest failed, or was not answered."""


class Guest:
    """The shell behind the serial line that QEMU offers at *path*."""

    def __init__(self, path: pathlib.Path) -> None:
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.connect(str(path))
        self._tokens = itertools.count(1)

    def close(self) -> None:
        """Let go of the serial line."""
        self._line.close()

    def await_shell(self, patience: float = PATIENCE) -> None:
        """Wait until the guest has booted.

        :raises GuestError: it has not within *patience* seconds.
        """
        self._read_until(re.compile(re.escape(READY.strip())), patience, "the guest did not boot")

    def run(self, command: str, patience: float = PATIENCE) -> str:
        """What *command*, one line for busybox's shell, prints.

        :raises GuestError: it failed, or did not end within *patience* seconds.
        """
        output, status = self.attempt(command, patience)
        if status:
            raise GuestError(f"in the guest, status {status}: {command}\n{output}")
        return output

    def attempt(self, command: str, patience: float = PATIENCE) -> tuple[str, int]:
        """What *command* prints, and its exit status.

        :raises GuestError: it did not end within *patience* seconds.
        """
        # Where a line was cut when the VM moved, the token of the next answer is still found.
        token = f"answer-{next(self._tokens)}-{time.monotonic_ns()}"
        self._line.sendall(f"{token} {command}\n".encode())
        pattern = re.compile(rb"\r?\n" + token.encode() + rb" (\d+)\r?\n")
        output, end = self._read_until(pattern, patience, f"no answer from the guest: {command}")
        return output.replace("\r\n", "\n").strip("\n"), int(end[1])

    # ---- The agent ----

    def write_file(self, path: str, content: bytes) -> None:
        """Write a file, not a large one: a shell takes it on its command line."""
        packed = base64.b64encode(gzip.compress(content)).decode("ascii")
        self.run(f"mkdir -p {posixpath.dirname(path)}; echo {packed} | base64 -d | gunzip >{path}")

    def start_agent(self, *options: str) -> int:
        """Start the installed agent and return its process id; its log is that of all agents of this guest."""
        started = self.run(f"vmaccord-guest {' '.join(options)} >>{_AGENT_LOG} 2>&1 & echo $!")
        return int(started)

    def stop_agent(self, pid: int) -> int:
        """Stop an agent as a service supervisor would, and return its exit status."""
        return self.attempt(f"kill {pid}; wait {pid}")[1]

    def kill_agent(self, pid: int) -> None:
        """Kill an agent without warning."""
        self.attempt(f"kill -9 {pid}; wait {pid}")

    def agent_said(self) -> str:
        """The log of all agents."""
        return self.attempt(f"cat {_AGENT_LOG}")[0]

    def await_agent_saying(self, text: str, times: int = 1) -> None:
        """Wait until *text* has come so many *times* in the log of all agents."""
        wait_for(f"the agent says {text!r}", lambda: self.agent_said().count(text) >= times, self.agent_said, PATIENCE)

    def cpu_seconds(self, pid: int) -> float:
        """The CPU time that a process has taken since its start."""
        _, _, fields = self.run(f"cat /proc/{pid}/stat").rpartition(")")
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / _CLOCK_TICKS

    def _read_until(self, pattern: re.Pattern[bytes], patience: float, failure: str) -> tuple[str, re.Match[bytes]]:
        deadline = time.monotonic() + patience
        received = bytearray()
        while not (end := pattern.search(received)):
            self._line.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self._line.recv(65536)
            except (OSError, ValueError):
                piece = b""
            if not piece:
                raise GuestError(f"{failure}\n{received.decode(errors='replace')}")
            received += piece
        return received[: end.start()].decode(errors="replace"), end
