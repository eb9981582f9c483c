from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
from pathlib import Path
from typing import Optional

import pytest

from common.handoff import Spec2, destination, files
from common.messages import LifecycleEvent
from host_agent.client import HandoffOff, InDoubt, InvalidSession, Moved, Moving, UnreachablePeer, WouldLose
from host_agent.config import Peer
from host_agent.discovery import Migration
from tests.host_agent.guests import Answers, speaking
from tests.host_agent.parts import NEWEST, RunningDaemon, make_configuration, run, running, until

from .hosts import (
    COMPLETE,
    HELLO,
    SESSION,
    STALLED,
    UUID,
    Host,
    Wire,
    agreed,
    ask,
    at,
    dies_after_complete,
    free_address,
    hand_over,
    known,
    phases,
    state,
    tell,
    two,
    with_a_command,
)


def told(daemon: RunningDaemon) -> list[str]:
    """What operators are told of hand-offs."""
    return [str(each.details["text"]) for each in daemon.daemon.feed.since(0)[1] if each.kind == "handoff"]


# ---- What libvirt tells ----


def test_a_guest_goes_by_itself_to_the_host_that_awaits_it(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await first.until_guest("web", lambda guest: guest["handoff"] == {"state": "moving", "peer": "b"})
            assert await second.guests() == []
            tell(first, Migration.LEFT)
            await first.until_guest("web", state("moved"))
            assert (await second.guest("web"))["uuid"] == UUID

    run(scenario())


def test_a_guest_whose_migration_failed_goes_on_with_what_waits_for_it(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        async with two(place) as (a, first, _, second), a.vm(speaking(answers=answers)):
            await first.until_guest("web", agreed(NEWEST))
            sending = await with_a_command(first, answers)
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await first.until_guest("web", state("moving"))
            tell(first, Migration.FAILED)
            await first.until_guest("web", state("here"))
            answers.release()
            assert (await sending).completion == {"done": True}
            await until(lambda: len(answers.asked) == 2)
            told = answers.asked[1].message
            assert (getattr(told, "type", None), getattr(told, "failure", None)) == ("after_migration", True)
            assert await second.guests() == []

    run(scenario())


def test_a_guest_whose_migration_fails_while_it_is_prepared_goes_on_at_once(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            Wire(b.address, at(SESSION, STALLED)) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)) as second,
            a.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await until(lambda: SESSION in wire.commands)
            tell(first, Migration.FAILED)
            await first.until_guest("web", state("here"))
            assert await until(lambda: told(first)) == [
                "not handed over: the hand-off of web was cancelled: it goes on here"
            ]
            tell(second, Migration.TURNED_BACK)
            wire.gate.set()
            await until(lambda: not phases(second))
            assert await second.guests() == []

    run(scenario())


def test_a_guest_that_was_not_prepared_is_handed_over_when_it_is_gone(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEFT)
            await first.until_guest("web", state("moved"))
            assert state("here")(await second.guest("web"))

    run(scenario())


def test_a_destination_that_goes_while_it_is_prepared_gets_the_guest_all_the_same(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with running(a.configuration(b)) as first, a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            async with running(b.configuration(a)) as second:
                tell(second, Migration.INCOMING)
                tell(first, Migration.LEAVING)
                await until(lambda: phases(first) == [("source", "prepared")])
            tell(first, Migration.LEFT)
            await first.until_guest("web", state("in-doubt"))
            async with running(b.configuration(a)) as second:
                await first.until_guest("web", state("moved"))
                assert state("here")(await second.guest("web"))

    run(scenario())


def test_where_nobody_awaits_a_guest_that_leaves_it_is_said_and_it_agrees_there_afresh(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second):
            async with a.vm(speaking()):
                await first.until_guest("web", agreed(NEWEST))
                tell(first, Migration.LEAVING)
                tell(first, Migration.LEFT)
                assert len(await until(lambda: told(first)[1:])) == 1
                assert all(each.startswith("not handed over: no peer awaits web") for each in told(first))
                assert state("here")(await first.guest("web"))
            await first.until_guest("web", lambda guest: guest["channel"]["state"] == "absent")
            assert await second.guests() == []

    run(scenario())


@pytest.mark.parametrize("stage", Migration)
def test_what_is_told_of_a_vm_that_is_not_known_means_nothing_but_that_it_comes(place: Path, stage: Migration) -> None:
    async def scenario() -> None:
        async with two(place) as (_a, first, _b, _second):
            tell(first, stage)
            assert phases(first) == ([("destination", "awaited")] if stage is Migration.INCOMING else [])
            assert await first.guests() == []

    run(scenario())


@pytest.mark.parametrize("stage", [Migration.LEAVING, Migration.LEFT, Migration.FAILED])
def test_where_no_peers_are_named_migrations_need_no_hand_off(place: Path, stage: Migration) -> None:
    async def scenario() -> None:
        a = Host(place, "a")
        async with running(a.configuration()) as alone, a.vm(speaking()):
            await alone.until_guest("web", agreed(NEWEST))
            tell(alone, stage)
            assert not alone.daemon.handoffs._jobs
            assert state("here")(await alone.guest("web"))

    run(scenario())


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize(
    ("stage", "word", "event", "failure"),
    [
        (Migration.BEGINS, "begin", "before_migration", False),
        (Migration.FAILED, "failed", "after_migration", True),
        (Migration.ARRIVED, "arrived", "after_migration", False),
    ],
)
def test_a_guest_is_told_of_its_migration_by_hand_or_because_libvirt_says_so(
    place: Path, by_hand: bool, stage: Migration, word: str, event: str, failure: bool
) -> None:
    async def scenario() -> None:
        answers = Answers()
        a = Host(place, "a")
        async with running(a.configuration()) as alone, a.vm(speaking(answers=answers)):
            await alone.until_guest("web", agreed(NEWEST))
            if by_hand:
                document = await ask(alone, alone.client.migrate, "web", word)
                assert (document["completion"] is not None) is (word == "begin")
            else:
                tell(alone, stage)
            (asked,) = await until(lambda: answers.asked)
            assert isinstance(asked.message, LifecycleEvent)
            assert (asked.message.type, bool(asked.message.failure)) == (event, failure)

    run(scenario())


def test_a_guest_that_goes_before_it_has_made_itself_ready_is_said_to_have_gone(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        async with two(place) as (a, first, _, _second), a.vm(speaking(answers=answers)):
            await first.until_guest("web", agreed(NEWEST))
            telling = asyncio.ensure_future(ask(first, first.client.migrate, "web", "begin"))
            await until(lambda: answers.asked)
            await hand_over(first)
            with pytest.raises(Moved, match="web moved to b before it had made itself ready"):
                await telling

    run(scenario())


def test_an_operator_and_libvirt_do_not_complete_one_hand_off_twice(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            Wire(b.address, at(COMPLETE, STALLED)) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)) as second,
            a.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            handing = asyncio.ensure_future(hand_over(first))
            await until(lambda: COMPLETE in wire.commands)
            tell(first, Migration.LEFT)
            assert (await until(lambda: told(first)))[0].startswith(
                "perhaps handed over: whether b has taken web is not known"
            )
            wire.gate.set()
            assert (await handing).to == "b"
            assert wire.commands.count(COMPLETE) == 1
            assert len(await second.guests()) == 1

    run(scenario())


# ---- The daemon ends, or is configured otherwise ----


def test_a_daemon_that_ends_leaves_nothing_running_of_what_migrations_made_it_do(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            Wire(b.address, at(HELLO, STALLED)) as wire,
            running(b.configuration(a)),
            a.vm(speaking()),
            running(a.through(wire, b)) as first,
        ):
            await first.until_guest("web", agreed(NEWEST))
            tell(first, Migration.LEAVING)
            await until(lambda: HELLO in wire.commands)
            for stage in (Migration.LEFT, Migration.LEAVING, Migration.LEFT):
                tell(first, stage)
            assert len(first.daemon.handoffs._jobs) == 4
            await first.daemon.handoffs.close()
            assert not first.daemon.handoffs._jobs

    run(scenario())


def test_what_is_under_way_goes_on_where_peers_and_addresses_are_others_now(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        elsewhere = free_address()
        other = (Peer("c", elsewhere),)
        async with (
            running(a.configuration(b), lambda: dataclasses.replace(a.configuration(), handoff_peers=other)) as first,
            running(
                b.configuration(a), lambda: dataclasses.replace(b.configuration(a), handoff_listen=(elsewhere,))
            ) as second,
            a.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await until(lambda: phases(first) == [("source", "prepared")])
            for each in (first, second):
                each.daemon.reload()
            await until(lambda: first.daemon.handoffs._configuration.handoff_peers == other)
            await until(lambda: second.daemon.handoffs._configuration.handoff_listen == (elsewhere,))
            tell(first, Migration.LEFT)
            await first.until_guest("web", state("moved"))
            assert (await second.guest("web"))["uuid"] == UUID
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*b.address)

    run(scenario())


def test_what_is_allowed_to_be_lost_can_be_configured(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a", handoff_allow_loss=True), Host(place, "b")
        async with running(a.configuration(b)) as first, running(b.configuration(a)) as second, a.vm(speaking()):
            second.daemon.handoffs._destination_terms = destination.Terms(spec=1)
            await first.until_guest("web", known)
            assert "capabilities" in (await hand_over(first)).lost

    run(scenario())


# ---- What operators see ----


def test_operators_see_what_is_under_way_on_both_sides(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            await ask(second, second.client.expect, "db")
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await until(lambda: phases(first) == [("source", "prepared")])
            (leaving,) = await ask(first, first.client.handoffs)
            assert leaving.pop("since_s") >= 0
            assert leaving == {"role": "source", "guest": "web", "peer": "b", "phase": "prepared"}
            coming = await ask(second, second.client.handoffs)
            assert [(each["guest"], each["phase"], each["since_s"]) for each in coming] == [
                ("web", "prepared", None),
                ("db", "awaited", None),
                ("web", "awaited", None),
            ]
            tell(first, Migration.LEFT)
            await until(lambda: told(first) == ["handed over to b"])
            assert len(told(second)) == 1
            assert told(second)[0].startswith("taken over from 127.0.0.1")

    run(scenario())


# ---- Files ----


def test_a_guest_goes_in_a_file(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        async with two(place) as (a, first, _, second):
            async with a.vm(speaking(answers=answers)):
                await first.until_guest("web", known)
                sending = await with_a_command(first, answers)
                content = await ask(first, first.client.export, "web")
            assert isinstance(carried := files.read(content), Spec2)
            assert carried.name == "web"
            assert (await ask(second, second.client.take_in, content))["guest"] == "web"
            guest = await second.guest("web")
            assert "host-name" in guest["facts"]
            assert len(guest["commands"]) == 1
            answers.release()
            async with a.vm(speaking(answers=answers)):
                assert (await sending).completion == {"done": True}

    run(scenario())


def test_a_guest_of_a_file_of_the_oldest_spec_is_known_by_what_stands_beside_it(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second):
            async with a.vm(speaking()):
                await first.until_guest("web", known)
                content = await ask(first, first.client.export, "web", 0, True)
            assert (await ask(second, second.client.take_in, content))["guest"] == "web"
            assert (await second.guest("web"))["facts"].keys() == {"fqdn"}

    run(scenario())


def test_a_file_of_an_older_spec_loses_only_what_may_be_lost(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _b, _second), a.vm(speaking()):
            await first.until_guest("web", known)
            with pytest.raises(WouldLose, match="take a newer spec, or allow the loss") as error:
                await ask(first, first.client.export, "web", 1)
            assert "capabilities" in error.value.names
            content = await ask(first, first.client.export, "web", 1, True)
            assert b'"spec":1' in content.replace(b" ", b"")

    run(scenario())


def test_what_is_no_file_of_a_session_is_not_taken_in(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (_a, first, _b, _second):
            with pytest.raises(InvalidSession):
                await ask(first, first.client.take_in, b"no session")

    run(scenario())


# ---- What is refused, or fails, and how operators learn of it ----


def test_what_an_operator_could_not_have_handed_over_is_logged_and_told_once(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with running(a.configuration(b)) as alone, a.vm(speaking()):
            await alone.until_guest("web", agreed(NEWEST))
            with pytest.raises(UnreachablePeer) as failed:
                await hand_over(alone)
            assert told(alone) == [f"not handed over: {failed.value}"]
            assert f"web: not handed over: {failed.value}" in caplog.messages

    run(scenario())
    assert sum("not handed over" in each for each in caplog.messages) == 1


def test_what_libvirt_could_not_have_handed_over_is_logged_and_told_once(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with running(a.configuration(b)) as alone, a.vm(speaking()):
            await alone.until_guest("web", agreed(NEWEST))
            tell(alone, Migration.LEFT)
            (said,) = await until(lambda: told(alone))
            assert said.startswith("not handed over: ")
            await until(lambda: not alone.daemon.handoffs._jobs)
            assert told(alone) == [said]

    run(scenario())
    assert sum("not handed over" in each for each in caplog.messages) == 1


def test_a_guest_that_has_moved_is_not_exported_nor_refreshed(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, _second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            await hand_over(first)
            for call in (first.client.export, first.client.refresh):
                with pytest.raises(Moved, match=r"^web moved to b: ask there$") as refused:
                    await ask(first, call, "web")
                assert refused.value.to == "b"

    run(scenario())


def test_a_guest_that_is_moving_is_not_exported_nor_refreshed(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            tell(second, Migration.INCOMING)
            tell(first, Migration.LEAVING)
            await until(lambda: phases(first) == [("source", "prepared")])
            for call in (first.client.export, first.client.refresh):
                with pytest.raises(Moving, match="web is just moving to another host"):
                    await ask(first, call, "web")

    run(scenario())


def test_a_guest_in_doubt_is_not_exported_nor_refreshed(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            Wire(b.address, at(COMPLETE, STALLED)) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)),
            a.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            wire.cut = dies_after_complete(wire)
            handing = asyncio.ensure_future(hand_over(first))
            await first.until_guest("web", state("in-doubt"))
            with pytest.raises(InDoubt, match="web may be on b already") as refused:
                await ask(first, first.client.export, "web")
            assert refused.value.to == "b"
            with pytest.raises(Moving, match="web may be on b already"):
                await ask(first, first.client.refresh, "web")
            wire.dead = False
            await asyncio.wait([handing])
            handing.exception()

    run(scenario())


@pytest.mark.parametrize("to", ["b", None])
def test_the_host_that_was_named_is_listed_before_it_has_prepared(place: Path, to: Optional[str]) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            Wire(b.address, at(SESSION, STALLED)) as wire,
            running(a.through(wire, b)) as first,
            running(b.configuration(a)) as second,
            a.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            tell(second, Migration.INCOMING)
            handing = asyncio.ensure_future(hand_over(first, to))
            await until(lambda: SESSION in wire.commands)
            (listed,) = first.daemon.handoffs.status()
            assert (listed["phase"], listed["peer"]) == ("preparing", to)
            wire.gate.set()
            assert (await handing).to == "b"

    run(scenario())


def test_where_no_host_is_let_in_no_guest_is_awaited(place: Path) -> None:
    async def scenario() -> None:
        async with running(Host(place, "a", handoff_listen=()).configuration()) as alone:
            with pytest.raises(HandoffOff, match=r"^db can't come here, for no host is let in: .* \[handoff\] listen$"):
                await ask(alone, alone.client.expect, "db")
            tell(alone, Migration.INCOMING)
            assert phases(alone) == []

    run(scenario())


def test_a_daemon_whose_address_is_taken_runs_all_the_same_and_says_so(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        with socket.create_server(tuple(a.address)):
            async with running(a.configuration(b)) as alone:
                handoff = (await alone.host())["handoff"]
                assert (handoff["listen"], handoff["peers"]) == ([], ["b"])
                assert handoff["failing"].startswith(f"[handoff] listen {a.address}: Address already in use")
                assert told(alone) == [f"no peer is let in: {handoff['failing']}"]
        async with running(a.configuration(b)) as alone:
            listen = [{"address": str(a.address), "security": "plain-text", "connections": 0}]
            assert (await alone.host())["handoff"] == {"listen": listen, "failing": None, "peers": ["b"]}

    run(scenario())
    ready = [each for each in caplog.messages if each.startswith("ready: ")]
    assert [each.endswith(f"; peers come in at {listening_at(ready)}") for each in ready] == [False, True]


def listening_at(ready: list[str]) -> str:
    return ready[-1].rpartition(" ")[2]


@pytest.mark.parametrize("handoffs", [True, False])
def test_plain_text_is_warned_of_at_the_start_and_at_a_reload_where_there_are_hand_offs(
    place: Path, caplog: pytest.LogCaptureFixture, handoffs: bool
) -> None:
    async def scenario() -> None:
        a = Host(place, "a")
        configuration = a.configuration() if handoffs else make_configuration(a.place)
        async with running(configuration, lambda: configuration) as alone:
            assert sum("security is plain-text" in each for each in caplog.messages) == int(handoffs)
            alone.daemon.reload()
            await until(lambda: [each for each in alone.daemon.feed.since(0)[1] if each.kind == "configuration"])

    run(scenario())
    assert sum("security is plain-text" in each for each in caplog.messages) == 2 * int(handoffs)
