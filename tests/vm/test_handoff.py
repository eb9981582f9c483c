"""What follows a VM from host to host: by hand around a live migration, in a file, over crashes, and by libvirt's events."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import pytest

from host_agent.config import Address
from host_agent.demo.vm import packages
from host_agent.demo.vm.guest import Guest
from host_agent.demo.vm.machine import Emulator, Machine
from host_agent.exits import Exit
from tests.host_agent.handoff.hosts import HELD, LOST, UNANSWERED, Wire, free_address
from tests.needs import or_left_out

from .hosts import PATIENCE, VM, Host, wait_for
from .libvirtd import Domain, Libvirtd
from .scene import Scene, States

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

DISK, MOUNTPOINT = "/run/disk", "/run/mounted"

#: No test lasts as long, in seconds.
FOR_EVER = 600

SESSION, COMPLETE = 3, 4

#: What lets a program, or a hook, in the guest go on.
GO, GO_HOOK = "/run/go", "/run/go-hook"

#: The program runs.
BEGUN = "/run/begun"

_WAIT = "while ! test -e {}; do sleep 0.1; done"
_HOOKS = "/run/hooks"
_HOOK = f'#!/bin/sh\necho "$VMACCORD_EVENT $VMACCORD_FAILURE" >>{_HOOKS}\n'

#: The events around a migration, as a guest's hooks are told.
BEGINS, FAILED, ARRIVED = "before_migration 0", "after_migration 1", "after_migration 0"


def prepare(guest: Guest) -> None:
    """Have a guest in which programs may be run, with hooks that note when they are run."""
    guest.write_file("/etc/vmaccord/guest.conf", b"[commands]\nenable = exec\n")
    for event, then in (("before_migration", _WAIT.format(GO_HOOK)), ("after_migration", "")):
        hook = f"/etc/vmaccord/hooks.d/{event}/note"
        guest.write_file(hook, f"{_HOOK}{then}\n".encode())
        guest.run(f"chmod 755 {hook}")
    guest.run(f"touch {_HOOKS} {GO_HOOK}")


@pytest.fixture(scope="module")
def states(states: States, emulator: Emulator, disk: bytes, workplace: pathlib.Path) -> States:
    """Machines with such a guest, a file system to freeze, and an agent of the newest version."""
    machine = Machine(emulator, workplace / "to-hand-over", workplace / "vms", VM, 0)
    saved = workplace / "to-hand-over.state"
    try:
        machine.restore(states.booted)
        prepare(machine.guest)
        machine.guest.write_file(DISK, disk)
        machine.guest.run(f"mkdir {MOUNTPOINT}; mount -t ext4 -o loop {DISK} {MOUNTPOINT}")
        agent = machine.guest.start_agent()
        machine.guest.await_agent_saying("no host is connected yet")
        machine.save(saved)
    finally:
        machine.end()
    return States(states.booted, saved, agent)


# ---- Hosts ----


def configure(host: Host, listen: Address, *peers: tuple[str, Address], more: Sequence[str] = ()) -> None:
    """Have *host* hand guests over to *peers*, and take theirs."""
    host.configuration = host.vms.parent / "host.conf"
    lines = ["[host]", f"state = {host.vms.parent / 'state'}", "drain = 0.1", *more]
    lines += ["[handoff]", "security = plain-text", f"listen = {listen}", "peers ="]
    host.configuration.write_text("\n".join([*lines, *(f"    {name}={address}" for name, address in peers), ""]))


def two_hosts(
    scene: Scene,
    there: str = "5",
    at: Optional[Address] = None,
    wire: Optional[Wire] = None,
    more: Sequence[Sequence[str]] = ((), ()),
) -> list[Host]:
    """A source, and a destination that supports the version *there*.

    :param at: where the destination listens, and *wire* what leads there.
    :param more: lines of their configurations.
    """
    hosts = [scene.host("5", started=False), scene.host(there, started=False)]
    addresses = free_address(), at or free_address()
    configure(hosts[0], addresses[0], (hosts[1].name, wire.address if wire else addresses[1]), more=more[0])
    configure(hosts[1], addresses[1], (hosts[0].name, addresses[0]), more=more[1])
    for host in hosts:
        host.start()
    return hosts


@contextlib.contextmanager
def wire_to(address: Address) -> Iterator[tuple[Wire, Callable[[], object]]]:
    """A wire in a thread of its own, and what lets the requests go on that it holds."""
    loop = asyncio.new_event_loop()
    ended = loop.create_future()
    ready: concurrent.futures.Future[Wire] = concurrent.futures.Future()

    async def carry() -> None:
        async with Wire(address) as wire:
            ready.set_result(wire)
            await ended

    thread = threading.Thread(target=loop.run_until_complete, args=(carry(),))
    thread.start()
    try:
        wire = ready.result(PATIENCE)
        yield wire, lambda: loop.call_soon_threadsafe(wire.gate.set)
    finally:
        loop.call_soon_threadsafe(ended.set_result, None)
        thread.join()
        loop.close()


# ---- Operators ----


class Asked:
    """Our command-line tool, at work on a host."""

    def __init__(self, host: Host, *words: str) -> None:
        self._words = words
        self._process = host.ask(*words)

    def end(self, status: int = Exit.OK) -> str:
        """What it says, having ended with *status*."""
        said, complained = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == status, f"{self._words}: status {self._process.returncode}\n{said}{complained}"
        return said + complained


def ask(host: Host, *words: str) -> str:
    return Asked(host, *words).end()


def run_long(host: Host, guest: Guest, how: str = "--follow") -> Asked:
    """Run a program in the VM that ends when it may; whoever waits for it follows the VM."""
    argv = json.dumps(["sh", "-c", f"touch {BEGUN}; {_WAIT.format(GO)}; echo went on"])
    asked = Asked(host, "send", VM, "exec", f"argv:={argv}", f"timeout={FOR_EVER}", "--json", how)
    guest.run(_WAIT.format(BEGUN))
    return asked


def output(asked: Asked) -> str:
    """What the program printed."""
    return str(json.loads(asked.end())["completion"]["result"]["output"])


def in_flight(guest: dict[str, Any]) -> dict[str, str]:
    """The names of the commands in flight, by reply id."""
    return {each["reply_id"]: each["name"] for each in guest["commands"]}


def number(reply_id: str) -> int:
    return int(reply_id.rpartition("-")[2])


def freeze(host: Host, thaw_after: float) -> None:
    answer = host.send("filesystem-freeze", mountpoints=[MOUNTPOINT], thaw_after=thaw_after)
    assert answer.completion == {"done": True, "result": {"mountpoints": [MOUNTPOINT]}}


def state(host: Host) -> Optional[str]:
    """Whose the VM is, as *host* says; None: it knows of none."""
    guest = host.guest()
    return guest["handoff"]["state"] if guest else None


def is_idle(guest: dict[str, Any]) -> bool:
    return not guest["commands"]


def await_hooks(guest: Guest, *events: str) -> None:
    """Wait until the guest's hooks were run on all *events*, and see that they were on no others."""
    told = guest.run(f"until test $(wc -l <{_HOOKS}) -ge {len(events)}; do sleep 0.1; done; cat {_HOOKS}")
    assert told.splitlines() == list(events)


def agree(host: Host) -> None:
    """Wait for the agreement, and for what the guest says that it carries out: a frozen one says nothing else."""
    expected = (int(host.maximum), True)
    host.await_that("it has agreed", lambda guest: (guest["api"]["in_use"], bool(guest["capabilities"])) == expected)


# ---- By hand ----


def test_what_is_under_way_in_a_vm_goes_on_with_it_on_another_host(scene: Scene) -> None:
    source, destination = two_hosts(scene, there="4")
    vm = scene.vm(source)
    agree(source)
    vm.guest.run(f"rm {GO_HOOK}")
    program = run_long(source, vm.guest)
    begun = Asked(source, "handoff", "begin", VM, "--timeout", "60")
    await_hooks(vm.guest, BEGINS)
    freeze(source, thaw_after=30)
    vm.guest.run(f"rm -f /run/written; (echo text >{MOUNTPOINT}/file && sync {MOUNTPOINT}/file && touch /run/written) & :")

    there = scene.machine(destination)
    vm.migrate(there.await_migration())
    arrived = there.monitor.await_event("RESUME").at
    guest = source.guest()
    assert guest is not None
    frozen, commands = guest["frozen"], in_flight(guest)
    assert sorted(commands.values()) == ["exec", "lifecycle-event"]
    ask(source, "handoff", "send", VM, "--to", destination.name)
    guest = destination.guest()
    assert guest is not None
    assert guest["frozen"]["mountpoints"] == [MOUNTPOINT]
    assert 0 < guest["frozen"]["thaws_in_s"] <= frozen["thaws_in_s"]
    assert in_flight(guest).items() >= commands.items()
    assert (state(source), state(destination)) == ("moved", "here")
    assert destination.name in begun.end(Exit.MOVED)
    assert destination.name in Asked(source, "send", VM, "echo").end(Exit.MOVED)
    vm.end()
    wait_for("the source has forgotten the VM", lambda: source.guest() is None, source.said)

    agree(destination)
    await_hooks(there.guest, BEGINS)
    there.guest.run(f"touch {GO_HOOK}")
    await_hooks(there.guest, BEGINS, ARRIVED)
    there.guest.run(f"touch {GO}")
    assert output(program) == "went on\n"
    destination.await_that("nothing is in flight", is_idle)
    asked = destination.send("lifecycle-event", type="before_hibernation")
    assert asked.reply_id is not None
    assert number(asked.reply_id) > max(map(number, commands))
    destination.await_that("nothing is frozen", lambda guest: guest["frozen"] is None)
    there.guest.run(_WAIT.format("/run/written"))
    scene.await_agreement(destination, 4, "from the destination's resume", arrived)


def test_a_vm_whose_migration_is_cancelled_in_the_midst_of_its_hand_off_goes_on(scene: Scene) -> None:
    at = free_address()
    with wire_to(at) as (wire, release):
        wire.cut = lambda command: HELD if command == SESSION else None
        source, destination = two_hosts(scene, at=at, wire=wire)
        vm = scene.vm(source)
        agree(source)
        program = run_long(source, vm.guest)
        ask(source, "handoff", "begin", VM)
        there = scene.machine(destination, hidden=True)
        before = vm.monitor.mark()
        vm.start_migration(there.await_migration(), stop_before_the_switch=True)
        vm.await_migration_status("pre-switchover", before)
        handed = Asked(source, "handoff", "send", VM, "--to", destination.name)
        wait_for("the hand-off is under way", lambda: SESSION in wire.commands, scene.said)
        assert state(source) == "moving"
        vm.monitor.execute("migrate_cancel")
        vm.monitor.await_event("RESUME", before)
        ask(source, "handoff", "cancel", VM)
        release()
        assert "cancelled" in handed.end(Exit.HANDOFF_FAILED)
        assert (state(source), state(destination)) == ("here", None)
        ask(source, "handoff", "failed", VM)
        await_hooks(vm.guest, BEGINS, FAILED)
        vm.guest.run(f"touch {GO}")
        assert output(program) == "went on\n"
        assert COMPLETE not in wire.commands


def test_a_vm_that_is_saved_to_a_file_takes_along_what_is_under_way(scene: Scene, tmp_path: pathlib.Path) -> None:
    source, destination = two_hosts(scene)
    vm = scene.vm(source)
    agree(source)
    run_long(source, vm.guest, "--no-wait").end()
    freeze(source, FOR_EVER)
    vm.save(tmp_path / "state")
    ask(source, "handoff", "export", VM, "--output", str(tmp_path / "session"))
    guest = source.guest()
    assert guest is not None
    facts, commands = guest["facts"].keys(), in_flight(guest)
    vm.end()

    ask(destination, "handoff", "import", str(tmp_path / "session"))
    guest = destination.guest()
    assert guest is not None
    assert (guest["channel"]["state"], guest["api"]["agreed"]) == ("absent", None)
    assert guest["frozen"]["mountpoints"] == [MOUNTPOINT]
    assert guest["facts"].keys() >= facts - {"capabilities"}
    assert in_flight(guest) == commands
    vm = scene.machine(destination)
    vm.restore(tmp_path / "state")
    agree(destination)
    thawed = destination.send("filesystem-thaw")
    assert thawed.completion == {"done": True, "result": {"mountpoints": [MOUNTPOINT]}}
    assert thawed.reply_id is not None
    assert number(thawed.reply_id) > max(map(number, commands))
    destination.await_that("nothing is frozen", lambda guest: guest["frozen"] is None)
    vm.guest.run(f"touch {GO}")
    destination.await_that("nothing is in flight", is_idle)


@pytest.mark.parametrize("what", [LOST, UNANSWERED])
def test_a_vm_has_one_owner_when_both_daemons_are_killed_around_the_last_word(scene: Scene, what: str) -> None:
    def cut(command: int) -> Optional[str]:
        wire.dead = wire.dead or command == COMPLETE
        return what if command == COMPLETE else None

    at = free_address()
    with wire_to(at) as (wire, _):
        wire.cut = cut
        source, destination = two_hosts(scene, at=at, wire=wire)
        vm = scene.vm(source)
        agree(source)
        run_long(source, vm.guest, "--no-wait").end()
        there = scene.machine(destination, hidden=True)
        before = vm.monitor.mark()
        vm.start_migration(there.await_migration(), stop_before_the_switch=True)
        vm.await_migration_status("pre-switchover", before)
        handed = Asked(source, "handoff", "send", VM, "--to", destination.name)
        wait_for("the wire has broken", lambda: source.times_said(" in doubt: ") > 0, source.said)
        for host in (source, destination):
            host.stop(signal.SIGKILL)
        handed.end(Exit.UNREACHABLE)
        for host in (source, destination):
            host.start()
        assert state(source) == "in-doubt"
        wire.dead = False

        owned = ("here", None) if what == LOST else ("moved", "here")
        wait_for(f"they say {owned}", lambda: (state(source), state(destination)) == owned, scene.said)
        if what == LOST:
            vm.monitor.execute("migrate_cancel")
            vm.monitor.await_event("RESUME", before)
        else:
            vm.monitor.execute("migrate-continue", state="pre-switchover")
            there.monitor.await_event("RESUME")
            vm.end()
            there.reveal()
        owner, running = (source, vm) if what == LOST else (destination, there)
        agree(owner)
        owner.await_that("exec is in flight", lambda guest: "exec" in in_flight(guest).values())
        running.guest.run(f"touch {GO}")
        owner.await_that("nothing is in flight", is_idle)


# ---- By libvirt's events ----


@pytest.fixture
def libvirtds(tmp_path: pathlib.Path) -> Iterator[list[Libvirtd]]:
    """Two, on hosts of their own as far as they know."""
    with contextlib.ExitStack() as at_the_end:
        place = pathlib.Path(at_the_end.enter_context(tempfile.TemporaryDirectory(prefix="lv-")))
        place.chmod(0o755)
        with or_left_out():
            if importlib.util.find_spec("libvirt") is None:
                raise packages.Unavailable("Python's libvirt is missing: pip install 'vmaccord[libvirt]'")
            libvirtds = [Libvirtd(place / name, name) for name in ("here", "there")]
        for each in libvirtds:
            at_the_end.callback(shutil.copyfile, each.log, tmp_path / f"{each.directory.name}.log")
            at_the_end.callback(each.kill_machine, VM)
            at_the_end.callback(each.stop)
            each.start()
        yield libvirtds


def ended(migration: subprocess.Popen[str]) -> bool:
    """Whether it went well, when it has ended."""
    _, complained = migration.communicate(timeout=PATIENCE)
    print(complained)
    return migration.returncode == 0


def test_a_vm_that_libvirt_moves_is_handed_over_by_itself_and_stays_where_libvirt_fails(
    scene: Scene, libvirtds: list[Libvirtd], emulator: Emulator
) -> None:
    here, there = libvirtds
    source, destination = two_hosts(scene, more=[[f"libvirt = {each.uri}"] for each in libvirtds])
    domain = Domain(here, here.directory / "domain", VM, emulator.program, emulator.image)
    with contextlib.closing(domain):
        domain.boot()
        prepare(domain.guest)
        domain.guest.start_agent()
        agree(source)
        program = run_long(source, domain.guest)

        slow = domain.start_migration(there, "--bandwidth", "1")
        await_hooks(domain.guest, BEGINS)
        here.call("suspend", VM)
        moving = {"state": "moving", "peer": destination.name}
        source.await_that("it is moving", lambda guest: guest["handoff"] == moving)
        here.call("domjobabort", VM)
        assert not ended(slow)
        source.await_that("it is here", lambda guest: guest["handoff"]["state"] == "here")
        await_hooks(domain.guest, BEGINS, FAILED)
        destination.await_that("it did not arrive", lambda guest: guest["channel"]["state"] == "absent")

        assert ended(domain.start_migration(there))
        domain.follow(there)
        agree(destination)
        wait_for("the source has forgotten the VM", lambda: source.guest() is None, source.said)
        await_hooks(domain.guest, BEGINS, FAILED, BEGINS, ARRIVED)
        domain.guest.run(f"touch {GO}")
        assert output(program) == "went on\n"
        destination.await_that("nothing is in flight", is_idle)
        assert domain.crash is None
