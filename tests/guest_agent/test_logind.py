"""Listening to logind, on a real bus of the test's own; and to a bus that does as it pleases."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jeepney import DBusAddress, message_bus, new_method_return, new_signal

from guest_agent import logind
from guest_agent.logind import Logind, LogindGone, Notice
from host_agent.demo.vm import packages
from tests.needs import or_left_out

from .conftest import CommandGuard
from .login1 import MANAGER, SESSION, Bus, Login1
from .parts import GIVE_UP, wait_until

_MANAGER = f"{logind.SERVICE}.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"


@pytest.fixture
def bus(tmp_path_factory: pytest.TempPathFactory, command_guard: CommandGuard) -> Iterator[Bus]:
    with or_left_out():
        program = packages.program("dbus-daemon", "dbus-daemon")
    command_guard.allowed |= {program, sys.executable}
    made = Bus(tmp_path_factory.mktemp("bus"), program)
    yield made
    made.close()


@pytest.fixture
def login1(bus: Bus) -> Iterator[Login1]:
    made = Login1(bus)
    yield made
    made.close()


@pytest.fixture
def listener(bus: Bus, login1: Login1) -> Iterator[Logind]:
    """A listener that knows who logind is."""
    made = Logind(str(bus.path))
    wait_until(lambda: made._owner, lambda: told(made, 0))
    yield made
    made.close()


def told(listener: Logind, patience: float = GIVE_UP) -> list[Notice]:
    """What the listener has been told once its descriptor is readable."""
    return listener.receive() if select.select([listener], [], [], patience)[0] else []


def until_told(listener: Logind) -> list[Notice]:
    notices: list[Notice] = []
    wait_until(lambda: notices, lambda: notices.extend(told(listener)))
    return notices


# ---- On a real bus ----


@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "body"),
    [
        (MANAGER, _MANAGER, "SessionNew", "so", ("c1", SESSION)),
        (MANAGER, _MANAGER, "SessionRemoved", "so", ("c1", SESSION)),
        (SESSION, _PROPERTIES, "PropertiesChanged", "sa{sv}as", (f"{logind.SERVICE}.Session", {}, ["LockedHint"])),
    ],
)
def test_sessions_that_change_are_noticed(
    listener: Logind, login1: Login1, path: str, interface: str, member: str, signature: str, body: tuple[object, ...]
) -> None:
    login1.emit(path, interface, member, signature, *body)
    assert until_told(listener) == [Notice.SESSIONS_CHANGED]


def test_the_machine_shutting_down_is_noticed_and_a_shutdown_that_is_over_is_not(listener: Logind, login1: Login1) -> None:
    login1.emit(MANAGER, _MANAGER, "PrepareForShutdown", "b", False)
    login1.emit(MANAGER, _MANAGER, "PrepareForShutdown", "b", True)
    assert until_told(listener) == [Notice.SHUTTING_DOWN]


def test_other_signals_of_logind_wake_nobody(listener: Logind, login1: Login1) -> None:
    login1.emit(MANAGER, _MANAGER, "SeatNew", "so", "seat1", f"{MANAGER}/seat/seat1")
    login1.emit(MANAGER, _PROPERTIES, "PropertiesChanged", "sa{sv}as", _MANAGER, {}, ["IdleHint"])
    login1.emit(SESSION, _PROPERTIES, "PropertiesChanged", "sa{sv}as", f"{logind.SERVICE}.Session", {}, ["IdleHint"])
    login1.emit(MANAGER, _MANAGER, "PrepareForShutdown", "b", True)
    assert until_told(listener) == [Notice.SHUTTING_DOWN]


def test_what_others_send_in_logind_s_words_does_not_count(bus: Bus, listener: Logind, login1: Login1) -> None:
    stranger = Login1(bus, "org.example.Stranger")
    stranger.emit(MANAGER, _MANAGER, "PrepareForShutdown", "b", True)
    stranger.emit(MANAGER, _MANAGER, "PrepareForShutdown", "b", True, to=":1.1")
    stranger.close()
    login1.emit(MANAGER, _MANAGER, "SessionNew", "so", "c1", SESSION)
    assert until_told(listener) == [Notice.SESSIONS_CHANGED]


def test_a_logind_that_was_restarted_is_listened_to_again(bus: Bus, listener: Logind, login1: Login1) -> None:
    login1.close()
    assert until_told(listener) == [Notice.SESSIONS_CHANGED]
    again = Login1(bus)
    assert until_told(listener) == [Notice.SESSIONS_CHANGED]
    again.emit(MANAGER, _MANAGER, "PrepareForShutdown", "b", True)
    assert until_told(listener) == [Notice.SHUTTING_DOWN]
    again.close()


def test_a_logind_that_starts_later_is_listened_to(bus: Bus) -> None:
    listener = Logind(str(bus.path))
    wait_until(lambda: listener._owner_asked, lambda: told(listener, 0))
    login1 = Login1(bus)
    assert until_told(listener) == [Notice.SESSIONS_CHANGED]
    login1.close()
    listener.close()


def test_a_bus_that_ends_is_gone(bus: Bus, listener: Logind) -> None:
    bus.close()
    with pytest.raises(LogindGone, match="closed the connection"):
        until_told(listener)


# ---- Whether there is one ----


def test_without_a_bus_there_is_no_logind(tmp_path: Path) -> None:
    assert logind.connect(str(tmp_path)) is None


def test_without_seats_there_is_no_logind(tmp_path: Path) -> None:
    (tmp_path / logind.BUS).parent.mkdir(parents=True)
    (tmp_path / logind.BUS).touch()
    assert logind.connect(str(tmp_path)) is None


def test_a_bus_that_nobody_serves_is_said(tmp_path: Path) -> None:
    (tmp_path / logind.BUS).parent.mkdir(parents=True)
    (tmp_path / logind.BUS).touch()
    (tmp_path / logind.SEATS).mkdir(parents=True)
    with pytest.raises(LogindGone, match=r"system_bus_socket can't be reached: Connection refused"):
        logind.connect(str(tmp_path))


def test_a_path_that_no_socket_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogindGone, match="can't be reached: AF_UNIX path too long"):
        Logind(str(tmp_path / ("x" * 108)))


def test_a_machine_without_jeepney_is_told_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jeepney", None)
    with pytest.raises(LogindGone, match="install it"):
        Logind(str(tmp_path))


# ---- A bus that does as it pleases ----


class Peer:
    """The other end of a listener's connection."""

    def __init__(self, path: Path) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        self.listener = Logind(str(path))
        self.end, _ = listening.accept()
        listening.close()

    def say(self, data: bytes) -> list[Notice]:
        self.end.sendall(data)
        return self.listener.receive()

    def close(self) -> None:
        self.end.close()
        self.listener.close()


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    made = Peer(tmp_path_factory.mktemp("p") / "bus")
    yield made
    made.close()


OK = b"OK 0123456789abcdef0123456789abcdef\r\n"

_NEW = new_signal(DBusAddress(MANAGER, interface=_MANAGER), "SessionNew", "so", ("c1", SESSION))


def from_bus(sender: str = "org.freedesktop.DBus") -> bytes:
    """All that a bus says up to logind's first signal."""
    asked = message_bus.GetNameOwner(logind.SERVICE)
    asked.header.serial = 7
    answer = new_method_return(asked, "s", (":1.5",))
    answer.header.fields[_field("sender")] = sender
    _NEW.header.fields[_field("sender")] = ":1.5"
    return bytes(answer.serialise(1) + _NEW.serialise(2))


def _field(name: str) -> object:
    from jeepney import HeaderFields

    return HeaderFields[name]


def test_it_asks_for_what_it_needs_once_it_is_let_in(peer: Peer) -> None:
    assert peer.end.recv(4096).startswith(b"\0AUTH EXTERNAL ")
    assert peer.say(OK) == []
    asked = peer.end.recv(65536)
    assert asked.startswith(b"BEGIN\r\n")
    assert asked.count(b"AddMatch") == 5
    assert asked.count(b"Hello") == 1
    assert asked.count(b"GetNameOwner") == 1


def test_what_comes_byte_by_byte_is_understood(peer: Peer) -> None:
    for byte in OK:
        assert peer.say(bytes([byte])) == []
    peer.listener._owner_asked = 7
    notices = [notice for byte in from_bus() for notice in peer.say(bytes([byte]))]
    assert notices == [Notice.SESSIONS_CHANGED]


def test_nobody_else_tells_who_logind_is(peer: Peer) -> None:
    peer.say(OK)
    assert peer.say(from_bus(sender=":1.9")) == []


def test_many_signals_at_once_are_one_notice(peer: Peer) -> None:
    peer.say(OK)
    peer.listener._owner_asked = 7
    assert peer.say(from_bus() + _NEW.serialise(3) * 50) == [Notice.SESSIONS_CHANGED]


def test_a_flood_is_read_in_pieces(peer: Peer) -> None:
    peer.say(OK)
    peer.end.setblocking(False)
    noise = new_signal(DBusAddress("/", interface="org.example.Noise"), "Noise", "s", ("noise" * 100,)).serialise(1)
    with contextlib.suppress(BlockingIOError):
        while True:
            peer.end.sendall(noise)
    assert peer.listener.receive() == []
    assert select.select([peer.listener], [], [], 0)[0]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"REJECTED EXTERNAL\r\n", "does not let this agent in"),
        (b"x" * 9000, "does not let this agent in"),
        (OK + b"more", "does not let this agent in"),
    ],
)
def test_a_bus_that_does_not_let_it_in_is_said(peer: Peer, says: bytes, why: str) -> None:
    with pytest.raises(LogindGone, match=why):
        peer.say(says)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"?" * 64, "sends what makes no sense"),
        (b"l\1\0\1\xff\xff\xff\7\1\0\0\0\0\0\0\0", "too large to be logind's"),
    ],
    ids=["garbage", "absurdly long"],
)
def test_what_is_no_message_ends_the_conversation(peer: Peer, says: bytes, why: str) -> None:
    peer.say(OK)
    with pytest.raises(LogindGone, match=why):
        peer.say(says)


def signal(member: str, sender: str) -> bytes:
    """A signal in which something else stands than belongs there."""
    made = new_signal(DBusAddress(MANAGER, interface=_MANAGER), member, "s", ("nonsense",))
    made.header.fields[_field("sender")] = sender
    return bytes(made.serialise(9))


@pytest.mark.parametrize(
    "says",
    [signal("PropertiesChanged", sender=":1.5"), signal("NameOwnerChanged", sender="org.freedesktop.DBus")],
    ids=["of logind", "of the bus"],
)
def test_a_signal_that_holds_something_else_ends_the_conversation(peer: Peer, says: bytes) -> None:
    peer.say(OK)
    peer.listener._owner_asked = 7
    peer.say(from_bus())
    with pytest.raises(LogindGone, match=r"makes no sense \(ValueError\)"):
        peer.say(says)


def test_what_was_told_before_the_bus_hung_up_counts(peer: Peer) -> None:
    peer.say(OK)
    peer.listener._owner_asked = 7
    peer.end.sendall(from_bus())
    peer.end.shutdown(socket.SHUT_WR)
    assert peer.listener.receive() == [Notice.SESSIONS_CHANGED]
    with pytest.raises(LogindGone, match="closed the connection"):
        peer.listener.receive()


@pytest.mark.parametrize("before", [b"", OK, OK[:5]])
def test_a_bus_that_hangs_up_is_said_at_any_time(peer: Peer, before: bytes) -> None:
    if before:
        peer.say(before)
    peer.end.close()
    with pytest.raises(LogindGone):
        peer.listener.receive()


def test_a_refused_match_is_said(peer: Peer) -> None:
    from jeepney import new_error

    peer.say(OK)
    asked = message_bus.AddMatch("")
    asked.header.serial = 2
    refusal = new_error(asked, "org.freedesktop.DBus.Error.AccessDenied", "s", ("no",))
    refusal.header.fields[_field("sender")] = "org.freedesktop.DBus"
    with pytest.raises(LogindGone, match="refuses to tell of logind's signals"):
        peer.say(refusal.serialise(1))
