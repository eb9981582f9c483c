"""Answers: how a host is told, and which ones are kept."""

from __future__ import annotations

from typing import Any

import pytest

from common.messages import Code, Completion
from guest_agent.answers import (
    ARCHIVE_LIMIT,
    ARCHIVE_WEIGHT,
    LOST,
    OUTBOX_LIMIT,
    OUTBOX_WEIGHT,
    SMALL,
    Answer,
    Archive,
    Outbox,
    Outcome,
    weight,
)


def answer(reply_id: str = "r1", command: str = "exec", **result: Any) -> Answer:
    return Answer(command, reply_id, Outcome(result=result))


def anything(_: str) -> bool:
    return True


def nothing(_: str) -> bool:
    return False


def only_events(command: str) -> bool:
    return command == "lifecycle-event"


# ---- How a host is told ----


@pytest.mark.parametrize(
    ("outcome", "in_full", "told"),
    [
        (Outcome(), False, {"reply_id": "r1", "done": True}),
        (Outcome(), True, {"reply_id": "r1", "done": True}),
        (Outcome(result={"load": 1}), False, {"reply_id": "r1", "done": True, "load": 1}),
        (Outcome(result={"load": 1}), True, {"reply_id": "r1", "done": True, "result": {"load": 1}}),
        (
            Outcome("no", {"failed": []}, code="timed-out"),
            False,
            {"reply_id": "r1", "done": False, "failed": [], "reason": "no"},
        ),
        (
            Outcome("no", {"failed": []}, code="timed-out"),
            True,
            {"reply_id": "r1", "done": False, "result": {"failed": []}, "error": {"code": "timed-out", "message": "no"}},
        ),
        (
            Outcome.refused(Code.BUSY, "later"),
            True,
            {"reply_id": "r1", "done": False, "error": {"code": "busy", "message": "later"}},
        ),
        (Outcome.refused(Code.BUSY, "later"), False, {"reply_id": "r1", "done": False, "reason": "later"}),
    ],
)
def test_a_host_is_told_in_the_words_of_its_version(outcome: Outcome, in_full: bool, told: dict[str, Any]) -> None:
    assert Answer("exec", "r1", outcome).completion(in_full).to_arguments() == told


@pytest.mark.parametrize("in_full", [True, False])
def test_whatever_is_told_is_a_completion_that_can_be_read_back(in_full: bool) -> None:
    completion = Answer("exec", "r1", Outcome("no", {"output": "half"}, code="failed")).completion(in_full)
    read, mistyped = Completion.from_arguments(completion.to_arguments())
    assert mistyped == []
    assert read.to_arguments() == completion.to_arguments()


def test_notes_are_none_of_the_hosts_business_and_a_problem_of_any_length_is_cut() -> None:
    bounded = Outcome("x" * 1_000_000, {"a": 1}, ["note"], "busy").for_host()
    assert (bounded.result, bounded.notes, bounded.code) == ({"a": 1}, (), "busy")
    assert bounded.problem is not None
    assert 1_000 < len(bounded.problem) < 100_000
    assert Outcome(result={"a": 1}, notes=["note"]).for_host() == Outcome(result={"a": 1})


def test_an_answer_that_loses_its_result_says_so_and_still_whether_it_failed() -> None:
    assert answer(output="x").without_result("too large").outcome == Outcome(result={LOST: "too large"})
    failed = Answer("exec", "r1", Outcome("ended", {"output": "x"}, code="timed-out"))
    assert failed.without_result("too large").outcome == Outcome("ended", {LOST: "too large"}, code="timed-out")
    without = answer()
    assert without.without_result() is without


@pytest.mark.parametrize(
    "value", ["x" * 1000, b"x" * 1000, {"x" * 1000: 1}, [["x" * 1000]], ({"a": "x" * 1000},), [0] * 100]
)
def test_what_takes_memory_has_weight(value: Any) -> None:
    assert 1000 <= weight(value) <= 3000
    assert answer(value=value).weight > weight(value)


def test_what_takes_little_weighs_little() -> None:
    assert weight(None) == weight(1.5) == weight(True) < 100


# ---- The outbox ----


def test_answers_leave_in_the_order_in_which_they_came() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.add(answer(str(number)), sendable=True)
    left = []
    while (first := outbox.first(anything)) is not None:
        left.append(first.reply_id)
        outbox.remove(first)
    assert left == ["0", "1", "2"]
    assert len(outbox) == 0


def test_an_answer_that_may_not_be_sent_holds_up_none_behind_it() -> None:
    outbox = Outbox()
    outbox.add(answer("early"), sendable=False)
    outbox.add(answer("event", "lifecycle-event"), sendable=True)
    found = outbox.first(only_events)
    assert found is not None
    assert found.reply_id == "event"
    assert outbox.first(nothing) is None


def test_the_same_answer_is_kept_once_and_an_equal_one_of_its_own() -> None:
    outbox = Outbox()
    first = answer()
    for _ in range(3):
        outbox.add(first, sendable=True)
    assert len(outbox) == 1
    outbox.add(answer(), sendable=True)
    assert len(outbox) == 2


def test_as_many_answers_as_there_should_be_hold_up_what_would_make_more() -> None:
    outbox = Outbox()
    for number in range(OUTBOX_LIMIT - 1):
        outbox.add(answer(str(number)), sendable=True)
    assert not outbox.holds_up(anything)
    outbox.add(answer("last"), sendable=True)
    assert outbox.holds_up(anything)


def test_answers_that_are_too_large_together_hold_up_what_would_make_more() -> None:
    outbox = Outbox()
    for number in range(2):
        assert not outbox.holds_up(anything)
        outbox.add(answer(str(number), output="x" * (OUTBOX_WEIGHT // 2)), sendable=True)
    assert outbox.holds_up(anything)
    first = outbox.first(anything)
    assert first is not None
    outbox.remove(first)
    assert not outbox.holds_up(anything)


def test_answers_that_nobody_may_be_sent_hold_up_nothing() -> None:
    outbox = Outbox()
    for number in range(OUTBOX_LIMIT):
        outbox.add(answer(str(number)), sendable=False)
    assert not outbox.holds_up(nothing)
    assert not outbox.holds_up(only_events)
    assert outbox.holds_up(anything)


def test_no_large_result_is_kept_for_a_host_that_may_never_come() -> None:
    outbox = Outbox()
    for number in range(10):
        outbox.add(answer(str(number), output="x" * (OUTBOX_WEIGHT // 3)), sendable=False)
    kept = []
    while (first := outbox.first(anything)) is not None:
        outbox.remove(first)
        kept.append(first)
    assert [each.reply_id for each in kept] == [str(number) for number in range(10)]
    assert ["output" in each.outcome.result for each in kept] == [True] * 2 + [False] * 8
    assert kept[-1].outcome == Outcome(result={LOST: "what came of it was too large to be kept until now"})


# ---- The archive ----


def test_an_answer_is_found_by_its_command_and_reply_id() -> None:
    archive = Archive()
    given = answer()
    archive.add(given)
    assert archive.find("exec", "r1") is given
    assert archive.find("exec", "r2") is None
    assert archive.find("load", "r1") is None


def test_the_newest_answers_are_kept() -> None:
    archive = Archive()
    for number in range(ARCHIVE_LIMIT + 10):
        archive.add(answer(str(number)))
    assert archive.find("exec", "9") is None
    assert archive.find("exec", "10") is not None
    assert archive.find("exec", str(ARCHIVE_LIMIT + 9)) is not None


def test_the_newer_one_of_two_answers_counts() -> None:
    archive = Archive()
    for output in ("old", "new"):
        archive.add(answer(output=output))
    assert archive.find("exec", "r1") == answer(output="new")


def test_of_answers_that_are_too_large_together_the_largest_lose_their_results() -> None:
    archive = Archive()
    sizes = [ARCHIVE_WEIGHT // 4, ARCHIVE_WEIGHT // 2, 10, ARCHIVE_WEIGHT // 3, ARCHIVE_WEIGHT // 5]
    for number, size in enumerate(sizes):
        archive.add(answer(str(number), output="x" * size))
    found = [archive.find("exec", str(number)) for number in range(5)]
    assert [each is not None and "output" in each.outcome.result for each in found] == [True, False, True, True, True]


def test_of_equally_large_results_the_oldest_are_lost() -> None:
    archive = Archive()
    for number in range(5):
        archive.add(answer(str(number), output="x" * (ARCHIVE_WEIGHT // 3)))
    found = [archive.find("exec", str(number)) for number in range(5)]
    assert [each is not None and "output" in each.outcome.result for each in found] == [False, False, False, True, True]


def test_what_was_done_stays_done_when_its_result_is_lost() -> None:
    archive = Archive()
    archive.add(answer(output="x" * (2 * ARCHIVE_WEIGHT)))
    found = archive.find("exec", "r1")
    assert found is not None
    told = found.completion(in_full=True).to_arguments()
    assert told == {"reply_id": "r1", "done": True, "result": {LOST: "what came of it was too large to be kept until now"}}


def test_small_results_are_never_lost() -> None:
    archive = Archive()
    for number in range(ARCHIVE_LIMIT):
        archive.add(answer(str(number), output="x" * (SMALL - 100)))
    archive.add(answer("large", output="x" * ARCHIVE_WEIGHT))
    found = [archive.find("exec", str(number)) for number in range(1, ARCHIVE_LIMIT)]
    assert all(each is not None and "output" in each.outcome.result for each in found)


def test_answers_that_are_large_without_their_results_are_bounded_too() -> None:
    archive = Archive()
    for number in range(10):
        archive.add(answer(f"{number}" * (ARCHIVE_WEIGHT // 2)))
    kept = [number for number in range(10) if archive.find("exec", f"{number}" * (ARCHIVE_WEIGHT // 2))]
    assert kept == [7, 8, 9]
    archive.add(answer("x" * (3 * ARCHIVE_WEIGHT)))
    assert archive.find("exec", "x" * (3 * ARCHIVE_WEIGHT))
    assert archive.find("exec", "9" * (ARCHIVE_WEIGHT // 2)) is None


def test_an_answer_that_is_too_large_by_itself_is_known_all_the_same() -> None:
    archive = Archive()
    archive.add(answer(output="x" * (2 * ARCHIVE_WEIGHT)))
    found = archive.find("exec", "r1")
    assert found is not None
    assert "output" not in found.outcome.result
