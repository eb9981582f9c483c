"""What the control API answers. Reads the registry; changes nothing."""

from __future__ import annotations

from typing import Any, Callable

from aiohttp import web

from host_agent.registry import Registry

from . import problems


def make_application(
    registry: Registry, describe_host: Callable[[], dict[str, Any]], clock: Callable[[], float]
) -> web.Application:
    """The application.

    :param describe_host: what ``/v1/host`` says.
    :param clock: the clock in which guests tell ages.
    """

    async def host(_request: web.Request) -> web.Response:
        return web.json_response(describe_host())

    async def guests(_request: web.Request) -> web.Response:
        now = clock()
        return web.json_response([each.describe(now) for each in sorted(registry, key=lambda each: each.name)])

    async def guest(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = registry.find(name)
        if found is None:
            return problems.problem(problems.NO_SUCH_GUEST, 404, f"no guest is called {name!r}; /v1/guests lists all")
        return web.json_response(found.describe(clock()))

    application = web.Application(middlewares=[problems.explain])
    application.add_routes(
        [
            web.get("/v1/host", host),
            web.get("/v1/guests", guests),
            web.get("/v1/guests/{name}", guest),
        ]
    )
    return application
