"""Ports, on real descriptors."""

from __future__ import annotations

import errno
import os
import select
import socket
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent import port as ports
from guest_agent.port import Port, PortBusy, PortMissing, PortUnusable, PortVanished

from .parts import FifoHost, Pty, wait_until


@pytest.fixture
def host(tmp_path: Path) -> FifoHost:
    return FifoHost(tmp_path)


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[Port, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs:
        port = Port(ours.detach(), "pair")
        yield port, theirs
        port.close()


def changed(port: Port) -> bool:
    return bool(select.select([port], [], [], 0)[0])


# ---- Finding ----


def test_the_first_candidate_that_exists_is_used(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.touch()
    third = tmp_path / "third"
    third.touch()
    assert ports.find([str(tmp_path / "first"), str(second), str(third)]) == str(second)


def test_that_no_port_exists_is_said_with_all_names() -> None:
    with pytest.raises(PortMissing, match="/nonexistent/a, /nonexistent/b; give the VM"):
        ports.find(["/nonexistent/a", "/nonexistent/b"])


@pytest.fixture
def machine(tmp_path: Path) -> tuple[str, str]:
    """dev and sys of a machine without udev that has two ports."""
    dev, sys = tmp_path / "dev", tmp_path / "sys"
    dev.mkdir()
    for device, name in (("vport1p1", "org.qemu.guest_agent.0"), ("vport1p2", "ovirt-guest-agent.0")):
        (dev / device).touch()
        (sys / "class/virtio-ports" / device).mkdir(parents=True)
        (sys / "class/virtio-ports" / device / "name").write_text(f"{name}\n", encoding="utf-8")
    (sys / "class/virtio-ports/vport1p0").mkdir()
    return str(dev), str(sys)


def test_without_udev_a_port_is_found_by_its_name_in_sysfs(machine: tuple[str, str]) -> None:
    dev, sys = machine
    assert ports.find([f"{dev}/virtio-ports/ovirt-guest-agent.0"], dev, sys) == f"{dev}/vport1p2"


@pytest.mark.parametrize("path", ["virtio-ports/other", "elsewhere/ovirt-guest-agent.0"])
def test_another_name_or_directory_is_not_found_in_sysfs(machine: tuple[str, str], path: str) -> None:
    dev, sys = machine
    with pytest.raises(PortMissing):
        ports.find([f"{dev}/{path}"], dev, sys)


def test_a_machine_without_virtio_ports_has_none(tmp_path: Path) -> None:
    with pytest.raises(PortMissing):
        ports.find([f"{tmp_path}/virtio-ports/a"], str(tmp_path), str(tmp_path))


# ---- Opening ----


def test_a_path_that_does_not_exist_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PortMissing, match="does not exist"):
        ports.open_port(str(tmp_path / "absent"))


def test_a_file_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PortUnusable, match="no character device; name"):
        ports.open_port(str(tmp_path / "file"))


def test_a_character_device_that_can_not_be_watched_is_unusable_and_closed_again() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PortUnusable, match=r"^/dev/null can't be waited for, it is no port; name a virtio-serial port"):
        ports.open_port("/dev/null")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_port_that_the_machine_has_no_room_to_watch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(select, "epoll", refuse)
    with pytest.raises(PortUnusable, match=os.strerror(errno.EMFILE)):
        ports.open_port("/dev/null")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EBUSY, PortBusy),
        (errno.ENODEV, PortMissing),
        (errno.ENXIO, PortMissing),
        (errno.EACCES, PortUnusable),
        (errno.EPERM, PortUnusable),
    ],
)
def test_why_a_device_can_not_be_opened_decides_what_happens_next(
    number: int, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(expected, match="/dev/null"):
        ports.open_port("/dev/null")


def test_a_serial_line_has_one_opener_only(pty: Pty) -> None:
    port = ports.open_port(pty.path)
    with pytest.raises(PortBusy, match="held by another program"):
        ports.open_port(pty.path)
    port.close()
    ports.open_port(pty.path).close()


def test_a_serial_line_that_is_hung_up_can_not_be_opened(pty: Pty) -> None:
    slave = os.open(pty.path, os.O_RDWR | os.O_NOCTTY)
    os.close(pty.master)
    pty.master = slave
    with pytest.raises(PortMissing):
        ports.open_port(f"/proc/self/fd/{slave}")


def test_a_serial_line_that_is_hung_up_while_it_is_opened_is_missing(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    def hung_up(*_: object) -> None:
        raise termios.error(errno.EIO, "Input/output error")

    monkeypatch.setattr(termios, "tcsetattr", hung_up)
    with pytest.raises(PortMissing, match="hung up while it was opened"):
        ports.open_port(pty.path)


# ---- Reading ----


def test_a_serial_line_carries_bytes_as_they_are(pty: Pty) -> None:
    port = ports.open_port(pty.path)
    assert port.receive() is None
    os.write(pty.master, b"\x03\x04\r\n\x11\x13")
    assert wait_until(port.receive, lambda: None) == b"\x03\x04\r\n\x11\x13"
    port.queue(b"\x03\r\n")
    port.flush()
    assert wait_until(lambda: select.select([pty.master], [], [], 0)[0], lambda: None)
    assert os.read(pty.master, 100) == b"\x03\r\n"
    port.close()


def test_a_serial_line_whose_other_end_closes_has_vanished(pty: Pty) -> None:
    port = ports.open_port(pty.path)
    os.close(pty.master)
    pty.master = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(PortVanished, match="the port vanished"):
        port.receive()
    port.queue(b"line\n")
    with pytest.raises(PortVanished, match="the port vanished"):
        port.flush()
    port.close()


def test_without_a_host_a_port_is_open_and_reads_nothing(host: FifoHost) -> None:
    port = host.port()
    assert not port.has_host()
    assert port.receive() == b""
    host.connect()
    assert port.has_host()
    assert port.receive() is None
    host.write(b"hello")
    host.disconnect()
    assert port.receive() == b"hello"
    assert port.receive() == b""
    port.close()


def test_a_hang_up_is_reported_once(host: FifoHost) -> None:
    port = host.port()
    port.acknowledge()
    assert not changed(port)
    host.connect()
    host.write(b"x")
    assert changed(port)
    port.acknowledge()
    assert not changed(port)
    host.disconnect()
    assert changed(port)
    port.acknowledge()
    assert not changed(port)
    port.close()


def test_a_read_error_means_that_the_port_has_vanished(host: FifoHost, monkeypatch: pytest.MonkeyPatch) -> None:
    port = host.port()

    def unplugged(*_: object) -> bytes:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(os, "read", unplugged)
    with pytest.raises(PortVanished, match="No such device"):
        port.receive()
    port.close()


# ---- Writing ----


def fill(port: Port) -> bytes:
    """Write lines until no more fit."""
    lines = b"".join(b"%07d\n" % number for number in range(100_000))
    port.queue(lines)
    port.flush()
    assert port.pending
    return lines


def read_all(theirs: socket.socket) -> bytes:
    received = b""
    while True:
        try:
            received += theirs.recv(65536)
        except BlockingIOError:
            return received


def test_what_does_not_fit_is_written_when_the_host_has_read(pair: tuple[Port, socket.socket]) -> None:
    port, theirs = pair
    lines = fill(port)
    received = b""

    def step() -> None:
        nonlocal received
        received += read_all(theirs)
        port.flush()

    wait_until(lambda: len(received) == len(lines), step)
    assert received == lines
    assert port.pending == 0


def test_room_for_output_is_a_change_only_where_that_is_wanted(pair: tuple[Port, socket.socket]) -> None:
    port, theirs = pair
    fill(port)
    port.acknowledge()
    read_all(theirs)
    assert not changed(port)
    port.watch_output(True)
    assert changed(port)
    port.acknowledge()
    assert not changed(port)
    port.watch_output(False)
    assert not changed(port)


def test_a_port_is_untouched_until_a_byte_was_written(host: FifoHost) -> None:
    port = host.port()
    port.queue(b"line\n")
    assert port.flush() == 0
    assert port.untouched
    host.connect()
    assert port.flush() == 5
    assert not port.untouched
    port.close()


def test_lines_that_were_not_begun_are_dropped_with_the_host(host: FifoHost) -> None:
    port = host.port()
    port.queue(b"one\ntwo\n")
    port.drop_unbegun()
    assert port.pending == 0
    port.close()


def test_a_line_that_was_begun_completes(host: FifoHost) -> None:
    port = host.port()
    host.connect()
    begun = b"a" * 200_000 + b"\n"
    port.queue(begun + b"two\n")
    written = port.flush()
    assert 0 < written < len(begun)
    port.drop_unbegun()
    assert port.pending == len(begun) - written
    received = bytearray()

    def step() -> None:
        received.extend(host.read())
        port.flush()

    wait_until(lambda: port.pending == 0, step)
    received += host.read()
    assert bytes(received) == begun
    port.close()


def test_a_line_that_ends_exactly_where_the_port_was_full_leaves_nothing_begun(pair: tuple[Port, socket.socket]) -> None:
    port, _ = pair
    port.queue(b"one\n")
    port.flush()
    port.queue(b"two\n")
    port.drop_unbegun()
    assert port.pending == 0


def test_draining_ends_with_what_is_pending(pair: tuple[Port, socket.socket]) -> None:
    port, theirs = pair
    port.queue(b"farewell\n")
    port.drain(1.0, lambda: 0.0)
    assert read_all(theirs) == b"farewell\n"


def test_draining_ends_when_the_host_takes_nothing(pair: tuple[Port, socket.socket]) -> None:
    port, _ = pair
    fill(port)
    port.drain(0.01, lambda: 0.0)
    assert port.pending


def test_draining_ends_when_time_is_up(pair: tuple[Port, socket.socket]) -> None:
    port, theirs = pair
    fill(port)
    times = iter([0.0, 5.0])
    read_all(theirs)
    port.drain(1.0, lambda: next(times))
    assert port.pending
