"""Answers that are sent piece by piece, so that neither their length nor a client that reads slowly costs memory or time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from aiohttp import web

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def streaming(request: web.Request, content_type: str) -> AsyncIterator[web.StreamResponse]:
    """An answer to *request* that has begun; it ends with the context.

    After an error the connection is cut off: the client must not take what it has for all there is. A client that is gone
    ends the context without an error.
    """
    response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-store"})
    try:
        # One that is gone already is noticed again with the first piece: a context can't end before it has begun.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
        yield response
        await response.write_eof()
    except ConnectionError:
        pass
    except Exception:  # noqa: BLE001 - one answer fails, and the log says why
        _log.exception("unexpected error in the middle of an answer to %s", ascii(request.path))
        if request.transport is not None:
            request.transport.abort()


def head(content_type: str) -> web.Response:
    """What ``HEAD`` says of such an answer."""
    return web.Response(headers={"Content-Type": content_type, "Cache-Control": "no-store"})
