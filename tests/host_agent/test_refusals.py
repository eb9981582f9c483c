from __future__ import annotations

from typing import Any, Optional

import pytest

from common.catalogue import CATALOGUE, Direction, Row
from common.messages import Capabilities
from common.versions import Version
from host_agent.known import Departure
from host_agent.refusals import refuse

from .commanding import EVENT, UNSAID, Bench, play
from .guests import CAPABILITIES
from .parts import NEWEST

UPGRADE_GUEST = "upgrade vmaccord-guest-agent in web-1"
UPGRADE_HOST = "upgrade vmaccord-host-agent here, or raise its max-api-version"
UPGRADE_BOTH = f"{UPGRADE_GUEST} and {UPGRADE_HOST}"
DOCTOR = "'vmaccord doctor web-1'"
FILE = "/etc/vmaccord/guest.conf in web-1, and reload vmaccord-guest-agent there"

EXEC = {"argv": ["true"], "timeout": 5}


def row_of(name: str) -> Row:
    row = CATALOGUE.find(Direction.TO_GUEST, name)
    assert row is not None
    return row


# ---- Exactly these sentences ----


@pytest.mark.parametrize(
    ("agent", "host", "text", "upgrade"),
    [
        (1, 3, "API 1; lifecycle-event needs 3; its agent supports 1: " + UPGRADE_GUEST, "guest"),
        (None, 3, "API 0; lifecycle-event needs 3; its agent supports no versions: " + UPGRADE_GUEST, "guest"),
        (3, 2, "API 2; lifecycle-event needs 3; this host supports 2: " + UPGRADE_HOST, "host"),
        (3, None, "API 0; lifecycle-event needs 3; this host supports no versions: " + UPGRADE_HOST, "host"),
        (
            2,
            1,
            f"API 1; lifecycle-event needs 3; its agent supports 2 and this host supports 1: {UPGRADE_BOTH}",
            "both",
        ),
        (UNSAID, 3, "API 0; lifecycle-event needs 3; they have not agreed on more yet: try again in a moment", None),
    ],
)
def test_a_command_that_is_too_new_for_what_was_agreed_is_refused(
    agent: Optional[int], host: Optional[int], text: str, upgrade: Optional[str]
) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=agent, host=None if host is None else Version(host))
        refusal = bench.refused(guest)
        assert str(refusal) == f"web-1 agreed on {text}"
        assert refusal.kind == "version-too-low"
        assert refusal.members == {
            "needed": 3,
            "agreed": int(guest.session.negotiation.agreed),
            "guest_supports": None if agent == UNSAID else agent,
            "host_supports": host,
            "upgrade": upgrade,
        }

    play(scenario)


def test_who_must_be_upgraded_is_said_before_what_the_guest_would_have_to_turn_on() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=4, capabilities=Capabilities({"exec": False}, ()))
        refusal = bench.refused(guest, "exec", EXEC)
        # An agent of that age may have been told to support no more.
        upgrade = f"{UPGRADE_GUEST}, or raise its max-api-version"
        assert str(refusal) == f"web-1 agreed on API 4; exec needs 5; its agent supports 4: {upgrade}"

    play(scenario)


@pytest.mark.parametrize(
    ("name", "arguments", "capabilities", "want", "text"),
    [
        (
            "exec",
            EXEC,
            CAPABILITIES,
            "off",
            f"web-1 has exec turned off: name it in enable, and not in block, in [commands] of {FILE}",
        ),
        (
            "load",
            {},
            Capabilities({"load": False}, ()),
            "off",
            f"web-1 has load turned off: take it out of block, or name it in allow, in [commands] of {FILE}",
        ),
        (
            "lock-screen",
            {},
            Capabilities({"lock-screen": False}, ()),
            "off",
            f"web-1 has lock-screen turned off: take it out of block, or name it in allow, in [commands] of {FILE}",
        ),
        (
            "exec",
            EXEC,
            Capabilities({"load": True}, ()),
            "not-offered",
            f"web-1 agreed on API {NEWEST}; its agent does not offer exec: {UPGRADE_GUEST}",
        ),
        ("exec", EXEC, None, "unsaid", "web-1 has not said yet what it carries out: try again in a moment"),
    ],
)
def test_a_command_that_the_guest_does_not_carry_out_is_refused(
    name: str, arguments: dict[str, Any], capabilities: Optional[Capabilities], want: str, text: str
) -> None:
    async def scenario(bench: Bench) -> None:
        refusal = bench.refused(bench.guest(capabilities=capabilities), name, arguments)
        assert (refusal.kind, str(refusal), refusal.members) == ("disabled", text, {"want": want})

    play(scenario)


def test_a_guest_that_says_nothing_of_an_old_command_is_sent_it() -> None:
    async def scenario(bench: Bench) -> None:
        for number, capabilities in enumerate((None, Capabilities({}, ()))):
            bench.commands.send(bench.guest(f"web-{number}", capabilities=capabilities), "lock-screen", {})
            assert [each["__name__"] for each in bench.sent(f"web-{number}")] == ["lock-screen"]

    play(scenario)


def test_what_a_guest_said_on_another_channel_does_not_count() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        assert refuse(guest, row_of("load")) is None
        bench.reconnect(guest)
        assert bench.refused(guest, "load", {}).members == {"want": "unsaid"}
        bench.offer(guest)
        assert refuse(guest, row_of("load")) is None

    play(scenario)


@pytest.mark.parametrize(
    ("state", "kind", "text"),
    [
        ("absent", "not-connected", "web-1 is not connected (no port on this host): start it, or see " + DOCTOR),
        ("connecting", "not-connected", "web-1 is not connected (nobody answers on its port): start it, or see " + DOCTOR),
        ("connected", "unresponsive", "web-1 is silent: start vmaccord-guest-agent in it, or see " + DOCTOR),
        ("unresponsive", "unresponsive", "web-1 is silent: start vmaccord-guest-agent in it, or see " + DOCTOR),
    ],
)
def test_a_guest_that_can_not_hear_is_sent_nothing(state: str, kind: str, text: str) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest() if state == "unresponsive" else bench.silent() if state == "connected" else bench.absent()
        if state == "connecting":
            guest.found("/port", bench.loop.now)
        elif state == "unresponsive":
            guest.session.tick(bench.loop.now + 60.0)
            guest.absorb(guest.session.events(), bench.loop.now + 60.0)
        assert guest.state.value == state
        refusal = bench.refused(guest)
        assert (refusal.kind, str(refusal), refusal.members) == (kind, text, {})

    play(scenario)


def test_a_guest_that_does_not_read_is_sent_nothing_more() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        guest.session.pause_writing()
        refusal = bench.refused(guest)
        assert refusal.kind == "congested"
        assert str(refusal) == "web-1 does not read what was sent before: see 'vmaccord doctor web-1'"

    play(scenario)


def test_a_channel_that_has_just_ended_carries_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        guest.session.disconnected()
        refusal = bench.refused(guest)
        assert (refusal.kind, str(refusal)) == ("not-connected", "web-1 is not connected: try again when it is")

    play(scenario)


@pytest.mark.parametrize("agent", [3, NEWEST])
def test_a_guest_that_has_too_much_to_answer_is_sent_nothing_that_it_must_answer(agent: int) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=agent)
        first = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        for _ in range(99):
            bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        refusal = bench.refused(guest)
        assert (refusal.kind, str(refusal)) == ("busy", "web-1 has not answered 100 commands yet: wait for them")
        if agent == 3:
            bench.commands.send(guest, "lock-screen", {}, 30.0)
        else:
            assert bench.refused(guest, "lock-screen", {}).kind == "busy"
        bench.commands.send(bench.guest("web-2"), "lifecycle-event", EVENT, 30.0)
        bench.complete(guest, first.reply_id)
        bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)

    play(scenario)


# ---- Beforehand ----


def test_whether_a_command_would_be_refused_is_known_without_sending_it() -> None:
    async def scenario(bench: Bench) -> None:
        guests = [bench.guest(agent=1), bench.absent(), bench.silent(), bench.guest(capabilities=None)]
        guests.append(bench.guest(capabilities=Capabilities({"lifecycle-event": False}, ())))
        full = bench.guest()
        for _ in range(100):
            bench.commands.send(full, "lifecycle-event", EVENT)
        told = bench.feed.last
        for guest in (*guests, full):
            for name, arguments in (("lifecycle-event", EVENT), ("exec", EXEC)):
                refusal = refuse(guest, row_of(name))
                assert bench.feed.last == told
                if refusal is not None:
                    real = bench.refused(guest, name, arguments)
                    assert (refusal.kind, str(refusal), refusal.members) == (real.kind, str(real), real.members)

    play(scenario)


def test_each_command_is_sent_to_a_guest_that_carries_out_everything_and_speaks_its_version() -> None:
    async def scenario(bench: Bench) -> None:
        everything = Capabilities(dict.fromkeys(CAPABILITIES.commands, True), ())
        for version in Version:
            guest = bench.guest(f"web-{version}", agent=version, capabilities=everything)
            sendable = {row.name for row in CATALOGUE.commands if refuse(guest, row) is None}
            assert sendable == {row.name for row in CATALOGUE.commands if row.since <= version}

    play(scenario)


# ---- From host to host ----


def test_a_guest_that_moves_is_sent_nothing_new() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.hold(guest, "host-b")
        refusal = bench.refused(guest)
        cancel = "try again in a moment, or 'vmaccord handoff cancel web-1'"
        assert (refusal.kind, str(refusal)) == ("moving", f"web-1 is just moving to another host: {cancel}")

    play(scenario)


def test_one_of_which_nobody_knows_where_it_is_neither() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        guest.departure = Departure("0" * 32, "web-1", None, "host-b", 0.0)
        bench.commands.hold(guest, "host-b")
        refusal = bench.refused(guest)
        when = "it is known as soon as host-b answers; see 'vmaccord handoff list'"
        assert (refusal.kind, str(refusal)) == ("moving", f"web-1 may be on host-b already: {when}")

    play(scenario)


def test_one_that_moved_is_sent_to_where_it_is() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.hand_over(guest, "host-b", "0" * 32)
        refusal = bench.refused(guest)
        assert (refusal.kind, str(refusal)) == ("moved", "web-1 moved to host-b: ask there")
        assert refusal.members == {"to": "host-b"}

    play(scenario)
