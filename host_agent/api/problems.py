"""Errors of the control API as problem documents (RFC 9457).

A program decides by *type*, which never changes its meaning; *title* and *detail* are for people.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable
from typing import Callable

from aiohttp import web

_log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"

NO_SUCH_GUEST = "about:vmaccord/no-such-guest"
NO_SUCH_RESOURCE = "about:vmaccord/no-such-resource"
METHOD_NOT_ALLOWED = "about:vmaccord/method-not-allowed"
BAD_REQUEST = "about:vmaccord/bad-request"
UNEXPECTED = "about:vmaccord/unexpected"

_TITLES = {
    NO_SUCH_GUEST: "No such guest",
    NO_SUCH_RESOURCE: "No such resource",
    METHOD_NOT_ALLOWED: "Method not allowed",
    BAD_REQUEST: "Bad request",
    UNEXPECTED: "Unexpected error",
}

_TYPES_BY_STATUS = {404: NO_SUCH_RESOURCE, 405: METHOD_NOT_ALLOWED}


def problem(problem_type: str, status: int, detail: str) -> web.Response:
    """A problem document as an answer."""
    document = {"type": problem_type, "title": _TITLES[problem_type], "status": status, "detail": detail}
    return web.Response(status=status, text=json.dumps(document), content_type=CONTENT_TYPE)


@web.middleware
async def explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every error into a problem document."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        problem_type = _TYPES_BY_STATUS.get(error.status, BAD_REQUEST)
        return problem(problem_type, error.status, f"{request.method} {request.path}: {error.reason}")
    except Exception:  # noqa: BLE001 - one answer fails, and the log says why
        _log.exception("unexpected error while answering %s %s", request.method, ascii(request.path))
        return problem(UNEXPECTED, 500, "an error that should not happen; the daemon's log has more")
