"""``common.handoff.documents``, and the corpus."""

from __future__ import annotations

import json
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.handoff import documents
from common.handoff.documents import Spec
from common.handoff.errors import InvalidDocument, UnknownSpec
from common.handoff.spec0 import Spec0
from common.handoff.spec1 import Command, Fact, Frozen, Reference, Spec1
from common.handoff.spec2 import Spec2
from common.handoff.vm import Vm

from .sessions import ANY_SPEC, GOOD, HOSTILE, document


@pytest.mark.parametrize("name", GOOD)
def test_a_document_of_the_corpus_is_read_and_written_so_that_nothing_differs(name: str) -> None:
    spec = documents.read(document(name))
    assert documents.number_of(spec) == json.loads(document(name))["spec"]
    assert documents.read(documents.write(spec)) == spec
    assert documents.read(document(name).decode()) == spec


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_in_one_sentence_that_says_what_to_do(name: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        documents.read(document(f"hostile/{name}"))
    text = str(caught.value)
    assert ": " in text
    assert "\n" not in text
    assert len(text) < 250


def test_what_a_reference_host_hands_over_is_understood() -> None:
    spec = documents.read(document("reference-host"))
    assert isinstance(spec, Spec0)
    assert (spec.api_version_hint, spec.username, spec.guest_fqdn) == (3, "alice@example.org", "web-1.example.org")
    assert spec.net_ifaces is not None
    assert spec.net_ifaces[0].inet6 == ("2001:db8::17",)


def test_what_is_in_flight_and_frozen_is_understood() -> None:
    spec = documents.read(document("busy-and-frozen-1"))
    assert isinstance(spec, Spec1)
    assert spec.name == "Büro-Server 2"
    assert spec.commands[0] == Command("0123456789abcdef-4711", "exec", 3599.5)
    assert spec.frozen == Frozen(42.125, ("/", "/srv/däta"))
    assert spec.facts == {"heartbeat": Fact({"free-ram": "512", "memory-stat": {"mem_total": 2048}}, 1.5)}


def test_a_document_of_a_newer_release_is_understood_as_far_as_it_is_known() -> None:
    spec = documents.read(document("of-a-newer-release-1"))
    assert isinstance(spec, Spec1)
    assert spec.facts == {"fqdn": Fact({"fqdn": "next.example.org"}, 86400.0)}
    assert spec.frozen == Frozen(0.0, ())
    assert spec.advertised == 2**70


def test_what_only_reference_hosts_say_is_kept() -> None:
    spec = documents.read(document("came-from-a-reference-host-1"))
    assert isinstance(spec, Spec1)
    assert spec.reference == Reference(2, "198.51.100.7")


def test_of_equal_members_the_last_one_counts_and_null_is_a_default() -> None:
    assert documents.read(document("nulls-and-repetitions-2")) == Spec2(name="last �[31m")


@pytest.mark.parametrize(
    ("number", "shown"),
    [("3", "3"), ("-1", "-1"), ("true", "no such number"), ("null", "missing"), ("1" * 4000, "no such number")],
)
def test_an_unknown_spec_is_refused_with_those_known(number: str, shown: str) -> None:
    with pytest.raises(UnknownSpec, match=rf"^session spec \(?{shown}\)? is not known here, known are 0, 1, 2: ") as caught:
        documents.read(f'{{"spec": {number}}}')
    assert caught.value.known == (0, 1, 2)


TRANSFER = "0123456789abcdef" * 2


@pytest.mark.parametrize("transfer", [None, TRANSFER])
def test_between_hosts_a_document_says_of_which_transfer_it_is(transfer: Optional[str]) -> None:
    read = documents.read_container(documents.write(Spec1(name="a"), transfer))
    assert read == (Spec1(name="a"), transfer, Vm(name="a"))


def test_who_does_not_know_transfers_reads_the_same_session() -> None:
    assert documents.read(documents.write(Spec1(name="a"), TRANSFER)) == Spec1(name="a")
    assert b"transfer" not in documents.write(Spec1(name="a"))


@pytest.mark.parametrize("transfer", ['"x"', "7", "[]", f'"{TRANSFER.upper()}"', f'"{TRANSFER}0"', f'"{TRANSFER}\\n"'])
def test_a_transfer_that_is_none_makes_the_document_invalid(transfer: str) -> None:
    with pytest.raises(InvalidDocument, match=r"can't be used: no transfer: "):
        documents.read_container(f'{{"spec": 0, "transfer": {transfer}}}')


def test_a_transfer_may_be_null() -> None:
    assert documents.read_container('{"spec": 0, "transfer": null}') == (Spec0(), None, Vm())


def test_beside_a_session_that_has_no_place_for_it_stands_which_vm_it_is_of() -> None:
    vm = Vm("6b6f3c1e-8a53-4d51-9a51-5a4e7d3f0c11", "web")
    assert documents.read_container(documents.write(Spec0(), of=vm)).vm == vm
    assert documents.read(documents.write(Spec0(), of=vm)) == Spec0()
    assert b"vm" not in documents.write(Spec1(name="other"), of=vm)


def test_what_a_session_says_of_its_vm_counts_more_than_what_stands_beside_it() -> None:
    text = '{"spec": 1, "vm": {"uuid": "6B6F3C1E-8A53-4D51-9A51-5A4E7D3F0C11", "name": "b"}, "session": {"name": "a"}}'
    assert documents.read_container(text).vm == Vm("6b6f3c1e-8a53-4d51-9a51-5a4e7d3f0c11", "a")


@pytest.mark.parametrize("vm", ["7", "[]", "null", '{"uuid": "x"}', '{"name": 1}'])
def test_a_vm_that_is_none_is_ignored_as_any_other_member(vm: str) -> None:
    assert documents.read_container(f'{{"spec": 0, "vm": {vm}}}') == (Spec0(), None, Vm())


def test_a_refusal_does_not_quote_what_the_document_says() -> None:
    with pytest.raises(InvalidDocument) as caught:
        documents.read('{"spec": 1, "session": {"facts": {"fqdn": {"arguments": {"fqdn": ["hunter2"]}}}}}')
    assert "hunter2" not in str(caught.value)


def test_a_document_over_the_limit_is_neither_read_nor_written() -> None:
    with pytest.raises(InvalidDocument, match="larger than 8388608 bytes"):
        documents.read(b" " * documents.SIZE_LIMIT + b'{"spec": 1}')
    with pytest.raises(InvalidDocument, match="can't be written: larger than 8388608 bytes"):
        documents.write(Spec0(guest_ips="x" * documents.SIZE_LIMIT))


def test_every_spec_is_said_to_hold_something() -> None:
    assert documents.HOLDS.keys() == documents.SPECS.keys()


@given(ANY_SPEC)
def test_every_session_is_read_as_it_was_written(spec: Spec) -> None:
    assert documents.read(documents.write(spec)) == spec


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from(GOOD), st.data())
def test_whatever_stands_in_a_member_only_a_clear_error_comes_out(name: str, data: st.DataObject) -> None:
    container = json.loads(document(name))
    session = container.setdefault("session", {})
    members = sorted({*session, "uuid", "facts", "commands", "frozen", "counters", "netIfaces"})
    session[data.draw(st.sampled_from(members))] = data.draw(_JSON)
    try:
        spec = documents.read(json.dumps(container))
    except InvalidDocument:
        return
    assert documents.read(documents.write(spec)) == spec
