from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from common.versions import Version
from host_agent.budget import Limits
from host_agent.commands import Commands, TimedOut
from host_agent.discovery import Added, Removed
from host_agent.feed import Feed
from host_agent.guest import Guest, Shared, State
from host_agent.household import Household, NameTaken
from host_agent.known import Departure, InFlight
from host_agent.meter import Meter, Standing
from host_agent.registry import ABSENT_LIMIT
from host_agent.store import Keeper, Loaded, MisplacedStateFile, Store

from .guests import Answers, SimulatedVm, speaking
from .parts import NEWEST, ManualLoop, make_configuration, run, until

RUN = "0123456789abcdef"

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"


class House:
    """A household as the daemon makes it, without the daemon; with *state*, the name of a file, one that remembers."""

    def __init__(self, place: Path, state: Optional[str] = None, **changes: Any) -> None:
        loop = asyncio.get_running_loop()
        self.configuration = make_configuration(place, **changes)
        self.meter = Meter()
        self.feed = Feed(RUN)
        self.keeper = Keeper(Store(str(place / state)), loop.time) if state is not None else None
        self.commands = Commands(loop, RUN, self.meter, self.feed, self.keeper)
        completed, offered = self.commands.completed, self.commands.offered
        shared = Shared(self.meter, self.feed, Limits(), self.keeper, completed, loop.call_at, offered)
        self.household = Household(loop, self.configuration, RUN, shared, self.commands, self.keeper)

    async def __aenter__(self) -> House:
        self.household.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.household.stop()
        if self.keeper is not None:
            await self.keeper.close()

    def find(self, name: str) -> Guest:
        guest = self.household.registry.find(name)
        assert guest is not None
        return guest

    @property
    def names(self) -> list[str]:
        return sorted(guest.name for guest in self.household.registry)

    def add(self, name: str, path: str = "/nowhere/port", uuid: Optional[str] = None) -> Guest:
        self.household.follow(Added(name, path, uuid))
        return self.find(name)

    def remove(self, name: str, path: str = "/nowhere/port") -> None:
        self.household.follow(Removed(name, path))

    def told(self, *kinds: str) -> list[tuple[str, Optional[str], dict[str, Any]]]:
        return [(each.kind, each.guest, each.details) for each in self.feed.since(0)[1] if each.kind in kinds]


def agreed(guest: Guest, version: int) -> bool:
    return guest.session.negotiation.agreed == guest.session.negotiation.in_use == version


def play(scenario: Callable[[ManualLoop], Awaitable[None]]) -> None:
    loop = ManualLoop()

    async def whole() -> None:
        await scenario(loop)

    loop.play(whole())


# ---- Coming and going ----


def test_a_guest_is_connected_where_it_is_found_and_let_go_where_it_is_not_any_more(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm, House(place) as house:
            guest = house.add("web", str(vm.path), ONE)
            await until(lambda: agreed(guest, NEWEST))
            assert (guest.path, guest.uuid) == (str(vm.path), ONE)
            house.remove("web", str(vm.path))
            assert guest.state is State.ABSENT
            assert house.find("web") is guest
            assert house.told("guest-found", "guest-gone") == [
                ("guest-found", "web", {"path": str(vm.path)}),
                ("guest-gone", "web", {}),
            ]

    run(scenario())


def test_a_guest_that_comes_back_is_the_same_at_another_place(place: Path) -> None:
    async def scenario() -> None:
        async with House(place) as house, SimulatedVm(place / "ports/second") as vm:
            async with SimulatedVm(place / "ports/first") as old:
                guest = house.add("web", str(old.path))
                await until(lambda: "fqdn" in guest.facts)
                house.remove("web", str(old.path))
            assert house.add("web", str(vm.path)) is guest
            assert "fqdn" in guest.facts
            await until(lambda: agreed(guest, NEWEST))

    run(scenario())


def test_a_port_at_another_place_is_connected_to_instead(place: Path) -> None:
    async def scenario() -> None:
        first, second = SimulatedVm(place / "ports/first"), SimulatedVm(place / "ports/second")
        async with first, second, House(place) as house:
            guest = house.add("web", str(first.path))
            await until(lambda: agreed(guest, NEWEST))
            assert house.add("web", str(second.path)) is guest
            await until(lambda: agreed(guest, NEWEST) and second.connections == 1)
            assert first.connections == 1

    run(scenario())


def test_a_guest_absent_for_long_is_forgotten_with_all_that_was_in_flight(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state", forget_after=100.0) as house:
            web, db = house.add("web"), house.add("db")
            command = web.in_flight["x-1"] = InFlight("x-1", "lifecycle-event", loop.now, loop.now + 1000.0)
            house.commands.resume(web)
            house.remove("web")
            await loop.advance(50.0)
            house.remove("db")
            assert house.names == ["db", "web"]
            assert web.in_flight == {"x-1": command}
            await loop.advance(49.9)
            assert house.names == ["db", "web"]
            await loop.advance(0.2)
            assert house.names == ["db"]
            assert web.in_flight == {}
            await loop.advance(50.0)
            assert house.names == []
            assert house.told("guest-forgotten") == [("guest-forgotten", "web", {}), ("guest-forgotten", "db", {})]
            assert not house.meter.guests
            assert db.state is State.ABSENT
        async with House(place, "state") as house:
            assert house.names == []

    play(scenario)
    assert [line for line in caplog.messages if "forgotten" in line] == ["web: forgotten", "db: forgotten"]


def test_a_guest_that_comes_back_in_time_is_not_forgotten(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, forget_after=100.0) as house:
            house.add("web")
            house.remove("web")
            await loop.advance(99.0)
            house.add("web")
            await loop.advance(1000.0)
            assert house.names == ["web"]

    play(scenario)


# ---- Which VM it is ----


def test_a_renamed_vm_keeps_what_is_known_of_it(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = Answers(held=True)

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web", speaking(answers=answers)) as vm:
            async with House(place, "state") as house:
                guest = house.add("web", str(vm.path), ONE)
                await until(lambda: agreed(guest, NEWEST) and "timezone" in guest.facts)
                sent = house.commands.send(guest, "lifecycle-event", {"type": "before_migration"}, 60.0)
                await until(lambda: answers.asked)
                house.remove("web", str(vm.path))
                assert house.add("shop", str(vm.path), ONE) is guest
                assert house.names == ["shop"]
                assert (guest.name, guest.uuid) == ("shop", ONE)
                assert guest.facts["timezone"].arguments() == {"zone": "CET", "offset": 60}
                assert house.told("guest-renamed") == [("guest-renamed", "shop", {"old": "web"})]
                await until(lambda: vm.connections == 2 and agreed(guest, NEWEST))
                answers.release()
                assert sent.answer is not None
                assert (await sent.answer).done
                assert [each for each in house.told("completion") if each[1] == "shop"]
            async with House(place, "state") as house:
                assert house.names == ["shop"]
                assert "timezone" in house.find("shop").facts

    run(scenario())
    assert "web: called shop now" in caplog.messages
    assert [line for line in caplog.messages if line.startswith(f"shop: agreed 0 → {NEWEST}")]


def test_a_renamed_vm_is_the_same_where_nothing_is_kept_over_restarts(place: Path) -> None:
    async def scenario() -> None:
        async with House(place) as house:
            guest = house.add("web", uuid=ONE)
            house.remove("web")
            assert house.add("shop", uuid=ONE) is guest
            assert house.names == ["shop"]

    run(scenario())


def test_another_vm_under_the_name_of_an_absent_one_gets_nothing_of_it(place: Path) -> None:
    async def scenario() -> None:
        async with House(place, "state") as house:
            async with SimulatedVm(place / "ports/web", speaking(answers=Answers(held=True))) as vm:
                old = house.add("web", str(vm.path), ONE)
                await until(lambda: agreed(old, NEWEST) and "timezone" in old.facts)
                sent = house.commands.send(old, "lifecycle-event", {"type": "before_migration"}, 60.0)
                house.remove("web", str(vm.path))
            new = house.add("web", "/nowhere/port", TWO)
            assert new is not old
            assert (new.uuid, new.facts, new.history, new.in_flight) == (TWO, {}, (), {})
            assert house.names == ["web"]
            assert sent.answer is not None
            with pytest.raises(TimedOut):
                await sent.answer
            assert house.told("guest-forgotten") == [("guest-forgotten", "web", {})]
            assert house.meter.guests == {Standing("connecting", None): 1}
        async with House(place, "state") as house:
            restored = house.find("web")
            assert (restored.uuid, restored.facts, restored.history, restored.in_flight) == (TWO, {}, (), {})

    run(scenario())


def test_another_vm_that_takes_the_name_of_a_connected_one_is_connected_to_afresh(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm, House(place) as house:
            old = house.add("web", str(vm.path), ONE)
            await until(lambda: agreed(old, NEWEST))
            new = house.add("web", str(vm.path), TWO)
            assert new is not old
            assert old.state is not State.RESPONSIVE
            await until(lambda: agreed(new, NEWEST))
            assert vm.connections == 2
            house.remove("web", str(vm.path))
            assert new.state is State.ABSENT

    run(scenario())
    assert "web: disconnected: another VM has its name now" in caplog.messages


@pytest.mark.parametrize(("before", "after"), [(None, ONE), (ONE, None), (ONE, ONE), (None, None)])
def test_where_nothing_says_otherwise_it_is_the_same_vm(place: Path, before: Optional[str], after: Optional[str]) -> None:
    async def scenario() -> None:
        async with House(place, "state") as house:
            guest = house.add("web", uuid=before)
            house.remove("web")
            assert house.add("web", uuid=after) is guest
            assert guest.uuid == (before or after)
        async with House(place, "state") as house:
            assert house.find("web").uuid == (before or after)

    run(scenario())


def test_a_vm_that_is_there_is_not_taken_for_a_renamed_one(place: Path) -> None:
    async def scenario() -> None:
        async with House(place) as house:
            web, other = house.add("web", uuid=ONE), house.add("db", uuid=TWO)
            copy = house.add("copy", uuid=ONE)
            assert copy is not web
            assert copy is not other
            assert house.names == ["copy", "db", "web"]

    run(scenario())


# ---- Over a restart ----


def test_what_is_known_survives_a_restart_and_what_was_agreed_does_not(place: Path) -> None:
    async def scenario() -> None:
        vm = SimulatedVm(place / "ports/web", speaking(answers=Answers(held=True)))
        async with vm, House(place, "state") as house:
            old = house.add("web", str(vm.path), ONE)
            await until(lambda: agreed(old, NEWEST) and "timezone" in old.facts)
            sent = house.commands.send(old, "lifecycle-event", {"type": "before_migration"}, 60.0)
        async with House(place, "state") as house:
            guest = house.find("web")
            assert guest is not old
            assert (guest.state, guest.uuid) == (State.ABSENT, ONE)
            assert guest.facts["timezone"].arguments() == {"zone": "CET", "offset": 60}
            assert guest.facts["timezone"].heard_at == pytest.approx(old.facts["timezone"].heard_at, abs=0.1)
            assert [(each.old, each.new) for each in guest.history] == [(0, NEWEST)]
            assert list(guest.in_flight) == [sent.reply_id]
            assert len(house.commands) == 1
            described = guest.describe(asyncio.get_running_loop().time())
            assert described["api"]["agreed"] is None
            assert described["commands"][0]["name"] == "lifecycle-event"
            assert house.meter.guests == {Standing("absent", None): 1}

    run(scenario())


def test_of_thousands_none_is_forgotten_before_discovery_could_find_them(place: Path) -> None:
    names = {f"vm-{number}" for number in range(ABSENT_LIMIT + 20)}

    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state") as house:
            for name in names:
                house.add(name)
        async with House(place, "state") as house:
            assert set(house.names) == names
            found = sorted(names)[:10]
            for name in found:
                house.add(name)
            house.remove(found[0])
            assert len(house.names) == ABSENT_LIMIT + 9
            assert set(house.names) > set(found)

    play(scenario)


def test_one_that_is_not_found_again_is_forgotten_after_its_time(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state", forget_after=100.0) as house:
            house.add("web")
            house.add("db")
        async with House(place, "state", forget_after=100.0) as house:
            house.add("web")
            await loop.advance(99.0)
            assert house.names == ["db", "web"]
            await loop.advance(1.1)
            assert house.names == ["web"]

    play(scenario)


def test_without_a_state_file_nothing_is_known_at_the_start(place: Path) -> None:
    async def scenario() -> None:
        async with House(place) as house:
            house.add("web")
        async with House(place) as house:
            assert house.names == []

    run(scenario())


def test_a_state_file_at_an_impossible_place_is_an_error(place: Path) -> None:
    async def scenario() -> None:
        house = House(place, "none/state")
        with pytest.raises(MisplacedStateFile):
            house.household.restore()
        await house.__aexit__()

    run(scenario())


# ---- From host to host ----

TRANSFER = "0123456789abcdef" * 2


def test_a_guest_that_moved_stays_listed_until_its_port_goes_and_is_forgotten_then(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state") as house:
            web = house.add("web", uuid=ONE)
            web.in_flight["old-1"] = InFlight("old-1", "users", 900.0, 9000.0)
            house.commands.resume(web)
            house.household.hand_over(web, "host-b", TRANSFER)
            assert house.find("web").moved_to == "host-b"
            assert not web.in_flight
            house.add("web", uuid=ONE)
            assert house.find("web").moved_to == "host-b"
            house.remove("web")
            assert house.names == []
            assert [kind for kind, _, _ in house.told("guest-gone", "guest-forgotten")] == ["guest-gone", "guest-forgotten"]
            assert house.add("web", uuid=ONE).moved_to is None
            house.remove("web")
            assert house.names == ["web"]
        async with House(place, "state") as house:
            assert house.names == ["web"]

    play(scenario)


def test_one_that_moved_and_has_no_port_is_forgotten_at_once(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state") as house:
            web = house.add("web")
            house.remove("web")
            house.household.hand_over(web, "host-b", TRANSFER)
            assert house.names == []
        async with House(place, "state") as house:
            assert house.names == []

    play(scenario)


def test_one_whose_name_another_vm_has_by_now_is_handed_over_all_the_same(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place) as house:
            old = house.add("web", uuid=ONE)
            house.remove("web")
            new = house.add("web", uuid=TWO)
            house.remove("web")
            house.household.hand_over(old, "host-b", TRANSFER)
            assert house.find("web") is new
            assert new.moved_to is None

    play(scenario)


def test_a_guest_that_comes_from_another_host_is_known_before_it_has_a_port(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, forget_after=100.0) as house:
            web = house.household.welcome("web", ONE)
            assert (web.name, web.state) == ("web", State.ABSENT)
            web.take_over(ONE, {})
            assert house.add("shop", uuid=ONE) is web
            db = house.household.welcome("db", TWO)
            await loop.advance(99.0)
            assert house.household.welcome("db", None) is db
            await loop.advance(99.0)
            assert house.find("db") is db
            await loop.advance(1.1)
            assert house.names == ["shop"]

    play(scenario)


@pytest.mark.parametrize(("known", "carried"), [(ONE, ONE), (ONE, None), (None, ONE)])
def test_a_guest_that_has_a_port_already_is_the_one_that_comes(
    place: Path, known: Optional[str], carried: Optional[str]
) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place) as house:
            web = house.add("web", uuid=known)
            assert house.household.find_vm("web", carried) is house.household.welcome("web", carried) is web
            assert web.path is not None

    play(scenario)


def test_a_vm_is_welcome_under_the_name_that_it_has_here(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place) as house:
            shop = house.add("shop", uuid=ONE)
            house.add("web", uuid=TWO)
            assert house.household.welcome("web", ONE) is shop

    play(scenario)


def test_another_vm_is_not_welcome_under_the_name_of_one_that_is_here(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place) as house:
            web = house.add("web", uuid=ONE)
            with pytest.raises(NameTaken, match="another VM is called web here: rename one of them"):
                house.household.welcome("web", TWO)
            house.remove("web")
            house.commands.hold(web)
            with pytest.raises(NameTaken):
                house.household.find_vm("web", TWO)
            house.commands.release(web)
            assert house.household.find_vm("web", TWO) is None
            assert house.find("web") is web
            assert house.household.welcome("web", TWO) is house.find("web")
            assert house.find("web") is not web
            assert house.told("guest-forgotten") == [("guest-forgotten", "web", {})]

    play(scenario)


@pytest.mark.parametrize("with_port", [True, False])
def test_a_guest_in_doubt_stays_so_over_a_restart_and_is_not_forgotten(place: Path, with_port: bool) -> None:
    departure = Departure(TRANSFER, "web", ONE, "host-b", 900.0)

    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state", forget_after=100.0) as house:
            if with_port:
                house.add("web", uuid=ONE)
            assert house.keeper is not None
            house.keeper.put_departure(departure)
            house.keeper.put_taken("f" * 32, "db")
        async with House(place, "state", forget_after=100.0) as house:
            web = house.find("web")
            (remembered,) = house.household.loaded.departures
            assert web.departure == remembered == departure._replace(since=remembered.since)
            assert house.household.loaded.taken == {"f" * 32: "db"}
            assert house.household.loaded.readable
            assert (web.uuid, web.moving, web.moving_to) == (ONE, True, "host-b")
            await loop.advance(1000.0)
            assert house.names == ["web"]
            house.commands.release(web)
            await loop.advance(1000.0)
            assert house.names == []

    play(scenario)


def test_a_guest_that_was_handed_over_stays_so_over_a_restart_while_its_port_is_here(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state") as house:
            house.add("web", uuid=ONE)
            house.household.hand_over(house.find("web"), "host-b", TRANSFER)
        async with House(place, "state") as house:
            assert house.find("web").moved_to == "host-b"
            house.add("web", uuid=ONE)
            web = house.find("web")
            assert (web.moved_to, web.departure, web.moving) == ("host-b", None, False)
            house.remove("web")
            assert house.names == []
        async with House(place, "state") as house:
            house.add("web", uuid=ONE)
            assert house.find("web").moved_to is None

    play(scenario)


def test_a_guest_that_was_handed_over_and_has_no_port_leaves_nothing_behind(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state") as house:
            house.add("web", uuid=ONE)
            web = house.find("web")
            house.remove("web")
            house.household.hand_over(web, "host-b", TRANSFER)
            assert house.names == []
        async with House(place, "state") as house:
            assert house.household.loaded == Loaded()

    play(scenario)


def test_another_vm_is_not_in_doubt_for_having_the_name(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, "state") as house:
            house.add("web", uuid=TWO)
            assert house.keeper is not None
            house.keeper.put_departure(Departure(TRANSFER, "web", ONE, "host-b", 900.0))
        async with House(place, "state") as house:
            assert not house.find("web").moving
            assert len(house.household.loaded.departures) == 1

    play(scenario)


def test_without_a_state_file_nothing_is_loaded(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place) as house:
            assert house.household.loaded == Loaded()

    play(scenario)


# ---- Another configuration ----


def test_how_long_absent_guests_are_remembered_can_change_meanwhile(place: Path) -> None:
    async def scenario(loop: ManualLoop) -> None:
        async with House(place, forget_after=100.0) as house:
            for name in ("web", "db"):
                house.add(name)
            house.remove("web")
            await loop.advance(50.0)
            house.remove("db")
            house.household.reconfigure(make_configuration(place, forget_after=40.0))
            assert house.names == ["db"]
            house.household.reconfigure(make_configuration(place, forget_after=1000.0))
            await loop.advance(500.0)
            assert house.names == ["db"]
            await loop.advance(501.0)
            assert house.names == []

    play(scenario)


def test_how_much_silence_is_allowed_changes_for_all_guests_and_for_those_to_come(place: Path) -> None:
    async def scenario() -> None:
        async with House(place, unresponsive_after=15.0) as house:
            web = house.add("web")
            assert web.session.silence_limit == 15.0
            house.household.reconfigure(make_configuration(place, unresponsive_after=30.0))
            assert web.session.silence_limit == house.add("db").session.silence_limit == 30.0

    run(scenario())


def test_another_highest_version_is_agreed_on_over_the_same_channel(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm, House(place) as house:
            guest, absent = house.add("web", str(vm.path)), house.add("db")
            for version in (Version.V1, Version.V3, None, Version.V2):
                house.household.reconfigure(make_configuration(place, max_api_version=version))
                assert guest.session.supported == absent.session.supported == version
                await until(functools.partial(agreed, guest, int(version or 0)))
            assert house.add("late").session.supported is Version.V2
            assert vm.connections == 1

    run(scenario())


def test_the_same_highest_version_is_not_agreed_on_anew(place: Path) -> None:
    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm, House(place) as house:
            guest = house.add("web", str(vm.path))
            await until(lambda: agreed(guest, NEWEST))
            refreshed, changes = house.meter.sent["refresh"], len(guest.history)
            house.household.reconfigure(make_configuration(place, unresponsive_after=30.0))
            assert agreed(guest, NEWEST)
            assert (house.meter.sent["refresh"], len(guest.history)) == (refreshed, changes)

    run(scenario())


# ---- The end ----


def test_at_the_end_all_channels_are_closed_and_nothing_is_tried_any_more(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(loop: ManualLoop) -> None:
        async with House(place, forget_after=10.0) as house:
            web = house.add("web")
            house.add("db")
            house.remove("db")
        await loop.advance(1000.0)
        assert house.names == ["db", "web"]
        assert web.state is State.CONNECTING

    play(scenario)
    assert "db: forgotten" not in caplog.messages


def test_a_connected_guest_is_let_go_of_at_the_end(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with SimulatedVm(place / "ports/web") as vm:
            async with House(place) as house:
                guest = house.add("web", str(vm.path))
                await until(lambda: agreed(guest, NEWEST))
            assert guest.state is State.CONNECTING

    run(scenario())
    assert "web: disconnected: this daemon stops" in caplog.messages
