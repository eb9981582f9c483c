"""What the control API answers: the table of its routes, and what every answer goes through.

``problems`` makes documents of errors, ``access`` lets through what whoever asks may do. A route is a function of
its context and the request.
"""

from __future__ import annotations

import asyncio
import functools

from aiohttp import web

from . import access, commands, events, guests, handoffs, openapi, problems
from .facade import Context, Facade
from .inputs import BODY_LIMIT, read_query


def make_application(
    facade: Facade, identify: access.Identify = access.identify, keep_alive: float = events.KEEP_ALIVE
) -> web.Application:
    """The application, to be made inside an event loop. When it shuts down, whoever waits in it waits no longer.

    :param identify: finds out who asks.
    :param keep_alive: seconds after which a silent stream of events says that it lives.
    """
    context = Context(facade, identify, asyncio.get_running_loop().create_future(), keep_alive)

    async def end(_application: web.Application) -> None:
        if not context.ending.done():
            context.ending.set_result(None)

    application = web.Application(
        middlewares=[problems.explain, access.restrict(lambda: facade.roles, identify)], client_max_size=BODY_LIMIT
    )
    application.on_shutdown.append(end)
    application.add_routes([define(path, functools.partial(answer, context)) for define, path, answer in _ROUTES])
    return application


async def _host(context: Context, request: web.Request) -> web.StreamResponse:
    """The daemon itself, and who you are to it."""
    read_query(request, {})
    peer = await context.identify(request)
    name = await asyncio.get_running_loop().run_in_executor(None, access.name_of, peer.uid)
    you = {"user": name, "uid": peer.uid, "role": context.facade.roles.role_of(peer).value}
    return web.json_response({**context.facade.describe_host(), "you": you})


async def _metrics(context: Context, request: web.Request) -> web.StreamResponse:
    """Metrics as Prometheus reads them."""
    read_query(request, {})
    body, content_type = await context.facade.render_metrics()
    return web.Response(body=body, headers={"Content-Type": content_type})


async def _openapi(_context: Context, request: web.Request) -> web.StreamResponse:
    """This API, described."""
    read_query(request, {})
    return web.json_response(openapi.document())


_ROUTES = (
    (web.get, "/v1/host", _host),
    (web.get, "/v1/guests", guests.tell_all),
    (web.get, "/v1/guests/{name}", guests.tell_one),
    (web.post, "/v1/guests/{name}/commands", commands.send),
    (web.post, "/v1/guests/{name}/refresh", commands.refresh),
    (web.post, "/v1/guests/{name}/handoff", handoffs.send),
    (web.delete, "/v1/guests/{name}/handoff", handoffs.cancel),
    (web.post, "/v1/guests/{name}/migration", handoffs.migrate),
    (web.get, "/v1/guests/{name}/session", handoffs.export),
    (web.post, "/v1/sessions", handoffs.take_in),
    (web.get, "/v1/handoffs", handoffs.tell_all),
    (web.post, "/v1/handoffs/expected", handoffs.expect),
    (web.get, "/v1/events", events.follow),
    (web.get, "/metrics", _metrics),
    (web.get, "/openapi.json", _openapi),
)
