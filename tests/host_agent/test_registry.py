from __future__ import annotations

from typing import Any, Optional

import pytest

from host_agent.guest import Guest
from host_agent.registry import Registry

from .parts import make_guest


def make_registry(**more: Any) -> Registry:
    return Registry(lambda name: make_guest(name), 100.0, **more)


def arrive(registry: Registry, name: str, uuid: str) -> Guest:
    """As who finds a port does."""
    guest = registry.arrived(name, uuid)
    guest.found(f"/ports/{name}", 0.0, uuid)
    return guest


def names(guests: list[Guest]) -> list[str]:
    return [guest.name for guest in guests]


def test_a_guest_is_made_once_and_found_by_name() -> None:
    registry = make_registry()
    web = registry.arrived("web")
    assert registry.arrived("web") is registry.find("web") is web
    assert list(registry) == [web]
    assert len(registry) == 1
    assert registry.find("db") is None


# ---- Absent guests ----


def test_an_absent_guest_is_forgotten_after_its_time() -> None:
    registry = make_registry()
    web = registry.arrived("web")
    assert registry.next_deadline() is None
    assert registry.left("web", 10.0) is web
    assert registry.next_deadline() == 110.0
    assert registry.tick(109.9) == []
    assert registry.tick(110.0) == [web]
    assert len(registry) == 0
    assert registry.next_deadline() is None


def test_a_guest_that_is_known_from_before_is_absent_until_it_comes() -> None:
    registry = make_registry()
    web = registry.left("web", 10.0)
    assert registry.next_deadline() == 110.0
    assert registry.arrived("web") is web
    assert registry.next_deadline() is None


def test_a_guest_that_comes_back_is_the_same_and_not_forgotten() -> None:
    registry = make_registry()
    web = registry.arrived("web")
    registry.left("web", 10.0)
    assert registry.arrived("web") is web
    assert registry.tick(1000.0) == []
    assert registry.next_deadline() is None


def test_a_guest_that_goes_again_is_remembered_from_then_on() -> None:
    registry = make_registry()
    registry.left("web", 10.0)
    registry.left("db", 20.0)
    registry.left("web", 30.0)
    assert registry.next_deadline() == 120.0
    assert names(registry.tick(125.0)) == ["db"]


def test_of_too_many_absent_guests_the_longest_absent_are_forgotten() -> None:
    registry = make_registry(absent_limit=3)
    registry.arrived("here")
    for number in range(10):
        registry.left(f"vm-{number}", float(number))
    assert names(registry.tick(10.0)) == [f"vm-{number}" for number in range(7)]
    assert sorted(guest.name for guest in registry) == ["here", "vm-7", "vm-8", "vm-9"]


def test_how_long_guests_are_remembered_can_change() -> None:
    registry = make_registry()
    registry.left("web", 10.0)
    registry.remember_for(5.0)
    assert registry.next_deadline() == 15.0
    assert names(registry.tick(15.0)) == ["web"]


@pytest.mark.parametrize("absent", [True, False])
def test_a_guest_can_be_removed_at_once(absent: bool) -> None:
    registry = make_registry()
    web = registry.arrived("web")
    if absent:
        registry.left("web", 10.0)
    assert registry.remove("web") is web
    assert registry.find("web") is None
    assert registry.next_deadline() is None
    assert registry.tick(1000.0) == []
    assert registry.arrived("web") is not web


# ---- A guest is its VM, whatever it is called ----


def test_an_absent_guest_that_comes_under_another_name_is_renamed() -> None:
    renamed: list[tuple[str, str]] = []
    registry = make_registry(renamed=lambda *pair: renamed.append(pair))
    web, other = arrive(registry, "web", "uuid-1"), arrive(registry, "other", "uuid-2")
    registry.left("other", 5.0)
    registry.left("web", 10.0)
    assert arrive(registry, "shop", "uuid-1") is web
    assert renamed == [("web", "shop")]
    assert web.name == "shop"
    assert registry.find("shop") is web
    assert registry.find("web") is None
    assert registry.tick(1000.0) == [other]


def test_only_an_absent_guest_is_renamed() -> None:
    registry = make_registry()
    web = arrive(registry, "web", "uuid-1")
    copied = arrive(registry, "copy", "uuid-1")
    assert copied is not web
    assert {guest.name for guest in registry} == {"web", "copy"}


def test_a_name_that_is_known_is_not_given_to_another_guest() -> None:
    registry = make_registry()
    web, shop = arrive(registry, "web", "uuid-1"), arrive(registry, "shop", "uuid-2")
    registry.left("web", 10.0)
    registry.left("shop", 10.0)
    assert registry.arrived("shop", "uuid-1") is shop
    assert registry.find("web") is web


@pytest.mark.parametrize("uuid", [None, "uuid-2"])
def test_without_the_same_uuid_another_name_is_another_guest(uuid: Optional[str]) -> None:
    registry = make_registry()
    web = arrive(registry, "web", "uuid-1")
    unknown = registry.arrived("unknown")
    registry.left("web", 10.0)
    registry.left("unknown", 10.0)
    assert registry.arrived("shop", uuid) not in (web, unknown)
    assert len(registry) == 3


def test_without_a_listener_a_guest_is_renamed_all_the_same() -> None:
    registry = make_registry()
    web = arrive(registry, "web", "uuid-1")
    registry.left("web", 10.0)
    assert registry.arrived("shop", "uuid-1") is web


# ---- From host to host ----


def test_a_guest_is_found_by_its_vm_under_whatever_name_and_else_by_its_name() -> None:
    registry = make_registry()
    web, db = arrive(registry, "web", "u-1"), registry.arrived("db")
    assert registry.find_vm("other", "u-1") is registry.find_vm("db", "u-1") is registry.find_vm("web", "u-2") is web
    assert registry.find_vm("db", None) is registry.find_vm("db", "u-2") is db
    assert registry.find_vm("new", None) is registry.find_vm("new", "u-2") is None


def test_an_absent_guest_that_moves_is_remembered_until_that_has_an_end() -> None:
    registry = make_registry()
    web = registry.left("web", 10.0)
    registry.left("db", 20.0)
    web.moving = True
    assert registry.tick(110.0) == []
    assert registry.next_deadline() == 120.0
    assert names(registry.tick(120.0)) == ["db"]
    assert registry.next_deadline() == 210.0
    web.moving = False
    assert registry.tick(210.0) == [web]


def test_one_that_moves_is_not_one_too_many() -> None:
    registry = make_registry(absent_limit=1)
    registry.left("web", 10.0).moving = True
    registry.left("db", 20.0)
    assert registry.tick(30.0) == []
    assert names(registry.tick(30.0)) == ["db"]
    assert registry.find("web") is not None
