from __future__ import annotations

import asyncio

from host_agent.discovery import Added, Event
from host_agent.discovery.fixed import FixedDiscovery
from tests.host_agent.parts import run


def test_what_is_configured_is_reported_once_whether_it_is_there_or_not() -> None:
    async def scenario() -> None:
        events: list[Event] = []
        discovery = FixedDiscovery([("web", "/none/1"), ("db", "/none/2")], events.append)
        discovery.open()
        await discovery.settled()
        task = asyncio.ensure_future(discovery.run())
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        discovery.close()
        assert events == [Added("web", "/none/1"), Added("db", "/none/2")]
        assert discovery.status() == {"fixed": {"web": "/none/1", "db": "/none/2"}}

    run(scenario())
