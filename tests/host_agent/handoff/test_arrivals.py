from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.handoff import Spec0, Spec2, destination, documents, files, frames, source, spec1
from common.handoff.frames import Command, Request
from common.handoff.vm import Vm
from common.versions import Version
from host_agent.client import HandoffFailed as NotHanded
from host_agent.client import WouldLose
from host_agent.client.failures import InvalidSession, NameTaken, NotSaved, RefusedByPeer
from host_agent.handoff import arrivals, talking
from host_agent.handoff.arrivals import Awaited
from host_agent.handoff.outcomes import HandoffFailed
from host_agent.known import Departure
from tests.host_agent.guests import Answers, speaking
from tests.host_agent.parts import NEWEST, run, running, until
from tests.host_agent.store.disks import fill, small_disk

from .hosts import (
    EVENT,
    STALLED,
    UUID,
    Host,
    Wire,
    agreed,
    ask,
    at,
    hand_over,
    known,
    phases,
    state,
    two,
    with_a_command,
)

ANOTHER_UUID = UUID.replace("6b", "7c")

# ---- Who is awaited ----


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_vm_is_awaited_for_a_while() -> None:
    clock = Clock()
    awaited = Awaited(clock)
    awaited.expect(Vm(UUID, "web"), 10.0)
    clock.now += 9.9
    assert awaited.all() == (Vm(UUID, "web"),)
    clock.now += 0.1
    assert awaited.all() == ()
    assert awaited.find(Vm(UUID, "web")) is None


@pytest.mark.parametrize(
    ("vm", "found"),
    [
        (Vm(UUID, "web"), True),
        (Vm(UUID, "called otherwise here"), True),
        (Vm(None, "web"), True),
        (Vm(ANOTHER_UUID, "web"), False),
        (Vm(None, "db"), False),
        (Vm(None, ""), False),
    ],
)
def test_a_vm_is_known_by_its_uuid_or_else_by_its_name(vm: Vm, found: bool) -> None:
    awaited = Awaited(Clock())
    awaited.expect(Vm(UUID, "web"), 10.0)
    assert (awaited.find(vm) is not None) is found
    awaited.arrived(vm)
    assert (awaited.all() == ()) is found


def test_without_a_name_it_must_be_the_only_one() -> None:
    awaited = Awaited(Clock())
    assert awaited.only() is None
    awaited.expect(Vm(None, "web"), 10.0)
    assert awaited.only() == Vm(None, "web")
    awaited.expect(Vm(None, "db"), 10.0)
    assert awaited.only() is None


def test_whoever_is_awaited_twice_is_awaited_once() -> None:
    clock = Clock()
    awaited = Awaited(clock)
    awaited.expect(Vm(None, "web"), 1.0)
    awaited.expect(Vm(UUID, "web"), 10.0)
    clock.now += 5.0
    assert awaited.all() == (Vm(UUID, "web"),)


def test_of_too_many_the_oldest_is_awaited_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "AWAITED_LIMIT", 2)
    awaited = Awaited(Clock())
    for name in ("a", "b", "c"):
        awaited.expect(Vm(None, name), 10.0)
    assert [each.name for each in awaited.all()] == ["b", "c"]


# ---- What is known of a guest that came ----


def test_what_is_known_of_a_guest_is_known_on_the_other_host_before_it_speaks_there(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _, second):
            async with a.vm(speaking()):
                before = await first.until_guest("web", known)
                handed = await hand_over(first)
                assert (handed.to, handed.protocol, handed.spec, handed.lost) == ("b", 1, 2, [])
                after = await second.guest("web")
                assert after["channel"]["state"] == "absent"
                assert after["api"]["agreed"] is None
                assert {**after["facts"]}.keys() == before["facts"].keys()
                assert after["facts"]["host-name"]["value"] == before["facts"]["host-name"]["value"]
                assert after["facts"]["host-name"]["age_s"] >= before["facts"]["host-name"]["age_s"]
                left = await first.guest("web")
                assert left["handoff"] == {"state": "moved", "peer": "b"}
            await until(lambda: not first.daemon.registry.find("web"))

    run(scenario())


def test_a_guest_agrees_afresh_with_a_host_of_another_version(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b", max_api_version=Version.V3)
        async with running(a.configuration(b)) as first, running(b.configuration(a)) as second:
            async with a.vm(speaking()):
                await first.until_guest("web", agreed(NEWEST))
                await hand_over(first)
            async with b.vm(speaking()):
                guest = await second.until_guest("web", agreed(3))
                assert [each["new"] for each in guest["history"]][:2] == [3, NEWEST]

    run(scenario())


def test_numbers_of_commands_only_rise_from_host_to_host(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers()
        async with two(place) as (a, first, b, second):
            async with a.vm(speaking(answers=answers)):
                await first.until_guest("web", agreed(NEWEST))
                for _ in range(3):
                    await first.send("web", "lifecycle-event", EVENT)
                await hand_over(first)
            async with b.vm(speaking(answers=answers)):
                await second.until_guest("web", agreed(NEWEST))
                await second.send("web", "lifecycle-event", EVENT)
        numbers = [int(str(each.reply_id).split("-")[1]) for each in answers.asked]
        assert numbers == sorted(set(numbers))

    run(scenario())


@pytest.mark.parametrize("lowered", [(0, 2), (1, 1), (0, 1), (0, 0), (1, 0)])
@pytest.mark.parametrize("older", ["source", "destination"])
def test_every_release_hands_over_to_every_other(place: Path, older: str, lowered: tuple[int, int]) -> None:
    protocol, spec = lowered

    async def scenario() -> None:
        async with two(place) as (a, first, _, second):
            if older == "source":
                first.daemon.handoffs._source_terms = source.Terms(protocol=protocol, spec=spec)
            else:
                second.daemon.handoffs._destination_terms = destination.Terms(protocol=protocol, spec=spec)
            async with a.vm(speaking()):
                await first.until_guest("web", known)
                if spec < 2:
                    with pytest.raises(WouldLose, match="capabilities"):
                        await hand_over(first)
                    assert state("here")(await first.guest("web"))
                handed = await hand_over(first, allow_loss=True)
                assert (handed.protocol, handed.spec, bool(handed.lost)) == (protocol, spec, spec < 2)
            facts = (await second.guest("web"))["facts"]
            assert ("host-name" in facts, "fqdn" in facts) == (spec > 0, True)

    run(scenario())


def test_what_a_guest_answers_before_its_hand_off_is_complete_reaches_who_waits(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        async with two(place) as (a, first, b, second):
            async with a.vm(speaking(answers=answers)):
                await first.until_guest("web", agreed(NEWEST))
                sending = asyncio.ensure_future(ask(first, first.client.send, "web", "lifecycle-event", EVENT, follow=True))
                await until(lambda: answers.asked)
                await ask(second, second.client.expect, "web")
            async with b.vm(speaking(answers=answers)):
                answers.release()
                await until(lambda: len(second.daemon.commands._early))
                await hand_over(first)
                assert (await sending).completion == {"done": True}

    run(scenario())


def test_a_guest_that_runs_here_already_goes_on_with_what_came_of_it(place: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        async with two(place) as (a, first, b, second), b.vm(speaking(answers=answers)):
            await second.until_guest("web", agreed(NEWEST))
            async with a.vm(speaking(answers=answers)):
                await first.until_guest("web", agreed(NEWEST))
                sending = await with_a_command(first, answers, follow=True)
                await hand_over(first)
            carried = [each["reply_id"] for each in (await second.guest("web"))["commands"]]
            assert answers.asked[0].reply_id in carried
            answers.release()
            assert (await sending).completion == {"done": True}

    run(scenario())


# ---- What is not taken ----


def test_a_vm_whose_name_another_one_has_is_not_taken(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, b, second), a.vm(speaking()), b.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            await second.until_guest("web", agreed(NEWEST))
            first.daemon.registry.arrived("web").uuid = UUID
            second.daemon.registry.arrived("web").uuid = ANOTHER_UUID
            with pytest.raises(RefusedByPeer, match="another VM is called web here") as error:
                await hand_over(first)
            assert error.value.code == "name-taken"
            assert state("here")(await first.guest("web"))

    run(scenario())


def test_a_vm_that_gets_a_taken_name_just_before_it_is_taken_is_not(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (_a, _first, b, second), b.vm(speaking()):
            await second.until_guest("web", agreed(NEWEST))
            guest = second.daemon.registry.arrived("web")
            session = Spec2(uuid=UUID, name="web")
            reader, writer = await asyncio.open_connection(*b.address)
            assert await asked(reader, writer, frames.start(1)) == 1
            assert await asked(reader, writer, Request(Command.SESSION, documents.write(session, "0" * 32))) == 1
            guest.uuid = ANOTHER_UUID
            assert await asked(reader, writer, Request(Command.COMPLETE)) == 2
            assert guest.uuid == ANOTHER_UUID
            writer.close()
            await until(lambda: not phases(second))

    run(scenario())


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> int:
    """The status that a destination answers."""
    writer.write(frames.pack_request(request))
    status, length = struct.unpack("<H6xQ", await reader.readexactly(16))
    await reader.readexactly(length)
    return int(status)


def test_a_guest_that_is_just_going_from_here_is_not_taken(place: Path) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        async with (
            Wire(a.address, at(3, STALLED)) as wire,
            running(a.configuration(b)) as first,
            running(b.through(wire, a)) as second,
            a.vm(speaking()),
            b.vm(speaking()),
        ):
            await first.until_guest("web", agreed(NEWEST))
            await second.until_guest("web", agreed(NEWEST))
            going = asyncio.ensure_future(hand_over(second, "a"))
            await until(lambda: phases(first) == [("destination", "prepared")])
            with pytest.raises(RefusedByPeer, match="web is just being handed over: try again in a moment") as error:
                await hand_over(first)
            assert error.value.code == "busy"
            with pytest.raises(HandoffFailed) as failure:
                await second.daemon.handoffs.take_in(files.write(Spec2(name="web"), 2, False))
            assert failure.value.kind == "moving"
            wire.gate.set()
            assert (await going).to == "a"

    run(scenario())


def test_a_file_does_not_decide_whose_a_guest_in_doubt_is(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (_a, first, _b, _second):
            guest = first.daemon.registry.left("web", 0.0)
            guest.departure = Departure("0" * 32, "web", None, "b", 0.0)
            first.daemon.commands.hold(guest, "b")
            with pytest.raises(HandoffFailed) as failure:
                await first.daemon.handoffs.take_in(files.write(Spec2(name="web"), 2, False))
            assert (failure.value.kind, failure.value.members) == ("in-doubt", {"to": "b"})
            assert guest.departure is not None

    run(scenario())


def test_a_file_that_can_not_be_noted_on_disk_is_not_taken_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with two(place) as (_a, first, _b, _second):
            keeper = first.daemon._keeper
            assert keeper is not None

            async def save() -> bool:
                return False

            monkeypatch.setattr(keeper, "save", save)
            command = spec1.Command("r-1", "lifecycle-event", 60.0)
            content = files.write(Spec2(name="web", commands=(command,)), 2, False)
            with pytest.raises(NotSaved, match="make room for it there"):
                await ask(first, first.client.take_in, content)
            assert not any(each["commands"] for each in await first.guests())

    run(scenario())


def test_a_file_of_a_vm_whose_name_another_one_has_is_not_taken_in(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, _b, _second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            first.daemon.registry.arrived("web").uuid = ANOTHER_UUID
            with pytest.raises(NameTaken, match="another VM is called web here"):
                await ask(first, first.client.take_in, files.write(Spec2(uuid=UUID, name="web"), 2, False))

    run(scenario())


def test_a_document_that_names_no_vm_is_of_the_only_one_that_is_awaited(place: Path) -> None:
    nameless = files.write(Spec0(guest_fqdn="web.example.org"), 0, False)

    async def scenario() -> None:
        async with two(place) as (_a, first, _b, _second):
            with pytest.raises(InvalidSession, match="it does not say which VM it is of"):
                await ask(first, first.client.take_in, nameless)
            await ask(first, first.client.expect, "web", UUID)
            assert await ask(first, first.client.take_in, nameless) == {"guest": "web", "uuid": UUID}
            assert phases(first) == []

    run(scenario())


def test_a_disk_that_is_full_on_the_destination_leaves_the_guest_on_its_source(place: Path, disk: Path) -> None:
    async def scenario() -> None:
        answers = Answers(held=True)
        a, b = Host(place, "a"), Host(place, "b", state=str(disk / "state.sqlite"))
        async with (
            running(a.configuration(b)) as first,
            running(b.configuration(a)) as second,
            a.vm(speaking(answers=answers)),
        ):
            await first.until_guest("web", agreed(NEWEST))
            sending = await with_a_command(first, answers)
            await ask(second, second.client.expect, "other")
            filling = fill(disk)
            with pytest.raises(NotHanded, match="state file"):
                await hand_over(first)
            assert state("here")(await first.guest("web"))
            assert not any(each["commands"] for each in await second.guests())
            answers.release()
            assert (await sending).completion == {"done": True}
            filling.unlink()

    run(scenario())


def test_garbage_costs_only_the_connection_that_it_came_on(place: Path) -> None:
    async def scenario() -> None:
        async with two(place) as (a, first, b, _second), a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            for garbage in (b"GET / HTTP/1.1\r\n\r\n" * 4, bytes(64), b"\x03\0" + bytes(6) + b"\xff" * 8):
                reader, writer = await asyncio.open_connection(*b.address)
                writer.write(garbage)
                assert await reader.read() == b""
                writer.close()
            assert (await hand_over(first)).to == "b"

    run(scenario())


def test_a_source_that_stalls_or_leaves_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking, "PREPARED_PATIENCE", 0.1)

    async def scenario() -> None:
        async with two(place) as (_a, _first, b, second):
            for leaves in (True, False):
                reader, writer = await asyncio.open_connection(*b.address)
                assert await asked(reader, writer, frames.start(1)) == 1
                assert await asked(reader, writer, Request(Command.SESSION, documents.write(Spec2(name="web")))) == 1
                if leaves:
                    writer.close()
                else:
                    assert await reader.read() == b""
                    writer.close()
                await until(lambda: not phases(second))
            assert await second.guests() == []

    run(scenario())


# ---- How a daemon ends that just takes one ----


def test_a_daemon_that_stops_while_it_takes_a_guest_takes_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        a, b = Host(place, "a"), Host(place, "b")
        gate = asyncio.Event()
        async with running(a.configuration(b)) as first, a.vm(speaking()):
            await first.until_guest("web", agreed(NEWEST))
            async with running(b.configuration(a)) as second:
                keeper = second.daemon._keeper
                assert keeper is not None
                save, settle = keeper.save, second.daemon.handoffs._arrivals.settle

                async def save_late() -> bool:
                    await gate.wait()
                    return await save()

                async def settle_now() -> None:
                    gate.set()
                    await settle()

                monkeypatch.setattr(keeper, "save", save_late)
                monkeypatch.setattr(second.daemon.handoffs._arrivals, "settle", settle_now)
                handing = asyncio.ensure_future(hand_over(first))
                await until(lambda: len(second.daemon.registry) == 1)
            async with running(b.configuration(a)) as second:
                assert (await handing).to == "b"
                assert state("moved")(await first.guest("web"))
                assert state("here")(await second.guest("web"))

    run(scenario())


@pytest.fixture(name="disk")
def _disk(place: Path) -> Iterator[Path]:
    with small_disk(place / "disk") as found:
        yield found
