"""The operator's command, a real daemon and a real guest agent: programs really run, and a file system really freezes.

What is frozen is a loop device of the test's own, never a file system of this machine.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from host_agent.client import Client
from host_agent.demo.emulator import EmulatedPort
from host_agent.exits import Exit
from tests.guest_agent.parts import AgentProcess
from tests.host_agent.parts import ROOT, DaemonProcess, wait_for

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878

SHARED_MEMORY = Path("/dev/shm")

#: Says whether a file system is frozen by trying to freeze it.
LOOK = f"""
import fcntl, os, sys
try:
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), {FIFREEZE}, 0)
except OSError as error:
    print(error.errno)
"""


class Typed(NamedTuple):
    status: int
    out: bytes
    err: bytes


class Vm(NamedTuple):
    """The guest web-1 on the host in *place*."""

    place: Path
    daemon: DaemonProcess

    def command(self, *words: str) -> Sequence[str]:
        return (sys.executable, "-m", "host_agent.cli", "--control", str(self.place / "control.sock"), *words)

    def typed(self, *words: str, given: bytes = b"") -> Typed:
        """Type ``vmaccord`` with these *words*."""
        ran = subprocess.run(self.command(*words), cwd=ROOT, input=given, capture_output=True, check=False)
        return Typed(ran.returncode, ran.stdout, ran.stderr)

    def until_it_can(self, command: str) -> None:
        """Wait until the guest can be sent *command*."""

        client = Client(str(self.place / "control.sock"))
        wait_for(lambda: client.guests(facts=False, can=command))


#: An agent that notes what is frozen in a directory of the test's own.
AGENT = """
import sys
from guest_agent import main, surroundings
here = surroundings.here()
mine = here._replace(machine=lambda configuration: here.machine(configuration)._replace(state_directory={state!r}))
surroundings.here = lambda: mine
sys.exit(main.main())
"""


@pytest.fixture
def vm(place: Path, start_daemon: Callable[..., DaemonProcess]) -> Iterator[Vm]:
    if os.geteuid() != 0 or not SHARED_MEMORY.is_dir():
        pytest.skip("an agent that may do everything needs root, and /dev/shm to note what is frozen")
    state = tempfile.mkdtemp(dir=SHARED_MEMORY)
    configuration = place / "guest.conf"
    configuration.write_text("[commands]\nenable = exec\n", encoding="utf-8")
    with EmulatedPort() as port:
        port.plug(place / "ports/web-1")
        program = ("-c", AGENT.format(state=f"{state}/freeze"))
        agent = AgentProcess(place / "agent", "--config", str(configuration), "--port", port.guest_path, program=program)
        try:
            running = Vm(place, start_daemon().wait_ready())
            running.until_it_can("exec")
            yield running
            assert agent.stop() == 0
        finally:
            agent.kill()
            shutil.rmtree(state)


@pytest.fixture
def mounted(place: Path) -> Iterator[Path]:
    """Where an ext4 of the test's own is mounted; not frozen afterwards, whatever happens."""
    image, mountpoint = place / "image", place / "mounted"
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mountpoint)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device can be mounted here: {error}")
    yield mountpoint
    while thaw(mountpoint):
        pass
    subprocess.run(["umount", str(mountpoint)], check=True)


def thaw(mountpoint: Path) -> bool:
    """Thaw; whether it was frozen."""
    descriptor = os.open(mountpoint, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def freezing(mountpoint: Path, *command: str, thaw_after: str = "30") -> Sequence[str]:
    return ("freeze", "web-1", "--thaw-after", thaw_after, "--mountpoint", str(mountpoint), "--json", "--", *command)


def report(err: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(err.splitlines()[-1])
    return found


# ---- Programs ----


def test_a_program_runs_in_a_guest_as_if_it_were_here(vm: Vm) -> None:
    everything = bytes(range(256)) * 16
    assert vm.typed("exec", "web-1", "--input", "-", "--", "cat", given=everything) == Typed(0, everything, b"")
    assert vm.typed("exec", "web-1", "--env", "A=x y", "--", "sh", "-c", 'echo "$A"; echo err >&2; exit 3') == Typed(
        3, b"x y\n", b"err\n"
    )
    assert vm.typed("exec", "web-1", "--", "sh", "-c", "kill -9 $$").status == 137


def test_a_program_that_takes_too_long_or_is_not_there_has_a_status(vm: Vm) -> None:
    slow = vm.typed("exec", "web-1", "--timeout", "1", "--", "sh", "-c", "echo so far; sleep 1000")
    assert (slow.status, slow.out) == (Exit.TIMED_OUT, b"so far\n")
    assert slow.err.startswith(b"vmaccord: web-1: sh was ended: ")
    missing = vm.typed("exec", "web-1", "--", "no-such-program")
    assert (missing.status, missing.out) == (Exit.GUEST_FAILED, b"")
    assert missing.err.startswith(b"vmaccord: web-1: exec failed: ")


def test_a_command_that_the_guest_has_turned_off_is_refused_and_so_it_is_told_before(vm: Vm) -> None:
    refused = vm.typed("ssh-keys", "web-1", "list", "root")
    assert refused.status == Exit.REFUSED_BY_CAPABILITY
    assert b"name it in enable, and not in block, in [commands]" in refused.err
    told = {each["name"]: each for each in json.loads(vm.typed("messages", "--guest", "web-1", "--json").out)}
    assert refused.err.decode() == f"vmaccord: {told['ssh-keys']['obstacle']}\n"
    assert [name for name, each in told.items() if not each["sendable"]] == [
        "ssh-keys",
        "set-password",
        "file-read",
        "file-write",
    ]
    assert b"turned off  file-read, file-write, set-password, ssh-keys" in vm.typed("show", "web-1").out


# ---- Freezing ----


def test_a_file_system_is_frozen_while_the_command_runs_and_not_any_longer(vm: Vm, mounted: Path) -> None:
    came = vm.typed(*freezing(mounted, sys.executable, "-c", LOOK, str(mounted)))
    assert (came.status, came.out) == (0, b"%d\n" % errno.EBUSY)
    assert report(came.err)["thawed"] == [str(mounted)]
    assert not thaw(mounted)


def test_a_guest_that_thaws_by_itself_before_the_command_has_ended_is_a_failure(vm: Vm, mounted: Path) -> None:
    status = " ".join(vm.command("send", "web-1", "filesystem-status", "--json"))
    came = vm.typed(*freezing(mounted, "sh", "-c", f"until {status} | grep -q thawed; do :; done", thaw_after="1"))
    assert came.status == Exit.GUEST_FAILED
    assert "had thawed" in str(report(came.err)["problem"])
    assert not thaw(mounted)


def test_a_signal_thaws_what_is_frozen(vm: Vm, mounted: Path) -> None:
    with subprocess.Popen(
        vm.command(*freezing(mounted, "sleep", "1000")), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stderr is not None
        assert b"frozen for at most 30 s" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert report(process.stderr.read())["thawed"] == [str(mounted)]
    assert process.returncode == 128 + signal.SIGTERM
    assert not thaw(mounted)


def test_a_daemon_that_is_restarted_meanwhile_thaws_what_its_predecessor_had_frozen(
    vm: Vm, mounted: Path, start_daemon: Callable[..., DaemonProcess], place: Path
) -> None:
    gate = place / "gate"
    command = vm.command(*freezing(mounted, "sh", "-c", f"until [ -e {gate} ]; do sleep 0.01; done", thaw_after="60"))
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        assert b"frozen for at most 60 s" in process.stderr.readline()
        vm.daemon.stop()
        gate.touch()
        assert b"trying again: no daemon at" in process.stderr.readline()
        start_daemon()
        assert report(process.stderr.read())["thawed"] == [str(mounted)]
    assert process.returncode == 0
    assert not thaw(mounted)
