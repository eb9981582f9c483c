from __future__ import annotations

from typing import Any, Optional

import pytest

from tests.soak.guests import Reply
from tests.soak.ledger import DONE, HOLD, TIMED_OUT, UNREACHABLE, Call, End, Ledger, Verdict

RUN, NEXT_RUN = "first", "second"


def reply(answered_at: Optional[float] = 101.0, **more: Any) -> Reply:
    values: dict[str, Any] = {"answered_at": answered_at, "answered_by": "g1" if answered_at else None, **more}
    return Reply("r", "g1", 100.0, **values)


def told(*events: tuple[str, float], run: str = RUN) -> Ledger:
    ledger = Ledger()
    for kind, at in events:
        ledger.note_event(kind, "r", "g1", at, run)
    return ledger


def settled(ledger: Ledger, *replies: Reply) -> Verdict:
    verdict = ledger.settle(replies)
    assert ledger.settle(()) == ([], {}, 0, 0, 0), "everything begins anew"
    return verdict


def faults(ledger: Ledger, *replies: Reply) -> str:
    return "\n".join(settled(ledger, *replies).wrong)


def test_a_command_that_was_completed_is_as_it_should_be() -> None:
    ledger = told(("command", 100.0), ("completion", 101.0))
    ledger.note_call(Call("g1", 100.0, 101.0, DONE, "r"))
    verdict = settled(ledger, reply())
    assert verdict == ([], {DONE: 1}, 1, 0, 0)


def test_one_that_timed_out_may_be_completed_late() -> None:
    assert not faults(told(("command", 100.0), ("timed-out", 100.5), ("late", 101.0)), reply())


@pytest.mark.parametrize(
    "events",
    [("completion", "completion"), ("completion", "timed-out"), ("timed-out", "timed-out"), ("late", "completion")],
)
def test_nothing_ends_twice(events: tuple[str, ...]) -> None:
    ledger = told(("command", 100.0), *((kind, 101.0) for kind in events))
    assert "ended more than once" in faults(ledger, reply())


def test_a_completion_that_is_taken_for_a_time_out_is_lost() -> None:
    assert "a completion was lost" in faults(told(("command", 100.0), ("timed-out", 105.0)), reply())


def test_a_late_completion_that_is_not_told_is_lost() -> None:
    assert "a completion was lost" in faults(told(("command", 100.0), ("timed-out", 100.5)), reply())


def test_a_command_that_never_ends_is_told_of() -> None:
    assert "told as sent and never as ended" in faults(told(("command", 100.0)), reply(None))


@pytest.mark.parametrize(
    "spoilt", [{"ended_at": 101.0 + HOLD / 2}, {"sure": False}, {"answered_by": "g1-renamed"}, {"answered_at": None}]
)
def test_a_completion_that_need_not_have_come_in_is_not_missed(spoilt: dict[str, Any]) -> None:
    assert not faults(told(("command", 100.0), ("timed-out", 105.0)), reply(**{"answered_at": 101.0, **spoilt}))


def test_a_guest_that_is_forgotten_ends_its_commands_under_the_name_that_it_has() -> None:
    ledger = told(("command", 100.0))
    ledger.note_renamed("g1", "g2")
    ledger.note_forgotten("g2", 102.0, RUN)
    assert not faults(ledger, reply())


def test_a_completion_over_a_restart_is_counted() -> None:
    ledger = told(("command", 100.0))
    ledger.note_end(End(100.5, 101.5, clean=True))
    ledger.note_event("completion", "r", "g1", 102.0, NEXT_RUN)
    assert settled(ledger, reply(102.0)).survived == 1


def test_what_is_lost_over_a_clean_restart_is_a_fault() -> None:
    ledger = told(("command", 100.0))
    ledger.note_end(End(100.5, 101.5, clean=True))
    assert "a completion was lost" in faults(ledger, reply(102.0))


def test_a_daemon_that_stops_reads_what_comes_meanwhile() -> None:
    ledger = told(("command", 100.0))
    ledger.note_end(End(100.5, 102.5, clean=True))
    assert not faults(ledger, reply(ended_at=102.0)), "nobody follows events any more"
    ledger = told(("command", 100.0))
    ledger.note_end(End(100.5, 102.5, clean=True))
    ledger.note_event("timed-out", "r", "g1", 103.0, NEXT_RUN)
    assert "a completion was lost" in faults(ledger, reply(ended_at=102.0))


def test_what_a_killed_daemon_did_last_is_excused_and_what_came_before_is_not() -> None:
    ledger = told(("command", 100.0))
    ledger.note_end(End(101.5, 102.0, clean=False))
    assert settled(ledger, reply()) == ([], {}, 1, 0, 1)
    ledger = told(("command", 100.0))
    ledger.note_end(End(120.0, 121.0, clean=False))
    assert "a completion was lost" in faults(ledger, reply())


def test_lost_events_excuse_what_they_may_have_told() -> None:
    ledger = told(("command", 100.0))
    ledger.note_gap(100.0, 102.0)
    assert settled(ledger, reply()).excused == 1


def test_a_daemon_that_is_there_answers() -> None:
    ledger = Ledger()
    ledger.note_call(Call("g1", 100.0, 101.0, UNREACHABLE, text="no daemon"))
    assert "the daemon was there: no daemon" in faults(ledger)
    ledger.note_call(Call("g1", 100.0, 101.0, UNREACHABLE))
    ledger.note_end(End(100.5, 102.0, clean=True))
    assert not faults(ledger)


def test_only_the_guest_can_say_that_something_is_done() -> None:
    ledger = told(("command", 100.0), ("timed-out", 101.0))
    ledger.note_call(Call("g1", 100.0, 101.0, DONE, "r"))
    assert "which never said so" in faults(ledger, reply(None))
    ledger.note_call(Call("g1", 100.0, 101.0, TIMED_OUT, "r"))
    assert not faults(ledger)


def test_a_command_is_sent_once() -> None:
    assert "sent to g1 2 times" in faults(told(("command", 100.0), ("completion", 101.0)), reply(heard=2))
