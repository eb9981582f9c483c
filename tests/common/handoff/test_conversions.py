"""``common.handoff.conversions``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.handoff import conversions, documents
from common.handoff.conversions import convert
from common.handoff.documents import Spec, number_of
from common.handoff.errors import UnknownSpec, WouldLose
from common.handoff.spec0 import NetworkInterface, Spec0
from common.handoff.spec1 import Fact, Reference, Spec1
from common.handoff.spec2 import Spec2

from .sessions import ANY_SPEC, GOOD, SPECS0, SPECS1, SPECS2, document


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a document, by its dotted name; an empty group is none."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _leaves(member, f"{path}.{name}" if path else name)
    elif value not in ([], "", 0) or value is False:
        yield path, value


def _is_named(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("name", GOOD)
def test_a_document_of_the_corpus_goes_up_to_the_newest_spec_and_back_without_a_loss(name: str) -> None:
    spec = documents.read(document(name))
    newest = convert(spec)
    assert number_of(newest) == documents.NEWEST
    assert convert(newest, number_of(spec)) == spec


@given(ANY_SPEC)
def test_up_and_back_loses_nothing(spec: Spec) -> None:
    for to in range(number_of(spec), documents.NEWEST + 1):
        assert convert(convert(spec, to), number_of(spec)) == spec


@given(ANY_SPEC, st.sampled_from(list(documents.SPECS)))
def test_down_either_loses_nothing_or_names_all_that_is_lost(spec: Spec, to: int) -> None:
    try:
        lower = convert(spec, to)
        names: tuple[str, ...] = ()
    except WouldLose as refusal:
        lower, names = convert(spec, to, allow_loss=True), refusal.names
        assert names
    assert number_of(lower) == to
    back = dict(_leaves(convert(lower, max(to, number_of(spec))).to_members()))
    for path, value in _leaves(convert(spec, max(to, number_of(spec))).to_members()):
        assert (path in back and back[path] == value) or _is_named(path, names), path


@given(ANY_SPEC, st.sampled_from(list(documents.SPECS)))
def test_the_losses_are_those_that_a_refusal_names(spec: Spec, to: int) -> None:
    try:
        convert(spec, to)
        names: tuple[str, ...] = ()
    except WouldLose as refusal:
        names = refusal.names
    assert conversions.convert_telling(spec, to, True)[1] == names


@given(SPECS1)
def test_what_is_named_as_lost_is_said_before(spec: Spec1) -> None:
    _, losses = conversions.spec1_to_spec0(spec)
    said = spec.to_members()
    for name in losses:
        inside: Any = said
        for part in name.split("."):
            inside = inside[part]


@given(SPECS2)
def test_from_spec_2_to_1_only_what_came_with_2_is_lost(spec: Spec2) -> None:
    lower, losses = conversions.spec2_to_spec1(spec)
    assert {name.split(".")[0] for name in losses} <= {"capabilities", "counters", "version_changes"}
    assert lower.to_members().items() <= spec.to_members().items()


@given(SPECS0)
def test_from_spec_0_to_1_no_version_becomes_a_fact(spec: Spec0) -> None:
    upper = conversions.spec0_to_spec1(spec)
    assert upper.advertised is None
    assert upper.facts.keys() <= {"active-user", "fqdn", "network-interfaces"}
    assert {fact.age_s for fact in upper.facts.values()} <= {None}


def test_the_losses_of_a_whole_session_are_these() -> None:
    spec = documents.read(document("whole-2"))
    with pytest.raises(WouldLose) as to_1:
        convert(spec, 1)
    assert to_1.value.names == (
        *("capabilities", "counters.lines", "counters.bytes", "counters.dropped", "counters.dropped_names"),
        "version_changes",
    )
    with pytest.raises(WouldLose) as to_0:
        convert(spec, 0)
    assert to_0.value.names == (
        *to_1.value.names,
        *("uuid", "name", "facts.timezone", "facts.applications", "facts.os-info"),
        *("advertised", "agent_id", "commands", "reply_id_floor", "frozen"),
    )


def test_of_a_fact_that_stays_only_its_age_is_lost() -> None:
    spec = Spec1(facts={"fqdn": Fact({"fqdn": "a.example.org"}, 3.0)})
    with pytest.raises(WouldLose, match=r"^session spec 0 would lose facts\.fqdn\.age_s: ") as caught:
        convert(spec, 0)
    assert caught.value.names == ("facts.fqdn.age_s",)
    assert convert(spec, 0, allow_loss=True) == Spec0(guest_fqdn="a.example.org")


def test_a_refusal_names_ten_and_counts_the_others() -> None:
    with pytest.raises(WouldLose) as caught:
        convert(documents.read(document("whole-2")), 0)
    assert len(caught.value.names) == 16
    assert " and 6 more: " in str(caught.value)


def test_what_a_guest_advertised_is_not_handed_on_as_what_was_agreed() -> None:
    lower = convert(Spec1(advertised=5), 0, allow_loss=True)
    assert lower == Spec0(api_version_hint=None)


def test_a_reference_host_is_given_the_addresses_of_all_interfaces() -> None:
    interfaces = (
        {"name": "a", "hw": "", "inet": ("10.0.0.1",), "inet6": ("fe80::1",)},
        {"name": "b", "hw": "", "inet": ("10.0.0.2",), "inet6": ()},
    )
    lower = convert(Spec1(facts={"network-interfaces": Fact({"interfaces": interfaces})}), 0)
    assert isinstance(lower, Spec0)
    assert lower.guest_ips == "10.0.0.1 fe80::1 10.0.0.2"
    assert lower.net_ifaces is not None
    assert lower.net_ifaces[1] == NetworkInterface("b", "", ("10.0.0.2",), ())


def test_what_a_reference_host_said_is_handed_on_to_the_next_one() -> None:
    spec = Spec0(api_version_hint=3, guest_ips="10.0.0.9")
    upper = convert(spec)
    assert isinstance(upper, Spec2)
    assert upper.reference == Reference(3, "10.0.0.9")
    assert convert(upper, 0) == spec


@pytest.mark.parametrize("to", [-1, 3, True])
def test_to_an_unknown_spec_nothing_is_converted(to: int) -> None:
    with pytest.raises(UnknownSpec, match="known are 0, 1, 2"):
        convert(Spec1(), to)
    with pytest.raises(UnknownSpec, match="known are 0, 1, 2"):
        conversions.convert_telling(Spec1(), to, True)
