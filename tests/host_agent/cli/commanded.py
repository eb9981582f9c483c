"""For the tests of commands: a daemon whose guests answer each command as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from aiohttp import web

from tests.host_agent.operators import FakeDaemon, described

Said = tuple[int, dict[str, Any]]


def able(**refused: str) -> dict[str, Any]:
    """The guest web-1, which can be sent every command but those *refused*, each with why."""
    guest = described(agreed=5)
    for name, why in refused.items():
        guest["obstacles"][name.replace("_", "-")] = {"kind": "disabled", "detail": why}
    return guest


def done(**result: Any) -> Said:
    """A guest's answer that it has done it."""
    return _answer(done=True, result=result)


def failed(code: str, message: str, **result: Any) -> Said:
    """A guest's answer that it could not."""
    return _answer(done=False, error={"code": code, "message": message}, result=result)


def _answer(**completion: Any) -> Said:
    completion["reply_id"] = "r-1"
    return 200, {"guest": "web-1", "agreed": 5, "reply_id": "r-1", "completion": completion, "round_trip_s": 0.0125}


class CommandedDaemon(FakeDaemon):
    """Knows the guest web-1.

    :ivar said: by command: what is answered, one after the other, the last for ever.
    :ivar meanwhile: by command: called before it is answered, in a thread of its own; nobody else waits for it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, able())
        self.said: dict[str, list[Said]] = {}
        self.meanwhile: dict[str, Callable[[], None]] = {}

    def __enter__(self) -> CommandedDaemon:
        super().__enter__()
        return self

    @property
    def commands(self) -> list[str]:
        """Which commands were sent."""
        return [body["name"] for method, _, body in self.asked if method == "POST"]

    def sent(self, command: str) -> dict[str, Any]:
        """What came last of *command*: all of the question."""
        return next(body for _, _, body in reversed(self.asked) if body is not None and body["name"] == command)

    async def _act(self, request: web.Request) -> web.Response:
        await self._note(request)
        name = (await request.json())["name"]
        before: Optional[Callable[[], None]] = self.meanwhile.get(name)
        if before is not None:
            await asyncio.get_running_loop().run_in_executor(None, before)
        said = self.said[name]
        status, document = said.pop(0) if len(said) > 1 else said[0]
        return web.json_response({"name": name, **document}, status=status)
