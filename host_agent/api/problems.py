"""Errors of the control API as problem documents (RFC 9457), and the one table of their types.

A program decides by *type*, which never changes its meaning; *title* and *detail* are for people, and the further members of
a type for programs again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable
from typing import Any, Callable, NamedTuple

from aiohttp import web

from host_agent.client.failures import NAMESPACE

_log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"

#: How much of what a client sent is said back to it, in characters.
_QUOTED = 80


class Type(NamedTuple):
    """A type of problem.

    :ivar members: what its documents have beside the usual members, each with its meaning.
    """

    status: int
    title: str
    meaning: str
    members: dict[str, str] = {}  # noqa: RUF012 - never changed


#: Every type by the last part of its name.
TYPES = {
    "bad-request": Type(400, "Bad request", "the question is no valid one: its path, query, headers or body"),
    "not-allowed": Type(403, "Not allowed", "this user may not do that, or not even look"),
    "no-such-resource": Type(404, "No such resource", "nothing is at this path"),
    "no-such-guest": Type(404, "No such guest", "the daemon knows no guest of that name"),
    "no-such-peer": Type(404, "No such peer", "the daemon's configuration names no host of that name"),
    "no-such-command": Type(404, "No such command", "no command is called so"),
    "method-not-allowed": Type(405, "Method not allowed", "this can't be done with what is at this path"),
    "version-too-low": Type(
        409,
        "Version too low",
        "the command is newer than what was agreed with the guest",
        {
            "needed": "the lowest version at which the command may be sent",
            "agreed": "the version that was agreed",
            "guest_supports": "the guest's highest version, `null` where it knows none or is not known yet",
            "host_supports": "the host's highest version, `null` where it knows none",
            "upgrade": "which side must be upgraded, `guest`, `host` or `both`, `null` where that is not known",
        },
    ),
    "disabled": Type(
        409,
        "Disabled",
        "the guest does not say that it carries the command out",
        {"want": "why: `off` by its configuration, `not-offered` by its agent, `unsaid` so far on this channel"},
    ),
    "moving": Type(409, "Moving", "the guest is just moving to another host"),
    "handoff-off": Type(409, "Hand-off off", "the daemon's configuration names no host that takes guests, or lets none in"),
    "would-lose": Type(
        409,
        "Would lose",
        "the session spec that is asked for has no place for all that is known of the guest",
        {"names": "the dotted names of all that would be lost"},
    ),
    "in-doubt": Type(
        409,
        "In doubt",
        "nobody here knows whether the guest's new host has taken it; it is asked again until it answers",
        {"to": "that host"},
    ),
    "not-awaited": Type(409, "Not awaited", "no other host awaits the guest, and none was named"),
    "not-moving": Type(409, "Not moving", "the guest is not moving to another host"),
    "name-taken": Type(409, "Name taken", "another VM has that name on the host that was to take the guest"),
    "moved": Type(
        410,
        "Moved",
        "the guest has moved to another host",
        {
            "to": "that host",
            "reply_id": "of a command that was sent before: what the completion says there; left out: it was not sent",
        },
    ),
    "too-large": Type(413, "Too large", "the body is longer than 1 MiB, or than a session's file can be"),
    "invalid-arguments": Type(
        422,
        "Invalid arguments",
        "an argument of the command is missing, unknown or of a wrong type",
        {"argument": "which one, left out where it is none in particular"},
    ),
    "invalid-session": Type(422, "Invalid session", "this is no session, one that is damaged, or of a spec not known here"),
    "unexpected": Type(500, "Unexpected error", "an error that should not happen; the daemon's log has more"),
    "unreachable-peer": Type(502, "Unreachable peer", "the other host does not answer, or is not the one that it should be"),
    "refused-by-peer": Type(
        502,
        "Refused by peer",
        "the other host does not take the guest",
        {
            "code": "why, in a word of the hand-off",
            "supported": "the versions that it would not have refused; of what, the code says",
        },
    ),
    "not-connected": Type(503, "Not connected", "there is no channel to the guest"),
    "unresponsive": Type(503, "Unresponsive", "the guest is connected and silent"),
    "congested": Type(503, "Congested", "the guest does not read what it was sent before"),
    "busy": Type(503, "Busy", "too many commands wait for the guest already"),
    "stopping": Type(503, "Stopping", "the daemon is just ending"),
    "not-saved": Type(503, "Not saved", "the daemon can't write its state file, without which no guest changes its owner"),
    "timed-out": Type(
        504,
        "Timed out",
        "the command was sent; its completion did not come in time, and may still come",
        {"reply_id": "what the completion will say to be known by"},
    ),
}

_BY_STATUS = {404: "no-such-resource", 405: "method-not-allowed", 413: "too-large"}


class Problem(Exception):
    """The answer is a problem of the type *kind*; *detail* is one sentence, *members* are those of the type."""

    def __init__(self, kind: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.members = members


def quoted(text: str) -> str:
    """The beginning of what a client sent, safe for terminals."""
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")


@web.middleware
async def explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every error into a problem document."""
    try:
        return await handler(request)
    except Problem as error:
        return _document(error)
    except web.HTTPMethodNotAllowed as error:
        return _other_methods(request, error)
    except web.HTTPException as error:
        return _document(Problem(_BY_STATUS.get(error.status, "bad-request"), _sentence(request, error)))
    except Exception:  # noqa: BLE001 - one answer fails, and the log says why
        _log.exception("unexpected error while answering %s %s", request.method, ascii(request.path[:_QUOTED]))
        return _document(Problem("unexpected", "an error that should not happen; the daemon's log has more"))


def _document(error: Problem) -> web.Response:
    found = TYPES[error.kind]
    document = {
        "type": NAMESPACE + error.kind,
        "title": found.title,
        "status": found.status,
        "detail": str(error),
        **error.members,
    }
    return web.Response(status=found.status, text=json.dumps(document), content_type=CONTENT_TYPE)


def _other_methods(request: web.Request, error: web.HTTPMethodNotAllowed) -> web.Response:
    """What can be done here: the answer to ``OPTIONS``, and part of the one to what can't be done."""
    allowed = ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))
    if request.method == "OPTIONS":
        return web.Response(status=204, headers={"Allow": allowed})
    detail = f"{quoted(request.method)} can't be done with {quoted(request.path)}; allowed: {allowed}"
    answer = _document(Problem("method-not-allowed", detail))
    answer.headers["Allow"] = allowed
    return answer


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"nothing is at {quoted(request.path)}; /openapi.json lists what there is"
    if error.status == 413:
        return "the body is too long; send at most 1 MiB"
    return f"{error.reason}; /openapi.json tells how to ask"
