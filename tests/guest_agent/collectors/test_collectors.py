"""All collectors together, on this machine."""

from __future__ import annotations

from common import codec, versions
from common.catalogue import CATALOGUE, Direction
from common.messages import Message
from guest_agent.collectors import collectors
from tests.guest_agent.parts import Clock


def test_every_fact_of_the_table_has_its_collector(clock: Clock) -> None:
    assert collectors("/", (), clock).keys() == CATALOGUE.facts(up_to=versions.newest())


def test_what_they_collect_here_arrives_at_the_host_as_it_was(clock: Clock) -> None:
    for name, collect in collectors("/", ("*",), clock).items():
        outcome = collect()
        collected = outcome if isinstance(outcome, Message) else outcome[-1]
        row = CATALOGUE.row_of(Direction.TO_HOST, collected)
        assert row is not None
        assert row.name == name
        line = codec.encode(name, collected.to_arguments())
        received, mistyped = row.message_class.from_arguments(codec.decode(line.rstrip())[1])
        assert mistyped == []
        assert codec.encode(name, received.to_arguments()) == line
