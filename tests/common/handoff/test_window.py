"""``common.handoff.window``"""

from __future__ import annotations

from typing import Optional

import pytest

from common.handoff import window
from common.handoff.refusals import Code, Refusal


def test_versions_begin_with_the_legacy_one_and_have_no_gap() -> None:
    assert list(window.VERSIONS) == list(range(window.NEWEST + 1))


@pytest.mark.parametrize(("newest", "spoken"), [(0, (0,)), (1, (0, 1))])
def test_the_newest_version_and_the_one_before_are_spoken(newest: int, spoken: tuple[int, ...]) -> None:
    assert window.supported(newest) == spoken
    for version in range(5):
        assert window.accepts(version, newest) == (version in spoken)


def test_a_window_that_moves_on_leaves_the_oldest_version_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "VERSIONS", {0: "a", 1: "b", 2: "c"})
    assert window.supported(2) == (1, 2)
    assert not window.accepts(0, 2)


def test_by_default_the_newest_version_is_spoken() -> None:
    assert window.accepts(window.NEWEST)
    assert not window.accepts(window.NEWEST + 1)


def test_a_refusal_names_what_is_spoken_and_says_what_to_do() -> None:
    refusal = window.refuse(7)
    assert refusal.code == "unsupported-protocol-version"
    assert refusal.supported == (0, 1)
    assert refusal.message == (
        "hand-off protocol version 7 is not spoken here, spoken is 0 and 1: "
        "try again with one of these, or upgrade the older host"
    )


@pytest.mark.parametrize("source", [0, 1])
@pytest.mark.parametrize("destination", [0, 1])
def test_any_two_releases_find_a_version_with_one_retry(source: int, destination: int) -> None:
    if window.accepts(source, destination):
        return
    version = window.retry_with(window.refuse(source, destination), source, source)
    assert version is not None
    assert window.accepts(version, destination)


@pytest.mark.parametrize(
    ("supported", "refused", "version"),
    [((0,), 1, 0), ((), 1, None), ((1,), 1, None), ((0, 1), 0, None), ((5, 9, 10**30), 1, None), ((0, 1), 5, 1)],
)
def test_a_source_tries_the_newest_older_version_that_both_know(
    supported: tuple[int, ...], refused: int, version: Optional[int]
) -> None:
    assert window.retry_with(Refusal(Code.UNSUPPORTED_VERSION.value, "", supported), refused) == version


def test_a_source_whose_newest_version_was_lowered_does_not_go_beyond() -> None:
    assert window.retry_with(Refusal(Code.UNSUPPORTED_VERSION.value, "", (0, 1)), 5, newest=0) == 0


def test_whatever_word_a_refusal_has_the_versions_that_it_names_count() -> None:
    assert window.retry_with(Refusal("version-not-supported", "", (0,)), 1) == 0
