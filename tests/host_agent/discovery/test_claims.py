from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from host_agent.discovery import Added, Event, Removed
from host_agent.discovery.claims import Claims

FIXED, LIBVIRT, DIRECTORY = "fixed", "libvirt", "directory"
ALL = (FIXED, LIBVIRT, DIRECTORY)


def ranked(*sources: str) -> Claims:
    claims = Claims()
    assert claims.rank(sources or ALL) == []
    return claims


def test_what_one_source_finds_is_reported() -> None:
    claims = ranked()
    assert claims.put(DIRECTORY, Added("web", "/1")) == [Added("web", "/1")]
    assert claims.put(DIRECTORY, Added("web", "/2")) == [Added("web", "/2")]
    assert claims.drop(DIRECTORY, "web") == [Removed("web", "/2")]
    assert claims.drop(DIRECTORY, "web") == []


def test_a_port_is_reported_again_when_there_is_a_reason_to_try_it() -> None:
    claims = ranked()
    claims.put(LIBVIRT, Added("web", "/1", "u-1"))
    assert claims.put(DIRECTORY, Added("web", "/1")) == [Added("web", "/1", "u-1")]
    assert claims.put(DIRECTORY, Added("web", "/1")) == [Added("web", "/1", "u-1")]
    assert claims.drop(DIRECTORY, "web") == []


def test_for_a_path_the_name_of_the_highest_rank_counts() -> None:
    claims = ranked()
    claims.put(DIRECTORY, Added("a-name-longer-than-t", "/1"))
    full = Added("a-name-longer-than-twenty-characters", "/1", "u-1")
    assert claims.put(LIBVIRT, full) == [Removed("a-name-longer-than-t", "/1"), full]
    assert claims.put(DIRECTORY, Added("a-name-longer-than-t", "/1")) == []
    assert claims.drop(LIBVIRT, full.name) == [Removed(full.name, "/1"), Added("a-name-longer-than-t", "/1")]


def test_for_a_name_the_path_of_the_highest_rank_counts() -> None:
    claims = ranked()
    claims.put(LIBVIRT, Added("web", "/l", "u-1"))
    assert claims.put(FIXED, Added("web", "/f")) == [Added("web", "/f")]
    assert claims.put(DIRECTORY, Added("web", "/d")) == []
    assert claims.drop(FIXED, "web") == [Added("web", "/l", "u-1")]
    assert claims.drop(LIBVIRT, "web") == [Added("web", "/d")]


def test_a_path_is_taken_from_one_name_before_another_one_gets_it() -> None:
    claims = ranked()
    claims.put(LIBVIRT, Added("a", "/1"))
    claims.put(DIRECTORY, Added("a", "/2"))
    assert claims.put(FIXED, Added("z", "/1")) == [Removed("a", "/1"), Added("a", "/2"), Added("z", "/1")]


def test_a_path_that_one_name_leaves_goes_to_the_next_one() -> None:
    claims = ranked()
    claims.put(LIBVIRT, Added("a", "/1"))
    claims.put(DIRECTORY, Added("b", "/1"))
    assert claims.put(LIBVIRT, Added("a", "/2")) == [Removed("a", "/1"), Added("a", "/2"), Added("b", "/1")]


def test_a_source_counts_only_when_it_is_ranked() -> None:
    claims = ranked(DIRECTORY)
    claims.put(DIRECTORY, Added("web", "/1"))
    claims.put(DIRECTORY, Added("db", "/2"))
    assert claims.put(LIBVIRT, Added("web", "/1", "u-1")) == []
    assert claims.put(LIBVIRT, Added("mail", "/3", "u-3")) == []
    assert claims.rank((LIBVIRT, DIRECTORY)) == [Added("mail", "/3", "u-3"), Added("web", "/1", "u-1")]
    assert claims.rank((LIBVIRT,)) == [Removed("db", "/2")]
    assert claims.rank(()) == [Removed("mail", "/3"), Removed("web", "/1")]
    assert claims.rank(ALL) == []


def test_ranking_anew_reports_only_what_differs() -> None:
    claims = ranked()
    claims.put(DIRECTORY, Added("web", "/1"))
    claims.put(LIBVIRT, Added("db", "/2"))
    assert claims.rank((DIRECTORY, LIBVIRT)) == []


# ---- In general ----

NAMES = st.sampled_from("abcd")
PATHS = st.sampled_from(["/1", "/2", "/3"])
SOURCES = st.sampled_from(ALL)


@dataclasses.dataclass(frozen=True)
class Put:
    source: str
    added: Added


@dataclasses.dataclass(frozen=True)
class Drop:
    source: str
    name: str


@dataclasses.dataclass(frozen=True)
class Rank:
    sources: tuple[str, ...]


STEPS = st.lists(
    st.builds(Put, SOURCES, st.builds(Added, NAMES, PATHS, st.none() | st.sampled_from(["u-1", "u-2"])))
    | st.builds(Drop, SOURCES, NAMES)
    | st.builds(Rank, st.permutations(ALL).flatmap(lambda each: st.integers(0, 3).map(lambda count: tuple(each[:count])))),
    max_size=40,
)


class Reference:
    """The rule, said plainly."""

    def __init__(self) -> None:
        self._ranking: tuple[str, ...] = ()
        self._claims: dict[tuple[str, str], Added] = {}

    def take(self, step: object) -> None:
        if isinstance(step, Put):
            self._claims[step.source, step.added.name] = step.added
        elif isinstance(step, Drop):
            self._claims.pop((step.source, step.name), None)
        elif isinstance(step, Rank):
            self._ranking = step.sources
            self._claims = {claim: added for claim, added in self._claims.items() if claim[0] in self._ranking}

    def chosen(self) -> dict[str, Added]:
        counting = sorted(
            ((self._ranking.index(source), name), added)
            for (source, name), added in self._claims.items()
            if source in self._ranking
        )
        owned: dict[str, Added] = {}
        for _, added in counting:
            owned.setdefault(added.path, added)
        chosen: dict[str, Added] = {}
        for added in owned.values():
            chosen.setdefault(added.name, added)
        return chosen


@given(STEPS)
def test_events_always_add_up_to_what_the_rule_says(steps: list[object]) -> None:
    claims, reference = Claims(), Reference()
    known: dict[str, Added] = {}
    for step in (Rank(ALL), *steps):
        before = dict(known)
        for event in _play(claims, step):
            if isinstance(event, Added):
                known[event.name] = event
            else:
                assert known.pop(event.name).path == event.path
            paths = [added.path for added in known.values()]
            assert len(set(paths)) == len(paths), "two names lead to one path"
            if isinstance(step, Rank) and isinstance(event, Added):
                assert event != before.get(event.name), "ranking reported what did not change"
        reference.take(step)
        assert known == reference.chosen()


def _play(claims: Claims, step: object) -> list[Event]:
    if isinstance(step, Put):
        return claims.put(step.source, step.added)
    if isinstance(step, Drop):
        return claims.drop(step.source, step.name)
    assert isinstance(step, Rank)
    return claims.rank(step.sources)
