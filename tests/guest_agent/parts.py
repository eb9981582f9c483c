"""Parts for tests: a clock to turn by hand, ports that real kernel objects stand in for, a host at the other end."""

from __future__ import annotations

import contextlib
import math
import os
import select
import selectors
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from common import codec, events, versions
from common.messages import Message
from common.session import HostSession
from guest_agent import options
from guest_agent.answers import Outcome
from guest_agent.commands import Machine
from guest_agent.config import Configuration
from guest_agent.crew import Crew, Task
from guest_agent.freezer import Freezer
from guest_agent.log import Log
from guest_agent.port import Port
from guest_agent.quiet import QuietLog

#: When a test gives up waiting, in seconds. Nothing is asserted about time.
GIVE_UP = 30.0

CHUNK = 65536

#: Keeps the machine's own configuration out of an agent.
NO_CONFIGURATION = ("--config", os.devnull)

#: No loop of a test turns more often.
TURNS_LIMIT = 50_000


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class LeapingSelector(selectors.DefaultSelector):
    """Lets no time pass: where nothing is ready, the clock leaps to the deadline. Counts its calls.

    A worker needs the time that it needs: while one is under way the clock stands still.

    *on_turn* is called each time and sees how often that was.
    """

    def __init__(self, clock: Clock, on_turn: Callable[[int], None]) -> None:
        super().__init__()
        self.turns = 0
        self.idle_turns = 0
        self._clock = clock
        self._on_turn = on_turn

    def select(self, timeout: Optional[float] = None) -> Any:
        self.turns += 1
        assert self.turns < TURNS_LIMIT, "the loop spins"
        self._on_turn(self.turns)
        working = any(isinstance(key.fileobj, Task) for key in self.get_map().values())
        ready = super().select(GIVE_UP if working and timeout else 0)
        assert ready or not (working and timeout), "waited for a worker in vain"
        if not ready and timeout:
            self._clock.advance(timeout)
        self.idle_turns += not ready
        return ready


class ListLog(Log):
    """Keeps what it is told: *lines* with their levels, *messages* without."""

    def __init__(self, level: str = "debug") -> None:
        super().__init__(level, self._keep)
        self.lines: list[str] = []

    @property
    def messages(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.lines]

    def _keep(self, line: str) -> None:
        self.lines.append(line.rstrip("\n"))


class Gate:
    """Holds whoever waits at it, in whichever process, until it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wait(self) -> None:
        while not self._path.exists():
            time.sleep(0.005)

    def open(self) -> None:
        self._path.touch()


class Tally:
    """Counts, in whichever process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def add(self) -> None:
        with self._path.open("ab") as file:
            file.write(b".")

    @property
    def count(self) -> int:
        return self._path.stat().st_size


class FakeCommand(NamedTuple):
    """A command for the table that a function of a test carries out, in the worker; *why_not*: it is not available."""

    run: Callable[[Machine, Message], Mapping[str, Any]] = lambda _, __: {}
    why_not: Optional[str] = None
    parallel: int = 1
    about: str = ""

    def patience(self, machine: Machine, _: Message) -> float:
        return machine.deadline

    def subject(self, _: Message) -> str:
        return self.about

    def available(self, _: Machine) -> Optional[str]:
        return self.why_not


class FakeFreezer(Freezer):
    """Freezes nothing, and says what a test wants it to.

    :ivar told: what it was asked for, in order.
    :ivar answers: what has yet to be told to whom, in order.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answers: list[Callable[[Outcome], None]] = []
        self.machine: Optional[Machine] = None
        self.advanced_at = -math.inf
        self.deadline = math.inf
        self._frozen = False

    def made(self, _: Crew, __: QuietLog, machine: Machine) -> FakeFreezer:
        """What the agent makes its freezer with."""
        self.machine = machine
        return self

    @property
    def frozen(self) -> bool:
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._frozen = frozen

    def configure(self, machine: Machine) -> None:
        self.machine = machine

    def recover(self, now: float) -> None:
        self.told.append("recover")

    def freeze(self, message: Message, now: float, answer: Callable[[Outcome], None]) -> None:
        self.told.append("freeze")
        self._frozen = True
        self.answers.append(answer)

    def thaw(self, message: Message, now: float, answer: Callable[[Outcome], None]) -> None:
        self.told.append("thaw")
        self.answers.append(answer)

    def status(self, message: Message, now: float, answer: Callable[[Outcome], None]) -> None:
        answer(Outcome(result={"state": "frozen" if self.frozen else "thawed"}))

    def advance(self, now: float) -> None:
        self.advanced_at = now

    def next_deadline(self) -> float:
        return self.deadline

    def close(self, seconds: float, clock: Callable[[], float]) -> None:
        self.told.append("close")
        self._frozen = False
        for answer in self.answers:
            answer(Outcome(result={"mountpoints": []}))


def hang() -> NoReturn:
    """Go on until somebody ends the process."""
    while True:
        signal.pause()


def hang_stubbornly() -> NoReturn:
    """Go on until somebody kills the process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


def configuration(**changes: Any) -> Configuration:
    """The defaults with *changes*; no file and no command line."""
    none_given = options.parser().parse_args([*NO_CONFIGURATION])
    return options.load(none_given)._replace(**changes)


def wait_until(condition: Callable[[], Any], step: Callable[[], Any]) -> Any:
    """Call *step* until *condition* holds; its value."""
    give_up_at = time.monotonic() + GIVE_UP
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up_at, "waited in vain"
        step()


def lines_of(written: bytes) -> list[tuple[str, dict[str, Any]]]:
    return [codec.decode(line) for line in written.splitlines() if line]


class FifoPort(Port):
    """A port made of two FIFOs: without a writer poll shows a hang-up and reads give nothing, as on a virtio-serial port."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__(inward, "fifo", close_device=self._close_both)
        self._inward = inward
        self._outward = outward

    def _write(self, data: bytearray) -> int:
        if not self.has_host():
            raise BlockingIOError
        return os.write(self._outward, data)

    def _close_both(self) -> None:
        os.close(self._inward)
        os.close(self._outward)


class FifoHost:
    """The other end of a FifoPort: connects and disconnects as a host does."""

    def __init__(self, directory: Path) -> None:
        self._paths = (directory / "to-guest", directory / "to-host")
        for path in self._paths:
            os.mkfifo(path)
        self._ends: tuple[int, ...] = ()

    def port(self) -> FifoPort:
        """The guest's end, with no host connected."""
        inward = os.open(self._paths[0], os.O_RDONLY | os.O_NONBLOCK)
        outward = os.open(self._paths[1], os.O_RDWR | os.O_NONBLOCK)
        # Only a reader that has seen a writer go sees the hang-up.
        os.close(os.open(self._paths[0], os.O_WRONLY | os.O_NONBLOCK))
        return FifoPort(inward, outward)

    def connect(self) -> None:
        self._ends = (
            os.open(self._paths[0], os.O_WRONLY | os.O_NONBLOCK),
            os.open(self._paths[1], os.O_RDONLY | os.O_NONBLOCK),
        )

    def disconnect(self) -> bytes:
        """What had not been read is returned, and with it lost."""
        rest = self.read()
        for end in self._ends:
            os.close(end)
        self._ends = ()
        return rest

    def write(self, data: bytes) -> None:
        assert os.write(self._ends[0], data) == len(data)

    def write_some(self, data: bytes) -> int:
        """As much of *data* as there is room for; how much that was."""
        try:
            return os.write(self._ends[0], data)
        except BlockingIOError:
            return 0

    def read(self) -> bytes:
        received = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._ends[1], CHUNK):
                received += chunk
        return received


class Pty:
    """A pty whose slave is the agent's port."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self._slave)

    def leave_behind(self, data: bytes) -> None:
        """Write as an earlier agent would have."""
        os.write(self._slave, data)

    def close(self) -> None:
        for descriptor in (self.master, self._slave):
            os.close(descriptor)


class Host:
    """A host session on the master of a pty, and everything it hears; until it connects it has only listened."""

    def __init__(self, master: int, supported: Optional[versions.Version] = versions.newest()) -> None:  # noqa: B008
        self.session = HostSession(supported, "test-host")
        self.session.connected(time.monotonic())
        self.session.data_to_send()
        self.heard: list[Message] = []
        self.names: list[str] = []
        self.complaints: list[str] = []
        self.received = b""
        self._master = master

    def connect(self) -> None:
        self.session.connected(time.monotonic())

    def send(self, message: Message, reply_id: Optional[str] = None) -> None:
        self.session.send(message, reply_id)

    def until(self, condition: Callable[[Host], Any]) -> Any:
        """Play the host until *condition* holds."""
        return wait_until(lambda: condition(self), self._turn)

    def last(self, kind: type[Message]) -> Any:
        return next((each for each in reversed(self.heard) if isinstance(each, kind)), None)

    def _turn(self) -> None:
        out = self.session.data_to_send()
        if out:
            os.write(self._master, out)
        if select.select([self._master], [], [], 0.1)[0]:
            data = os.read(self._master, CHUNK)
            self.received += data
            self.session.receive_data(data, time.monotonic())
        for event in self.session.events():
            if isinstance(event, events.MessageReceived):
                self.heard.append(event.message)
                self.names.append(event.name)
            elif isinstance(event, events.Complaint):
                self.complaints.append(event.text)


class AgentProcess:
    """Our agent as a process of its own; the machine's configuration file is not for it.

    :param program: what Python runs.
    """

    def __init__(self, log: Path, *arguments: str, program: Sequence[str] = ("-m", "guest_agent.main")) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, *program, *NO_CONFIGURATION, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                cwd=Path(__file__).parents[2],
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return self.status()

    def status(self) -> int:
        """How it ended."""
        return self._process.wait(GIVE_UP)

    def kill(self) -> None:
        """End it in any case, with its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
