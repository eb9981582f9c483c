"""Hostile lines, in both directions: each costs at most itself, memory and the log stay bounded, no password shows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Union

import pytest

from common import codec, errors, events, session, versions
from common.catalogue import CATALOGUE, Direction, Row
from common.fields import Argument
from common.framing import LINE_LIMIT
from common.messages import declared
from common.session import COMPLAINT_PERIOD, GuestSession, HostSession

from .pair import Cut
from .samples import arguments_for

NEWEST = int(versions.newest())

Peer = Union[HostSession, GuestSession]


def _host() -> HostSession:
    """A host that agreed on the newest version with its guest."""
    host = HostSession(versions.newest(), "host-1")
    host.connected(0.0)
    host.receive_data(codec.encode("heartbeat", {"apiVersion": NEWEST, "apiVersionInUse": NEWEST}), 0.0)
    host.data_to_send()
    host.events()
    return host


def _guest() -> GuestSession:
    """A guest that uses the newest version."""
    guest = GuestSession(versions.newest(), "agent-1")
    guest.opened(0.0)
    guest.receive_data(codec.encode("api-version", {"apiVersion": NEWEST}), 0.0)
    guest.data_to_send()
    guest.events()
    return guest


class Side(NamedTuple):
    """One direction: who receives, and a line that must be understood after any other."""

    direction: Direction
    receiver: Callable[[], Peer]
    next_name: str
    next_line: bytes


SIDES = [
    Side(Direction.TO_HOST, _host, "fqdn", codec.encode("fqdn", {"fqdn": "guest.example"})),
    Side(Direction.TO_GUEST, _guest, "lock-screen", codec.encode("lock-screen", {})),
]
BOTH_SIDES = pytest.mark.parametrize("side", SIDES, ids=lambda side: side.direction.value)


def _received(peer: Peer, line: bytes, side: Side, cut: Cut) -> tuple[list[str], int]:
    """*line* and then the next one come to *peer*: the names of the messages that came in, and how many complaints."""
    names: list[str] = []
    complaints = 0
    for piece in cut.pieces(line + b"\n" + side.next_line):
        peer.receive_data(piece, 1.0)
        assert peer._splitter.pending < LINE_LIMIT
        for event in peer.events():
            names += [event.name] if isinstance(event, events.MessageReceived) else []
            complaints += isinstance(event, events.Complaint)
    assert peer._splitter.pending == 0
    return names, complaints


# ---- Lines that are dropped, whoever receives them ----


def _named(member: str) -> bytes:
    return b'{"__name__": "echo", "a": ' + member.encode("utf-8", "surrogatepass") + b"}"


_DROPPED: dict[str, bytes] = {
    "a list": b'["__name__", "echo"]',
    "a string": b'"echo"',
    "a number": b"1",
    "null": b"null",
    "an object without a name": b'{"name": "echo"}',
    "an empty object": b"{}",
    "a name that is null": b'{"__name__": null}',
    "a name that is a number": b'{"__name__": 1}',
    "a name that is a list": b'{"__name__": ["echo"]}',
    "a name that is an object": b'{"__name__": {"echo": 1}}',
    "an empty name": b'{"__name__": ""}',
    "an unknown name": b'{"__name__": "no-such-message"}',
    "an unknown name of 100 kB": b'{"__name__": "' + b"x" * 100_000 + b'"}',
    "a second name that is none": b'{"__name__": "echo", "__name__": 1}',
    "a name with a forbidden character": b'{"__name__": "ec\\u0000ho"}',
    "a name in capitals": b'{"__name__": "ECHO"}',
    "no JSON": b"hello",
    "half an object": b'{"__name__": "echo", "a": ',
    "two objects": b'{"__name__": "echo"}{"__name__": "echo"}',
    "two objects and a comma": b'{"__name__": "echo"},{"__name__": "echo"}',
    "200,000 lists": b"[" * 200_000,
    "200,000 lists in an argument": _named("[" * 200_000 + "]" * 200_000),
    "200,000 objects": b'{"a":' * 200_000,
    "33 levels": _named("[" * 32 + "]" * 32),
    "2 MiB": b"x" * (2 * LINE_LIMIT),
    "2 MiB of valid JSON": _named('"' + "x" * (2 * LINE_LIMIT) + '"'),
    "exactly the limit": _named('"' + "x" * (LINE_LIMIT - 29) + '"'),
    "an integer of 1 MB": _named("9" * 1_000_000),
    "a float out of range": _named("1e400"),
    "a float of 100 kB out of range": _named("9" * 100_000 + ".0"),
    "NaN": _named("NaN"),
    "Infinity": _named("Infinity"),
    "-Infinity": _named("-Infinity"),
    "a raw NUL in a string": _named('"\x00"'),
    "a raw NUL behind": b'{"__name__": "echo"}\x00',
    "a raw NUL before": b'\x00{"__name__": "echo"}',
    "only NULs": b"\x00" * 100,
    "a raw tab in a string": _named('"\t"'),
    "a byte order mark": b'\xef\xbb\xbf{"__name__": "echo"}',
    "UTF-16": '{"__name__": "echo"}'.encode("utf-16").replace(b"\n", b""),
    "bytes that are no UTF-8": b"\xff\xfe\xc0\x80\xed\xa0\x80\xf8",
    "a name that is no UTF-8": b'{"__name__": "ec\xffho"}',
    "an argument without a value": b'{"__name__": "echo", "a"}',
    "a comma too many": b'{"__name__": "echo",}',
    "a comment": b'{"__name__": "echo"} // x',
    "single quotes": b"{'__name__': 'echo'}",
    "a carriage return within": b'{"__name__": "ec\rho"}',
    "white space of another kind": b"\xa0",
}

#: Lines that are no message at all and no mistake either.
_NOTHING = {"nothing": b"", "spaces": b"   \t ", "a carriage return": b"\r", "newlines": b"\n\n\n"}

#: Lines that look wrong and are right: (the line, what its argument ``a`` becomes).
_TOLERATED: dict[str, tuple[bytes, Any]] = {
    "CRLF": (b'{"__name__": "echo", "a": 1}\r', 1),
    "spaces around": (b'  {"__name__": "echo", "a": 1}  ', 1),
    "a doubled name": (b'{"__name__": "x", "a": 1, "__name__": "echo"}', 1),
    "a doubled argument": (b'{"__name__": "echo", "a": 1, "a": 2}', 2),
    "bytes that are no UTF-8 in a value": (b'{"__name__": "echo", "a": "\xff\xc0"}', "\ufffd\ufffd"),
    "a raw surrogate": (b'{"__name__": "echo", "a": "\xed\xa0\x80"}', "\ufffd\ufffd\ufffd"),
    "a lone surrogate": (b'{"__name__": "echo", "a": "\\ud800"}', "\ufffd"),
    "surrogates in the wrong order": (b'{"__name__": "echo", "a": "\\ude00\\ud83d"}', "\ufffd\ufffd"),
    "forbidden characters": (b'{"__name__": "echo", "a": "\\u0000\\u0007\\u009f\\uffff"}', "\ufffd" * 4),
    "a raw DEL": (b'{"__name__": "echo", "a": "\x7f"}', "\ufffd"),
    "forbidden characters in keys": (_named('{"k\\u0000": {"\\u001f": 1}}'), {"k\ufffd": {"\ufffd": 1}}),
    "an integer beyond 64 bits": (_named(str(2**70)), 2**70),
    "an integer of 4,000 digits": (_named("-" + "9" * 4000), 1 - 10**4000),
    "an empty key": (_named('{"": 1}'), {"": 1}),
    "32 levels": (_named("[" * 31 + "]" * 31), None),
    "a string of 100 kB": (_named('"' + "x" * 100_000 + '"'), "x" * 100_000),
    "3,000 empty lists": (_named("[" + "[]," * 3_000 + "[]]"), [[]] * 3_001),
    "a member called __class__": (_named('{"__class__": 1}'), {"__class__": 1}),
}


@BOTH_SIDES
@pytest.mark.parametrize("line", list(_DROPPED.values()), ids=list(_DROPPED))
def test_a_hostile_line_costs_itself_and_one_complaint_and_the_next_line_is_understood(line: bytes, side: Side) -> None:
    for cut in Cut:
        peer = side.receiver()
        assert _received(peer, line, side, cut) == ([side.next_name], 1), cut
        assert sum(peer.counters.dropped.values()) == 1


@BOTH_SIDES
@pytest.mark.parametrize("line", list(_NOTHING.values()), ids=list(_NOTHING))
def test_an_empty_line_costs_nothing(line: bytes, side: Side) -> None:
    for cut in Cut:
        peer = side.receiver()
        assert _received(peer, line, side, cut) == ([side.next_name], 0), cut
        assert peer.counters.dropped == {}


@BOTH_SIDES
@pytest.mark.parametrize(("line", "expected"), list(_TOLERATED.values()), ids=list(_TOLERATED))
def test_a_line_that_only_looks_wrong_is_understood(line: bytes, expected: Any, side: Side) -> None:
    for cut in Cut:
        peer = side.receiver()
        assert _received(peer, line, side, cut) == (["echo", side.next_name], 0), cut
        assert peer.counters.dropped == {}
    peer.receive_data(line + b"\n", 2.0)
    (received,) = (event for event in peer.events() if isinstance(event, events.MessageReceived))
    value = received.message.to_arguments()["a"]
    assert expected is None or value == expected


# ---- Wrong types for every argument of every message ----

_WRONG_TYPES: list[Any] = [None, True, -1, 1.5, 2**70, "wrong", [], [None], [[]], {}, {"a": None}, [{"path": 1}]]


def _mistyped() -> Iterator[Any]:
    for row in CATALOGUE.rows:
        for argument in declared(row.message_class):
            if isinstance(argument, Argument):
                yield pytest.param(row, argument, id=f"{row.name} {row.direction.value} {argument.wire}")


def _fits(argument: Argument, value: Any) -> bool:
    try:
        argument.kind.check(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("row", "argument"), list(_mistyped()))
def test_an_argument_of_a_wrong_type_costs_at_most_its_own_message(row: Row, argument: Argument) -> None:
    side = next(each for each in SIDES if each.direction is row.direction)
    wrong = [value for value in _WRONG_TYPES if not _fits(argument, value)]
    assert wrong
    for value, cut in zip(wrong, itertools.cycle(Cut)):
        peer = side.receiver()
        line = codec.encode(row.name, {**arguments_for(row), argument.wire: value}).rstrip(b"\n")
        names, complaints = _received(peer, line, side, cut)
        handed_over = argument.lenient and row.name != "refresh"
        assert names == ([row.name] if handed_over else []) + [side.next_name], value
        assert complaints == 1
        assert bool(peer.counters.dropped) is not argument.lenient
        assert bool(peer.counters.mistyped + peer.counters.invalid_versions) is argument.lenient


# ---- Bounds ----


@BOTH_SIDES
def test_a_line_that_never_ends_costs_no_more_memory_than_the_limit_and_one_complaint(side: Side) -> None:
    peer = side.receiver()
    for _ in range(5 * LINE_LIMIT // 65536):
        peer.receive_data(b'{"a":' * 13107, 1.0)
        assert peer._splitter.pending < LINE_LIMIT
    assert peer.counters.dropped == {"overlong": 1}
    assert len(peer.events()) == 1
    peer.receive_data(b"\n" + side.next_line, 1.0)
    assert [event.name for event in peer.events() if isinstance(event, events.MessageReceived)] == [side.next_name]


def _flood(side: Side) -> bytes:
    """One of every sort of thing that a peer can do wrong, many times over."""
    lines = [line for line in _DROPPED.values() if len(line) < 1000]
    for row in CATALOGUE.rows:
        lines.append(codec.encode(row.name, {each.wire: None for each in declared(row.message_class)}).rstrip(b"\n"))
    lines += [codec.encode(f"name-{count}", {"reply_id": "r" * count}).rstrip(b"\n") for count in range(100)]
    return b"\n".join([*lines, b""])


@BOTH_SIDES
def test_whatever_comes_there_is_at_most_one_complaint_a_minute(side: Side) -> None:
    peer, flood = side.receiver(), _flood(side)
    said: list[float] = []
    for second in range(0, 600, 10):
        peer.receive_data(flood, float(second))
        said += [float(second) for event in peer.events() if isinstance(event, events.Complaint)]
    assert said == [COMPLAINT_PERIOD * count for count in range(10)]


def test_a_guest_that_reconnects_all_the_time_is_not_complained_about_more_often() -> None:
    host, flood = _host(), _flood(SIDES[0])
    said: list[float] = []
    for second in range(0, 600, 10):
        host.connected(float(second))
        host.receive_data(flood, float(second))
        said += [float(second) for event in host.events() if isinstance(event, events.Complaint)]
    assert said == [COMPLAINT_PERIOD * count for count in range(10)]


@BOTH_SIDES
def test_a_complaint_is_one_short_printable_line_whatever_it_is_about(side: Side) -> None:
    nasty = '\\r\\n\\u001b[31m\\u202e\\u2028\\u0085" fake=1 '
    long = "\U0001f600" * 1000
    lines = [
        *_DROPPED.values(),
        b"\x1b[31m\r\x85\xe2\x80\xa8 fake",
        f'{{"__name__": "{nasty}{long}"}}'.encode(),
        f'{{"__name__": ["{nasty}{long}"]}}'.encode(),
        f'{{"__name__": "heartbeat", "apiVersion": ["{nasty}{long}"]}}'.encode(),
        f'{{"__name__": "refresh", "apiVersion": "{nasty}{long}"}}'.encode(),
    ]
    for line in lines:
        peer = side.receiver()
        peer.receive_data(line + b"\n", 1.0)
        for event in peer.events():
            if isinstance(event, events.Complaint):
                assert event.text.isprintable()
                assert len(event.text) < 500


@BOTH_SIDES
def test_after_any_flood_what_is_kept_is_bounded(side: Side) -> None:
    peer, flood = side.receiver(), _flood(side)
    for _ in range(10):
        peer.receive_data(flood, 1.0)
        peer.events()
        peer.data_to_send()
    counted = peer.counters.as_mapping()
    assert len(counted["dropped_names"]) <= session.DROPPED_NAMES_LIMIT + 1
    assert max(map(len, counted["dropped_names"])) <= session.DROPPED_NAME_LENGTH
    assert len(json.dumps(counted)) < 5000
    assert peer._splitter.pending == 0
    assert (peer._out, peer._events) == ([], [])


def test_a_thousand_heartbeats_in_one_piece_are_answered_with_one_push() -> None:
    host = _host()
    host.receive_data(codec.encode("heartbeat", {"apiVersion": NEWEST, "apiVersionInUse": 1}) * 1000, 1.0)
    assert host.data_to_send() == codec.encode("api-version", {"apiVersion": NEWEST})


def test_a_thousand_refreshes_in_one_piece_are_answered_once() -> None:
    guest = _guest()
    line = codec.encode("refresh", {"apiVersion": NEWEST}) + codec.encode("api-version", {"apiVersion": NEWEST})
    guest.receive_data(line * 1000, 1.0)
    wanted = [type(event).__name__ for event in guest.events() if not isinstance(event, events.VersionChanged)]
    assert sorted(wanted) == ["FactsWanted", "HeartbeatWanted"]
    assert guest.data_to_send() == b""


def test_a_guest_that_does_not_read_makes_the_host_queue_nothing() -> None:
    host = _host()
    host.pause_writing()
    host.receive_data(_flood(SIDES[0]) * 5, 1.0)
    host.receive_data(codec.encode("heartbeat", {"apiVersion": NEWEST, "apiVersionInUse": 1}) * 100, 1.0)
    assert host._out == []
    host.resume_writing(2.0)
    assert host.data_to_send() == codec.encode("api-version", {"apiVersion": NEWEST})


# ---- Passwords ----

#: No three of its characters in a row stand anywhere else in a login line or in what a session says.
PASSWORD = "Zq7#wX9!"

_LOGINS = [
    b'{"__name__":"login","username":"alice@example","password":"Zq7#wX9!"}',
    b'{"username": "alice@example", "password": "Zq7#wX9!", "__name__": "login"}',
    b'{"__name__":"set-password","user":"alice","password":"Zq7#wX9!","crypted":false,"reply_id":"r1"}',
]
EVERY_LOGIN = pytest.mark.parametrize("login", _LOGINS, ids=["as ours", "as a deployed host writes it", "set-password"])


def _shows_password(text: str) -> bool:
    return any(PASSWORD[start : start + 3] in text for start in range(len(PASSWORD) - 2))


def _assert_kept_secret(garbled: bytes) -> None:
    """A guest to which *garbled* comes shows nothing of the password: in no event, complaint, counter or error."""
    if not _shows_password(garbled.decode("latin-1")):
        return
    guest = _guest()
    guest.receive_data(garbled + b"\n", 1.0)
    shown = [repr(guest.events()), repr(guest.counters.as_mapping()), _error_text(garbled)]
    assert not any(map(_shows_password, shown)), (garbled, shown)


def _error_text(line: bytes) -> str:
    try:
        codec.decode(line)
    except errors.MalformedLine as error:
        return f"{error} {error!r} {error.__cause__!r}"
    return ""


@EVERY_LOGIN
def test_a_login_that_arrives_as_it_is_shows_no_password(login: bytes) -> None:
    guest = _guest()
    guest.receive_data(login + b"\n", 1.0)
    (received,) = guest.events()
    assert isinstance(received, events.MessageReceived)
    assert received.message.to_arguments()["password"] == PASSWORD
    assert not _shows_password(repr(received))


@EVERY_LOGIN
def test_a_login_that_was_cut_anywhere_and_glued_to_any_rest_of_itself_shows_no_password(login: bytes) -> None:
    for end in range(len(login) + 1):
        for start in range(len(login) + 1):
            _assert_kept_secret(login[:end] + login[start:])


@EVERY_LOGIN
def test_a_login_with_any_byte_replaced_shows_no_password(login: bytes) -> None:
    for position in range(len(login)):
        for byte in b'"\\{}[]:,-0e\x00\x1f\xff\r\n ':
            _assert_kept_secret(login[:position] + bytes([byte]) + login[position + 1 :])


@EVERY_LOGIN
@pytest.mark.parametrize(
    "before",
    [b'{"__name__":"', b'{"__name__":"echo"}', b'{"__name__":"log', b'{"__name__": "shutdown", "message": "', b"\xff", b"["],
)
def test_a_login_glued_to_the_half_line_of_another_message_shows_no_password(before: bytes, login: bytes) -> None:
    for start in range(len(login)):
        _assert_kept_secret(before + login[start:])


@pytest.mark.parametrize("password", [None, True, 1, [PASSWORD], {PASSWORD: PASSWORD}, {"a": [PASSWORD]}])
@pytest.mark.parametrize("username", ["alice", None, [PASSWORD], {"a": PASSWORD}])
def test_a_login_with_mistyped_arguments_shows_no_password(username: Any, password: Any) -> None:
    _assert_kept_secret(codec.encode("login", {"username": username, "password": password}).rstrip(b"\n"))


def test_a_login_that_is_too_long_shows_no_password() -> None:
    _assert_kept_secret(_LOGINS[0][:-1] + b" " * LINE_LIMIT + b"}")
    _assert_kept_secret(b'{"password":"' + PASSWORD.encode() * LINE_LIMIT)


def test_a_login_that_comes_back_to_the_host_shows_no_password() -> None:
    host = _host()
    host.receive_data(_LOGINS[0] + b"\n", 1.0)
    assert not _shows_password(repr(host.events()) + repr(host.counters.as_mapping()))
