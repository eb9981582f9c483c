"""Waiting for what may take long: no longer than the daemon runs, and what goes wrong is a problem."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Optional, TypeVar, Union

from host_agent.commands import Answer, Stopping, TimedOut
from host_agent.handoff.outcomes import HandoffFailed
from host_agent.refusals import Refused

from .facade import Context
from .problems import Problem

T = TypeVar("T")


async def outcome(context: Context, waited_for: Coroutine[Any, Any, T], what: str, **members: Any) -> T:
    """What comes of *waited_for*.

    :param what: what it is, in a few words for people.
    :param members: further members of the problem that it takes too long.
    :raises Problem: it fails, or the daemon ends before.
    """
    task = asyncio.ensure_future(waited_for)
    ends: list[asyncio.Future[Any]] = [task, context.ending]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        raise stopping(what)
    try:
        return task.result()
    except (HandoffFailed, Refused) as failure:
        raise as_problem(failure) from None
    except TimedOut as error:
        raise timed_out(what, error, **members) from None
    except Stopping:
        raise stopping(what) from None


def as_problem(failure: Union[HandoffFailed, Refused]) -> Problem:
    """The problem that *failure* is."""
    return Problem(failure.kind, str(failure), **failure.members)


def timed_out(what: str, error: TimedOut, **members: Any) -> Problem:
    """The problem where the guest did not answer in time."""
    detail = f"no answer to {what} within {error.patience:g} s; it may still come: the events will tell"
    return Problem("timed-out", detail, **members)


def stopping(what: str) -> Problem:
    """The problem where the daemon ends before the outcome is known."""
    return Problem("stopping", f"the daemon stops; whether {what} was carried out is not known: look at the guest")


def told(answer: Optional[Answer]) -> dict[str, Any]:
    """What a guest answered, as answers of this API have it; None: nothing is waited for."""
    if answer is None:
        return {"completion": None, "round_trip_s": None}
    return {"completion": {"done": answer.done, **answer.more}, "round_trip_s": round(answer.after, 6)}
