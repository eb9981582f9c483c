from __future__ import annotations

import asyncio
import time

from host_agent.feed import KINDS, Feed, Happening

from .parts import run


def numbers(feed: Feed, after: int) -> tuple[int, list[int]]:
    lost, newer = feed.since(after)
    return lost, [each.number for each in newer]


def make_feed(count: int, limit: int = 100) -> Feed:
    feed = Feed("run-1", limit=limit)
    for _ in range(count):
        feed.tell("fact", "web", name="fqdn")
    return feed


async def settle() -> None:
    """Let everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_happened_is_kept_as_it_was_told() -> None:
    feed = Feed("run-1", wall_clock=lambda: 1234.5)
    feed.tell("fact", "web", name="fqdn")
    feed.tell("configuration", text="nothing changed")
    assert feed.since(0) == (
        0,
        [
            Happening(1, 1234.5, "fact", "web", {"name": "fqdn"}),
            Happening(2, 1234.5, "configuration", None, {"text": "nothing changed"}),
        ],
    )
    assert feed.run == "run-1"
    assert feed.last == len(feed) == 2


def test_people_are_told_by_their_own_clock_when_it_was() -> None:
    before = time.time()  # noqa: TID251 - the clock that is meant
    (told,) = make_feed(1).since(0)[1]
    assert before <= told.at <= time.time()  # noqa: TID251


def test_every_kind_is_explained() -> None:
    assert all(kind and meaning for kind, meaning in KINDS.items())
    assert {"command", "completion", "timed-out", "configuration", "guest-renamed", "throttled"} <= KINDS.keys()


def test_who_has_seen_all_gets_nothing() -> None:
    assert numbers(make_feed(0), 0) == (0, [])
    assert numbers(make_feed(5), 5) == (0, [])
    assert numbers(make_feed(5), 7) == (0, [])


def test_who_asks_gets_what_came_after_in_order() -> None:
    feed = make_feed(5)
    assert numbers(feed, 0) == (0, [1, 2, 3, 4, 5])
    assert numbers(feed, 3) == (0, [4, 5])


def test_what_left_the_ring_is_lost_to_those_who_have_not_seen_it_and_to_nobody_else() -> None:
    feed = make_feed(10, limit=4)
    assert len(feed) == 4
    assert feed.last == 10
    assert numbers(feed, 0) == (6, [7, 8, 9, 10])
    assert numbers(feed, 5) == (1, [7, 8, 9, 10])
    assert numbers(feed, 6) == (0, [7, 8, 9, 10])
    assert numbers(feed, 8) == (0, [9, 10])
    assert numbers(feed, 10) == (0, [])


def test_to_one_who_is_slow_nothing_is_lost_uncounted() -> None:
    feed = make_feed(0, limit=3)
    seen, lost, position = 0, 0, 0
    for burst in (1, 3, 0, 7, 2, 4, 3):
        for _ in range(burst):
            feed.tell("fact")
        gone, newer = feed.since(position)
        seen, lost, position = seen + len(newer), lost + gone, feed.last
    assert seen + lost == feed.last == 20
    assert lost == 5


def test_who_waits_for_what_is_there_already_does_not_wait() -> None:
    async def scenario() -> None:
        feed = make_feed(3)
        await feed.wait(2)
        await feed.wait(0)

    run(scenario())


def test_who_waits_is_woken_by_what_happens_next() -> None:
    async def scenario() -> None:
        feed = make_feed(3)
        waiting = asyncio.ensure_future(feed.wait(3))
        await settle()
        assert not waiting.done()
        feed.tell("fact")
        await waiting

    run(scenario())


def test_who_waits_for_more_than_the_next_goes_on_waiting() -> None:
    async def scenario() -> None:
        feed = make_feed(3)
        waiting = asyncio.ensure_future(feed.wait(5))
        for _ in range(2):
            feed.tell("fact")
            await settle()
            assert not waiting.done()
        feed.tell("fact")
        await waiting

    run(scenario())


def test_everybody_who_waits_is_woken_and_none_by_another() -> None:
    async def scenario() -> None:
        feed = make_feed(3)
        soon = [asyncio.ensure_future(feed.wait(3)) for _ in range(3)]
        later = asyncio.ensure_future(feed.wait(4))
        await settle()
        feed.tell("fact")
        await asyncio.gather(*soon)
        await settle()
        assert not later.done()
        again = asyncio.ensure_future(feed.wait(4))
        await settle()
        feed.tell("fact")
        await asyncio.gather(later, again)

    run(scenario())


def test_one_who_waits_no_longer_takes_nobody_else_along() -> None:
    async def scenario() -> None:
        feed = make_feed(0)
        gone, stays = asyncio.ensure_future(feed.wait(0)), asyncio.ensure_future(feed.wait(0))
        await settle()
        gone.cancel()
        await settle()
        assert gone.cancelled()
        assert not stays.done()
        feed.tell("fact")
        await stays

    run(scenario())


def test_one_that_was_made_outside_of_a_loop_can_be_waited_for_in_any() -> None:
    feed = make_feed(1)

    async def scenario() -> None:
        waiting = asyncio.ensure_future(feed.wait(feed.last))
        await settle()
        assert not waiting.done()
        feed.tell("fact")
        await waiting

    for _ in range(2):
        run(scenario())
    assert feed.last == 3
