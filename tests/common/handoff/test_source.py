"""``common.handoff.source``, in conversation with a destination."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Optional

import pytest

from common.handoff import conversions, documents, source, window
from common.handoff.errors import InvalidPayload, WouldLose
from common.handoff.frames import Command, Response, Status
from common.handoff.greetings import Outcome
from common.handoff.refusals import Code, Refusal, Refused
from common.handoff.source import NoCommonSpec, NotAwaited, Prepared, Terms
from common.handoff.spec0 import Spec0
from common.handoff.vm import of_session

from .talks import ANOTHER, SESSION, TRANSFER, VM, Cut, Host, hand_over, source_of

RELEASES = list(itertools.product(window.VERSIONS, documents.SPECS))

LOSING = Terms(allow_loss=True)


@pytest.mark.parametrize("cut", Cut)
def test_a_whole_hand_over_says_these_things_in_this_order(cut: Cut) -> None:
    host = Host()
    line = host.connect(cut)
    assert line.talk(source_of(Terms()).prepare()) == Prepared(False, 1, 2, ())
    assert host.taken == []
    line.talk(source.complete())
    assert [each.command for each in line.said] == [Command.START, Command.HELLO, Command.SESSION, Command.COMPLETE]
    assert (host.taken, host.disk) == ([SESSION], [TRANSFER])


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("theirs", RELEASES)
@pytest.mark.parametrize("ours", RELEASES)
def test_any_two_releases_meet_in_what_both_know(ours: tuple[int, int], theirs: tuple[int, int], cut: Cut) -> None:
    host, terms = Host(*theirs), Terms(5, True, False, *ours)
    spec = min(ours[1], theirs[1])
    assert hand_over(host, terms, cut=cut) == Prepared(
        False, min(ours[0], theirs[0]), spec, conversions.convert_telling(SESSION, spec, True)[1]
    )
    assert host.taken == [conversions.convert(SESSION, spec, allow_loss=True)]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("theirs", [each for each in RELEASES if each[0]])
@pytest.mark.parametrize("ours", [each for each in RELEASES if each[0]])
def test_any_two_releases_find_out_what_became_of_a_transfer(
    ours: tuple[int, int], theirs: tuple[int, int], restarted: bool
) -> None:
    host, terms = Host(*theirs), Terms(5, True, False, *ours)._replace(protocol=min(ours[0], theirs[0]))
    assert host.connect().talk(source_of(terms).ask()) is False
    hand_over(host, terms)
    if restarted:
        host.restart()
    assert host.connect().talk(source_of(terms).ask()) is True
    assert host.connect().talk(source_of(terms).prepare()).taken
    assert host.connect().talk(source_of(terms, transfer=ANOTHER).ask()) is False
    assert len(host.taken) == 1


def test_who_only_asks_leaves_nothing_prepared_and_loses_nothing() -> None:
    host = Host(1, 0)
    line = host.connect()
    assert line.talk(source_of(Terms()).ask()) is False
    assert line.destination.session is None


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("spec", documents.SPECS)
def test_in_the_legacy_protocol_who_asks_has_the_guest_taken(spec: int, taken: bool) -> None:
    host, terms = Host(0, spec), Terms(protocol=0, allow_loss=True)
    if taken:
        hand_over(host, terms)
    assert host.connect().talk(source_of(terms._replace(allow_loss=False)).ask()) is True
    assert len(host.taken) == 1


def test_once_asked_about_a_transfer_an_older_connection_can_not_complete_it() -> None:
    host, terms = Host(), Terms()
    older = host.connect()
    older.talk(source_of(terms).prepare())
    assert host.connect().talk(source_of(terms).ask()) is False
    with pytest.raises(Refused) as caught:
        older.talk(source.complete())
    assert caught.value.refusal.code == Code.SUPERSEDED.value
    assert older.destination.ended
    assert host.taken == []


@pytest.mark.parametrize("terms", [Terms(), Terms(spec=1), Terms(protocol=0)])
def test_what_would_get_lost_is_sent_only_where_that_is_allowed(terms: Terms) -> None:
    host = Host(spec=0)
    line = host.connect()
    with pytest.raises(WouldLose, match=r"^session spec 0 would lose"):
        line.talk(source_of(terms).prepare())
    assert line.destination.session is None
    prepared = host.connect().talk(source_of(terms._replace(allow_loss=True)).prepare())
    assert (prepared.spec, prepared.lost) == (0, conversions.convert_telling(SESSION, 0, True)[1])


def test_nothing_gets_lost_that_is_not_there() -> None:
    assert Host(spec=0).connect().talk(source_of(Terms(), Spec0(username="None")).prepare()) == Prepared(False, 1, 0, ())


def test_of_the_destinations_only_the_one_that_awaits_the_vm_gets_the_document() -> None:
    host = Host()
    line = host.connect()
    terms = Terms(only_awaited=True)
    with pytest.raises(NotAwaited, match="does not await this VM: have it await it, or name the destination"):
        line.talk(source_of(terms).prepare())
    assert [each.command for each in line.said] == [Command.START, Command.HELLO]
    host.awaited.append(VM)
    assert host.connect().talk(source_of(terms).prepare()).spec == documents.NEWEST


def test_a_destination_of_the_legacy_protocol_can_not_say_what_it_awaits() -> None:
    line = Host(0).connect()
    with pytest.raises(NotAwaited, match="name it, or upgrade its vmaccord-host"):
        line.talk(source_of(Terms(only_awaited=True, protocol=0)).prepare())
    assert [each.command for each in line.said] == [Command.START]


@pytest.mark.parametrize(
    ("specs", "listed"), [(b"[7, 8]", "7, 8"), (b"[]", "none"), (b"[%s]" % b", ".join([b"9"] * 50), ", ".join("9" * 10))]
)
def test_without_a_common_spec_nothing_is_handed_over(specs: bytes, listed: str) -> None:
    conversation = source_of(LOSING).prepare()
    next(conversation)
    assert conversation.send(OK).command is Command.HELLO
    with pytest.raises(NoCommonSpec, match=f"reads session specs {listed}, written here are 0, 1, 2: upgrade the older"):
        conversation.send(Response(Status.OK, b'{"specs": %s}' % specs))


def test_a_refused_spec_is_tried_once_more_in_the_newest_that_the_refusal_names() -> None:
    line = Host(0, 1).connect()
    assert line.talk(source_of(LOSING._replace(protocol=0)).prepare()).spec == 1
    assert [documents.number_of(documents.read(each.payload)) for each in line.said[1:]] == [2, 1]


@pytest.mark.parametrize("supported", [(), (2, 3), (9,)])
def test_a_refused_spec_without_an_older_one_ends_it(supported: tuple[int, ...]) -> None:
    _assert_refused_at_the_document([Refusal(Code.UNKNOWN_SPEC.value, "no", supported)], Code.UNKNOWN_SPEC.value)


def test_a_second_refusal_of_a_spec_ends_it() -> None:
    refusals = [Refusal(Code.UNKNOWN_SPEC.value, "no", (0, 1)), Refusal(Code.UNKNOWN_SPEC.value, "no", (0,))]
    _assert_refused_at_the_document(refusals, Code.UNKNOWN_SPEC.value)


@pytest.mark.parametrize("code", [Code.NAME_TAKEN, Code.BUSY, Code.INVALID_SESSION])
def test_any_other_refusal_of_the_document_ends_it(code: Code) -> None:
    _assert_refused_at_the_document([Refusal(code.value, "no")], code.value)


def test_an_older_spec_is_sent_whatever_word_a_refusal_has() -> None:
    _assert_refused_at_the_document([Refusal("spec-too-new", "no", (0, 1)), Refusal("spec-too-new", "no")], "spec-too-new")


def test_what_the_destination_has_against_it_is_told() -> None:
    host = Host()
    host.against = Refusal(Code.NAME_TAKEN.value, "another VM has that name: rename one")
    with pytest.raises(Refused, match=r"^another VM has that name: rename one$"):
        host.connect().talk(source_of(Terms()).prepare())
    assert host.asked_of == [of_session(SESSION)]


def test_a_refused_version_is_told_with_those_spoken() -> None:
    line = Host(0).connect()
    with pytest.raises(Refused) as caught:
        line.talk(source_of(Terms()).prepare())
    assert caught.value.refusal.supported == (0,)
    assert line.destination.ended


def test_a_refusal_that_nobody_can_read_says_where_to_look() -> None:
    conversation = source.complete()
    next(conversation)
    with pytest.raises(InvalidPayload, match="look into its log"):
        conversation.send(Response(Status.ERROR, b"what?"))


def test_an_answer_to_hello_that_nobody_can_read_hands_nothing_over() -> None:
    conversation = source_of(Terms()).prepare()
    next(conversation)
    conversation.send(OK)
    with pytest.raises(InvalidPayload, match="the answer to Hello can't be read"):
        conversation.send(Response(Status.OK, b"[]"))


@pytest.mark.parametrize(("reply_id", "outcome"), [("run-1", Outcome(True, 2.0)), ("run-9", None)])
def test_a_destination_is_asked_how_a_command_ended(reply_id: str, outcome: Optional[Outcome]) -> None:
    host = Host()
    host.ended = {"run-1": Outcome(True, 2.0), "run-2": Outcome(False)}
    assert host.connect().talk(source.ask_for(1, reply_id)) == outcome


def test_who_abandons_leaves_nothing_behind() -> None:
    host = Host()
    line = host.connect()
    line.talk(source_of(Terms()).prepare())
    line.talk(source.abandon())
    assert line.destination.ended
    assert (line.destination.session, host.taken) == (None, [])


OK = Response(Status.OK)


def _assert_refused_at_the_document(refusals: Iterable[Refusal], code: str) -> None:
    """A legacy source that is answered so to its documents, one after the other, gives up with *code*."""
    conversation = source_of(LOSING._replace(protocol=0)).prepare()
    next(conversation)
    assert conversation.send(OK).command is Command.SESSION
    *first, last = refusals
    for refusal in first:
        assert conversation.send(refusal.response()).command is Command.SESSION
    with pytest.raises(Refused) as caught:
        conversation.send(last.response())
    assert caught.value.refusal.code == code
