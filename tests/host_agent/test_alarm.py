from __future__ import annotations

import asyncio
from typing import Optional

import pytest

from host_agent.alarm import Alarm

from .own_time import in_own_time, own_loop


class Rung:
    """An alarm, and when it rang."""

    def __init__(self, *more: Optional[float]) -> None:
        """Each time it rings, it is set to the next of these deadlines."""
        self.start = own_loop().now
        self.times: list[float] = []
        self._more = list(more)
        self.alarm = Alarm(own_loop(), self._ring)

    def set(self, deadline: Optional[float]) -> None:
        """As that of the alarm, counted from now on."""
        self.alarm.set(None if deadline is None else self.start + deadline)

    def _ring(self) -> None:
        self.times.append(own_loop().now - self.start)
        if self._more:
            self.set(self._more.pop(0))


def test_it_rings_once_for_a_deadline() -> None:
    async def scenario() -> None:
        rung = Rung()
        rung.set(5)
        await asyncio.sleep(4.9)
        assert rung.times == []
        await asyncio.sleep(100)
        assert rung.times == pytest.approx([5])

    in_own_time(scenario())


def test_a_deadline_that_passed_already_is_due_at_once() -> None:
    async def scenario() -> None:
        rung = Rung()
        rung.set(-5)
        await asyncio.sleep(0.001)
        assert len(rung.times) == 1

    in_own_time(scenario())


def test_a_deadline_that_moves_on_costs_no_new_timer_and_one_that_comes_nearer_does() -> None:
    async def scenario() -> None:
        rung = Rung(200, 250)
        rung.set(100)
        timer = rung.alarm._timer
        rung.set(200)
        assert rung.alarm._timer is timer
        rung.set(50)
        assert timer is not None
        assert timer.cancelled()
        await asyncio.sleep(1000)
        assert rung.times == pytest.approx([50, 200, 250])

    in_own_time(scenario())


def test_a_deadline_that_is_reached_by_an_early_ring_is_set_again_by_who_hears_it() -> None:
    async def scenario() -> None:
        rung = Rung(25)
        for deadline in (10, 15, 20, 25):
            rung.set(deadline)
        await asyncio.sleep(100)
        assert rung.times == pytest.approx([10, 25])

    in_own_time(scenario())


def test_without_a_deadline_it_does_not_ring_until_there_is_another() -> None:
    async def scenario() -> None:
        rung = Rung()
        rung.set(5)
        rung.set(None)
        rung.set(None)
        await asyncio.sleep(10)
        assert rung.times == []
        rung.set(20)
        rung.alarm.cancel()
        await asyncio.sleep(100)
        assert rung.times == []
        rung.set(200)
        await asyncio.sleep(1000)
        assert rung.times == pytest.approx([200])

    in_own_time(scenario())


def test_many_alarms_ring_each_in_its_own_time() -> None:
    async def scenario() -> None:
        all_rung = [Rung(number + 100) for number in range(1, 101)]
        for number, rung in enumerate(all_rung, 1):
            rung.set(number)
        await asyncio.sleep(1000)
        assert all(rung.times == pytest.approx([number, number + 100]) for number, rung in enumerate(all_rung, 1))

    in_own_time(scenario())
