from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Optional

import pytest

from common.catalogue import Row
from common.messages import Capabilities
from host_agent import migration
from host_agent.commands import Answer
from host_agent.guest import Guest
from host_agent.migration import COUNTS_FOR, FROZEN_PERIOD, LATER_PERIOD, RETRY_LIMIT, RETRY_PERIOD, SOON, Migrations
from host_agent.refusals import Refused, refuse
from host_agent.registry import Registry

from .commanding import UNSAID, Bench, play

BEFORE = {"type": "before_migration"}
AFTER = {"type": "after_migration"}
FAILED = {"type": "after_migration", "failure": True}

OFF = Capabilities({"lifecycle-event": False}, ())


class Place:
    """A host with guests, whose migrations it tells them of."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.registry = Registry(self._take, 3600.0)
        self._known: dict[str, Guest] = {}
        self.migrations = Migrations(bench.loop, bench.commands, self.registry, bench.feed, 60.0)

    def settle(self, guest: Guest) -> Guest:
        """*guest* is one of this host."""
        self._known[guest.name] = guest
        return self.registry.arrived(guest.name)

    def told(self, name: str = "web-1") -> list[dict[str, Any]]:
        """What the guest called *name* was told, but for the reply ids."""
        return [
            {key: value for key, value in each.items() if key not in ("__name__", "reply_id")} for each in self.sent(name)
        ]

    def sent(self, name: str = "web-1") -> list[dict[str, Any]]:
        return [each for each in self.bench.sent(name) if each["__name__"] == "lifecycle-event"]

    def complaints(self) -> list[tuple[Optional[str], str]]:
        """What was told to operators."""
        return [(guest, details["text"]) for _, guest, details in self.bench.told("migration")]

    async def wait(self, seconds: float, step: float = RETRY_PERIOD) -> None:
        """Let time pass, as far as attempts are concerned."""
        for _ in range(int(seconds / step) + 1):
            await self.bench.loop.advance(step)

    def _take(self, name: str) -> Guest:
        return self._known[name]


def act(scenario: Callable[[Place], Awaitable[None]]) -> None:
    async def whole(bench: Bench) -> None:
        await scenario(Place(bench))

    play(whole)


# ---- Before ----


def test_a_guest_is_told_that_its_migration_begins_and_answers() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        answer = place.migrations.begins(guest)
        assert place.told() == [BEFORE]
        [command] = guest.in_flight.values()
        assert command.deadline - command.sent_at == 60.0
        place.bench.complete(guest, command.reply_id)
        assert answer is not None
        assert await answer == Answer(True, {}, 0.0)

    act(scenario)


def test_who_migrates_it_may_say_how_long_it_has() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        place.migrations.begins(guest, 5.0)
        [command] = guest.in_flight.values()
        assert command.deadline - command.sent_at == 5.0

    act(scenario)


def test_whoever_notices_the_same_migration_gets_the_same_answer() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        first = place.migrations.begins(guest)
        await place.bench.loop.advance(COUNTS_FOR - 1)
        assert place.migrations.begins(guest) is first
        await place.bench.loop.advance(1)
        assert place.migrations.begins(guest) is not first
        assert place.told() == [BEFORE, BEFORE]

    act(scenario)


@pytest.mark.parametrize(
    ("agent", "capabilities", "why"),
    [
        (2, None, "lifecycle-event needs 3"),
        (5, OFF, "has lifecycle-event turned off"),
    ],
)
def test_a_guest_that_can_not_be_told_is_asked_anew_each_time(
    agent: int, capabilities: Optional[Capabilities], why: str
) -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest(agent=agent, capabilities=capabilities))
        assert place.migrations.begins(guest) is None
        assert place.migrations.begins(guest) is None
        complaints = place.complaints()
        assert [name for name, _ in complaints] == ["web-1", "web-1"]
        assert all(text.startswith("is not told of its migration: ") and why in text for _, text in complaints)
        assert place.told() == []
        assert not place.bench.meter.refusals

    act(scenario)


# ---- After ----


def test_a_guest_that_arrived_is_told_so_once() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        place.migrations.arrived(guest)
        assert place.told() == []
        await place.bench.loop.advance()
        place.migrations.arrived(guest)
        await place.wait(5.0)
        assert place.told() == [AFTER]

    act(scenario)


def test_it_is_told_as_soon_as_it_can_be() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.absent())
        place.migrations.arrived(guest)
        place.migrations.arrived(guest)
        await place.wait(30.0)
        guest.found("/port", place.bench.loop.now)
        place.bench.connect(guest)
        await place.wait(30.0)
        place.bench.hear(guest, "session-startup")
        await place.wait(30.0)
        assert place.told() == []
        place.bench.beat(guest, 3)
        await place.bench.loop.advance(LATER_PERIOD)
        assert place.told() == [AFTER]
        assert place.complaints() == []

    act(scenario)


def test_a_guest_that_stays_is_told_that_its_migration_failed() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        place.migrations.begins(guest)
        place.migrations.failed(guest)
        place.migrations.failed(guest)
        await place.bench.loop.advance()
        assert place.told() == [BEFORE, FAILED]

    act(scenario)


def test_each_attempt_to_migrate_it_is_told() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        for _ in range(2):
            place.migrations.begins(guest)
            place.migrations.failed(guest)
            await place.bench.loop.advance()
        place.migrations.begins(guest)
        place.migrations.arrived(guest)
        await place.bench.loop.advance()
        assert place.told() == [BEFORE, FAILED, BEFORE, FAILED, BEFORE, AFTER]

    act(scenario)


def test_what_is_not_true_any_more_is_not_told() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.absent())
        place.migrations.arrived(guest)
        await place.bench.loop.advance()
        guest.found("/port", place.bench.loop.now)
        place.bench.connect(guest)
        place.bench.beat(guest, 3)
        place.migrations.begins(guest)
        await place.wait(5.0)
        assert place.told() == [BEFORE]

    act(scenario)


def test_a_guest_that_was_stopped_for_hours_is_told_when_it_runs_again() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest(agent=UNSAID))
        place.migrations.arrived(guest)
        await place.wait(RETRY_LIMIT / 2, LATER_PERIOD)
        assert place.told() == []
        place.bench.beat(guest, 3)
        await place.bench.loop.advance(LATER_PERIOD)
        assert place.told() == [AFTER]
        assert place.complaints() == []

    act(scenario)


def test_who_is_not_told_soon_is_tried_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    async def scenario(place: Place) -> None:
        def look(guest: Guest, row: Row) -> Optional[Refused]:
            tried.append(place.bench.loop.now)
            return refuse(guest, row)

        monkeypatch.setattr(migration, "refuse", look)
        place.migrations.arrived(place.settle(place.bench.guest(agent=UNSAID)))
        await place.wait(SOON)
        assert len(tried) == pytest.approx(SOON / RETRY_PERIOD, abs=3)
        tried.clear()
        await place.wait(SOON)
        assert len(tried) == pytest.approx(SOON / LATER_PERIOD, abs=3)

    act(scenario)


def test_after_a_day_nobody_tries_any_more() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest(agent=UNSAID))
        place.migrations.arrived(guest)
        await place.wait(SOON)
        await place.wait(RETRY_LIMIT - 2 * SOON, LATER_PERIOD)
        assert place.complaints() == []
        await place.wait(2 * SOON, LATER_PERIOD)
        assert place.complaints() == [
            ("web-1", "is not told of its migration: it could not be told for 24 h (version-too-low)")
        ]
        place.bench.beat(guest, 3)
        await place.wait(LATER_PERIOD)
        assert place.told() == []

    act(scenario)


def test_a_guest_that_is_forgotten_is_not_kept() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest(agent=UNSAID))
        place.migrations.arrived(guest)
        await place.bench.loop.advance()
        place.registry.remove("web-1")
        place.bench.beat(guest, 3)
        await place.wait(5.0)
        assert place.told() == []

    act(scenario)


def test_the_end_of_the_daemon_is_no_error() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        await place.bench.commands.drain(0.0)
        assert place.migrations.begins(guest) is None
        place.migrations.failed(guest)
        await place.wait(1.0)
        assert place.told() == []

    act(scenario)


def test_a_guest_that_is_frozen_is_told_once_more_until_it_runs_its_hooks() -> None:
    async def scenario(place: Place) -> None:
        guest = place.settle(place.bench.guest())
        place.migrations.arrived(guest)
        await place.wait(0)
        for _ in range(2):
            [reply_id] = guest.in_flight
            place.bench.complete(guest, reply_id, done=False, error={"code": "frozen", "message": "file systems are frozen"})
            await place.wait(FROZEN_PERIOD)
        assert place.told() == [AFTER, AFTER, AFTER]
        [reply_id] = guest.in_flight
        place.bench.complete(guest, reply_id, done=False, error={"code": "failed", "message": "a hook failed"})
        await place.wait(FROZEN_PERIOD)
        assert place.told() == [AFTER, AFTER, AFTER]

    act(scenario)
