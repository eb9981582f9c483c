from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.client import Client, Event
from tests.soak.ledger import Ledger
from tests.soak.operators import Crew, Faults, Follower


class Turns:
    """Counts its turns."""

    def __init__(self) -> None:
        self.count = 0
        self.taken = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.taken.set()

    def wait(self) -> None:
        """Until another one is taken."""
        self.taken.clear()
        assert self.taken.wait(30)


def test_a_crew_takes_turns_and_rests() -> None:
    turns = Turns()
    with Crew(Faults()) as crew:
        crew.employ("one", turns)
        crew.work()
        turns.wait()
        assert crew.rest(30)
        rested = turns.count
        crew.work()
        turns.wait()
    assert turns.count > rested


def test_a_turn_that_does_not_end_is_noticed() -> None:
    end, begun = threading.Event(), threading.Event()

    def turn() -> None:
        begun.set()
        end.wait(30)

    with Crew(Faults()) as crew:
        crew.employ("one", turn)
        crew.work()
        assert begun.wait(30)
        assert not crew.rest(0)
        end.set()
        assert crew.rest(30)


def test_an_error_in_a_turn_is_a_fault() -> None:
    faults, failed = Faults(), Turns()

    def turn() -> None:
        failed()
        raise ValueError("bad luck")

    with Crew(faults) as crew:
        crew.employ("one", turn)
        crew.work()
        failed.wait()
        crew.rest(30)
    assert faults.texts[0] == "one: ValueError('bad luck')"


def test_of_many_faults_the_first_ones_are_kept() -> None:
    faults = Faults(limit=2)
    faults.add(["a", "b", "c"])
    assert (faults.texts, faults.count) == (["a", "b"], 3)


@pytest.fixture
def follow(tmp_path: Path) -> Callable[..., tuple[list[str], list[tuple[float, float]]]]:
    """What a follower that has nobody to follow makes of these events: faults, and gaps."""

    def follow(*events: Event) -> tuple[list[str], list[tuple[float, float]]]:
        ledger, faults = Ledger(), Faults()
        follower = Follower(Client(str(tmp_path / "nobody")), ledger, faults)
        for event in events:
            follower._take(event)
        return faults.texts, ledger._gaps

    return follow


def event(number: int, kind: str = "state", run: str = "a") -> Event:
    return Event(f"{run}-{number}", kind, 0.0, "g1", {})


def test_events_without_a_gap_are_as_they_should_be(follow: Callable[..., object]) -> None:
    assert follow(event(5), event(6), event(7), event(0, "lost", "b"), event(1, run="b")) == ([], [])


def test_a_gap_that_nothing_told_of_is_a_fault(follow: Callable[..., tuple[list[str], list[object]]]) -> None:
    texts, _ = follow(event(5), event(7))
    assert texts == ["event 7 of run a came after 5 of a, and nothing told of a loss"]
    texts, _ = follow(event(5), event(0, "lost", "b"), event(2, run="b"))
    assert texts == ["event 2 of run b came after 0 of b, and nothing told of a loss"]


@pytest.mark.parametrize("lost", [event(8, "lost"), event(3, "lost", "b")])
def test_a_gap_that_was_told_of_is_noted(lost: Event, follow: Callable[..., tuple[list[str], list[object]]]) -> None:
    texts, gaps = follow(event(5), lost)
    assert not texts
    assert len(gaps) == 1
