from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as some

from host_agent.guest import HISTORY
from host_agent.known import Departure, Fact, InFlight, VersionChange
from host_agent.store import backlog as backlog_module
from host_agent.store.backlog import FACTS_LIMIT, FACTS_PERIOD, FIRST_FACTS_AFTER, Backlog, Move, Portion


def said(text: str, heard_at: float = 0.0) -> Fact:
    return Fact.of("host-name", {"name": text}, heard_at)


def changed(new: int) -> VersionChange:
    return VersionChange(0.0, 0, new, "why")


def sent(reply_id: str) -> InFlight:
    return InFlight(reply_id, "lifecycle-event", 0.0, 30.0)


def left(transfer: str, guest: str = "web") -> Departure:
    return Departure(transfer, guest, None, "host-b", 0.0)


# ---- When facts are written ----


def test_a_guests_first_facts_have_time_to_come_in() -> None:
    backlog = Backlog()
    backlog.put_fact("web", "host-name", said("web", 100.0))
    backlog.put_fact("web", "fqdn", said("web", 102.0))
    assert not backlog.take(100.0 + FIRST_FACTS_AFTER - 0.1).facts
    assert backlog
    assert len(backlog) == 2
    assert set(backlog.take(100.0 + FIRST_FACTS_AFTER).facts["web"]) == {"host-name", "fqdn"}
    assert not backlog


def test_a_guest_that_goes_on_talking_is_written_once_a_period_with_what_it_said_last() -> None:
    backlog = Backlog()
    written: list[Fact] = []
    for second in range(0, 300, 5):
        backlog.put_fact("web", "heartbeat", said(str(second), float(second)))
        written += [facts["heartbeat"] for facts in backlog.take(float(second)).facts.values()]
    assert [fact.heard_at for fact in written] == [5.0 + FACTS_PERIOD * turn for turn in range(5)]


def test_of_many_guests_those_that_waited_longest_are_written_first() -> None:
    backlog = Backlog()
    names = [f"guest-{number}" for number in range(2 * FACTS_LIMIT + 1)]
    for name in names:
        backlog.put_fact(name, "host-name", said(name))
    assert list(backlog.take(10.0).facts) == names[:FACTS_LIMIT]
    backlog.put_fact(names[0], "host-name", said("again"))
    assert list(backlog.take(10.0 + FACTS_PERIOD).facts) == names[FACTS_LIMIT : 2 * FACTS_LIMIT]
    assert list(backlog.take(10.0 + FACTS_PERIOD).facts) == [names[-1], names[0]]
    assert not backlog


def test_what_is_no_fact_waits_for_nothing() -> None:
    backlog = Backlog()
    backlog.put_uuid("web", "u")
    backlog.put_change("web", changed(3))
    backlog.put_command("web", sent("1"))
    backlog.drop_command("2")
    backlog.rename("old", "new")
    backlog.forget("gone")
    backlog.put_departure(left("d"))
    backlog.drop_departure("e")
    backlog.put_taken("t", "db")
    backlog.drop_taken("u")
    assert len(backlog) == 10
    portion = backlog.take(0.0)
    assert portion.uuids == {"web": "u"}
    assert list(portion.changes["web"]) == [changed(3)]
    assert portion.commands == {"1": ("web", sent("1"))}
    assert portion.answered == {"2"}
    assert list(portion.moves) == [Move("old", "new"), Move("gone", None)]
    assert (portion.departures, portion.departed) == ({"d": left("d")}, {"e"})
    assert (portion.taken, portion.not_taken) == ({"t": "db"}, {"u"})


# ---- How much waits ----


def test_of_a_guest_that_goes_on_for_ever_only_so_much_waits() -> None:
    backlog = Backlog()
    for number in range(1000):
        backlog.put_fact("web", "host-name", said(str(number)))
        backlog.put_change("web", changed(number))
        backlog.put_command("web", sent(str(number)))
        backlog.drop_command(str(number))
        backlog.put_back(backlog.take(1000.0 * number))
    portion = backlog.take_all()
    assert portion.facts == {"web": {"host-name": said("999")}}
    assert [change.new for change in portion.changes["web"]] == list(range(1000 - HISTORY, 1000))
    assert not portion.commands
    assert not portion.answered


def test_a_command_answered_while_it_is_written_is_deleted_afterwards() -> None:
    backlog = Backlog()
    backlog.put_command("web", sent("1"))
    assert backlog.take(0.0).commands
    backlog.drop_command("1")
    assert backlog.take(0.0).answered == {"1"}


def test_guests_that_come_and_go_without_end_do_not_wait_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "MOVES_LIMIT", 10)
    backlog = Backlog()
    for number in range(100):
        backlog.put_fact(str(number), "host-name", said("x"))
        backlog.forget(str(number))
        backlog.put_back(backlog.take(1000.0))
    portion = backlog.take_all()
    assert [move.old for move in portion.moves] == [str(number) for number in range(90, 100)]
    assert not portion.facts
    assert not backlog._due_at


def test_what_is_said_of_a_hand_off_while_it_could_not_be_written_counts_more() -> None:
    backlog = Backlog()
    for transfer in "ab":
        backlog.put_departure(left(transfer))
        backlog.put_taken(transfer, "web")
    backlog.drop_departure("c")
    backlog.drop_taken("c")
    portion = backlog.take(0.0)
    backlog.drop_departure("a")
    backlog.drop_taken("a")
    backlog.put_departure(left("c"))
    backlog.put_taken("c", "web")
    backlog.put_back(portion)
    portion = backlog.take_all()
    assert (list(portion.departures), portion.departed) == (["b", "c"], {"a"})
    assert (list(portion.taken), portion.not_taken) == (["b", "c"], {"a"})


def test_of_the_guests_taken_over_only_the_latest_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "TAKEN_LIMIT", 2)
    backlog = Backlog()
    for transfer in "abac":
        backlog.put_taken(transfer, "web")
        backlog.put_back(backlog.take(0.0))
    assert list(backlog.take_all().taken) == ["a", "c"]


# ---- Whatever the order, and whatever fails ----


class Model:
    """What a file holds when each change is written at once."""

    def __init__(self) -> None:
        self.uuids: dict[str, Optional[str]] = {}
        self.facts: dict[tuple[str, str], Fact] = {}
        self.changes: list[tuple[str, VersionChange]] = []
        self.commands: dict[str, str] = {}
        self.departures: dict[str, str] = {}
        self.taken: dict[str, str] = {}

    def rename(self, old: str, new: str) -> None:
        self.forget(new)
        self.uuids = {new if guest == old else guest: uuid for guest, uuid in self.uuids.items()}
        self.facts = {(new if guest == old else guest, name): fact for (guest, name), fact in self.facts.items()}
        self.changes = [(new if guest == old else guest, change) for guest, change in self.changes]
        self.commands = {reply_id: new if guest == old else guest for reply_id, guest in self.commands.items()}
        self.departures = {transfer: new if guest == old else guest for transfer, guest in self.departures.items()}

    def take(self, transfer: str, guest: str) -> None:
        self.taken.pop(transfer, None)
        self.taken[transfer] = guest

    def forget(self, gone: str) -> None:
        self.uuids.pop(gone, None)
        self.facts = {key: fact for key, fact in self.facts.items() if key[0] != gone}
        self.changes = [(guest, change) for guest, change in self.changes if guest != gone]
        self.commands = {reply_id: guest for reply_id, guest in self.commands.items() if guest != gone}

    def write(self, portion: Portion) -> None:
        for old, new in portion.moves:
            if new is None:
                self.forget(old)
            else:
                self.rename(old, new)
        self.uuids.update(portion.uuids)
        self.facts.update(((guest, name), fact) for guest, facts in portion.facts.items() for name, fact in facts.items())
        self.changes += [(guest, change) for guest, changes in portion.changes.items() for change in changes]
        self.commands.update((reply_id, guest) for reply_id, (guest, _) in portion.commands.items())
        for reply_id in portion.answered:
            self.commands.pop(reply_id, None)
        self.departures.update((transfer, departure.guest) for transfer, departure in portion.departures.items())
        for transfer in portion.departed:
            self.departures.pop(transfer, None)
        for transfer, guest in portion.taken.items():
            self.take(transfer, guest)
        for transfer in portion.not_taken:
            self.taken.pop(transfer, None)

    def as_mapping(self) -> dict[str, Any]:
        changes: dict[str, list[VersionChange]] = {}
        for guest, change in self.changes:
            changes.setdefault(guest, []).append(change)
        return {
            "uuids": self.uuids,
            "facts": self.facts,
            "changes": {guest: history[-HISTORY:] for guest, history in changes.items()},
            "commands": self.commands,
            "departures": self.departures,
            "taken": list(self.taken.items()),
        }


NAMES = some.sampled_from("abc")
TRANSFERS = some.sampled_from("stuv")
STEPS = some.one_of(
    some.tuples(some.just("fact"), NAMES, some.sampled_from(["host-name", "fqdn"])),
    some.tuples(some.just("uuid"), NAMES),
    some.tuples(some.just("change"), NAMES, some.integers(1, 2 * HISTORY)),
    some.tuples(some.just("command"), NAMES),
    some.tuples(some.just("drop"), some.integers(1, 5)),
    some.tuples(some.just("rename"), NAMES, NAMES).filter(lambda step: step[1] != step[2]),
    some.tuples(some.just("forget"), NAMES),
    some.tuples(some.just("doubt"), TRANSFERS, NAMES),
    some.tuples(some.just("known"), TRANSFERS),
    some.tuples(some.just("taken"), TRANSFERS, NAMES),
    some.tuples(some.just("not taken"), TRANSFERS),
    some.tuples(some.just("take"), some.sampled_from([0.0, 10.0, 1000.0])),
    some.tuples(some.just("end"), some.booleans()),
)


def carry_out(step: tuple[Any, ...], backlog: Backlog, model: Model, number: int, sent_ids: list[str]) -> None:
    kind, *arguments = step
    if kind == "fact":
        fact = said(str(number))
        guest, name = arguments
        backlog.put_fact(guest, name, fact)
        model.facts[guest, name] = fact
    elif kind == "uuid":
        backlog.put_uuid(arguments[0], str(number))
        model.uuids[arguments[0]] = str(number)
    elif kind == "change":
        for each in range(arguments[1]):
            backlog.put_change(arguments[0], changed(each))
            model.changes.append((arguments[0], changed(each)))
    elif kind == "command":
        backlog.put_command(arguments[0], sent(str(number)))
        model.commands[str(number)] = arguments[0]
        sent_ids.append(str(number))
    elif kind == "drop":
        for reply_id in sent_ids[-arguments[0] :]:
            backlog.drop_command(reply_id)
            model.commands.pop(reply_id, None)
    elif kind == "rename":
        backlog.rename(*arguments)
        model.rename(*arguments)
    elif kind == "forget":
        backlog.forget(*arguments)
        model.forget(*arguments)
    elif kind == "doubt":
        backlog.put_departure(left(*arguments))
        model.departures[arguments[0]] = arguments[1]
    elif kind == "known":
        backlog.drop_departure(*arguments)
        model.departures.pop(arguments[0], None)
    elif kind == "taken":
        backlog.put_taken(*arguments)
        model.take(*arguments)
    elif kind == "not taken":
        backlog.drop_taken(*arguments)
        model.taken.pop(arguments[0], None)


def portions(steps: list[tuple[Any, ...]], backlog: Backlog, model: Model) -> Iterator[Portion]:
    """Carry out *steps*; yields each portion that was written in the end."""
    in_hand: Optional[Portion] = None
    sent_ids: list[str] = []
    for number, step in enumerate(steps):
        if step[0] == "take" and in_hand is None:
            in_hand = backlog.take(step[1])
        elif step[0] == "end" and in_hand is not None:
            if step[1]:
                yield in_hand
            else:
                backlog.put_back(in_hand)
            in_hand = None
        else:
            carry_out(step, backlog, model, number, sent_ids)
    if in_hand is not None:
        yield in_hand
    yield backlog.take_all()


@given(some.lists(STEPS, max_size=30))
def test_the_file_ends_as_if_each_change_had_been_written_at_once(steps: list[tuple[Any, ...]]) -> None:
    backlog, model, file = Backlog(), Model(), Model()
    for portion in portions(steps, backlog, model):
        file.write(portion)
    assert file.as_mapping() == model.as_mapping()
    assert not backlog
