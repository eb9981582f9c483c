from __future__ import annotations

from host_agent.registry import Registry

from .parts import make_guest


def make_registry(**more: int) -> Registry:
    return Registry(lambda name: make_guest(name), 100.0, **more)


def test_a_guest_is_made_once_and_found_by_name() -> None:
    registry = make_registry()
    web = registry.arrived("web")
    assert registry.arrived("web") is registry.find("web") is web
    assert list(registry) == [web]
    assert len(registry) == 1
    assert registry.find("db") is None


def test_an_absent_guest_is_forgotten_after_its_time() -> None:
    registry = make_registry()
    registry.arrived("web")
    assert registry.next_deadline() is None
    registry.left("web", 10.0)
    assert registry.next_deadline() == 110.0
    assert registry.tick(109.9) == []
    assert registry.tick(110.0) == ["web"]
    assert len(registry) == 0
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
    assert registry.tick(125.0) == ["db"]


def test_of_too_many_absent_guests_the_longest_absent_are_forgotten() -> None:
    registry = make_registry(absent_limit=3)
    registry.arrived("here")
    for number in range(10):
        registry.left(f"vm-{number}", float(number))
    assert registry.tick(10.0) == [f"vm-{number}" for number in range(7)]
    assert sorted(guest.name for guest in registry) == ["here", "vm-7", "vm-8", "vm-9"]
