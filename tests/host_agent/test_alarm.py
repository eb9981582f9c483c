from __future__ import annotations

import asyncio

from host_agent.alarm import Alarm

from .parts import run, until


def test_it_rings_once_for_a_deadline_that_passed() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        alarm = Alarm(loop, lambda: rung.append(loop.time()))
        alarm.set(loop.time())
        await until(lambda: rung)
        alarm.cancel()
        assert len(rung) == 1

    run(scenario())


def test_a_deadline_that_moves_on_costs_no_new_timer() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        alarm = Alarm(loop, lambda: None)
        alarm.set(loop.time() + 100)
        timer = alarm._timer
        alarm.set(loop.time() + 200)
        assert alarm._timer is timer
        alarm.set(loop.time() + 50)
        assert alarm._timer is not timer
        assert timer is not None
        assert timer.cancelled()
        alarm.cancel()

    run(scenario())


def test_without_a_deadline_it_never_rings() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        rung: list[str] = []
        alarm, other = Alarm(loop, lambda: rung.append("alarm")), Alarm(loop, lambda: rung.append("other"))
        alarm.set(loop.time())
        alarm.set(None)
        other.set(loop.time())
        await until(lambda: rung)
        assert rung == ["other"]

    run(scenario())
