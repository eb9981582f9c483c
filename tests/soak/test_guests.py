from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from common import codec
from common.framing import LINE_LIMIT
from tests.bench.test_fleet import Clock, Host, until
from tests.soak.guests import SAYINGS, Residents


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> Iterator[Residents]:
    fleet = Residents(str(tmp_path), clock)
    fleet.add(0, 1)
    yield fleet
    fleet.close()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[], Host]]:
    hosts: list[Host] = []

    def connect() -> Host:
        hosts.append(Host(tmp_path))
        return hosts[-1]

    yield connect
    for host in hosts:
        host.leave()


def agreed(fleet: Residents, host: Host) -> Host:
    until(fleet, lambda: host.session.negotiation.agreed == host.session.negotiation.in_use == 3, host)
    return host


def command(fleet: Residents, host: Host, reply_id: str = "r") -> None:
    host.send(codec.encode("lifecycle-event", {"type": "before_migration", "reply_id": reply_id}))


def completed(host: Host) -> bool:
    return "completion" in host.messages


def test_a_command_is_answered_and_recorded(fleet: Residents, connect: Callable[[], Host], clock: Clock) -> None:
    host = agreed(fleet, connect())
    command(fleet, host)
    until(fleet, lambda: completed(host), host)
    clock.now += 5.0
    fleet.hang_up(0, 1)
    [reply] = fleet.replies()
    assert (reply["heard_by"], reply["answered_by"], reply["heard"], reply["sure"]) == ("g00000", "g00000", 1, True)
    assert reply["ended_at"] - reply["answered_at"] == 5.0
    assert fleet.replies() == []


def test_a_command_that_takes_its_time_is_answered_later(
    fleet: Residents, connect: Callable[[], Host], clock: Clock
) -> None:
    fleet.delay(0, 1, 2.0)
    host = agreed(fleet, connect())
    command(fleet, host)
    until(fleet, lambda: fleet.report()["pending"] == 1, host)
    assert not completed(host)
    clock.now += 2.0
    until(fleet, lambda: completed(host), host)
    assert fleet.report()["pending"] == 0


def test_what_was_not_answered_is_answered_to_the_next_host(
    fleet: Residents, connect: Callable[[], Host], clock: Clock
) -> None:
    fleet.delay(0, 1, 2.0)
    host = agreed(fleet, connect())
    command(fleet, host)
    until(fleet, lambda: fleet.report()["pending"] == 1, host)
    host.leave()
    clock.now += 2.0
    until(fleet, lambda: fleet.report()["connected"] == 0)
    fleet.turn(0)
    host = agreed(fleet, connect())
    clock.now += 1.0
    until(fleet, lambda: completed(host), host)


def test_a_vm_that_was_gone_meanwhile_answers_nothing(fleet: Residents, connect: Callable[[], Host], clock: Clock) -> None:
    fleet.delay(0, 1, 2.0)
    host = agreed(fleet, connect())
    command(fleet, host)
    until(fleet, lambda: fleet.report()["pending"] == 1, host)
    fleet.remove(0, 1)
    fleet.return_all(0, 1)
    clock.now += 2.0
    fleet.turn(0)
    assert fleet.report()["pending"] == 0
    assert fleet.replies()[0]["answered_at"] is None


def test_an_answer_after_something_that_spoils_lines_is_not_sure(fleet: Residents, connect: Callable[[], Host]) -> None:
    host = agreed(fleet, connect())
    fleet.say(0, 1, "half")
    command(fleet, host)
    until(fleet, lambda: fleet.report()["commands"] == 1, host)
    [reply] = fleet.replies()
    assert reply["answered_at"] is not None
    assert not reply["sure"]


@pytest.mark.parametrize("what", sorted(SAYINGS))
def test_after_whatever_was_said_a_guest_can_be_calm(fleet: Residents, connect: Callable[[], Host], what: str) -> None:
    host = agreed(fleet, connect())
    fleet.say(0, 1, what)
    fleet.behave(0, 1, silent=True, garbage=True, turns_to=0, turns_every=1)
    fleet.rate(1000, at_once=1)
    fleet.calm()
    host.session.refresh(0.0)
    agreed(fleet, host)


def test_a_renamed_or_moved_vm_keeps_its_connection(fleet: Residents, connect: Callable[[], Host], tmp_path: Path) -> None:
    host = agreed(fleet, connect())
    fleet.rename(0, 1, "-b")
    fleet.move(0, 1)
    assert os.listdir(tmp_path) == ["domain-2-g00000-b"]
    assert fleet.states()[0]["name"] == "g00000-b"
    command(fleet, host)
    until(fleet, lambda: completed(host), host)
    fleet.remove(0, 1)
    fleet.add(0, 1)
    assert os.listdir(tmp_path) == ["domain-2-g00000-b"]


def test_who_is_not_there_is_left_out(fleet: Residents) -> None:
    fleet.remove(0, 1)
    fleet.hang_up(0, 5)
    fleet.behave(0, 5, silent=True)
    fleet.return_all(0, 2)
    assert [state["name"] for state in fleet.states()] == ["g00000", "g00001"]


def mistakes_after(fleet: Residents, host: Host, line: tuple[str, dict[str, Any]]) -> list[str]:
    host.send(codec.encode(*line))
    told: list[str] = []
    until(fleet, lambda: told.extend(fleet.mistakes()) or told, host)  # type: ignore[func-returns-value]
    return told


def test_a_push_above_what_both_sides_support_is_a_mistake(fleet: Residents, connect: Callable[[], Host]) -> None:
    fleet.behave(0, 1, version=2)
    host = connect()
    until(fleet, lambda: fleet.report()["agreed"] == 1, host)
    assert fleet.mistakes() == []
    [mistake] = mistakes_after(fleet, host, ("api-version", {"apiVersion": 3}))
    assert "g00000 was told to use 3" in mistake


def test_a_command_to_a_guest_that_can_not_know_it_is_a_mistake(fleet: Residents, connect: Callable[[], Host]) -> None:
    fleet.behave(0, 1, version=2)
    host = connect()
    until(fleet, lambda: fleet.report()["agreed"] == 1, host)
    [mistake] = mistakes_after(fleet, host, ("lifecycle-event", {"type": "before_migration", "reply_id": "r"}))
    assert "g00000 was sent a command" in mistake


def test_an_overlong_line_is_one() -> None:
    assert len(SAYINGS["overlong"]) > LINE_LIMIT
