"""The control API described, for programs: OpenAPI 3.1.

What stands in a table elsewhere is taken from there: the types of problems, the commands and their arguments, the kinds of
events.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable
from typing import Any, Callable, Optional

from common import fields, messages
from common.catalogue import CATALOGUE, Row
from common.handoff import documents
from host_agent import deadlines, release
from host_agent.client.failures import NAMESPACE
from host_agent.feed import KINDS, LIMIT
from host_agent.guest import State
from host_agent.handoff.security import PLAIN_TEXT, TLS

from . import handoffs, problems
from .access import Role
from .events import ID_FORM, LOST, LOST_MEANING
from .inputs import BYTES

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_MAYBE_TEXT: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_MAYBE_COUNT: Json = {"type": ["integer", "null"], "minimum": 0}
_SECONDS: Json = {"type": "number", "minimum": 0}
_MAYBE_SECONDS: Json = {"type": ["number", "null"], "minimum": 0}
_BOOLEAN: Json = {"type": "boolean"}
_NAME: Json = {"type": "string", "minLength": 1, "maxLength": handoffs.NAME_LIMIT}
_MAYBE_NAME: Json = {**_NAME, "type": ["string", "null"]}
_NO_OR_YES: Json = {"enum": ["yes", "no"], "default": "no"}

#: A VM's, in lower or upper case.
_UUID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"

#: Groups of four characters; where the last is padded, it has no bits that say nothing.
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"

#: By the label of a kind of argument.
_OF_LABEL: dict[str, Json] = {
    fields.TEXT.label: _TEXT,
    fields.INTEGER.label: {"type": "integer"},
    fields.NATURAL.label: _COUNT,
    fields.POSITIVE.label: {"type": "integer", "minimum": 1},
    fields.SECONDS.label: {"type": "number", "exclusiveMinimum": 0, "maximum": fields.YEAR},
    fields.BASE64.label: {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    fields.BOOLEAN.label: _BOOLEAN,
}

#: What may go wrong with every question.
_ALWAYS = ("bad-request", "not-allowed", "unexpected")

#: Why a command or a refresh may not be sent.
_REFUSED = ("no-such-guest", "not-connected", "congested")

#: Why no command at all may be sent.
_SILENT = (*_REFUSED, "unresponsive", "moving", "moved", "stopping", "timed-out")

#: Why the host that a guest moved to does not tell what became of a command.
_FOLLOWED = ("handoff-off", "no-such-peer", "unreachable-peer", "refused-by-peer")

#: Why a guest may not be handed over to a host, or that may not be asked.
_PEER = (*_FOLLOWED, "in-doubt", "not-saved", "stopping")


@functools.lru_cache(maxsize=1)
def document() -> Json:
    """The description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vmaccord control API",
            "version": release(),
            "description": "What vmaccord-host knows of its guests, and what it can have them do; over its control socket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "the control socket, a Unix socket"}],
        "paths": _paths(),
        "components": {"schemas": _schemas(), "parameters": {"guest": _GUEST_PARAMETER}},
    }


# ---- Paths ----

_GUEST_PARAMETER: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "the guest's name",
    "schema": {"type": "string", "minLength": 1},
}
_COMMAND_NAME: Json = {"enum": [row.name for row in CATALOGUE.commands]}
_WITHOUT_FACTS = "`no`: without facts, capabilities and counters"
_ONE_GUEST: Json = {"$ref": "#/components/parameters/guest"}


def _paths() -> Json:
    return {
        "/v1/host": {"get": _operation("getHost", "The daemon itself, and who you are to it", _json(_ref("Host")))},
        "/v1/guests": {
            "get": _operation(
                "listGuests",
                "All guests, by name",
                _json({"type": "array", "items": _ref("Guest")}),
                parameters=[
                    _query("facts", _WITHOUT_FACTS, {"enum": ["yes", "no"], "default": "yes"}),
                    _query("can", "only guests that can be sent this command now", _COMMAND_NAME),
                ],
            )
        },
        "/v1/guests/{name}": {
            "parameters": [_ONE_GUEST],
            "get": _operation("getGuest", "One guest", _json(_ref("Guest")), wrong=["no-such-guest"]),
        },
        "/v1/guests/{name}/commands": {"parameters": [_ONE_GUEST], "post": _send()},
        "/v1/guests/{name}/refresh": {
            "parameters": [_ONE_GUEST],
            "post": _operation(
                "refreshGuest",
                "Ask a guest to say everything again",
                _json(_ref("Refreshed")),
                wrong=[*_REFUSED, "moving", "moved"],
            ),
        },
        "/v1/guests/{name}/handoff": {"parameters": [_ONE_GUEST], "post": _hand_over(), "delete": _cancel()},
        "/v1/guests/{name}/migration": {"parameters": [_ONE_GUEST], "post": _migrate()},
        "/v1/guests/{name}/session": {"parameters": [_ONE_GUEST], "get": _export()},
        "/v1/sessions": {"post": _take_in()},
        "/v1/handoffs": {
            "get": _operation(
                "listHandoffs",
                "Guests that are being handed over, or awaited",
                _json({"type": "array", "items": _ref("Handoff")}),
            )
        },
        "/v1/handoffs/expected": {"post": _expect()},
        "/v1/events": {"get": _follow()},
        "/metrics": {
            "get": _operation("getMetrics", "Metrics as Prometheus reads them", {"text/plain": {"schema": _TEXT}}),
        },
        "/openapi.json": {"get": _operation("getDescription", "This description", _json({"type": "object"}))},
    }


def _send() -> Json:
    wrong = ["no-such-command", "version-too-low", "disabled", "too-large", "invalid-arguments", "busy"]
    return _operation(
        "sendCommand",
        "Send a command to a guest, and wait for its completion where it has one",
        _json(_ref("Outcome")),
        wrong=[*_SILENT, *wrong, *_FOLLOWED],
        body=_json(_ref("Command")),
    )


def _hand_over() -> Json:
    return _operation(
        "handOver",
        "Hand a guest over to another host",
        _json(_ref("Handed")),
        wrong=["no-such-guest", "moving", "moved", "would-lose", "not-awaited", "not-moving", "too-large", *_PEER],
        body=_json(
            _closed(
                {
                    "to": {**_MAYBE_NAME, "description": "a configured peer; `null`: the one that awaits the guest"},
                    "allow_loss": {
                        **_BOOLEAN,
                        "default": False,
                        "description": "also where the session spec that both know has no place for all",
                    },
                },
                optional=["to", "allow_loss"],
            )
        ),
    )


def _cancel() -> Json:
    force = "`yes`: also where nobody knows whether the other host has taken it, or it has; make sure that it is not there"
    return _operation(
        "cancelHandOver",
        "Give up handing a guest over",
        _json(_object({"guest": _TEXT})),
        parameters=[_query("force", force, _NO_OR_YES)],
        wrong=["no-such-guest", "not-moving", "moved", *_PEER],
    )


def _migrate() -> Json:
    return _operation(
        "migrateGuest",
        "Tell a guest where its migration stands, and wait for its answer before it begins",
        _json(_ref("Migration")),
        wrong=[*_SILENT, "version-too-low", "disabled", "too-large", "busy"],
        body=_json(
            _closed(
                {
                    "stage": {"enum": list(handoffs.STAGES)},
                    "timeout": _patience(deadlines.SHORTEST, deadlines.LONGEST, "of `begin`: the guest must have answered"),
                },
                optional=["timeout"],
            )
        ),
    )


def _export() -> Json:
    return _operation(
        "exportSession",
        "What is known of a guest, as a file that another host takes",
        _bytes(),
        parameters=[
            _query("spec", "the session spec", {"enum": list(documents.SPECS), "default": documents.NEWEST}),
            _query("allow-loss", "`yes`: also where that spec has no place for all", _NO_OR_YES),
        ],
        wrong=["no-such-guest", "would-lose", "moving", "moved", "in-doubt", "invalid-session"],
    )


def _take_in() -> Json:
    return _operation(
        "importSession",
        "Take a guest from a file",
        _json(_object({"guest": _TEXT, "uuid": _MAYBE_TEXT})),
        wrong=["too-large", "invalid-session", "name-taken", "moving", "in-doubt", "not-saved", "stopping"],
        body=_bytes(),
    )


def _expect() -> Json:
    return _operation(
        "expectGuest",
        "Await a guest from another host",
        _json(_object({"name": _TEXT, "uuid": _MAYBE_TEXT, "patience": _SECONDS})),
        wrong=["too-large", "handoff-off"],
        body=_json(
            _closed(
                {
                    "name": _NAME,
                    "uuid": {**_MAYBE_TEXT, "pattern": _UUID, "description": "the VM's UUID; left out: its name counts"},
                    "patience": {
                        **_patience(handoffs.SHORTEST, handoffs.LONGEST, "it must have come"),
                        "default": handoffs.USUAL,
                    },
                },
                optional=["uuid", "patience"],
            )
        ),
    )


def _patience(shortest: float, longest: float, what: str) -> Json:
    return {"type": "number", "minimum": shortest, "maximum": longest, "description": f"seconds within which {what}"}


def _follow() -> Json:
    told = "\n".join(f"- `{kind}`: {meaning}" for kind, meaning in KINDS.items())
    lost = f"- `{LOST}`: {LOST_MEANING}"
    operation = _operation(
        "followEvents",
        "What happens, as server-sent events",
        {"text/event-stream": {"schema": _TEXT}},
        parameters=[
            _query("guest", "only what happens to the guest of this name", _TEXT),
            _query("recent", "begin with so many of the latest events", {**_COUNT, "maximum": LIMIT, "default": 0}),
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "begin behind the event with this id",
                "schema": {"type": "string", "pattern": f"^{ID_FORM.pattern}$"},
            },
        ],
    )
    description = (
        "The data of an event is a JSON object with `at`, in seconds since the epoch, `guest` and the details of its kind."
        f" A comment says that there is nothing more to tell for now. Kinds of events:\n\n{told}\n{lost}"
    )
    return {**operation, "description": description}


def _operation(
    name: str,
    summary: str,
    content: Json,
    parameters: Iterable[Json] = (),
    wrong: Iterable[str] = (),
    body: Optional[Json] = None,
) -> Json:
    answered = {"200": {"description": summary, "content": content}}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        **({} if body is None else {"requestBody": {"required": True, "content": body}}),
        "responses": {**answered, **_problem_responses(dict.fromkeys([*_ALWAYS, *wrong]))},
    }


def _problem_responses(kinds: Iterable[str]) -> Json:
    """An answer for each status that problems of *kinds* have."""
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(problems.TYPES[kind].status, []).append(kind)
    return {str(status): _problem_response(by_status[status]) for status in sorted(by_status)}


def _problem_response(kinds: Iterable[str]) -> Json:
    one_of = [_ref(_problem_name(kind)) for kind in kinds]
    return {
        "description": "; or ".join(problems.TYPES[kind].meaning for kind in kinds),
        "content": {problems.CONTENT_TYPE: {"schema": one_of[0] if len(one_of) == 1 else {"oneOf": one_of}}},
    }


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _bytes() -> Json:
    return {BYTES: {"schema": {"type": "string", "format": "binary"}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


# ---- Schemas ----


def _schemas() -> Json:
    return {
        "Host": _HOST,
        "Guest": _GUEST,
        "Command": {"oneOf": [_ref(_command_name(row)) for row in CATALOGUE.commands]},
        **{_command_name(row): _command(row) for row in CATALOGUE.commands},
        "Outcome": _OUTCOME,
        "Refreshed": _object({"guest": _TEXT, "agreed": _COUNT}),
        "Handed": _HANDED,
        "Handoff": _HANDOFF,
        "Migration": _MIGRATION,
        **{_problem_name(kind): _problem(kind) for kind in problems.TYPES},
    }


def _object(members: Json, optional: Iterable[str] = ()) -> Json:
    return {"type": "object", "properties": members, "required": [name for name in members if name not in set(optional)]}


def _closed(members: Json, optional: Iterable[str] = ()) -> Json:
    """As ``_object``, with no other members."""
    return {**_object(members, optional), "additionalProperties": False}


_HOST = _object(
    {
        "version": {**_TEXT, "description": "of the product"},
        "host_id": {**_TEXT, "description": "the identity of this run of the daemon"},
        "started_s": {**_SECONDS, "description": "how long it runs"},
        "api": _object({"supported": _MAYBE_COUNT, "versions": {"type": "array", "items": _COUNT}}),
        "directories": {"type": "array", "items": _TEXT},
        "libvirt": {
            "type": "array",
            "items": _object({"uri": _TEXT, "connected": _BOOLEAN, "error": _MAYBE_TEXT}),
        },
        "fixed": {"type": "object", "additionalProperties": _TEXT, "description": "ports that are configured, by guest"},
        "guests": {**_COUNT, "description": "how many there are"},
        "descriptors": _object({"limit": _COUNT, "used": _COUNT}, optional=["used"]),
        "state": {**_object({"path": _TEXT, "failing": _MAYBE_TEXT}), "type": ["object", "null"]},
        "handoff": _object(
            {
                "listen": {
                    "type": "array",
                    "items": _object({"address": _TEXT, "security": {"enum": [TLS, PLAIN_TEXT]}, "connections": _COUNT}),
                    "description": "where other hosts come in",
                },
                "failing": {**_MAYBE_TEXT, "description": "why they do not where they should; it is tried again and again"},
                "peers": {"type": "array", "items": _TEXT, "description": "the hosts that guests may go to"},
            }
        ),
        "you": _object({"user": _MAYBE_TEXT, "uid": _COUNT, "role": {"enum": [Role.OPERATOR.value, Role.VIEWER.value]}}),
    }
)

_GUEST = _object(
    {
        "name": _TEXT,
        "uuid": _MAYBE_TEXT,
        "channel": _object(
            {
                "path": _MAYBE_TEXT,
                "state": {"enum": [state.value for state in State]},
                "since_s": _SECONDS,
                "throttled": {**_BOOLEAN, "description": "it sends too much, and is read from slowly"},
            }
        ),
        "api": _object(
            {
                "agreed": _MAYBE_COUNT,
                "supported": _MAYBE_COUNT,
                "advertised": _MAYBE_COUNT,
                "in_use": _MAYBE_COUNT,
                "changes": _COUNT,
                "last_reason": _MAYBE_TEXT,
                "last_change_s": _MAYBE_SECONDS,
            }
        ),
        "heard_s": _MAYBE_SECONDS,
        "frozen": {
            **_object({"mountpoints": {"type": "array", "items": _TEXT}, "thaws_in_s": _SECONDS}),
            "type": ["object", "null"],
            "description": "what is frozen (no mountpoints: all that can be), and in how many seconds it thaws by itself",
        },
        "handoff": {
            **_object({"state": {"enum": ["here", "moving", "in-doubt", "moved"]}, "peer": _MAYBE_TEXT}),
            "description": "whether it is of this host, and where it goes or went",
        },
        "commands": {
            "type": "array",
            "description": "those whose completion is awaited",
            "items": _object({"reply_id": _TEXT, "name": _TEXT, "sent_s": _SECONDS, "left_s": _SECONDS}),
        },
        "history": {
            "type": "array",
            "description": "changes of the agreed version, the newest first",
            "items": _object({"old": _COUNT, "new": _COUNT, "reason": _TEXT, "ago_s": _SECONDS}),
        },
        "facts": {
            "type": "object",
            "description": "what the guest said last, by the message's name",
            "additionalProperties": _object({"age_s": _MAYBE_SECONDS, "value": {"type": "object"}}),
        },
        "capabilities": {
            **_object(
                {
                    "commands": {"type": "object", "additionalProperties": _BOOLEAN},
                    "features": {"type": "array", "items": _TEXT},
                }
            ),
            "type": ["object", "null"],
            "description": (
                "which commands the guest carries out, and whether its configuration lets it; `null`: it has not said so on"
                " its present channel"
            ),
        },
        "obstacles": {
            "type": "object",
            "description": "of one guest: for each command, why it can't be sent to it now; `null`: it can",
            "additionalProperties": {
                **_object({"kind": {**_TEXT, "description": "the last part of a problem's type"}, "detail": _TEXT}),
                "type": ["object", "null"],
            },
        },
        "counters": {"type": "object"},
    },
    optional=["facts", "capabilities", "obstacles", "counters"],
)

_COMPLETION: Json = {
    "completion": {
        **_object({"done": _BOOLEAN}),
        "type": ["object", "null"],
        "additionalProperties": True,
        "description": "what the guest answered, with whatever else it says; `null`: nothing is waited for",
    },
    "round_trip_s": _MAYBE_SECONDS,
}

_OUTCOME = _object(
    {
        "guest": _TEXT,
        "name": _TEXT,
        "agreed": _COUNT,
        "reply_id": {**_MAYBE_TEXT, "description": "`null`: the command has no completion at what was agreed"},
        **_COMPLETION,
    }
)

_MIGRATION = _object({"guest": _TEXT, "stage": {"enum": list(handoffs.STAGES)}, **_COMPLETION})

_HANDED = _object(
    {
        "guest": _TEXT,
        "to": {**_TEXT, "description": "the host that has it now"},
        "protocol": {**_COUNT, "description": "the version of the hand-off protocol that was spoken"},
        "spec": {"enum": list(documents.SPECS), "description": "the session spec that was carried"},
        "lost": {"type": "array", "items": _TEXT, "description": "the dotted names of all that this spec has no place for"},
    }
)

_HANDOFF = _object(
    {
        "guest": _TEXT,
        "role": {"enum": ["source", "destination"], "description": "what this host is"},
        "peer": {**_MAYBE_TEXT, "description": "the other host; `null`: not known yet"},
        "phase": {**_TEXT, "description": "where it stands, in a few words"},
        "since_s": {**_MAYBE_SECONDS, "description": "for how long; `null`: not told"},
    }
)


def _command_name(row: Row) -> str:
    return f"Command-{row.name}"


def _command(row: Row) -> Json:
    arguments = _arguments(row)
    members = {
        "name": {"const": row.name},
        "arguments": arguments,
        "timeout": _patience(
            deadlines.SHORTEST, deadlines.LONGEST, f"the completion must come; left out: {_usual_patience(row)}"
        ),
        "wait": {**_BOOLEAN, "default": True, "description": "wait for the completion"},
        "follow": {
            **_BOOLEAN,
            "default": False,
            "description": "where the guest moves meanwhile, ask its new host for the completion",
        },
    }
    return {
        **_object(members, optional=["timeout", "wait", "follow", *([] if arguments["required"] else ["arguments"])]),
        "additionalProperties": False,
        "description": f"{inspect.getdoc(row.message_class)}\n\nNeeds API version {row.since}{_beside(row)}.",
    }


def _usual_patience(row: Row) -> str:
    if isinstance(row.duration, str):
        return f"{deadlines.MARGIN:g} more than its `{row.duration}`"
    return f"{deadlines.by_default(row, {}):g}"


def _beside(row: Row) -> str:
    """What the guest must have said beside the version."""
    if row.dangerous:
        return " and a guest whose configuration turns it on"
    return " and a guest that offers it" if row.needs_capability else ""


def _arguments(row: Row) -> Json:
    declared = messages.declared(row.message_class)
    named = [each for each in declared if isinstance(each, fields.Argument)]
    members = {each.wire: _value(each.kind.label) for each in named}
    return {
        **_object(members, optional=[each.wire for each in named if not each.required]),
        "additionalProperties": len(named) < len(declared),
    }


def _value(label: str) -> Json:
    """What an argument is whose kind has that *label*; whatever, where that is not told in detail."""
    words = re.findall(r"`([^`]*)`", label)
    outer, _, inner = label.partition(" of ")
    if words:
        return {"enum": words}
    return _LISTS[outer](_value(inner)) if outer in _LISTS else _OF_LABEL.get(label, {})


_LISTS: dict[str, Callable[[Json], Json]] = {
    "list": lambda member: {"type": "array", "items": member},
    "object": lambda member: {"type": "object", "additionalProperties": member},
}


def _problem_name(kind: str) -> str:
    return f"Problem-{kind}"


def _problem(kind: str) -> Json:
    found = problems.TYPES[kind]
    members = {
        "type": {"const": NAMESPACE + kind},
        "title": {"const": found.title},
        "status": {"const": found.status},
        "detail": {**_TEXT, "description": "one sentence for people that says what to do next"},
        **{name: {"description": meaning} for name, meaning in found.members.items()},
    }
    return {**_object(members, optional=found.members), "description": found.meaning}
