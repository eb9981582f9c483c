from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Optional

import pytest

from common.catalogue import CATALOGUE, Direction
from common.session import HostSession
from common.versions import Version
from host_agent import commands as module
from host_agent.budget import Limits
from host_agent.commands import Answer, Commands, Refused, Stopping, TimedOut, commands, has_completion, refuse
from host_agent.feed import Feed
from host_agent.guest import Guest, Shared
from host_agent.known import InFlight
from host_agent.meter import Meter

from .parts import ManualLoop

RUN = "0123456789abcdef0123456789abcdef"

EVENT = {"type": "before_migration"}

UPGRADE_GUEST = "upgrade vmaccord-guest-agent in web-1"
UPGRADE_HOST = "upgrade vmaccord-host-agent here, or raise its max-api-version"
UPGRADE_BOTH = f"{UPGRADE_GUEST} and {UPGRADE_HOST}"
DOCTOR = "'vmaccord doctor web-1'"


class Notes:
    """A memory that notes what it is told."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, InFlight]] = {}

    def put_command(self, guest: str, in_flight: InFlight) -> None:
        assert in_flight.reply_id not in self.kept
        self.kept[in_flight.reply_id] = guest, in_flight

    def drop_command(self, reply_id: str) -> None:
        del self.kept[reply_id]


class Bench:
    """The commands of one daemon, with guests whose lines are put in by hand."""

    def __init__(self, loop: ManualLoop) -> None:
        self.loop = loop
        self.meter = Meter()
        self.feed = Feed(RUN)
        self.notes = Notes()
        self.commands = Commands(loop, RUN, self.meter, self.feed, self.notes)
        self.written: dict[str, list[bytes]] = {}

    def guest(self, name: str = "web-1", agent: Optional[int] = 3, host: Optional[Version] = Version.V3) -> Guest:
        """A guest that is responsive and supports *agent*; -1: it has not said so yet."""
        guest = self.silent(name, host)
        if agent == -1:
            self.hear(guest, b'{"__name__":"session-startup"}')
        elif agent is None:
            self.hear(guest, b'{"__name__":"heartbeat"}')
        else:
            self.hear(guest, b'{"__name__":"heartbeat","apiVersion":%d}' % agent)
        return guest

    def silent(self, name: str = "web-1", host: Optional[Version] = Version.V3) -> Guest:
        """A guest with an open channel on which nothing was heard."""
        guest = self.absent(name, host)
        guest.found("/port", self.loop.now)

        def flush() -> None:
            self.written[guest.name] += guest.session.data_to_send().splitlines()

        guest.connected(self.loop.now, flush)
        guest.session.data_to_send()
        return guest

    def absent(self, name: str = "web-1", host: Optional[Version] = Version.V3) -> Guest:
        shared = Shared(self.meter, self.feed, Limits(), completed=self.commands.completed)
        self.written[name] = []
        return Guest(name, HostSession(host, RUN), self.loop.now, shared)

    def hear(self, guest: Guest, line: bytes) -> None:
        guest.session.receive_data(line + b"\n", self.loop.now)
        guest.absorb(guest.session.events(), self.loop.now)
        guest.session.data_to_send()

    def complete(self, guest: Guest, reply_id: Optional[str], done: bool = True, **more: Any) -> None:
        line = json.dumps({"__name__": "completion", "reply_id": reply_id, "done": done, **more})
        self.hear(guest, line.encode())

    def told(self, *kinds: str) -> list[tuple[str, Optional[str], dict[str, Any]]]:
        return [(each.kind, each.guest, each.details) for each in self.feed.since(0)[1] if each.kind in kinds]

    def refused(self, guest: Guest, name: str = "lifecycle-event", arguments: Any = None) -> Refused:
        """Why the command is refused, having seen that nothing else became of it."""
        lines, told = list(self.written[guest.name]), self.feed.last
        in_flight, kept, refusals = dict(guest.in_flight), dict(self.notes.kept), self.meter.refusals.copy()
        with pytest.raises(Refused) as refusal:
            self.commands.send(guest, name, EVENT if arguments is None else arguments, 30.0)
        assert self.written[guest.name] == lines
        assert guest.session.data_to_send() == b""
        assert (self.feed.last, guest.in_flight, self.notes.kept) == (told, in_flight, kept)
        assert self.meter.refusals - refusals == {refusal.value.kind: 1}
        return refusal.value


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    loop = ManualLoop()

    async def whole() -> None:
        await scenario(Bench(loop))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.play(whole())


# ---- Sending ----


def test_a_command_with_a_completion_is_written_with_a_reply_id_and_answered() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        assert (sent.name, sent.agreed) == ("lifecycle-event", 3)
        (line,) = bench.written["web-1"]
        assert json.loads(line) == {"__name__": "lifecycle-event", "reply_id": sent.reply_id, "type": "before_migration"}
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
        guest = bench.guest()
        sent = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        bench.complete(guest, sent.reply_id, done=False, error="no hooks")
        assert sent.answer is not None
        assert await sent.answer == Answer(False, {"error": "no hooks"}, 0.0)
        ((_, _, details),) = bench.told("completion")
        assert details["done"] is False

    play(scenario)


def test_a_command_without_a_completion_is_written_and_over() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest(agent=0)
        sent = bench.commands.send(guest, "shutdown", {"timeout": 5, "message": "bye", "reboot": "False"}, 30.0)
        assert sent == ("shutdown", 0, None, None)
        (line,) = bench.written["web-1"]
        assert json.loads(line) == {"__name__": "shutdown", "timeout": 5, "message": "bye", "reboot": "False"}
        assert not guest.in_flight
        assert not bench.notes.kept
        assert bench.told("command") == [("command", "web-1", {"name": "shutdown", "reply_id": None})]

    play(scenario)


def test_echo_takes_whatever_arguments() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commands.send(bench.guest(), "echo", {"reply_id": "mine", "anything": [1, 2]}, 30.0)
        (line,) = bench.written["web-1"]
        assert json.loads(line) == {"__name__": "echo", "reply_id": "mine", "anything": [1, 2]}

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


# ---- Refusing: exactly these sentences ----


@pytest.mark.parametrize("name", ["reboot", "", "heartbeat", "completion", "refresh", "api-version"])
def test_what_is_no_command_is_refused(name: str) -> None:
    async def scenario(bench: Bench) -> None:
        refusal = bench.refused(bench.guest(), name)
        assert str(refusal) == f"no command is called {name!r}: 'vmaccord messages' shows all"
        assert (refusal.kind, refusal.members) == ("no-such-command", {})

    play(scenario)


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
        (-1, 3, "API 0; lifecycle-event needs 3; they have not agreed on more yet: try again in a moment", None),
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
            "guest_supports": None if agent == -1 else agent,
            "host_supports": host,
            "upgrade": upgrade,
        }

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


@pytest.mark.parametrize("password", ["hunter2" * 200_000, ["hunter2"]])
def test_no_refusal_holds_a_password(password: object) -> None:
    async def scenario(bench: Bench) -> None:
        refusal = bench.refused(bench.guest(), "login", {"username": "me", "password": password})
        assert refusal.kind == "invalid-arguments"
        assert "hunter2" not in f"{refusal} {refusal.members}"

    play(scenario)


def test_arguments_that_no_line_can_hold_are_refused() -> None:
    async def scenario(bench: Bench) -> None:
        refusal = bench.refused(bench.guest(), "lifecycle-event", {"type": "x" * 1_100_000})
        assert refusal.kind == "invalid-arguments"
        assert str(refusal).startswith("lifecycle-event: 1100")
        assert str(refusal).endswith(" bytes, a line must stay below 1048576")

    play(scenario)


def test_a_guest_that_has_too_much_to_answer_is_sent_nothing_that_it_must_answer() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        first = bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        for _ in range(99):
            bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)
        refusal = bench.refused(guest)
        assert (refusal.kind, str(refusal)) == ("busy", "web-1 has not answered 100 commands yet: wait for them")
        bench.commands.send(guest, "lock-screen", {}, 30.0)
        bench.commands.send(bench.guest("web-2"), "lifecycle-event", EVENT, 30.0)
        bench.complete(guest, first.reply_id)
        bench.commands.send(guest, "lifecycle-event", EVENT, 30.0)

    play(scenario)


def test_a_daemon_that_stops_sends_nothing_more() -> None:
    async def scenario(bench: Bench) -> None:
        guest = bench.guest()
        await bench.commands.drain(5.0)
        refusal = bench.refused(guest)
        assert refusal.kind == "stopping"
        assert str(refusal) == "the daemon stops: nothing was sent; try again when it runs again"

    play(scenario)


def test_whether_a_command_would_be_refused_is_known_without_sending_it() -> None:
    async def scenario(bench: Bench) -> None:
        row = CATALOGUE.find(Direction.TO_GUEST, "lifecycle-event")
        assert row is not None
        assert refuse(bench.guest(), row) is None
        for guest in (bench.guest(agent=1), bench.absent(), bench.silent()):
            refusal, real = refuse(guest, row), bench.refused(guest)
            assert refusal is not None
            assert (refusal.kind, str(refusal), refusal.members) == (real.kind, str(real), real.members)

    play(scenario)


def test_what_negotiates_is_no_command_and_only_some_commands_have_a_completion() -> None:
    rows = {row.name: has_completion(row) for row in commands()}
    assert not {"refresh", "api-version", "heartbeat"} & rows.keys()
    assert [name for name, answered in rows.items() if answered] == ["lifecycle-event"]
    assert set(rows) == {row.name for row in CATALOGUE.rows if row.direction is Direction.TO_GUEST} - {
        "refresh",
        "api-version",
    }


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
        guest.disconnected("gone", bench.loop.now)
        guest.connected(bench.loop.now)
        bench.hear(guest, b'{"__name__":"heartbeat","apiVersion":3}')
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
