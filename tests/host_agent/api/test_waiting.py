from __future__ import annotations

import asyncio

import pytest

from host_agent.api import waiting
from host_agent.api.access import identify
from host_agent.api.facade import Context
from host_agent.api.problems import Problem
from host_agent.commands import Answer, Stopping, TimedOut
from host_agent.handoff.outcomes import HandoffFailed
from host_agent.refusals import Refused
from tests.host_agent.api.parts import Daemon
from tests.host_agent.parts import run


async def give(outcome: object) -> object:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def make_context() -> Context:
    return Context(Daemon(), identify, asyncio.get_running_loop().create_future(), 15.0)


def test_what_comes_of_it_is_returned() -> None:
    async def scenario() -> None:
        assert await waiting.outcome(make_context(), give(7), "it") == 7

    run(scenario())


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (HandoffFailed("in-doubt", "wait for it", to="b"), "in-doubt", "wait for it"),
        (Refused("busy", "wait for them"), "busy", "wait for them"),
        (TimedOut(2.5), "timed-out", "no answer to it within 2.5 s; it may still come: the events will tell"),
        (Stopping(), "stopping", "the daemon stops; whether it was carried out is not known: look at the guest"),
    ],
)
def test_what_goes_wrong_is_a_problem(error: Exception, kind: str, sentence: str) -> None:
    async def scenario() -> None:
        with pytest.raises(Problem) as caught:
            await waiting.outcome(make_context(), give(error), "it")
        assert (caught.value.kind, str(caught.value)) == (kind, sentence)
        assert caught.value.members == getattr(error, "members", {})

    run(scenario())


def test_what_should_not_happen_is_not_hidden() -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await waiting.outcome(make_context(), give(ZeroDivisionError()), "it")

    run(scenario())


def test_nothing_is_waited_for_when_the_daemon_ends() -> None:
    async def scenario() -> None:
        context = make_context()
        never = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await never

        asyncio.get_running_loop().call_soon(context.ending.set_result, None)
        with pytest.raises(Problem, match="the daemon stops") as caught:
            await waiting.outcome(context, wait(), "it")
        assert caught.value.kind == "stopping"
        await asyncio.sleep(0)
        assert never.cancelled()

    run(scenario())


def test_an_answer_is_told_with_whatever_the_guest_says() -> None:
    assert waiting.told(None) == {"completion": None, "round_trip_s": None}
    told = waiting.told(Answer(True, {"result": {"a": 1}}, 0.12345678))
    assert told == {"completion": {"done": True, "result": {"a": 1}}, "round_trip_s": 0.123457}
