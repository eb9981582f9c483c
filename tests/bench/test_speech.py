from __future__ import annotations

import pytest

from common import codec
from common.catalogue import CATALOGUE, Direction
from common.framing import LINE_LIMIT
from tests.bench import speech

pytestmark = pytest.mark.once


def test_every_line_is_a_message_of_the_table_with_valid_arguments() -> None:
    said = speech.facts(7, above=-1, up_to=3) + speech.heartbeat(1, speech.heartbeat_end(7, 3, 3)) + speech.completion("r")
    for line in said.splitlines():
        name, arguments = codec.decode(line)
        row = CATALOGUE.find(Direction.TO_HOST, name)
        assert row is not None
        message, mistyped = row.message_class.from_arguments(arguments)
        assert not mistyped
        # Nothing was made up: all that is said is known.
        assert set(message.to_arguments()) >= set(arguments) - {"done"}


@pytest.mark.parametrize("version", range(speech.NEWEST + 1))
def test_the_facts_of_a_version_are_all_that_came_with_it(version: int) -> None:
    names = [codec.decode(line)[0] for line in speech.facts(7, above=version - 1, up_to=version).splitlines()]
    assert sorted(names) == sorted(CATALOGUE.facts(above=version - 1, up_to=version))


def test_a_heartbeat_has_what_a_deployed_agent_says_and_what_ours_adds() -> None:
    _, arguments = codec.decode(speech.heartbeat(0, speech.heartbeat_end(7, 3, 2)))
    assert len(arguments["memory-stat"]) == 11
    assert (arguments["apiVersion"], arguments["apiVersionInUse"]) == (3, 2)
    assert set(arguments) == {"free-ram", "memory-stat", "apiVersion", "apiVersionInUse", "agentId"}


def test_a_guest_without_versions_says_nothing_of_them() -> None:
    _, arguments = codec.decode(speech.heartbeat(0, speech.heartbeat_end(7, None, 0)))
    assert set(arguments) == {"free-ram", "memory-stat"}


def test_no_guest_and_no_heartbeat_is_like_another() -> None:
    end = speech.heartbeat_end(7, 3, 3)
    assert len({speech.heartbeat(turn, end) for turn in range(900)}) == 900
    assert len({speech.heartbeat_end(number, 3, 3, run) for number in range(20) for run in range(20)}) == 400
    assert not set(speech.facts(1, above=-1, up_to=0).splitlines()) & set(
        speech.facts(2, above=-1, up_to=0).splitlines()[:1]
    )


def test_a_guest_says_the_same_of_itself_whenever_it_is_asked() -> None:
    assert speech.facts(7, above=-1, up_to=3) == speech.facts(7, above=-1, up_to=3)
    assert speech.agent_id(7, 1) == speech.agent_id(7, 1)


def test_garbage_is_nothing_but_garbage_line_by_line() -> None:
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in speech.GARBAGE)


def test_floods_go_round_without_a_seam() -> None:
    assert all(len(flood) < LINE_LIMIT for flood in speech.FLOODS.values())
    assert all(flood.endswith(b"\n") for name, flood in speech.FLOODS.items() if name != "endless")
    assert b"\n" not in speech.FLOODS["endless"]
