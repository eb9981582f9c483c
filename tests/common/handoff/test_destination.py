"""``common.handoff.destination``"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.framing import LINE_LIMIT
from common.handoff import conversions, destination, documents, frames, greetings, refusals, source, steps, window
from common.handoff.destination import Arrivals, Work
from common.handoff.documents import Container
from common.handoff.errors import InvalidFrame
from common.handoff.frames import Command, Request, RequestReader, Response, Status
from common.handoff.greetings import Hello, Outcome, Welcome
from common.handoff.refusals import Code
from common.handoff.source import Terms
from common.handoff.spec0 import Spec0
from common.handoff.spec1 import Spec1
from common.handoff.steps import Owner, Phase
from common.handoff.vm import Vm, of_session

from .talks import ANOTHER, SESSION, TRANSFER, VM, Host, Line, source_of

START = frames.start(window.NEWEST)
HELLO = Request(Command.HELLO, greetings.pack_hello(Hello((0, 1, 2), 5, VM, TRANSFER)))
DOCUMENT = Request(Command.SESSION, documents.write(SESSION, TRANSFER))
COMPLETE = Request(Command.COMPLETE)
ABANDON = Request(Command.ABANDON)
WHOLE = [START, HELLO, DOCUMENT, COMPLETE]

#: Every request, good and bad.
REQUESTS = [
    *[START, frames.start(0), frames.start(9), HELLO, Request(Command.HELLO), Request(Command.HELLO, b"what?")],
    *[DOCUMENT, Request(Command.SESSION, documents.write(Spec1(name="a"))), Request(Command.SESSION, b'{"spec": 9}')],
    *[Request(Command.SESSION, b"what?"), COMPLETE, ABANDON],
]


# ---- One connection ----


@given(st.lists(st.sampled_from(REQUESTS), max_size=12))
def test_whatever_comes_in_whatever_order_the_table_is_kept_to(requests: list[Request]) -> None:
    host = Host()
    line = host.connect()
    for request in requests:
        before = line.destination.phase
        step = steps.find(request.command, before, line.destination.protocol)
        code = _code(line.ask(request))
        if step is None:
            assert code == Code.OUT_OF_ORDER.value
        elif code is None:
            assert line.destination.phase is step.leads_to
        else:
            assert line.destination.phase is (Phase.STARTED if before is Phase.PREPARED else before)
        assert (line.destination.session is not None) >= (line.destination.phase is Phase.PREPARED)
        assert bool(host.taken) == (line.destination.phase.owner is Owner.DESTINATION)
        if line.destination.ended:
            return


@pytest.mark.parametrize("requests", [WHOLE[:until] for until in range(4)])
def test_who_goes_before_complete_leaves_nothing_behind(requests: list[Request]) -> None:
    host = Host()
    _close(_after(host, requests))
    assert (host.taken, host.disk) == ([], [])
    assert _code(_after(host, WHOLE[:3]).ask(COMPLETE)) is None


def test_every_request_cut_anywhere_counts_only_when_it_is_whole() -> None:
    stream = b"".join(map(frames.pack_request, WHOLE))
    for length in [*range(0, len(stream) + 1, 97), len(stream) - 1, len(stream)]:
        host = Host()
        line, reader = host.connect(), RequestReader()
        for request in reader.feed(stream[:length]):
            line.ask(request)
        _close(line)
        assert bool(host.taken) == (length == len(stream))


@pytest.mark.parametrize("garble", [lambda byte: byte ^ 0xFF, lambda byte: (byte + 1) % 256, lambda _: 0])
def test_a_garbled_byte_costs_the_connection_or_a_refusal_and_nothing_else(garble: Callable[[int], int]) -> None:
    stream = b"".join(map(frames.pack_request, WHOLE))
    for at in range(0, len(stream), 23):
        host = Host()
        line = host.connect()
        garbled = stream[:at] + bytes([garble(stream[at])]) + stream[at + 1 :]
        try:
            for request in RequestReader().feed(garbled):
                if not line.destination.ended:
                    line.ask(request)
        except InvalidFrame:
            pass
        _close(line)
        assert len(host.taken) <= 1


@pytest.mark.parametrize("at", range(4))
def test_a_request_that_comes_twice_does_no_harm(at: int) -> None:
    host = Host()
    line = _after(host, [*WHOLE[: at + 1]])
    code = _code(line.ask(WHOLE[at]))
    assert code == (Code.OUT_OF_ORDER.value if WHOLE[at] is START else None)
    assert len(host.taken) == (1 if WHOLE[at] is COMPLETE else 0)


@pytest.mark.parametrize(
    ("requests", "name"),
    [
        ([HELLO], "Hello"),
        ([START, COMPLETE], "Complete"),
        ([START, DOCUMENT, HELLO], "Hello"),
        ([*WHOLE, ABANDON], "Abandon"),
    ],
)
def test_what_comes_out_of_order_is_refused_and_ends_the_connection(requests: list[Request], name: str) -> None:
    line = Host().connect()
    *_, last = [line.ask(request) for request in requests]
    assert refusals.unpack(last.payload) == refusals.Refusal(
        "out-of-order", f"{name} may not come now: keep to the order Start, Hello, Session, Complete"
    )
    assert line.destination.ended


def test_the_legacy_protocol_has_no_hello() -> None:
    assert _code(_after(Host(), [frames.start(0)]).ask(HELLO)) == Code.OUT_OF_ORDER.value


@pytest.mark.parametrize("version", [2, 9, 65535])
def test_a_version_beyond_the_window_is_refused_and_ends_the_connection(version: int) -> None:
    line = Host().connect()
    refusal = refusals.unpack(line.ask(frames.start(version)).payload)
    assert (refusal.code, refusal.supported) == ("unsupported-protocol-version", (0, 1))
    assert (line.destination.ended, line.destination.phase) == (True, Phase.OPENED)


def test_a_hello_is_answered_with_what_the_host_knows() -> None:
    host = Host(spec=1)
    host.awaited.append(VM)
    assert _welcome(_after(host, [START]).ask(HELLO)) == Welcome((0, 1), 5, True, False, {})
    _after(host, WHOLE)
    assert _welcome(_after(host, [START]).ask(HELLO)).taken is False, "that document was of another spec"
    host.terms = host.terms._replace(spec=2)
    _after(host, WHOLE)
    assert _welcome(_after(host, [START]).ask(HELLO)).taken


def test_a_hello_that_says_nothing_is_answered() -> None:
    assert _welcome(_after(Host(), [START]).ask(Request(Command.HELLO))) == Welcome((0, 1, 2), 5)


def test_a_hello_that_can_not_be_read_is_refused_and_the_next_one_counts() -> None:
    line = _after(Host(), [START])
    assert _code(line.ask(Request(Command.HELLO, b"what?"))) == Code.INVALID_HELLO.value
    assert _code(line.ask(HELLO)) is None


def test_outcomes_that_fit_into_no_answer_are_refused() -> None:
    host = Host()
    host.ended = {each: Outcome(True, more={"result": "x" * 1_000_000}) for each in "abcde"}
    line = _after(host, [START])
    refused = line.ask(_asking("a", "b", "c", "d", "e"))
    assert refusals.unpack(refused.payload).message.endswith("larger than 4194304 bytes: ask for fewer outcomes")
    assert _welcome(line.ask(_asking("a", "b"))).outcomes.keys() == {"a", "b"}


@pytest.mark.parametrize("letter", ["é", "\U0001f600", "x"])
def test_whatever_a_guest_answered_in_a_line_is_an_outcome_that_fits(letter: str) -> None:
    length = LINE_LIMIT // len(letter.encode()) - 100
    host = Host()
    host.ended = {"a": Outcome(True, more={"result": letter * length})}
    assert _welcome(_after(host, [START]).ask(_asking("a"))).outcomes == host.ended


@pytest.mark.parametrize(
    ("document", "code", "supported"),
    [
        (b'{"spec": 9}', Code.UNKNOWN_SPEC, (0, 1)),
        (documents.write(SESSION), Code.UNKNOWN_SPEC, (0, 1)),
        (b"what?", Code.INVALID_SESSION, ()),
        (b'{"spec": 1, "session": {"name": 7}}', Code.INVALID_SESSION, ()),
        (b'{"spec": 1, "transfer": "x"}', Code.INVALID_SESSION, ()),
    ],
)
def test_a_document_that_can_not_be_used_is_refused(document: bytes, code: Code, supported: tuple[int, ...]) -> None:
    refusal = destination.read(document, (0, 1))
    assert isinstance(refusal, refusals.Refusal)
    assert (refusal.code, refusal.supported) == (code.value, supported)


def test_a_document_offers_a_session_of_a_transfer() -> None:
    assert destination.read(DOCUMENT.payload, (0, 1, 2)) == Container(SESSION, TRANSFER, of_session(SESSION))


def test_a_second_document_takes_the_place_of_the_first() -> None:
    host = Host()
    _after(host, [START, HELLO, DOCUMENT, Request(Command.SESSION, documents.write(Spec1(name="b"), TRANSFER)), COMPLETE])
    assert host.taken == [Spec1(name="b")]


def test_after_a_refused_document_the_one_before_is_not_prepared_any_more() -> None:
    host = Host()
    line = _after(host, [START, HELLO, DOCUMENT, Request(Command.SESSION, b"what?")])
    assert line.destination.phase is Phase.STARTED
    assert _code(line.ask(COMPLETE)) == Code.OUT_OF_ORDER.value
    assert host.taken == []


def test_what_can_not_be_noted_on_disk_remains_the_sources() -> None:
    host = Host()
    host.disk_is_full = True
    line = _after(host, WHOLE[:3])
    assert _code(line.ask(COMPLETE)) == Code.NOT_SAVED.value
    assert (line.destination.phase, host.taken) == (Phase.PREPARED, [])
    host.disk_is_full = False
    assert _code(line.ask(COMPLETE)) is None
    assert host.taken == [SESSION]


def test_while_it_is_being_taken_and_noted_the_session_stays() -> None:
    host = Host()
    line = _after(host, WHOLE[:3])
    assert line.destination.receive(COMPLETE) is Work.TAKE
    line.destination.closed()
    assert (line.destination.is_taking, line.destination.session) == (True, SESSION)
    assert _code(line.destination.conclude(host.take(line.destination))) is None
    assert host.arrivals.is_taken(TRANSFER)


# ---- All connections ----


@pytest.mark.parametrize("asks", [HELLO, DOCUMENT])
def test_a_transfer_belongs_to_the_connection_that_spoke_of_it_last(asks: Request) -> None:
    host = Host()
    older = _after(host, WHOLE[:3])
    newer = _after(host, [START, asks])
    assert older.destination.session is None
    assert _code(older.ask(COMPLETE)) == Code.SUPERSEDED.value
    assert older.destination.ended
    assert host.taken == []
    newer.ask(DOCUMENT)
    assert _code(newer.ask(COMPLETE)) is None


def test_a_superseded_connection_stays_so_when_the_newer_one_has_gone() -> None:
    host = Host()
    older = _after(host, WHOLE[:3])
    _close(_after(host, [START, HELLO]))
    assert _code(older.ask(COMPLETE)) == Code.SUPERSEDED.value


def test_a_document_that_was_just_being_read_is_superseded_too() -> None:
    host = Host()
    older = _after(host, [START, HELLO])
    assert older.destination.receive(DOCUMENT) is Work.READ
    _after(host, [START, HELLO])
    assert _code(older.destination.prepare(Container(SESSION, TRANSFER, of_session(SESSION)))) == Code.SUPERSEDED.value
    assert older.destination.session is None


def test_a_connection_that_took_the_guest_can_be_superseded_and_the_guest_stays() -> None:
    host = Host()
    _after(host, WHOLE)
    assert _welcome(_after(host, [START]).ask(HELLO)).taken
    assert len(host.taken) == 1


def test_another_transfer_supersedes_nothing() -> None:
    host = Host()
    older = _after(host, WHOLE[:3])
    other = host.connect()
    other.talk(source_of(Terms(), transfer=ANOTHER).prepare())
    other.talk(source.complete())
    assert _code(older.ask(COMPLETE)) is None
    assert host.disk == [ANOTHER, TRANSFER]


@pytest.mark.parametrize("asks", [HELLO, DOCUMENT])
@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_about_what_is_just_being_taken_nothing_is_said(asks: Request, gone: bool, saved: bool) -> None:
    host = Host()
    older, newer = _after(host, WHOLE[:3]), _after(host, [START])
    assert older.destination.receive(COMPLETE) is Work.TAKE
    if gone:
        older.destination.closed()
    assert _code(newer.ask(asks)) == Code.BUSY.value
    host.disk_is_full = not saved
    older.destination.conclude(host.take(older.destination))
    if asks is HELLO:
        assert _welcome(newer.ask(asks)).taken is saved
    else:
        assert _code(newer.ask(asks)) == (Code.ALREADY_TAKEN.value if saved else None)


def test_a_connection_that_is_gone_is_not_remembered() -> None:
    host = Host()
    for requests in (WHOLE, WHOLE[:3], WHOLE[:2]):
        _close(_after(host, requests))
    line = host.connect()
    line.talk(source_of(Terms(), transfer=ANOTHER).prepare())
    line.destination.receive(COMPLETE)
    line.destination.closed()
    line.destination.conclude(None)
    assert host.arrivals._speaking == {}


def test_a_document_without_a_transfer_is_of_the_one_that_hello_named() -> None:
    host = Host()
    _after(host, [START, HELLO, Request(Command.SESSION, documents.write(SESSION)), COMPLETE])
    assert host.disk == [TRANSFER]


def test_a_document_of_another_transfer_than_hello_named_is_of_that_one() -> None:
    host = Host()
    _after(host, [START, HELLO, Request(Command.SESSION, documents.write(SESSION, ANOTHER)), COMPLETE])
    assert host.disk == [ANOTHER]
    assert _welcome(_after(host, [START]).ask(HELLO)).taken is False


def test_without_a_transfer_a_guest_is_taken_as_often_as_it_comes() -> None:
    host = Host()
    for _ in range(2):
        _after(host, [frames.start(0), Request(Command.SESSION, documents.write(SESSION)), COMPLETE])
    assert (len(host.taken), host.disk) == (2, [])
    assert not host.arrivals.is_taken(None)


def test_of_the_taken_transfers_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "TAKEN_LIMIT", 2)
    arrivals = Arrivals(["a", "b"])
    arrivals.note_taken("c")
    assert [arrivals.is_taken(each) for each in "abc"] == [False, True, True]


def test_what_was_taken_stays_so_for_another_run() -> None:
    host = Host()
    _after(host, WHOLE)
    host.restart()
    assert _code(_after(host, [START]).ask(DOCUMENT)) == Code.ALREADY_TAKEN.value


@pytest.mark.parametrize("asks", [HELLO, DOCUMENT])
def test_who_does_not_know_what_was_taken_before_does_not_deny_it(asks: Request) -> None:
    host = Host()
    _after(host, WHOLE)
    host.knows = False
    assert _welcome(_after(host, [START]).ask(HELLO)).taken, "that was in this run"
    host.restart()
    line = _after(host, [START])
    assert _code(line.ask(asks)) == Code.NOT_SAVED.value
    assert line.destination.session is None


def test_who_does_not_know_what_was_taken_before_still_says_how_commands_ended() -> None:
    host = Host()
    host.knows = False
    host.ended = {"a": Outcome(True)}
    assert _welcome(_after(host, [START]).ask(_asking("a"))).outcomes == host.ended


def test_the_house_is_asked_about_the_vm_of_the_document_or_else_of_the_hello() -> None:
    host = Host()
    _after(host, [START, DOCUMENT])
    _after(host, [START, HELLO, DOCUMENT])
    _after(host, [START, HELLO, Request(Command.SESSION, documents.write(Spec0(), ANOTHER))])
    _after(host, [START, Request(Command.SESSION, documents.write(Spec0(), ANOTHER, Vm(name="web-2")))])
    assert host.asked_of == [of_session(SESSION), of_session(SESSION), VM, Vm(name="web-2")]


def test_a_taken_session_converts_to_the_newest_spec() -> None:
    host = Host()
    _after(host, WHOLE)
    assert conversions.convert(host.taken[0]) == SESSION


# ---- Parts ----


def _after(host: Host, requests: list[Request]) -> Line:
    """A connection on which *requests* have been made."""
    line = host.connect()
    for request in requests:
        line.ask(request)
    return line


def _close(line: Line) -> None:
    line.destination.closed()
    assert line.destination.ended


def _code(response: object) -> Optional[str]:
    """Why *response* refuses; None: it does not."""
    assert isinstance(response, Response)
    return None if response.status is Status.OK else refusals.unpack(response.payload).code


def _welcome(response: Response) -> Welcome:
    assert response.status is Status.OK
    return greetings.unpack_welcome(response.payload)


def _asking(*reply_ids: str) -> Request:
    return Request(Command.HELLO, greetings.pack_hello(Hello(outcomes=reply_ids)))
