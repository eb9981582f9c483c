"""What the engine refuses or fails at, and how operators learn of it."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Optional

import pytest

from host_agent.client import HandoffOff, InDoubt, Moved, Moving, UnreachablePeer
from host_agent.discovery import Migration
from tests.host_agent.guests import speaking
from tests.host_agent.parts import NEWEST, RunningDaemon, make_configuration, run, running, until

from .hosts import (
    COMPLETE,
    SESSION,
    STALLED,
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
)


def told(daemon: RunningDaemon) -> list[str]:
    """What operators are told of hand-offs."""
    return [str(each.details["text"]) for each in daemon.daemon.feed.since(0)[1] if each.kind == "handoff"]


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
