"""What a scenario is played with: hosts, the VM's machines, moves between them, and what must hold afterwards."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time
from typing import Any, Optional

from common.catalogue import CATALOGUE
from common.versions import Version
from host_agent.demo.vm.machine import Emulator, Machine

from .hosts import VM, Host

#: From when the destination's VM runs and its host is connected, whichever comes last, to agreed = in use; seconds. It is
#: asserted of the median of many moves: on a machine that others use too, a single one shows the machine.
MOVE_LIMIT = 1.0

#: What took longer than this, in seconds, has waited for a heartbeat (they come every 5 s).
HEARTBEAT_LIMIT = 4.5


class GuestCrashed(Exception):
    """The guest's own kernel crashed: neither the agent nor the daemon did that."""


@dataclasses.dataclass(frozen=True)
class States:
    """Saved machines to start scenarios from: only booted, and with an agent that waits for its first host."""

    booted: pathlib.Path
    with_agent: pathlib.Path
    #: The process id of that agent.
    agent: int
    #: Whether the port is in the VM.
    plugged: bool = True


@dataclasses.dataclass(frozen=True)
class Time:
    """How long a step took, in seconds."""

    scenario: str
    step: str
    seconds: float


class Scene:
    """Hosts and machines of one scenario. ``close`` ends them and looks for what must not have happened."""

    def __init__(self, root: pathlib.Path, emulator: Emulator, states: States, scenario: str) -> None:
        self.times: list[Time] = []
        self.machines: list[Machine] = []
        #: The agent that runs in the VM.
        self.agent = 0
        #: How many lines may be cut, by what the scenario does.
        self.cut_lines = 0
        self._root = root
        self._emulator = emulator
        self._states = states
        self._scenario = scenario
        self._hosts: list[Host] = []

    # ---- The cast ----

    def host(self, maximum: str = "3", started: bool = True) -> Host:
        """One more host."""
        host = Host(self._root, f"host-{len(self._hosts)}", maximum)
        self._hosts.append(host)
        if started:
            host.start()
        return host

    def machine(self, host: Host, hidden: bool = False) -> Machine:
        """One more QEMU on *host*, not started."""
        number = len(self.machines) + 1
        directory = self._root / f"machine-{number}"
        machine = Machine(self._emulator, directory, host.vms, VM, number, hidden, self._states.plugged)
        self.machines.append(machine)
        return machine

    def vm(self, host: Host, hidden: bool = False) -> Machine:
        """The VM on *host*, with an agent of API 3 that has never seen a host."""
        machine = self.machine(host, hidden)
        machine.restore(self._states.with_agent)
        self.agent = self._states.agent
        return machine

    def vm_without_agent(self, host: Host) -> Machine:
        """The VM on *host*, just booted."""
        machine = self.machine(host)
        machine.restore(self._states.booted)
        return machine

    def start_agent(self, machine: Machine, maximum: str = "3") -> None:
        """Start an agent in the VM."""
        self.agent = machine.guest.start_agent("--max-api-version", maximum)

    # ---- What happens ----

    def move(self, source: Machine, host: Host) -> tuple[Machine, float]:
        """Migrate the running VM to *host*, which is connected before the switch. When it ran there, and the machine."""
        destination = self.machine(host)
        address = destination.await_migration()
        host.await_state("connected")
        source.migrate(address)
        resumed = destination.monitor.await_event("RESUME").at
        source.end()
        return destination, resumed

    def move_unseen(self, source: Machine, host: Host) -> Machine:
        """Migrate the running VM to *host*, which does not see it before it is revealed."""
        destination = self.machine(host, hidden=True)
        source.migrate(destination.await_migration())
        destination.monitor.await_event("RESUME")
        source.end()
        return destination

    # ---- What must hold ----

    def await_agreement(
        self,
        host: Host,
        expected: int,
        step: str,
        since: float,
        *,
        limit: Optional[float] = None,
        pushes: int = -1,
    ) -> float:
        """Wait until *host* and the guest use *expected*, and the facts of that version are there.

        Returns how long the agreement took, in seconds.

        :param since: wall-clock time from which *step* is measured.
        :param limit: seconds that it may take.
        :param pushes: how often the host had pushed before; it must have done so again.
        """

        def agreed(guest: dict[str, Any]) -> bool:
            said = (guest["channel"]["state"], guest["api"]["agreed"], guest["api"]["in_use"])
            return said == ("responsive", expected, expected) and guest["counters"]["pushes"] > pushes

        host.await_that(f"agreed = in use = {expected}", agreed)
        took = now() - since
        self.note_time(step, took)
        assert limit is None or took <= limit, f"{step} took {took:.3f} s, more than {limit:g} s\n{host.said()}"
        self._await_facts(host, expected, since)
        return took

    def _await_facts(self, host: Host, version: int, since: float) -> None:
        allowed = CATALOGUE.facts(up_to=Version(version))
        newer = CATALOGUE.facts(above=version, up_to=max(Version))

        def fresh(guest: dict[str, Any]) -> set[str]:
            age = now() - since
            return {name for name, fact in guest["facts"].items() if fact["age_s"] <= age}

        host.await_that(f"the facts {sorted(allowed)} are there", lambda guest: fresh(guest) >= allowed)
        guest = host.guest()
        assert guest is not None
        assert not fresh(guest) & newer
        assert guest["api"]["agreed"] == guest["api"]["in_use"] == version

    def await_life(self, host: Host) -> None:
        """Wait until *host* hears the guest's next heartbeat."""
        lines = host.counted("lines")
        host.await_that("the guest is heard again", lambda guest: guest["counters"]["lines"] > lines)

    def least_busy_seconds(self, machine: Machine, seconds: float, state: str, enough: float) -> float:
        """The CPU time that the agent takes in *seconds* of the guest's clock: the least of three spans, or *enough*.

        The guest's clock also counts what this machine does for others; a busy loop shows in every span.
        """
        least = float("inf")
        for _ in range(3):
            least = min(least, self.busy_seconds(machine, seconds, state))
            if least <= enough:
                break
        return least

    def busy_seconds(self, machine: Machine, seconds: float, state: str) -> float:
        """The CPU time that the agent takes in the next *seconds* of the guest's clock."""
        before = machine.guest.cpu_seconds(self.agent)
        machine.guest.run(f"sleep {seconds:g}", patience=seconds + 60)
        spent = machine.guest.cpu_seconds(self.agent) - before
        self.note_time(f"CPU time of the agent in {seconds:g} s, {state}", spent)
        return spent

    def note_time(self, step: str, seconds: float) -> None:
        """Keep it for the table at the end of the session."""
        self.times.append(Time(self._scenario, step, seconds))

    # ---- The end ----

    def close(self) -> None:
        """End everything."""
        for machine in self.machines:
            machine.end()
        for host in self._hosts:
            host.close()

    def check(self, logs: pathlib.Path) -> None:
        """See to it that no kernel crashed and no line was misread; called after ``close``.

        :param logs: where the consoles have been kept.
        """
        for machine in self.machines:
            if machine.crash:
                raise GuestCrashed(f"the guest's own kernel crashed, its console is kept in {logs}\n{machine.crash}")
        faults = sum((host.faults for host in self._hosts), collections.Counter[str]())
        cut = faults.pop("malformed", 0)
        assert not faults
        assert cut <= self.cut_lines, f"lines were cut: {cut}"

    def said(self) -> str:
        """The end of every log."""
        hosts, machines = (host.said() for host in self._hosts), (machine.said() for machine in self.machines)
        return "\n".join([*hosts, *machines])


def now() -> float:
    """The clock by which QEMU stamps its events."""
    return time.time()  # noqa: TID251 - it is compared with QEMU's wall clock only
