from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from host_agent.client import ClientError, HandoffFailed, InDoubt, Moved, Moving
from host_agent.client.failures import (
    HandoffOff,
    NoSuchPeer,
    NotAwaited,
    NotMoving,
    NotSaved,
    RefusedByPeer,
    TimedOut,
    UnreachablePeer,
)
from host_agent.commands import Moved as MovedAway
from host_agent.commands import TimedOut as NoAnswer
from host_agent.discovery import Added, Migration
from host_agent.handoff import departures, talking
from host_agent.handoff.departures import Departures
from host_agent.handoff.outcomes import HandoffFailed as NotHanded
from host_agent.known import Departure
from tests.host_agent.guests import Answers, SimulatedVm, speaking
from tests.host_agent.parts import NEWEST, RunningDaemon, run, running, until, until_true
from tests.host_agent.store.disks import fill, small_disk

from .hosts import (
    ABANDON,
    COMPLETE,
    EVENT,
    HELD,
    HELLO,
    LOST,
    SESSION,
    STALLED,
    START,
    UNANSWERED,
    UUID,
    Host,
    Wire,
    agreed,
    ask,
    at,
    dies_after_complete,
    hand_over,
    phases,
    state,
    tell,
    two,
    with_a_command,
)

ANOTHER_UUID = UUID.replace("6b", "7c")


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hands a guest over is told soon that its fate is in doubt."""
    monkeypatch.setattr(departures, "DOUBT_PATIENCE", 0.1)


@contextlib.asynccontextmanager
async def wired(place: Path, **changes: Any) -> AsyncIterator[tuple[Wire, RunningDaemon, RunningDaemon, Host]]:
    """A wire from the host a to the host b, and the daemons of both; a guest that is agreed with runs on the first."""
    a, b = Host(place, "a", **changes), Host(place, "b")
    async with (
        Wire(b.address) as wire,
        running(a.through(wire, b)) as first,
        running(b.configuration(a)) as second,
        a.vm(speaking()),
    ):
        await first.until_guest("web", agreed(NEWEST))
        yield wire, first, second, a


def in_background(first: RunningDaemon, to: Optional[str] = "b", **more: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(hand_over(first, to, **more))


async def cancel(first: RunningDaemon, **more: Any) -> Any:
    return await ask(first, first.client.cancel_handoff, "web", **more)


async def is_as_before(first: RunningDaemon) -> bool:
    """Whether the guest is this host's, and is sent what it is to be sent."""
    await first.send("web", "lifecycle-event", EVENT)
    return state("here")(await first.guest("web")) and not phases(first)


async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


# ---- How it should be ----


def test_who_waits_for_a_command_is_told_where_its_guest_went(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        async with two(place) as (a, first, b, second):
            async with a.vm(speaking(answers=answers)):
                await first.until_guest("web", agreed(NEWEST))
                sending = await with_a_command(first, answers)
                await hand_over(first)
                with pytest.raises(Moved, match="b"):
                    await sending
                with pytest.raises(Moved):
                    await first.send("web", "lifecycle-event", EVENT)
            carried = (await second.guest("web"))["commands"]
            assert [each["reply_id"] for each in carried] == [answers.asked[0].reply_id]
            async with b.vm(speaking(answers=answers)):
                await second.until_guest("web", agreed(NEWEST))
                answers.release()
                await second.until_guest("web", lambda guest: not guest["commands"])

    run(scenario())


def test_who_follows_a_command_gets_its_completion_from_the_other_host(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        async with two(place) as (a, first, b, second):
            async with a.vm(speaking(answers=answers)):
                await first.until_guest("web", agreed(NEWEST))
                sending = asyncio.ensure_future(ask(first, first.client.send, "web", "lifecycle-event", EVENT, follow=True))
                await until(lambda: answers.asked)
                await hand_over(first)
            async with b.vm(speaking(answers=answers)):
                await second.until_guest("web", agreed(NEWEST))
                answers.release()
                assert (await sending).completion == {"done": True}

    run(scenario())


def test_a_guest_goes_there_and_back(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, b, second):
            async with a.vm(speaking()):
                await first.until_guest("web", agreed(NEWEST))
                await hand_over(first)
            async with b.vm(speaking()):
                await second.until_guest("web", agreed(NEWEST))
                await ask(second, second.client.hand_over, "web", "a")
            async with a.vm(speaking()):
                guest = await first.until_guest("web", agreed(NEWEST))
                assert state("here")(guest)
                await first.send("web", "lifecycle-event", EVENT)

    run(scenario())


def test_what_is_frozen_and_until_when_is_known_on_the_other_host(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second), a.vm(speaking(answers=Answers(result={"mountpoints": ["/srv"]}))):
            await first.until_guest("web", lambda guest: guest["capabilities"])
            await first.send("web", "filesystem-freeze", {"thaw_after": 600, "mountpoints": ["/srv"]})
            frozen = (await first.guest("web"))["frozen"]
            await hand_over(first)
            carried = (await second.guest("web"))["frozen"]
            assert carried["mountpoints"] == frozen["mountpoints"] == ["/srv"]
            assert 0 < carried["thaws_in_s"] <= frozen["thaws_in_s"]
            await until_true(lambda: _no_guest(first))

    async def _no_guest(first: RunningDaemon) -> bool:
        return (await first.guest("web"))["frozen"] is None

    run(scenario())


def test_many_guests_go_at_once_though_few_can_be_inside(place: Path) -> None:
    names = [f"web-{number}" for number in range(50)]

    async def scenario() -> None:
        async with two(place) as (a, first, _, second), contextlib.AsyncExitStack() as vms:
            for name in names:
                await vms.enter_async_context(a.vm(speaking(period=5.0), name))
            await until(lambda: [each.session.negotiation.agreed for each in first.daemon.registry] == [NEWEST] * 50)
            guests = list(first.daemon.registry)
            handed = await asyncio.gather(*(first.daemon.handoffs.send(guest, "b") for guest in guests))
            assert {each.to for each in handed} == {"b"}
            assert {guest.moved_to for guest in guests} == {"b"}
            assert sorted(each.name for each in second.daemon.registry) == sorted(names)
            await until(lambda: phases(first) == phases(second) == [])

    run(scenario())


# ---- To whom ----


@pytest.mark.parametrize("elsewhere", ["dead", "stalls", "does not await it"])
def test_of_several_peers_the_one_that_awaits_a_guest_gets_it(place: Path, elsewhere: str) -> None:
    async def scenario() -> None:
        a, b, c = Host(place, "a"), Host(place, "b"), Host(place, "c")
        async with contextlib.AsyncExitStack() as hosts:
            first = await hosts.enter_async_context(running(a.configuration(c, b)))
            second = await hosts.enter_async_context(running(b.configuration(a)))
            if elsewhere == "stalls":
                silent = await asyncio.start_server(listen_only, *c.address)
                hosts.callback(silent.close)
            elif elsewhere == "does not await it":
                await hosts.enter_async_context(running(c.configuration(a)))
            await hosts.enter_async_context(a.vm(speaking()))
            await first.until_guest("web", agreed(NEWEST))
            await ask(second, second.client.expect, "web")
            assert (await hand_over(first, None)).to == "b"
            assert state("here")(await second.guest("web"))

    run(scenario())


def test_a_guest_that_two_peers_await_goes_to_one_of_them(place: Path) -> None:
    async def scenario() -> None:
        a, b, c = Host(place, "a"), Host(place, "b"), Host(place, "c")
        async with (
            running(a.configuration(b, c)) as first,
            running(b.configuration(a)) as second,
            running(c.configuration(a)) as third,
            a.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            for each in (second, third):
                await ask(each, each.client.expect, "web")
            to = (await hand_over(first, None)).to
            guests = {"b": await second.guests(), "c": await third.guests()}
            assert {name for name, those in guests.items() if those} == {to}
            loser = third if to == "b" else second
            await until(lambda: phases(loser) == [("destination", "awaited")])

    run(scenario())


def test_a_guest_that_nobody_awaits_stays_unless_a_host_is_named(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            with pytest.raises(NotAwaited, match="no peer awaits"):
                await hand_over(first, None)
            await ask(second, second.client.expect, "web", UUID)
            assert (await hand_over(first, None)).to == "b"

    run(scenario())


def test_where_nobody_awaits_a_guest_that_a_peer_is_dead_is_said_first(place: Path) -> None:
    async def scenario() -> None:
        a, b, c = Host(place, "a"), Host(place, "b"), Host(place, "c")
        async with running(a.configuration(b, c)) as first, running(b.configuration(a)), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            with pytest.raises(UnreachablePeer, match=r"^c \(.*\): Connection refused: see that vmaccord-host runs there"):
                await hand_over(first, None)
            assert await is_as_before(first)

    run(scenario())


def test_only_to_peers_that_the_configuration_names(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            running(a.configuration()) as alone,
            running(b.configuration(a)) as second,
            a.vm(speaking()),
            b.vm(speaking()),
        ):
            await alone.until_guest("web", agreed(NEWEST))
            await second.until_guest("web", agreed(NEWEST))
            with pytest.raises(HandoffOff, match=r"name them in \[handoff\] peers"):
                await hand_over(alone)
            with pytest.raises(NoSuchPeer, match="no peer is called 'c'; known are a"):
                await hand_over(second, "c")
            assert await is_as_before(alone)
            assert await is_as_before(second)

    run(scenario())


# ---- Nothing came of it ----


@pytest.mark.parametrize("command", [START, HELLO, SESSION])
@pytest.mark.parametrize("what", [LOST, UNANSWERED])
def test_a_connection_that_breaks_before_the_guest_was_to_be_taken_changes_nothing(
    place: Path, command: int, what: str
) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        answers = Answers(held=True)
        async with (
            Wire(b.address, lambda each: what if each == command else None) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)) as second,
            a.vm(speaking(answers=answers)),
        ):
            await first.until_guest("web", agreed(NEWEST))
            sending = await with_a_command(first, answers)
            with pytest.raises(HandoffFailed):
                await hand_over(first)
            assert state("here")(await first.guest("web"))
            answers.release()
            assert (await sending).completion == {"done": True}
            assert await second.guests() == []

    run(scenario())


@pytest.mark.parametrize("command", [START, HELLO, SESSION])
def test_a_destination_that_stalls_is_not_waited_for_without_end(
    place: Path, command: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talking, "PATIENCE", 0.2)

    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(command, STALLED)
            with pytest.raises(UnreachablePeer, match="b said nothing for"):
                await hand_over(first)
            assert await is_as_before(first)
            assert await second.guests() == []

    run(scenario())


def test_a_peer_that_is_no_host_daemon_gets_no_guest(place: Path) -> None:
    async def scenario() -> None:
        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            writer.close()

        a, b = Host(place, "a"), Host(place, "b")
        server = await asyncio.start_server(answer, *b.address)
        async with running(a.configuration(b)) as first, a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            with pytest.raises(RefusedByPeer, match="answer is none: name a host daemon that takes hand-offs"):
                await hand_over(first)
            assert await is_as_before(first)
        server.close()

    run(scenario())


def test_a_destination_that_can_not_say_what_it_has_taken_takes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise OSError(5, "Input/output error")

    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with running(a.configuration(b)) as first, a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            monkeypatch.setattr("host_agent.store.Store.load", fail)
            async with running(b.configuration(a)) as second:
                with pytest.raises(RefusedByPeer, match=r"b refuses: .* could not read") as error:
                    await hand_over(first)
                assert error.value.code == "not-saved"
                assert await is_as_before(first)
                assert await second.guests() == []

    run(scenario())


def test_a_disk_that_is_full_on_the_source_keeps_the_guest_there(place: Path, disk: Path) -> None:
    async def scenario() -> None:
        async with wired(place, state=str(disk / "state.sqlite")) as (wire, first, second, _):
            filling = fill(disk)
            with pytest.raises(NotSaved, match="web goes on here: the state file can't be written; make room for it"):
                await hand_over(first)
            assert await is_as_before(first)
            await until(lambda: wire.commands == [START, HELLO, SESSION, ABANDON])
            assert await second.guests() == []
            filling.unlink()
            assert (await hand_over(first)).to == "b"

    run(scenario())


def test_without_a_state_file_a_guest_can_be_handed_over_too(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a", state=None), Host(place, "b", state=None)
        cut = at(COMPLETE, LOST, UNANSWERED)
        async with (
            Wire(b.address, cut) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)) as second,
            a.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            assert (await hand_over(first)).to == "b"
            assert state("moved")(await first.guest("web"))
            assert len(await second.guests()) == 1

    run(scenario())


def test_two_who_want_to_hand_over_one_guest_do_not_do_it_twice(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(SESSION, STALLED)
            one = in_background(first)
            await first.until_guest("web", state("moving"))
            with pytest.raises(Moving, match="is being handed over already: wait, or 'vmaccord handoff cancel web'"):
                await hand_over(first)
            wire.gate.set()
            assert (await one).to == "b"
            with pytest.raises(Moved, match="moved to b before: ask there"):
                await hand_over(first)
            assert wire.commands == [START, HELLO, SESSION, COMPLETE]
            assert len(await second.guests()) == 1

    run(scenario())


# ---- Cancelled ----


@pytest.mark.parametrize("force", [False, True])
def test_a_hand_off_that_is_cancelled_while_it_is_prepared_ends_at_once(place: Path, force: bool) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(HELLO, STALLED)
            handing = in_background(first)
            await until(lambda: wire.commands == [START, HELLO])
            assert phases(first) == [("source", "preparing")]
            await cancel(first, force=force)
            with pytest.raises(NotMoving, match="was cancelled: it goes on here"):
                await handing
            assert await is_as_before(first)
            assert await second.guests() == []
            wire.gate.set()
            assert (await hand_over(first)).to == "b"

    run(scenario())


@pytest.mark.parametrize("force", [False, True])
def test_a_hand_off_that_is_cancelled_after_it_was_prepared_is_abandoned_there_too(place: Path, force: bool) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await until(lambda: phases(first) == [("source", "prepared")])
            await asyncio.gather(cancel(first, force=force), until(lambda: not phases(first)))
            assert await is_as_before(first)
            assert wire.commands[-1] == ABANDON
            await until(lambda: phases(second) == [("destination", "awaited")])
            with pytest.raises(NotMoving, match="there is nothing to cancel"):
                await cancel(first, force=force)

    run(scenario())


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_a_hand_off_that_is_cancelled_while_the_doubt_is_noted_is_not_completed(
    place: Path, monkeypatch: pytest.MonkeyPatch, force: bool, saved: bool
) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            keeper = first.daemon._keeper
            assert keeper is not None
            gate = asyncio.Event()

            async def save() -> bool:
                await gate.wait()
                return saved

            monkeypatch.setattr(keeper, "save", save)
            handing = in_background(first)
            await until(lambda: phases(first) == [("source", "in-doubt")])
            await cancel(first, force=force)
            assert await is_as_before(first)
            gate.set()
            with pytest.raises(NotMoving, match="was cancelled"):
                await handing
            assert COMPLETE not in wire.commands
            assert await is_as_before(first)
            assert await second.guests() == []

    run(scenario())


@pytest.mark.parametrize("force", [False, True])
def test_a_hand_off_that_is_cancelled_before_the_last_word_has_arrived_never_comes_about(place: Path, force: bool) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(COMPLETE, HELD)
            handing = in_background(first)
            await until(lambda: COMPLETE in wire.commands)
            await cancel(first, force=force)
            with pytest.raises(NotMoving, match="was cancelled"):
                await handing
            wire.gate.set()
            await until(lambda: not phases(second))
            assert await is_as_before(first)
            assert await second.guests() == []

    run(scenario())


@pytest.mark.parametrize("force", [False, True])
def test_a_hand_off_that_the_destination_has_completed_can_not_be_cancelled(place: Path, force: bool) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(COMPLETE, STALLED)
            handing = in_background(first)
            await until(lambda: phases(second) == [("destination", "taken")])
            with pytest.raises(Moved, match="b has taken web already: have it handed back there"):
                await cancel(first, force=force)
            assert (await handing).to == "b"
            assert state("moved")(await first.guest("web"))
            assert state("here")(await second.guest("web"))

    run(scenario())


def test_a_guest_in_doubt_can_be_kept_by_force_only(place: Path, impatient: None) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, _, _a):
            wire.cut = dies_after_complete(wire)
            with pytest.raises(InDoubt):
                await hand_over(first)
            with pytest.raises(InDoubt, match="is not known: it is asked again and again"):
                await hand_over(first)
            with pytest.raises(InDoubt):
                await cancel(first)
            await cancel(first, force=True)
            assert await is_as_before(first)

    run(scenario())


def test_whoever_waits_for_the_end_of_a_doubt_is_told_that_it_was_ended_by_force(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, _, _a):
            wire.cut = dies_after_complete(wire, LOST)
            handing = in_background(first)
            await until(lambda: wire.dead and phases(first) == [("source", "in-doubt")])
            await cancel(first, force=True)
            with pytest.raises(NotMoving, match="was cancelled"):
                await handing
            assert wire.commands.count(COMPLETE) == 1
            assert await is_as_before(first)

    run(scenario())


def test_a_guest_that_turns_out_not_to_be_taken_stays_if_that_was_wanted_meanwhile(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = dies_after_complete(wire, LOST)
            handing = in_background(first)
            await until(lambda: wire.dead and phases(first) == [("source", "in-doubt")])
            with pytest.raises(InDoubt):
                await cancel(first)
            wire.dead = False
            with pytest.raises(NotMoving, match="was cancelled"):
                await handing
            assert wire.commands.count(COMPLETE) == 1
            assert await is_as_before(first)
            assert await second.guests() == []

    run(scenario())


def test_a_guest_that_moved_is_taken_back_by_force_only(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (_wire, first, _second, _):
            await hand_over(first)
            with pytest.raises(Moved, match="moved to b: have it handed back there"):
                await cancel(first)
            assert state("moved")(await first.guest("web"))
            await cancel(first, force=True)
            assert await is_as_before(first)

    run(scenario())


# ---- In doubt ----


@pytest.mark.parametrize("what", [LOST, UNANSWERED])
def test_whose_a_guest_is_is_found_out_when_the_last_word_got_lost(place: Path, what: str) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(COMPLETE, what)
            assert (await hand_over(first)).to == "b"
            assert state("moved")(await first.guest("web"))
            assert state("here")(await second.guest("web"))
            # Not taken: it was prepared and completed once more; taken: it was only asked.
            assert wire.commands.count(COMPLETE) == (2 if what == LOST else 1)

    run(scenario())


def test_a_hand_off_that_breaks_again_and_again_is_given_up(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = lambda command: LOST if command == COMPLETE else None
            with pytest.raises(UnreachablePeer, match="the connection to b broke before it took web, which goes on here"):
                await hand_over(first)
            assert wire.commands.count(COMPLETE) == departures.ATTEMPTS
            assert await is_as_before(first)
            assert await second.guests() == []

    run(scenario())


def test_a_hand_off_to_whoever_awaits_the_guest_goes_on_there_when_it_breaks(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(COMPLETE, HELD)
            await ask(second, second.client.expect, "web")
            handing = in_background(first, None)
            await until(lambda: COMPLETE in wire.commands)
            # As when its daemon is restarted.
            tell(second, Migration.TURNED_BACK)
            wire.cut = at(COMPLETE)
            departing = first.daemon.handoffs._departures._departing[first.daemon.registry.arrived("web")]
            assert departing.line is not None
            departing.line.close()
            assert (await handing).to == "b"
            wire.gate.set()
            assert state("here")(await second.guest("web"))

    run(scenario())


def test_a_hand_off_that_breaks_goes_on_at_the_peer_that_has_prepared_it(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _):
            wire.cut = at(COMPLETE, LOST)
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await until(lambda: phases(first) == [("source", "prepared")])
            # As when its daemon is restarted.
            tell(second, Migration.TURNED_BACK)
            tell(first, Migration.LEFT)
            await first.until_guest("web", state("moved"))
            assert state("here")(await second.guest("web"))

    run(scenario())


def test_a_destination_that_can_not_take_a_guest_after_all_is_believed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with wired(place) as (_wire, first, second, _):
            keeper = second.daemon._keeper
            assert keeper is not None

            async def save() -> bool:
                return False

            monkeypatch.setattr(keeper, "save", save)
            with pytest.raises(RefusedByPeer, match="can't write its state file") as error:
                await hand_over(first)
            assert error.value.code == "not-saved"
            assert await is_as_before(first)

    run(scenario())


def test_a_source_that_was_restarted_in_doubt_finds_out(place: Path, impatient: None) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        answers = Answers(held=True)
        async with Wire(b.address) as wire:
            wire.cut = dies_after_complete(wire)
            async with running(b.configuration(a)) as second:
                async with a.vm(speaking(answers=answers)):
                    async with running(a.through(wire, b)) as first:
                        await first.until_guest("web", agreed(NEWEST))
                        sending = await with_a_command(first, answers)
                        with pytest.raises(InDoubt):
                            await hand_over(first)
                        assert (await first.guest("web"))["handoff"] == {"state": "in-doubt", "peer": "b"}
                        with pytest.raises(Moving):
                            await first.send("web", "lifecycle-event", EVENT)
                        sending.cancel()
                    async with running(a.through(wire, b)) as first:
                        assert (await first.until_guest("web", agreed(NEWEST)))["handoff"]["state"] == "in-doubt"
                        wire.dead = False
                        await first.until_guest("web", state("moved"))
                assert len((await second.guest("web"))["commands"]) == 1

    run(scenario())


def test_a_destination_that_is_no_peer_any_more_leaves_the_doubt(place: Path, impatient: None) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with Wire(b.address) as wire, running(b.configuration(a)) as second, a.vm(speaking()):
            wire.cut = dies_after_complete(wire)
            async with running(a.through(wire, b)) as first:
                await first.until_guest("web", agreed(NEWEST))
                with pytest.raises(InDoubt):
                    await hand_over(first)
            wire.dead = False
            async with running(a.configuration(), lambda: a.through(wire, b)) as first:
                await first.until_guest("web", agreed(NEWEST))
                with pytest.raises(InDoubt, match="whether b has taken web is not known"):
                    await cancel(first)
                assert phases(first) == [("source", "in-doubt")]
                first.daemon.reload()
                await first.until_guest("web", state("moved"))
            assert state("here")(await second.guest("web"))

    run(scenario())


def test_a_guest_that_comes_back_while_nobody_knows_that_it_was_there_is_here(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _a):
            wire.cut = dies_after_complete(wire)
            handing = in_background(first)
            await until(lambda: wire.dead and not phases(second) and phases(first) == [("source", "in-doubt")])
            await second.until_guest("web", state("here"))
            assert (await hand_over(second, "a")).to == "a"
            wire.dead = False
            with pytest.raises(NotMoving, match="it goes on here"):
                await handing
            assert await is_as_before(first)
            assert await second.guests() == []

    run(scenario())


def test_a_guest_that_is_renamed_while_in_doubt_is_still_asked_about(place: Path, impatient: None) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            Wire(b.address) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)) as second,
        ):
            wire.cut = dies_after_complete(wire)
            async with a.vm(speaking()):
                await first.until_guest("web", agreed(NEWEST))
                first.daemon.registry.arrived("web").uuid = UUID
                with pytest.raises(InDoubt):
                    await hand_over(first)
            await first.until_guest("web", lambda guest: guest["channel"]["state"] == "absent")
            async with SimulatedVm(place / "elsewhere" / "www") as vm:
                first.daemon._household.follow(Added("www", str(vm.path), UUID))
                await first.until_guest("www", state("in-doubt"))
                wire.dead = False
                await first.until_guest("www", state("moved"))
            assert [each["uuid"] for each in await second.guests()] == [UUID]

    run(scenario())


@pytest.mark.parametrize("what", [HELD, STALLED])
def test_a_vm_that_gets_the_name_of_one_that_is_on_its_way_has_nothing_to_do_with_it(place: Path, what: str) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, second, _a):
            wire.cut = at(COMPLETE, what)
            first.daemon.registry.arrived("web").uuid = UUID
            handing = in_background(first)
            await until(lambda: COMPLETE in wire.commands)
            async with SimulatedVm(place / "elsewhere" / "web") as vm:
                first.daemon._household.follow(Added("web", str(vm.path), ANOTHER_UUID))
                await first.until_guest("web", lambda guest: guest["uuid"] == ANOTHER_UUID and agreed(NEWEST)(guest))
                wire.gate.set()
                assert (await handing).to == "b"
                assert await is_as_before(first)
                keeper = first.daemon._keeper
                assert keeper is not None
                await keeper.flush()
                assert keeper._store.load().guests == (("web", ANOTHER_UUID),)
            assert [each["uuid"] for each in await second.guests()] == [UUID]

    run(scenario())


def test_a_doubt_about_a_guest_whose_name_is_another_vms_is_not_kept_for_ever(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with running(a.configuration(b)) as first:
            keeper = first.daemon._keeper
            assert keeper is not None
            keeper.put_guest("web", ANOTHER_UUID)
            keeper.put_departure(Departure("0" * 32, "web", UUID, "b", 0.0))
        async with running(a.configuration(b)) as first:
            assert state("here")(await first.guest("web"))
            assert phases(first) == []
            keeper = first.daemon._keeper
            assert keeper is not None
            await keeper.flush()
            assert keeper._store.load().departures == ()

    run(scenario())


# ---- The daemon ends ----


@pytest.mark.parametrize(
    ("cut", "command", "found"),
    [
        ((HELLO, STALLED), HELLO, "here"),
        ((SESSION, STALLED), SESSION, "here"),
        ((COMPLETE, HELD), COMPLETE, "here"),
        ((COMPLETE, STALLED), COMPLETE, "moved"),
        ((COMPLETE, LOST), COMPLETE, "here"),
        ((COMPLETE, UNANSWERED), COMPLETE, "moved"),
    ],
)
def test_a_daemon_that_is_stopped_in_the_middle_finds_out_when_it_runs_again(
    place: Path, cut: tuple[int, str], command: int, found: str
) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with Wire(b.address, at(*cut)) as wire, running(b.configuration(a)) as second, a.vm(speaking()):
            if cut[1] in (LOST, UNANSWERED):
                wire.cut = dies_after_complete(wire, cut[1])
            async with running(a.through(wire, b)) as first:
                await first.until_guest("web", agreed(NEWEST))
                handing = in_background(first)
                await until(lambda: command in wire.commands)
                wire.dead = True
                if found == "moved":
                    await until(lambda: len(second.daemon.registry) == 1)
                if cut[1] in (LOST, UNANSWERED):
                    await until(lambda: phases(first) == [("source", "in-doubt")])
            with pytest.raises(ClientError):
                await handing
            wire.cut, wire.dead = at(*cut[:1]), False
            async with running(a.through(wire, b)) as first:
                await first.until_guest("web", lambda guest: agreed(NEWEST)(guest) and state(found)(guest))
                wire.gate.set()
                await until(lambda: not phases(second))
                assert bool(await second.guests()) == (found == "moved")
                if found == "here":
                    assert await is_as_before(first)

    run(scenario())


def test_a_daemon_that_is_stopped_while_the_doubt_is_noted_keeps_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with Wire(b.address) as wire, running(b.configuration(a)) as second, a.vm(speaking()):
            gate = asyncio.Event()
            async with running(a.through(wire, b)) as first:
                await first.until_guest("web", agreed(NEWEST))
                keeper = first.daemon._keeper
                assert keeper is not None
                save = keeper.save

                async def save_late() -> bool:
                    await gate.wait()
                    return await save()

                monkeypatch.setattr(keeper, "save", save_late)
                handing = in_background(first)
                await until(lambda: phases(first) == [("source", "in-doubt")])
                close = first.daemon.handoffs.close

                async def close_and_go_on() -> None:
                    await close()
                    gate.set()

                monkeypatch.setattr(first.daemon.handoffs, "close", close_and_go_on)
            with pytest.raises(ClientError):
                await handing
            assert COMPLETE not in wire.commands
            async with running(a.through(wire, b)) as first:
                await first.until_guest("web", lambda guest: agreed(NEWEST)(guest) and state("here")(guest))
            assert await second.guests() == []

    run(scenario())


def test_a_daemon_that_is_stopped_with_a_guest_prepared_keeps_it(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second):
            async with a.vm(speaking()):
                await first.until_guest("web", agreed(NEWEST))
                tell(second, Migration.INCOMING)
                tell(first, Migration.LEAVING)
                await until(lambda: phases(first) == [("source", "prepared")])
                first.daemon.stop()
                await until(lambda: phases(second) == [("destination", "awaited")])
            assert await second.guests() == []

    run(scenario())


def test_who_asks_in_a_doubt_ends_even_if_it_was_not_heard_that_it_should(
    place: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_and_miss_a_cancellation(*_: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def scenario() -> None:
        async with wired(place) as (wire, first, _second, _a):
            departing: Departures = first.daemon.handoffs._departures
            wire.cut = dies_after_complete(wire)
            monkeypatch.setattr(departing, "_ask", ask_and_miss_a_cancellation)
            with pytest.raises(InDoubt):
                await hand_over(first)
            await departing.close()
            assert not departing._asking

    run(scenario())


def test_a_daemon_that_stops_begins_no_hand_off(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (wire, first, _second, _a):
            departing: Departures = first.daemon.handoffs._departures
            await departing.close()
            with pytest.raises(NotHanded) as failure:
                await first.daemon.handoffs.send(first.daemon.registry.arrived("web"), "b")
            assert (failure.value.kind, wire.commands) == ("stopping", [])

    run(scenario())


# ---- Following a command ----


@pytest.mark.parametrize("what", ["nothing", "stalls", "dead"])
def test_whoever_follows_a_command_that_is_never_answered_waits_no_longer_than_was_said(
    place: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "FOLLOW_PERIOD", 0.05)

    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        answers = Answers(held=True)
        async with (
            Wire(b.address) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)),
            a.vm(speaking(answers=answers)),
        ):
            await first.until_guest("web", agreed(NEWEST))
            sending = await with_a_command(first, answers, follow=True, timeout=1.0)
            await hand_over(first)
            if what == "stalls":
                wire.cut = lambda command: STALLED
            wire.dead = what == "dead"
            with pytest.raises(TimedOut, match="no answer to lifecycle-event within"):
                await sending

    run(scenario())


def test_a_command_on_a_host_that_is_no_peer_can_not_be_followed(place: Path) -> None:
    async def scenario() -> None:
        async with wired(place) as (_wire, first, _second, _a):
            with pytest.raises(NotHanded, match="no peer is called 'c'"):
                await first.daemon.handoffs.follow(MovedAway("c", "0" * 32, "r-1"), 1.0)
            with pytest.raises(NoAnswer):
                await first.daemon.handoffs.follow(MovedAway("b", "0" * 32, "r-1"), 0.0)

    run(scenario())


@pytest.fixture(name="disk")
def _disk(place: Path) -> Iterator[Path]:
    with small_disk(place / "disk") as found:
        yield found
