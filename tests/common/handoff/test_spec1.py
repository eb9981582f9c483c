"""``common.handoff.spec1``"""

from __future__ import annotations

import pytest

from common.handoff.members import members_of
from common.handoff.spec1 import FLOOR_LIMIT, Command, Fact, Spec1

from .sessions import FACTS


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_of_the_table_can_be_carried(name: str) -> None:
    said = {"facts": {name: {"age_s": 2.5, "arguments": FACTS[name]}}}
    fact = Spec1.from_members(said).facts[name]
    assert fact.age_s == 2.5
    assert Spec1(facts={name: fact}).to_members()["facts"][name]["arguments"].items() <= FACTS[name].items()


def test_a_heartbeat_is_carried_without_what_was_negotiated() -> None:
    said = {"facts": {"heartbeat": {"arguments": FACTS["heartbeat"]}}}
    assert set(Spec1.from_members(said).facts["heartbeat"].arguments) == {"free-ram", "memory-stat"}


def test_no_member_holds_what_was_agreed() -> None:
    assert [each.wire for each in members_of(Spec1) if "agreed" in each.wire or "in_use" in each.wire] == []


def test_facts_and_arguments_of_a_newer_release_are_ignored() -> None:
    said = {"facts": {"of-tomorrow": 7, "fqdn": {"arguments": {"fqdn": "a", "ttl": 5}}}}
    assert Spec1.from_members(said).facts == {"fqdn": Fact({"fqdn": "a"})}


@pytest.mark.parametrize("name", ["completion", "session-startup", "unsupported", "exec"])
def test_what_is_no_fact_is_not_carried(name: str) -> None:
    assert Spec1.from_members({"facts": {name: {"arguments": {}}}}).facts == {}


def test_a_fact_that_the_guest_can_not_have_said_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^facts: fqdn: fqdn: int instead of str$"):
        Spec1.from_members({"facts": {"fqdn": {"arguments": {"fqdn": 7}}}})


def test_a_command_never_has_arguments() -> None:
    said = {"commands": [{"reply_id": "a", "name": "login", "left_s": 1, "arguments": {"password": "secret"}}]}
    assert "secret" not in repr(Spec1.from_members(said))
    assert [each.wire for each in members_of(Command)] == ["reply_id", "name", "left_s"]


def test_two_commands_of_one_id_are_refused() -> None:
    command = {"reply_id": "a", "name": "echo", "left_s": 1}
    with pytest.raises(ValueError, match=r"^commands: two of the same reply_id$"):
        Spec1.from_members({"commands": [command, command]})


@pytest.mark.parametrize(
    ("floor", "reply_ids", "highest"),
    [
        (0, [], 0),
        (7, [], 7),
        (7, ["0123456789abcdef-6"], 7),
        (0, ["0123456789abcdef-6", "ffffffffffffffff-12"], 12),
        (0, ["0123456789abcdef-", "-9", "9", "0123456789abcdef-9x", "0123456789abcdef-9\n"], 0),
        (0, ["0123456789abcdef-" + "9" * 16], 0),
    ],
)
def test_the_floor_lies_below_no_number_in_flight(floor: int, reply_ids: list[str], highest: int) -> None:
    commands = tuple(Command(each, "echo", 1.0) for each in reply_ids)
    assert Spec1(commands=commands, reply_id_floor=floor).floor == highest


@pytest.mark.parametrize("floor", [-1, FLOOR_LIMIT + 1, True, 1.0, "1"])
def test_a_floor_that_no_host_reaches_is_refused(floor: object) -> None:
    assert Spec1.from_members({"reply_id_floor": FLOOR_LIMIT}).floor == FLOOR_LIMIT
    with pytest.raises(ValueError, match=r"^reply_id_floor: no integer from 0 to"):
        Spec1.from_members({"reply_id_floor": floor})
