"""``common.handoff.errors``"""

from __future__ import annotations

import inspect

import common.handoff
from common.handoff import errors


def test_the_tree_that_is_drawn_has_all_errors() -> None:
    drawn = errors.__doc__ or ""
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]
    assert [each.__name__ for each in classes if each.__name__ not in drawn] == []
    assert all(issubclass(each, errors.HandoffError) for each in classes)


def test_every_error_is_public() -> None:
    classes = [name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]
    assert set(classes) <= set(common.handoff.__all__)


def test_few_lost_members_are_all_named() -> None:
    assert str(errors.WouldLose(1, ["a", "b"])) == "session spec 1 would lose a, b: take a newer spec, or allow the loss"
