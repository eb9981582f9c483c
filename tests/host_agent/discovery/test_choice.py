from __future__ import annotations

from host_agent.discovery import Added, Removed
from host_agent.discovery.choice import Choice, Stamp


def stamp(made: int, inode: int = 1, changed: int = 0) -> Stamp:
    return Stamp(made, 1, inode, changed)


def test_the_only_socket_is_the_port() -> None:
    choice = Choice()
    assert choice.put("web", "/a", stamp(1)) == [Added("web", "/a")]
    assert choice.claims("web") == ["/a"]
    assert choice.drop("web", "/a") == [Removed("web", "/a")]
    assert choice.claims("web") == []


def test_what_did_not_change_is_not_reported() -> None:
    choice = Choice()
    choice.put("web", "/a", stamp(1))
    assert choice.put("web", "/a", stamp(1)) == []
    assert choice.drop("web", "/none") == []
    assert choice.drop("db", "/a") == []


def test_the_newest_socket_wins_and_the_other_takes_over_when_it_vanishes() -> None:
    choice = Choice()
    choice.put("web", "/3", stamp(1))
    assert choice.put("web", "/4", stamp(2)) == [Added("web", "/4")]
    assert choice.claims("web") == ["/3", "/4"]
    assert choice.drop("web", "/4") == [Added("web", "/3")]
    assert choice.drop("web", "/3") == [Removed("web", "/3")]


def test_an_older_socket_that_is_found_later_changes_nothing() -> None:
    choice = Choice()
    choice.put("web", "/4", stamp(2))
    assert choice.put("web", "/3", stamp(1)) == []
    assert choice.drop("web", "/3") == []


def test_a_socket_made_anew_at_its_place_is_removed_and_added() -> None:
    choice = Choice()
    choice.put("web", "/a", stamp(1, inode=1))
    assert choice.put("web", "/a", stamp(1, inode=2)) == [Removed("web", "/a"), Added("web", "/a")]
    assert choice.put("web", "/a", stamp(3, inode=2)) == [Removed("web", "/a"), Added("web", "/a")]


def test_a_chosen_socket_made_anew_is_left_and_chosen_again() -> None:
    choice = Choice()
    choice.put("web", "/a", stamp(1))
    choice.put("web", "/b", stamp(2))
    assert choice.put("web", "/b", stamp(3)) == [Added("web", "/a"), Added("web", "/b")]


def test_new_permissions_are_a_reason_to_try_again() -> None:
    choice = Choice()
    choice.put("web", "/a", stamp(1, changed=1))
    assert choice.put("web", "/a", stamp(1, changed=2)) == [Added("web", "/a")]


def test_names_do_not_disturb_each_other() -> None:
    choice = Choice()
    choice.put("web", "/a", stamp(1))
    assert choice.put("db", "/b", stamp(2)) == [Added("db", "/b")]
    assert choice.drop("db", "/b") == [Removed("db", "/b")]
