"""A peer at versions 0–3 sees not one byte that it would not have seen before there were newer versions.

Whatever comes and is called, two sessions write the same: one of today with the table of today, and one that stops at
version 3, with a table that ends there. What release 0.1.0 really wrote is compared in ``test_recordings``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Callable, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import codec, errors, events, messages, versions
from common.catalogue import CATALOGUE, Catalogue, Direction
from common.session import GuestSession, HostSession
from common.versions import Version

from .pair import message_to_host
from .samples import arguments_for

#: The table as it was; only lifecycle events were answered.
BEFORE = Catalogue(
    row._replace(answered=row.answered if row.answered == Version.V3 else None, later={})
    for row in CATALOGUE.rows
    if row.since <= 3
)

Peer = Union[HostSession, GuestSession]

_OLD_VERSIONS = st.none() | st.integers(-1, 3) | st.sampled_from([True, 1.5, "3"])
_OLD_SUPPORTED = st.sampled_from([None, Version.V0, Version.V1, Version.V2, Version.V3])


def _negotiating_lines(name: str) -> st.SearchStrategy[bytes]:
    """Lines that announce no version above 3."""
    return st.builds(
        lambda announced, beside: codec.encode(name, {**beside, "apiVersion": announced}),
        _OLD_VERSIONS,
        st.sampled_from([{}, {"apiVersionInUse": 3}, {"apiVersionInUse": 1}, {"hostId": "a"}, {"agentId": "a"}]),
    )


def _lines(direction: Direction, *negotiating: str) -> st.SearchStrategy[bytes]:
    """Lines of a peer at versions 0–3."""
    samples = [
        codec.encode(row.name, {**arguments_for(row), **more})
        for row in BEFORE.rows
        if row.direction is direction and row.name not in negotiating
        for more in ({}, {"reply_id": "r1"}, {"reply_id": 1})
    ]
    return st.one_of(
        *map(_negotiating_lines, negotiating),
        st.just(codec.encode(negotiating[0], {})),
        st.sampled_from(samples),
        st.sampled_from([codec.encode("of-the-past", {"reply_id": "r1"}), b'{"__name__": "half', b"\xff\n"]),
    )


_CALLS = st.sampled_from(["connect", "go", "come", "pause", "resume", "tick"])
_HOST_STEPS = st.lists(
    _lines(Direction.TO_HOST, "heartbeat")
    | _CALLS
    | st.sampled_from([row for row in BEFORE.rows if row.is_command]).map(
        lambda row: row.message_class.from_arguments(arguments_for(row))[0]
    ),
    max_size=20,
)
_GUEST_STEPS = st.lists(
    _lines(Direction.TO_GUEST, "refresh", "api-version")
    | _CALLS
    | st.sampled_from([message_to_host(row.name) for row in BEFORE.rows if row.direction is Direction.TO_HOST]),
    max_size=20,
)


def _call_host(host: HostSession, call: str, now: float) -> None:
    calls: dict[str, Callable[[], None]] = {
        "connect": lambda: host.connected(now),
        "go": host.disconnected,
        "come": lambda: host.connected(now),
        "pause": host.pause_writing,
        "resume": lambda: host.resume_writing(now),
        "tick": lambda: host.tick(now),
    }
    calls[call]()


def _call_guest(guest: GuestSession, call: str, now: float) -> None:
    calls: dict[str, Callable[[], None]] = {
        "connect": lambda: guest.opened(now),
        "go": guest.host_gone,
        "come": lambda: guest.host_came(now),
        "pause": guest.pause_writing,
        "resume": lambda: guest.resume_writing(now),
        "tick": lambda: guest.tick(now),
    }
    calls[call]()


def _react(guest: GuestSession, event: events.Event) -> None:
    if isinstance(event, events.HeartbeatWanted):
        guest.send_heartbeat("512", {"mem_free": 512})
    elif isinstance(event, events.FactsWanted):
        for name in sorted(event.names):
            guest.send(message_to_host(name))
    assert not isinstance(event, events.CommandRejected)


def _played(peer: Peer, steps: Iterable[Any], *, before: bool = False) -> tuple[bytes, list[events.Event]]:
    """What *peer* writes and reports; one of *before* knows nothing of what came later to a message."""
    written, happened = b"", []
    for count, step in enumerate(["connect", *steps]):
        if isinstance(step, bytes):
            peer.receive_data(step, 2.0 * count)
        elif isinstance(step, messages.Message):
            with contextlib.suppress(errors.SendRefused):
                peer.send(_without_what_came_later(step) if before else step)
        elif isinstance(peer, HostSession):
            _call_host(peer, step, 2.0 * count)
        else:
            _call_guest(peer, step, 2.0 * count)
        for event in peer.events():
            happened.append(event)
            if isinstance(peer, GuestSession):
                _react(peer, event)
        written += peer.data_to_send()
    return written, happened


def _without_what_came_later(message: messages.Message) -> messages.Message:
    if isinstance(message, messages.Completion):
        return messages.Completion(message.reply_id, message.done, more=message.more)
    return message


def _as_if_up_to_3(written: bytes) -> bytes:
    """What a session of today announces is its maximum; a peer that has a lower one takes that."""
    return written.replace(b'"apiVersion":%d' % versions.newest(), b'"apiVersion":3')


@given(_HOST_STEPS)
def test_a_host_of_today_writes_to_an_old_guest_what_a_host_that_stops_at_3_writes(steps: list[Any]) -> None:
    today, _ = _played(HostSession(versions.newest(), "host-1"), steps)
    before, _ = _played(HostSession(Version.V3, "host-1", catalogue=BEFORE), steps, before=True)
    assert _as_if_up_to_3(today) == before


@given(_GUEST_STEPS)
def test_a_guest_of_today_writes_to_an_old_host_what_a_guest_that_stops_at_3_writes(steps: list[Any]) -> None:
    today, _ = _played(GuestSession(versions.newest(), "agent-1"), steps)
    before, _ = _played(GuestSession(Version.V3, "agent-1", catalogue=BEFORE), steps, before=True)
    assert _as_if_up_to_3(today) == before


@given(_OLD_SUPPORTED, _HOST_STEPS)
def test_a_host_held_to_an_old_version_does_what_it_did_before(supported: Optional[Version], steps: list[Any]) -> None:
    today = _played(HostSession(supported, "host-1"), steps)
    assert today == _played(HostSession(supported, "host-1", catalogue=BEFORE), steps, before=True)


@given(_OLD_SUPPORTED, _GUEST_STEPS)
def test_a_guest_held_to_an_old_version_does_what_it_did_before(supported: Optional[Version], steps: list[Any]) -> None:
    today = _played(GuestSession(supported, "agent-1"), steps)
    assert today == _played(GuestSession(supported, "agent-1", catalogue=BEFORE), steps, before=True)


# ---- Reply ids of lifecycle events ----


def _event_received(version: Version, reply_id: Any) -> tuple[list[events.Event], GuestSession]:
    """What a guest at that version reports of an event with that reply id."""
    guest = GuestSession(versions.newest(), "agent-1")
    guest.opened(0.0)
    guest.receive_data(codec.encode("refresh", {"apiVersion": int(version)}), 1.0)
    guest.receive_data(codec.encode("api-version", {"apiVersion": int(version)}), 2.0)
    assert guest.negotiation.in_use == version
    guest.events()
    guest.receive_data(codec.encode("lifecycle-event", {"type": "before_migration", "reply_id": reply_id}), 3.0)
    return guest.events(), guest


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("reply_id", ["", "r1", "r" * 201, "r" * 100_000])
def test_an_event_with_any_text_as_its_reply_id_is_answered(version: Version, reply_id: str) -> None:
    reported, _ = _event_received(version, reply_id)
    assert [each.reply_id for each in reported if isinstance(each, events.MessageReceived)] == [reply_id]


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("reply_id", [1, None, True, ["r1"], {"r": 1}])
def test_an_event_with_a_reply_id_that_is_no_text_is_dropped(version: Version, reply_id: object) -> None:
    reported, guest = _event_received(version, reply_id)
    assert not [each for each in reported if isinstance(each, events.MessageReceived)]
    assert guest.counters.dropped == {"invalid-arguments": 1}
    assert any(isinstance(each, events.Complaint) and "lifecycle-event: reply_id: " in each.text for each in reported)
    rejected = [(each.reply_id, each.code) for each in reported if isinstance(each, events.CommandRejected)]
    assert rejected == ([(None, messages.Code.INVALID_ARGUMENTS)] if version >= Version.V4 else [])
