"""From one session spec to its neighbours, and so to any.

Up always works and loses nothing. Down returns what would be lost: it is found by going up again and comparing, so that
nothing can get lost that nobody thought of. What spec 0 has no place for but can be said from facts (the list of addresses)
is said from facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional, Union

from common.records import fields_of

from .documents import NEWEST, Spec, find, number_of
from .errors import WouldLose
from .members import Members
from .spec0 import NetworkInterface, Spec0
from .spec1 import Fact, Reference, Spec1
from .spec2 import Spec2

Losses = tuple[str, ...]


def convert(spec: Spec, to: int = NEWEST, allow_loss: bool = False) -> Spec:
    """*spec* in the session spec *to*.

    :param allow_loss: go down also where something gets lost.
    :raises UnknownSpec: *to* is not known.
    :raises WouldLose: it would lose members; the error names them all.
    """
    return convert_telling(spec, to, allow_loss)[0]


def convert_telling(spec: Spec, to: int, allow_loss: bool = False) -> tuple[Spec, Losses]:
    """*spec* in the session spec *to*, and the dotted names of what that has no place for.

    :raises UnknownSpec, WouldLose: see ``convert``.
    """
    converted, lost = _converted(spec, to)
    if lost and not allow_loss:
        raise WouldLose(to, lost)
    return converted, lost


def _converted(spec: Spec, to: int) -> tuple[Spec, Losses]:
    find(to)
    lost: Losses = ()
    while number_of(spec) < to:
        spec = _UP[number_of(spec)](spec)
    while number_of(spec) > to:
        spec, more = _DOWN[number_of(spec)](spec)
        lost += more
    return spec, lost


def spec0_to_spec1(old: Spec0) -> Spec1:
    """What a reference host said becomes facts of unknown age; what has no fact is kept for the next reference host."""
    facts: dict[str, Fact] = {}
    if old.username is not None:
        facts["active-user"] = Fact({"name": old.username})
    if old.guest_fqdn is not None:
        facts["fqdn"] = Fact({"fqdn": old.guest_fqdn})
    if old.net_ifaces is not None:
        facts["network-interfaces"] = Fact({"interfaces": tuple(map(_interface_as_fact, old.net_ifaces))})
    reference = Reference(old.api_version_hint, old.guest_ips)
    from_facts = Reference(None, _addresses(old.net_ifaces))
    return Spec1(facts=facts, reference=None if reference == from_facts else reference)


def spec1_to_spec0(new: Spec1) -> tuple[Spec0, Losses]:
    """Only what reference hosts know stays. What the guest advertised is no version that one of them had agreed on."""
    interfaces = _said(new, "network-interfaces", "interfaces")
    net_ifaces = None if interfaces is None else tuple(map(_interface_from_fact, interfaces))
    reference = new.reference or Reference(None, _addresses(net_ifaces))
    old = Spec0(
        api_version_hint=reference.api_version_hint,
        username=_said(new, "active-user", "name"),
        guest_ips=reference.guest_ips,
        guest_fqdn=_said(new, "fqdn", "fqdn"),
        net_ifaces=net_ifaces,
    )
    return old, _losses(new, spec0_to_spec1(old))


def spec1_to_spec2(old: Spec1) -> Spec2:
    """What came with spec 2 is not known."""
    return Spec2(**vars(old))


def spec2_to_spec1(new: Spec2) -> tuple[Spec1, Losses]:
    """What came with spec 2 is left out."""
    old = Spec1(**{name: getattr(new, name) for name in fields_of(Spec1)})
    return old, _losses(new, spec1_to_spec2(old))


_UP: Mapping[int, Callable[[Any], Spec]] = {0: spec0_to_spec1, 1: spec1_to_spec2}
_DOWN: Mapping[int, Callable[[Any], tuple[Spec, Losses]]] = {2: spec2_to_spec1, 1: spec1_to_spec0}


def _interface_as_fact(interface: NetworkInterface) -> dict[str, Any]:
    # With tuples, as facts have them that were read.
    return {member.wire: value for member, value in interface.declared_values()}


def _interface_from_fact(interface: Mapping[str, Any]) -> NetworkInterface:
    return NetworkInterface(interface["name"], interface["hw"], tuple(interface["inet"]), tuple(interface["inet6"]))


def _addresses(interfaces: Optional[tuple[NetworkInterface, ...]]) -> str:
    """All IP addresses, as reference hosts list them."""
    return " ".join(address for each in interfaces or () for address in (*each.inet, *each.inet6))


def _said(spec: Spec1, name: str, argument: str) -> Any:
    fact = spec.facts.get(name)
    return None if fact is None else fact.arguments[argument]


def _losses(before: Members, after: Members) -> Losses:
    """The dotted names of what *before* says and *after*, which is what came back, does not."""
    return tuple(_differences(_by_name(before), _by_name(after), ""))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in before.items():
        other = after.get(name)
        if isinstance(value, _GROUPS) and isinstance(other, _GROUPS):
            yield from _differences(_by_name(value), _by_name(other), f"{prefix}{name}.")
        elif value != other:
            yield f"{prefix}{name}"


def _by_name(group: Union[Members, Mapping[str, Any]]) -> Mapping[str, Any]:
    if isinstance(group, Members):
        return {member.wire: each for member, each in group.declared_values()}
    return group


#: What has parts with names.
_GROUPS = (Members, Mapping)
