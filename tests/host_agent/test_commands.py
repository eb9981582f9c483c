from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest

from common.catalogue import CATALOGUE, Direction
from common.handoff.spec1 import FLOOR_LIMIT
from common.messages import Capabilities
from host_agent import commands as module
from host_agent.commands import Answer, Commands, Moved, Stopping, TimedOut
from host_agent.guest import Guest
from host_agent.known import Frozen, InFlight
from host_agent.refusals import LIMIT

from .commanding import EVENT, RUN, Bench, play
from .guests import CAPABILITIES

# ---- Sending ----


@pytest.mark.parametrize("agent", [3, 4, 5])
def test_a_command_with_a_completion_is_written_with_a_reply_id_and_answered(agent: int) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=agent)
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        assert (sent.name, sent.agreed) == ("lifecycle-event", agent)
        assert bench.sent() == [{"__name__": "lifecycle-event", "reply_id": sent.reply_id, "type": "before_migration"}]
        command = InFlight(str(sent.reply_id), "lifecycle-event", 1000.0, 1030.0)
        assert guest.in_flight == {sent.reply_id: command}
        assert bench.notes.kept == {sent.reply_id: ("web-1", command)}
        assert len(bench.commands) == 1
        await bench.loop.advance(0.25)
        assert sent.answer is not None
        assert not sent.answer.done()
        bench.complete(guest, sent.reply_id, output="all is well")
        assert await sent.answer == Answer(True, {"output": "all is well"}, 0.25)
        assert not guest.in_flight
        assert not bench.notes.kept
        assert len(bench.commands) == 0
        assert bench.meter.round_trips.total == 0.25
        assert bench.told("command", "completion") == [
            ("command", "web-1", {"name": "lifecycle-event", "reply_id": sent.reply_id}),
            (
                "completion",
                "web-1",
                {"name": "lifecycle-event", "reply_id": sent.reply_id, "done": True, "late": False},
            ),
        ]

    play(scenario)


def test_a_guest_may_answer_that_it_could_not() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=3)
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        bench.complete(guest, sent.reply_id, done=False, reason="no hooks")
        assert sent.answer is not None
        assert await sent.answer == Answer(False, {"reason": "no hooks"}, 0.0)
        ((_, _, details),) = bench.told("completion")
        assert details["done"] is False

    play(scenario)


def test_what_a_completion_says_reaches_whoever_asked_as_it_came() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        done, failed = (bench.commands.send(guest, "users", {}) for _ in range(2))
        said: dict[str, Any] = {"result": {"users": [{"name": "\u00fc"}], "more": None}, "of-the-future": 1}
        bench.complete(guest, done.reply_id, **said)
        why = {"code": "of-the-future", "message": "no"}
        bench.complete(guest, failed.reply_id, done=False, error=why, result={})
        assert done.answer is not None
        assert failed.answer is not None
        assert await done.answer == Answer(True, said, 0.0)
        assert await failed.answer == Answer(False, {"error": why, "result": {}}, 0.0)

    play(scenario)


COMMANDS: dict[str, dict[str, Any]] = {
    "lock-screen": {},
    "log-off": {},
    "login": {"username": "u", "password": "p"},
    "shutdown": {"timeout": 5, "message": "bye", "reboot": "False"},
    "hibernate": {"state": "mem"},
    "echo": {"anything": [1, 2]},
    "set-number-of-cpus": {"count": 4},
}


@pytest.mark.parametrize("agent", [0, 1, 2, 3])
def test_a_guest_of_the_first_versions_is_sent_what_it_always_was(agent: int) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=agent)
        known = [name for name in COMMANDS if agent or name != "set-number-of-cpus"]
        for name in known:
            assert bench.commands.send(guest, name, COMMANDS[name]) == (name, agent, None, None)
        assert bench.sent() == [{"__name__": name, **COMMANDS[name]} for name in known]
        assert not guest.in_flight
        assert not bench.notes.kept
        assert bench.told("command") == [("command", "web-1", {"name": name, "reply_id": None}) for name in known]

    play(scenario)


@pytest.mark.parametrize("agent", [4, 5])
def test_a_guest_of_a_later_version_answers_every_command(agent: int) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=agent)
        sent = [bench.commands.send(guest, name, COMMANDS[name]) for name in COMMANDS]
        assert bench.sent() == [{"__name__": each.name, **COMMANDS[each.name], "reply_id": each.reply_id} for each in sent]
        assert list(guest.in_flight) == [each.reply_id for each in sent]
        for each in sent:
            bench.complete(guest, each.reply_id)
            assert each.answer is not None
            assert (await each.answer).done

    play(scenario)


def test_echo_takes_whatever_arguments() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.send(bench.guest(agent=3), "echo", {"reply_id": "mine", "anything": [1, 2]})
        assert bench.sent() == [{"__name__": "echo", "reply_id": "mine", "anything": [1, 2]}]
        refusal = bench.refused(bench.guest("web-2"), "echo", {"reply_id": "mine"})
        assert (refusal.kind, refusal.members) == ("invalid-arguments", {"argument": "reply_id"})
        assert str(refusal) == "echo: reply_id is given by the daemon: leave it out"

    play(scenario)


def test_no_two_commands_have_the_same_reply_id_in_whatever_run() -> None:
    async def scenario(bench: Bench) -> None:
        guest, other = bench.guest(), bench.guest("web-2")
        another_run = Commands(bench.loop, "fedcba9876543210" + RUN[16:], bench.meter, bench.feed)
        sent = [
            each.send(who, "lifecycle-event", EVENT, 30.0).reply_id
            for each in (bench.commands, another_run)
            for who in (guest, other, guest)
        ]
        assert len(set(sent)) == 6
        assert sent[0] == "0123456789abcdef-1"

    play(scenario)


@pytest.mark.parametrize(
    ("name", "arguments", "deadline"),
    [
        ("users", {}, 1030.0),
        ("exec", {"argv": ["true"], "timeout": 0.5}, 1010.5),
        ("exec", {"argv": ["true"], "timeout": 600}, 1610.0),
        ("exec", {"argv": ["true"], "timeout": 2_592_000}, 87_410.0),
        ("shutdown", {"timeout": 0, "message": "", "reboot": "True"}, 1030.0),
        ("echo", {"timeout": 1}, 1030.0),
    ],
)
def test_a_command_without_a_deadline_gets_one_by_what_it_may_take(
    name: str, arguments: dict[str, Any], deadline: float
) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(capabilities=Capabilities({"users": True, "exec": True}, ()))
        bench.commands.send(guest, name, arguments)
        bench.commands.send(guest, name, arguments, 2.5)
        assert [each.deadline for each in guest.in_flight.values()] == [deadline, 1002.5]

    play(scenario)


# ---- Refusing; see also test_refusals ----


@pytest.mark.parametrize("name", ["reboot", "", "heartbeat", "completion", "refresh", "api-version"])
def test_what_is_no_command_is_refused(name: str) -> None:
    async def scenario(bench: Bench) -> None:
        refusal = bench.refused(bench.guest(), name)
        assert str(refusal) == f"no command is called {name!r}: 'vmaccord messages' shows all"
        assert (refusal.kind, refusal.members) == ("no-such-command", {})

    play(scenario)


@pytest.mark.parametrize(
    ("name", "arguments", "argument", "text"),
    [
        (
            "lifecycle-event",
            {**EVENT, "tpye": "x", "when": 1},
            "tpye",
            "lifecycle-event has no argument 'tpye'; allowed: failure, type",
        ),
        (
            "lifecycle-event",
            {**EVENT, "reply_id": "mine"},
            "reply_id",
            "lifecycle-event has no argument 'reply_id'; allowed: failure, type",
        ),
        ("lock-screen", {"now": True}, "now", "lock-screen has no argument 'now'; allowed: none"),
        ("lifecycle-event", {}, "type", "lifecycle-event: type: missing"),
        ("set-number-of-cpus", {"count": "4"}, "count", "set-number-of-cpus: count: str instead of int"),
        ("lifecycle-event", {**EVENT, "failure": "no"}, "failure", "lifecycle-event: failure: of a wrong type"),
        ("file-read", {"path": "/x", "offset": -1}, "offset", "file-read: offset: a negative number"),
        ("file-write", {"path": "/x", "content": "?"}, "content", "file-write: content: no base64"),
    ],
)
def test_arguments_that_the_table_does_not_have_so_are_refused(
    name: str, arguments: dict[str, Any], argument: str, text: str
) -> None:
    async def scenario(bench: Bench) -> None:
        refusal = bench.refused(bench.guest(), name, arguments)
        assert (refusal.kind, str(refusal)) == ("invalid-arguments", text)
        assert refusal.members == {"argument": argument}

    play(scenario)


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("name", "arguments", "secret"),
    [
        ("login", {"username": "me"}, "password"),
        ("set-password", {"user": "me"}, "password"),
        ("exec", {"argv": ["true"], "timeout": 1}, "input"),
    ],
)
def test_a_secret_is_told_to_the_guest_and_to_nobody_else(
    name: str, arguments: dict[str, Any], secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(bench: Bench) -> None:
        guest = bench.guest(capabilities=Capabilities(dict.fromkeys(CAPABILITIES.commands, True), ()))
        for wrong in (SECRET * 200_000, [SECRET]):
            refusal = bench.refused(guest, name, {**arguments, secret: wrong})
            assert refusal.kind == "invalid-arguments"
            assert SECRET not in f"{refusal} {refusal.members}"
        bench.commands.send(guest, name, {**arguments, secret: SECRET})
        assert SECRET in str(bench.sent())
        assert SECRET not in f"{bench.notes.kept} {guest.in_flight} {bench.feed.since(0)} {guest.describe(0.0)}"

    play(scenario)
    assert SECRET not in caplog.text


def test_arguments_that_no_line_can_hold_are_refused() -> None:
    async def scenario(bench: Bench) -> None:
        refusal = bench.refused(bench.guest(), "lifecycle-event", {"type": "x" * 1_100_000})
        assert refusal.kind == "invalid-arguments"
        assert str(refusal).startswith("lifecycle-event: 1100")
        assert str(refusal).endswith(" bytes, a line must stay below 1048576")

    play(scenario)


def test_a_daemon_that_stops_sends_nothing_more() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        await bench.commands.drain(5.0)
        refusal = bench.refused(guest)
        assert refusal.kind == "stopping"
        assert str(refusal) == "the daemon stops: nothing was sent; try again when it runs again"

    play(scenario)


def test_what_negotiates_is_no_command() -> None:
    to_guest = {row.name for row in CATALOGUE.rows if row.direction is Direction.TO_GUEST}
    assert {row.name for row in CATALOGUE.commands} == to_guest - {"refresh", "api-version"}


# ---- Completions, and those that do not come ----


def test_a_completion_of_another_guest_does_not_count() -> None:
    async def scenario(bench: Bench) -> None:
        asked, other = bench.guest("web-1"), bench.guest("web-2")
        sent = bench.commands.send(asked, "lifecycle-event", EVENT, 30.0)
        bench.complete(other, sent.reply_id)
        assert sent.answer is not None
        assert not sent.answer.done()
        assert (bench.meter.unknown, bench.meter.late) == (1, 0)
        assert bench.told("completion") == []
        assert sent.reply_id in asked.in_flight
        assert sent.reply_id in bench.notes.kept
        bench.complete(asked, sent.reply_id)
        assert (await sent.answer).done

    play(scenario)


def test_a_command_is_waited_for_up_to_its_deadline() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        short = bench.commands.send(guest, "lifecycle-event", EVENT, 10.0)
        long = bench.commands.send(guest, "lifecycle-event", EVENT, 20.0)
        assert short.answer is not None
        assert long.answer is not None
        await bench.loop.advance(9.9)
        assert not short.answer.done()
        await bench.loop.advance(0.2)
        with pytest.raises(TimedOut):
            await short.answer
        assert not long.answer.done()
        assert list(guest.in_flight) == list(bench.notes.kept) == [long.reply_id]
        assert bench.meter.timeouts == 1
        assert bench.told("timed-out") == [
            ("timed-out", "web-1", {"name": "lifecycle-event", "reply_id": short.reply_id}),
        ]

    play(scenario)


def test_an_answered_command_does_not_time_out() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 10.0)
        bench.complete(guest, sent.reply_id)
        await bench.loop.advance(60.0)
        assert bench.meter.timeouts == 0
        assert bench.told("timed-out") == []

    play(scenario)


def test_a_late_completion_is_told_and_counted_once() -> None:
    async def scenario(bench: Bench) -> None:
        guest, other = bench.guest(), bench.guest("web-2")
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 10.0)
        await bench.loop.advance(11.0)
        bench.complete(other, sent.reply_id)
        assert (bench.meter.late, bench.meter.unknown) == (0, 1)
        bench.complete(guest, sent.reply_id)
        assert (bench.meter.late, bench.meter.unknown) == (1, 1)
        assert bench.told("completion") == [
            ("completion", "web-1", {"name": None, "reply_id": sent.reply_id, "done": True, "late": True}),
        ]
        bench.complete(guest, sent.reply_id)
        assert (bench.meter.late, bench.meter.unknown) == (1, 2)
        assert len(bench.told("completion")) == 1
        assert sum(bench.meter.round_trips.counts) == 0

    play(scenario)


def test_a_completion_that_comes_twice_reaches_whoever_asked_once() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {})
        bench.complete(guest, sent.reply_id, result={"users": []})
        bench.complete(guest, sent.reply_id, done=False)
        assert sent.answer is not None
        assert await sent.answer == Answer(True, {"result": {"users": []}}, 0.0)
        assert len(bench.told("completion")) == 1
        assert (bench.meter.unknown, bench.meter.late) == (1, 0)

    play(scenario)


def test_a_guest_that_is_called_otherwise_now_is_still_the_one_that_was_asked() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        late = bench.commands.send(guest, "users", {}, 1.0)
        await bench.loop.advance(2.0)
        in_time = bench.commands.send(guest, "users", {}, 30.0)
        guest.renamed("shop")
        bench.written["shop"] = []
        other = bench.guest("web-1")
        for each in (late, in_time):
            bench.complete(other, each.reply_id)
        assert (bench.meter.late, bench.meter.unknown) == (0, 2)
        for each in (late, in_time):
            bench.complete(guest, each.reply_id)
        assert (bench.meter.late, bench.meter.unknown) == (1, 2)
        assert in_time.answer is not None
        assert (await in_time.answer).done
        assert [(who, details["late"]) for _, who, details in bench.told("completion")] == [("shop", True), ("shop", False)]

    play(scenario)


def test_a_guest_that_is_forgotten_is_not_kept_for_what_it_did_not_answer() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {}, 1.0)
        await bench.loop.advance(2.0)
        bench.commands.forget(guest)
        kept = weakref.ref(guest)
        del guest
        gc.collect()
        assert kept() is None
        bench.complete(bench.guest("web-1"), sent.reply_id)
        assert (bench.meter.late, bench.meter.unknown) == (0, 1)

    play(scenario)


def test_a_completion_of_which_nobody_knows_is_counted_only() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        for number in range(1000):
            bench.complete(guest, f"made up {number}")
        assert (bench.meter.late, bench.meter.unknown) == (0, 1000)
        assert bench.told("completion") == []

    play(scenario)


def test_only_so_many_missed_deadlines_are_remembered_and_the_latest_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERDUE_LIMIT", 2)

    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = [bench.commands.send(guest, "lifecycle-event", EVENT, 10.0 + number) for number in range(3)]
        await bench.loop.advance(60.0)
        for each in sent:
            bench.complete(guest, each.reply_id)
        assert (bench.meter.late, bench.meter.unknown) == (2, 1)
        assert [details["reply_id"] for _, _, details in bench.told("completion")] == [each.reply_id for each in sent[1:]]

    play(scenario)


def test_a_command_outlives_the_channel_on_which_it_was_sent() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        bench.reconnect(guest, agent=3)
        await bench.loop.advance(20.0)
        bench.complete(guest, sent.reply_id)
        assert sent.answer is not None
        assert (await sent.answer).after == 20.0

    play(scenario)


def test_who_waits_no_longer_does_not_end_the_command() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 10.0)
        late = bench.commands.send(guest, "lifecycle-event", EVENT, 10.0)
        for each in (sent, late):
            assert each.answer is not None
            each.answer.cancel()
        await bench.loop.advance()
        bench.complete(guest, sent.reply_id)
        assert len(bench.told("completion")) == 1
        await bench.loop.advance(11.0)
        assert len(bench.told("timed-out")) == 1
        assert not guest.in_flight
        assert not bench.notes.kept

    play(scenario)


def test_an_answer_that_nobody_takes_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.send(bench.guest(), "lifecycle-event", EVENT, 10.0)
        bench.commands.send(bench.guest("web-2"), "lifecycle-event", EVENT, 60.0)
        await bench.loop.advance(11.0)
        await bench.loop.advance()
        draining = asyncio.ensure_future(bench.commands.drain(1.0))
        await bench.loop.advance()
        await bench.loop.advance(2.0)
        await draining

    play(scenario)
    gc.collect()
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_nobody_waits_for_a_guest_that_is_forgotten() -> None:
    async def scenario(bench: Bench) -> None:
        guest, other = bench.guest(), bench.guest("web-2")
        sent = [bench.commands.send(guest, "lifecycle-event", EVENT, 30.0) for _ in range(3)]
        kept = bench.commands.send(other, "lifecycle-event", EVENT, 30.0)
        bench.commands.forget(guest)
        for each in sent:
            assert each.answer is not None
            with pytest.raises(TimedOut):
                await each.answer
        assert guest.in_flight == {}
        assert list(bench.notes.kept) == [kept.reply_id]
        await bench.loop.advance(60.0)
        assert bench.meter.timeouts == 1

    play(scenario)


def test_without_a_memory_nothing_is_remembered_and_everything_works() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands = Commands(bench.loop, RUN, bench.meter, bench.feed)
        guest = bench.guest()
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        bench.complete(guest, sent.reply_id)
        assert sent.answer is not None
        assert (await sent.answer).done
        assert bench.notes.kept == {}

    play(scenario)


# ---- Progress ----


def test_it_is_told_that_a_command_is_still_in_flight_less_and_less_often() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {}, 300.0)
        quick = bench.commands.send(guest, "users", {}, 5.0)
        while bench.commands:
            await bench.loop.advance(0.5)
        progress = bench.told("progress")
        assert [details["waited_s"] for _, _, details in progress] == [5.0, 15.0, 35.0, 75.0, 135.0, 195.0, 255.0]
        assert progress[0] == (
            "progress",
            "web-1",
            {"name": "users", "reply_id": sent.reply_id, "waited_s": 5.0, "left_s": 295.0},
        )
        assert [details["reply_id"] for _, _, details in bench.told("timed-out")] == [quick.reply_id, sent.reply_id]

    play(scenario)


def test_a_loop_that_was_held_up_tells_progress_once() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {}, 300.0)
        await bench.loop.advance(100.0)
        await bench.loop.advance(36.0)
        assert [details["waited_s"] for _, _, details in bench.told("progress")] == [100.0, 136.0]
        bench.complete(guest, sent.reply_id)
        await bench.loop.advance(500.0)
        assert len(bench.told("progress")) == 2

    play(scenario)


# ---- Once more on the next channel ----


def test_a_command_is_sent_again_on_the_next_channel_and_answered_once() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {})
        bench.reconnect(guest)
        await bench.loop.advance(1.0)
        assert len(bench.sent()) == 1
        bench.offer(guest)
        await bench.loop.advance()
        first, again = bench.written["web-1"]
        assert first == again
        assert bench.told("resent") == [("resent", "web-1", {"name": "users", "reply_id": sent.reply_id})]
        bench.offer(guest)
        await bench.loop.advance()
        assert len(bench.sent()) == 2
        for _ in range(2):
            bench.complete(guest, sent.reply_id)
        assert sent.answer is not None
        assert await sent.answer == Answer(True, {}, 1.0)
        assert len(bench.told("completion")) == 1
        bench.reconnect(guest)
        bench.offer(guest)
        await bench.loop.advance()
        assert len(bench.sent()) == 2

    play(scenario)


def test_what_was_answered_on_the_next_channel_before_it_says_what_it_carries_out_is_not_sent_again() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {})
        bench.reconnect(guest)
        bench.complete(guest, sent.reply_id)
        bench.offer(guest)
        await bench.loop.advance()
        assert len(bench.sent()) == 1

    play(scenario)


def test_only_a_guest_that_carries_nothing_out_twice_is_sent_a_command_twice() -> None:
    async def scenario(bench: Bench) -> None:
        plain = CAPABILITIES.commands
        names = ["another run", "not then", "not now", "unsaid then", "nothing now", "older now"]
        guests = {name: bench.guest(name) for name in names}
        guests["not then"] = bench.guest("not then", capabilities=Capabilities(plain, ()))
        guests["unsaid then"] = bench.guest("unsaid then", capabilities=None)
        for guest in guests.values():
            bench.commands.send(guest, "lifecycle-event", EVENT)
            bench.reconnect(
                guest,
                agent=3 if guest.name == "older now" else 5,
                agent_id="agent-2" if guest.name == "another run" else "agent-1",
            )
            if guest.name != "nothing now":
                bench.offer(guest, Capabilities(plain, ()) if guest.name == "not now" else CAPABILITIES)
        await bench.loop.advance()
        assert {name: len(bench.sent(name)) for name in guests} == dict.fromkeys(guests, 1)
        assert bench.told("resent") == []

    play(scenario)


def test_a_command_that_must_not_be_sent_now_is_not_sent_again() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.send(guest, "users", {})
        bench.reconnect(guest)
        bench.offer(guest, Capabilities({"users": False}, CAPABILITIES.features))
        await bench.loop.advance()
        assert len(bench.sent()) == 1
        bench.offer(guest)
        await bench.loop.advance()
        assert len(bench.sent()) == 2

    play(scenario)


@pytest.mark.parametrize(("name", "arguments"), [("set-time", {"epoch_ns": 1}), ("filesystem-freeze", {"thaw_after": 9.0})])
def test_what_means_the_moment_is_not_sent_again_and_its_completion_still_counts(
    name: str, arguments: dict[str, Any]
) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, name, arguments)
        bench.reconnect(guest)
        bench.offer(guest)
        await bench.loop.advance()
        assert len(bench.sent()) == 1
        bench.complete(guest, sent.reply_id)
        assert sent.answer is not None
        assert (await sent.answer).done

    play(scenario)


def test_what_a_guest_that_does_not_read_may_not_have_got_is_sent_again_when_it_reads() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        for _ in range(3):
            bench.commands.send(guest, "users", {})
        bench.reconnect(guest)
        guest.session.pause_writing()
        bench.offer(guest)
        await bench.loop.advance(5.0)
        assert len(bench.sent()) == 3
        guest.session.resume_writing(bench.loop.now)
        await bench.loop.advance(1.0)
        assert len(bench.sent()) == 6
        await bench.loop.advance(5.0)
        assert len(bench.sent()) == 6

    play(scenario)


def test_a_channel_that_ends_before_a_command_is_sent_again_takes_nothing_along() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.send(guest, "users", {})
        bench.reconnect(guest)
        bench.offer(guest)
        guest.disconnected("gone", bench.loop.now)
        await bench.loop.advance()
        assert len(bench.sent()) == 1

    play(scenario)


def test_a_daemon_that_stops_sends_nothing_again() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.send(guest, "users", {})
        await bench.commands.drain(0.0)
        bench.reconnect(guest)
        bench.offer(guest)
        await bench.loop.advance()
        assert len(bench.sent()) == 1

    play(scenario)


def test_a_guest_whose_channels_end_without_end_is_not_sent_a_command_without_end() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.send(guest, "users", {})
        for _ in range(50):
            bench.reconnect(guest)
            bench.offer(guest)
            await bench.loop.advance()
        assert len(bench.sent()) == 1 + module.REPEATS_LIMIT

    play(scenario)


# ---- Over a restart ----


def restored(bench: Bench, *in_flight: InFlight) -> Guest:
    guest = bench.guest()
    guest.restore({}, (), in_flight)
    for each in in_flight:
        bench.notes.kept[each.reply_id] = "web-1", each
    bench.commands.resume(guest)
    return guest


def test_a_command_of_an_earlier_run_is_found_by_its_completion() -> None:
    async def scenario(bench: Bench) -> None:
        guest = restored(bench, InFlight("old-1", "lifecycle-event", 900.0, 1030.0))
        assert len(bench.commands) == 1
        bench.complete(bench.guest("web-2"), "old-1")
        bench.complete(guest, "old-1")
        assert (bench.meter.unknown, bench.meter.late) == (1, 0)
        assert bench.told("completion") == [
            ("completion", "web-1", {"name": "lifecycle-event", "reply_id": "old-1", "done": True, "late": False}),
        ]
        assert bench.meter.round_trips.total == 100.0
        assert not guest.in_flight
        assert not bench.notes.kept

    play(scenario)


def test_a_command_of_an_earlier_run_makes_progress_and_is_not_sent_again() -> None:
    async def scenario(bench: Bench) -> None:
        guest = restored(bench, InFlight("old-1", "users", 990.0, 1290.0))
        bench.reconnect(guest)
        bench.offer(guest)
        await bench.loop.advance(6.0)
        assert bench.sent() == []
        assert [details["waited_s"] for _, _, details in bench.told("progress")] == [16.0]

    play(scenario)


def test_a_command_whose_deadline_passed_meanwhile_times_out_and_its_completion_is_late() -> None:
    async def scenario(bench: Bench) -> None:
        guest = restored(bench, InFlight("old-1", "lifecycle-event", 900.0, 990.0))
        await bench.loop.advance()
        assert bench.told("timed-out") == [("timed-out", "web-1", {"name": "lifecycle-event", "reply_id": "old-1"})]
        assert not guest.in_flight
        assert not bench.notes.kept
        bench.complete(guest, "old-1")
        assert (bench.meter.unknown, bench.meter.late) == (0, 1)

    play(scenario)


# ---- At the end ----


def test_the_end_waits_for_nothing_where_nothing_is_in_flight() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.commands.drain(5.0)

    play(scenario)


def test_the_end_waits_for_what_is_in_flight_and_no_longer() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = [bench.commands.send(guest, "lifecycle-event", EVENT, 30.0) for _ in range(2)]
        draining = asyncio.ensure_future(bench.commands.drain(5.0))
        await bench.loop.advance(4.0)
        bench.complete(guest, sent[0].reply_id)
        await bench.loop.advance()
        assert not draining.done()
        bench.complete(guest, sent[1].reply_id)
        await draining
        for each in sent:
            assert each.answer is not None
            assert (await each.answer).after == 4.0

    play(scenario)


def test_what_is_not_answered_before_the_end_is_left_to_the_next_run() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        draining = asyncio.ensure_future(bench.commands.drain(5.0))
        await bench.loop.advance()
        await bench.loop.advance(5.1)
        await draining
        assert sent.answer is not None
        with pytest.raises(Stopping):
            await sent.answer
        await bench.loop.advance(60.0)
        assert list(bench.notes.kept) == list(guest.in_flight) == [sent.reply_id]
        assert bench.told("timed-out") == []

    play(scenario)


def test_what_is_answered_while_the_rest_of_the_daemon_ends_still_counts() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = [bench.commands.send(guest, "lifecycle-event", EVENT, 30.0) for _ in range(2)]
        await bench.commands.drain(0.0)
        await bench.commands.drain(0.0)
        bench.complete(guest, sent[0].reply_id)
        assert bench.meter.unknown == 0
        assert len(bench.told("completion")) == 1
        assert list(bench.notes.kept) == [sent[1].reply_id]
        bench.commands.forget(guest)
        assert bench.notes.kept == {}

    play(scenario)


# ---- Freezing ----

FREEZE = {"thaw_after": 60.0, "mountpoints": ["/", "/srv"]}


def test_a_guest_is_taken_for_frozen_from_the_command_on_until_it_thaws_by_itself() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "filesystem-freeze", FREEZE)
        assert guest.frozen == Frozen(("/", "/srv"), 1060.0)
        await bench.loop.advance(5.0)
        bench.complete(guest, sent.reply_id, result={"mountpoints": ["/"]})
        assert guest.frozen == guest.frozen_at(1064.9) == Frozen(("/",), 1065.0)
        assert guest.frozen_at(1065.0) is None

    play(scenario)


@pytest.mark.parametrize("result", [None, {}, {"mountpoints": 7}, {"mountpoints": ["/", None]}])
def test_where_the_guest_does_not_say_what_it_froze_it_is_what_was_asked_for(result: Any) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        for arguments, mountpoints in ((FREEZE, ("/", "/srv")), ({"thaw_after": 60.0}, ())):
            sent = bench.commands.send(guest, "filesystem-freeze", arguments)
            bench.complete(guest, sent.reply_id, **({} if result is None else {"result": result}))
            assert guest.frozen == Frozen(mountpoints, 1060.0)

    play(scenario)


def test_a_freeze_that_failed_has_frozen_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "filesystem-freeze", FREEZE)
        bench.complete(guest, sent.reply_id, done=False)
        assert guest.frozen is None

    play(scenario)


def test_a_second_freeze_that_fails_leaves_frozen_what_is() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.complete(guest, bench.commands.send(guest, "filesystem-freeze", FREEZE).reply_id)
        frozen = guest.frozen
        second = bench.commands.send(guest, "filesystem-freeze", {"thaw_after": 900.0})
        assert guest.frozen is frozen
        bench.complete(guest, second.reply_id, done=False)
        assert guest.frozen is frozen
        await bench.loop.advance(61.0)
        third = bench.commands.send(guest, "filesystem-freeze", {"thaw_after": 900.0})
        bench.complete(guest, third.reply_id)
        assert guest.frozen == Frozen((), 1961.0)

    play(scenario)


def test_a_guest_that_was_thawed_is_not_frozen_and_one_that_could_not_be_is() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.complete(guest, bench.commands.send(guest, "filesystem-freeze", FREEZE).reply_id)
        bench.complete(guest, bench.commands.send(guest, "users", {}).reply_id)
        bench.complete(guest, bench.commands.send(guest, "filesystem-thaw", {}).reply_id, done=False)
        assert guest.frozen is not None
        bench.complete(guest, bench.commands.send(guest, "filesystem-thaw", {}).reply_id)
        assert guest.frozen is None

    play(scenario)


# ---- From host to host ----

TRANSFER = "0123456789abcdef" * 2


def test_what_is_in_flight_while_a_guest_moves_is_answered_as_ever() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {})
        bench.commands.hold(guest, "host-b")
        assert (guest.moving, guest.moving_to) == (True, "host-b")
        bench.complete(guest, sent.reply_id)
        assert sent.answer is not None
        assert (await sent.answer).done

    play(scenario)


def test_what_was_lost_while_a_guest_moved_is_sent_again_as_soon_as_it_stays() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.send(guest, "users", {})
        bench.commands.hold(guest)
        bench.reconnect(guest)
        bench.offer(guest)
        await bench.loop.advance()
        assert len(bench.sent()) == 1
        bench.commands.release(guest)
        await bench.loop.advance()
        assert not guest.moving
        assert [each["__name__"] for each in bench.sent()] == ["users", "users"]
        bench.commands.send(guest, "users", {})

    play(scenario)


def test_whoever_waits_for_a_guest_that_moved_is_told_where_to() -> None:
    async def scenario(bench: Bench) -> None:
        guest, other = bench.guest(), bench.guest("web-2")
        sent = [bench.commands.send(guest, "users", {}) for _ in range(2)]
        elsewhere = bench.commands.send(other, "users", {})
        bench.commands.hand_over(guest, "host-b", TRANSFER)
        for each in sent:
            assert each.answer is not None
            with pytest.raises(Moved, match=r"^moved to host-b$") as moved:
                await each.answer
            assert (moved.value.to, moved.value.transfer, moved.value.reply_id) == ("host-b", TRANSFER, each.reply_id)
        assert not guest.in_flight
        assert guest.moved_to == "host-b"
        assert list(bench.notes.kept) == list(other.in_flight) == [elsewhere.reply_id]
        assert len(bench.commands) == 1
        await bench.loop.advance(600.0)
        assert [guest for _, guest, _ in bench.told("timed-out")] == ["web-2"]

    play(scenario)


def test_nobody_needs_to_wait_for_a_guest_that_moved() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {})
        assert sent.answer is not None
        sent.answer.cancel()
        bench.commands.hand_over(guest, "host-b", TRANSFER)
        assert not guest.in_flight

    play(scenario)


def test_a_command_of_another_host_is_answered_and_that_is_remembered_for_a_while() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        command = InFlight("ffffffffffffffff-7", "users", 1000.0, 1020.0)
        bench.commands.adopt(guest, [command])
        assert guest.in_flight == {command.reply_id: command}
        assert bench.notes.kept == {command.reply_id: ("web-1", command)}
        assert bench.commands.outcome(command.reply_id) is None
        await bench.loop.advance(2.0)
        bench.complete(guest, command.reply_id, result={"users": []})
        assert not bench.notes.kept
        answer = Answer(True, {"result": {"users": []}}, 2.0)
        await bench.loop.advance(module.OUTCOMES_PERIOD - 0.1)
        assert bench.commands.outcome(command.reply_id) == answer
        await bench.loop.advance(0.1)
        assert bench.commands.outcome(command.reply_id) is None

    play(scenario)


def test_where_nothing_is_kept_over_restarts_another_hosts_commands_are_waited_for_all_the_same() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        commands = Commands(bench.loop, RUN, bench.meter, bench.feed)
        commands.adopt(guest, [InFlight("old-1", "users", 1000.0, 1020.0)])
        assert list(guest.in_flight) == ["old-1"]
        commands.hand_over(guest, "host-b", TRANSFER)
        assert len(commands) == 0

    play(scenario)


def test_of_a_command_of_this_run_nothing_is_remembered() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "users", {})
        bench.complete(guest, sent.reply_id)
        assert bench.commands.outcome(str(sent.reply_id)) is None

    play(scenario)


def test_how_a_command_of_an_earlier_run_ended_is_remembered() -> None:
    async def scenario(bench: Bench) -> None:
        guest = restored(bench, InFlight("old-1", "users", 900.0, 1030.0))
        bench.complete(guest, "old-1", done=False)
        assert bench.commands.outcome("old-1") == Answer(False, {}, 100.0)

    play(scenario)


def test_only_the_latest_outcomes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTCOMES_LIMIT", 3)

    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.adopt(guest, [InFlight(str(number), "users", 1000.0, 9000.0) for number in range(6)])
        for number in range(5):
            bench.complete(guest, str(number))
        assert [number for number in range(5) if bench.commands.outcome(str(number))] == [2, 3, 4]
        await bench.loop.advance(module.OUTCOMES_PERIOD)
        bench.complete(guest, "5")
        assert list(bench.commands._outcomes) == ["5"]

    play(scenario)


def test_a_command_of_another_host_is_not_waited_for_longer_than_there() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.adopt(guest, [InFlight("ffffffffffffffff-7", "users", 1000.0, 1003.0)])
        await bench.loop.advance(3.1)
        assert not guest.in_flight
        assert len(bench.told("timed-out")) == 1
        assert bench.commands.outcome("ffffffffffffffff-7") is None

    play(scenario)


def test_what_is_waited_for_already_is_not_taken_from_whoever_waits() -> None:
    async def scenario(bench: Bench) -> None:
        guest, other = bench.guest(), bench.guest("web-2")
        sent = bench.commands.send(guest, "users", {})
        bench.commands.adopt(other, [InFlight(str(sent.reply_id), "users", 1000.0, 1020.0)])
        assert not other.in_flight
        bench.complete(guest, sent.reply_id)
        assert sent.answer is not None
        assert (await sent.answer).done

    play(scenario)


def test_of_too_many_commands_of_another_host_the_first_ones_count() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        bench.commands.adopt(guest, (InFlight(str(number), "users", 1000.0, 1020.0) for number in range(LIMIT + 1)))
        assert list(guest.in_flight) == [str(number) for number in range(LIMIT)]
        assert bench.refused(guest, "users", {}).kind == "busy"

    play(scenario)


@pytest.mark.parametrize(("done", "frozen"), [(True, Frozen(("/",), 1062.0)), (False, None)])
def test_a_freeze_that_moved_along_ends_here(done: bool, frozen: Any) -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        guest.frozen = Frozen((), 1060.0)
        bench.commands.adopt(guest, [InFlight("f-1", "filesystem-freeze", 1000.0, 1030.0)])
        await bench.loop.advance(2.0)
        bench.complete(guest, "f-1", done=done, result={"mountpoints": ["/"]})
        assert guest.frozen == frozen

    play(scenario)


def test_numbers_only_rise_from_host_to_host() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        assert bench.commands.highest() == 0
        bench.commands.number_above(41)
        bench.commands.number_above(7)
        assert bench.commands.highest() == 41
        assert bench.commands.send(guest, "users", {}).reply_id == f"{RUN[:16]}-42"
        assert bench.commands.highest() == 42

    play(scenario)


@pytest.mark.parametrize("floor", [module.NUMBERS_LIMIT, FLOOR_LIMIT])
def test_a_number_that_no_host_can_have_given_is_not_believed(floor: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.number_above(floor)
        assert bench.commands.highest() == 0

    play(scenario)


def test_what_an_awaited_guest_answers_early_counts_when_its_command_is_known() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.is_awaited = lambda guest: guest.name == "web-1"
        guest, other = bench.guest(), bench.guest("web-2")
        bench.complete(guest, "old-1", result={"users": []})
        bench.complete(guest, "of nobody")
        bench.complete(other, "old-1")
        assert (bench.meter.unknown, bench.told("completion")) == (1, [])
        await bench.loop.advance(1.0)
        bench.commands.is_awaited = lambda guest: False
        bench.commands.adopt(guest, [InFlight("old-1", "users", 1000.0, 1020.0), InFlight("old-2", "users", 1000.0, 1020.0)])
        assert (list(guest.in_flight), bench.meter.unknown) == (["old-2"], 2)
        assert bench.commands.outcome("old-1") == Answer(True, {"result": {"users": []}}, 1.0)
        bench.commands.adopt(guest, [InFlight("of nobody", "users", 1000.0, 1020.0)])
        assert list(guest.in_flight) == ["old-2", "of nobody"]

    play(scenario)


def test_of_what_an_awaited_guest_answers_early_only_the_latest_is_kept() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.is_awaited = lambda guest: True
        guest = bench.guest()
        early = [f"old-{number}" for number in range(module.EARLY_LIMIT + 2)]
        for reply_id in early:
            bench.complete(guest, reply_id)
        bench.commands.is_awaited = lambda guest: False
        bench.commands.adopt(guest, [InFlight(each, "users", 1000.0, 1020.0) for each in early])
        assert list(guest.in_flight) == early[:2]

    play(scenario)


def test_what_is_late_or_known_is_not_early() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.is_awaited = lambda guest: True
        guest = bench.guest()
        late = bench.commands.send(guest, "users", {}, 1.0)
        await bench.loop.advance(1.0)
        bench.complete(guest, late.reply_id)
        known = bench.commands.send(guest, "users", {})
        bench.complete(guest, known.reply_id)
        assert bench.meter.late == 1
        assert not bench.commands._early

    play(scenario)


def test_an_awaited_guest_that_is_forgotten_is_not_kept_for_what_it_answered_early() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.is_awaited = lambda guest: True
        guest = bench.guest()
        bench.complete(guest, "old-1")
        kept = weakref.ref(guest)
        bench.commands.forget(guest)
        del guest
        gc.collect()
        assert kept() is None
        assert not bench.commands._early

    play(scenario)
