from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from common.catalogue import CATALOGUE, Direction
from host_agent.api import openapi, problems
from host_agent.api.application import make_application
from host_agent.feed import KINDS
from tests.host_agent.api.parts import Daemon, Port, served
from tests.host_agent.parts import run, until


def test_each_route_of_the_application_is_described_and_nothing_else() -> None:
    async def scenario() -> set[tuple[str, str]]:
        application = make_application(Daemon())
        return {
            (route.method, route.resource.canonical)
            for route in application.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }

    described = {
        (method.upper(), path)
        for path, item in openapi.document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert described == asyncio.run(scenario())


def test_each_reference_leads_somewhere() -> None:
    references = set(re.findall(r"'#/components/([^']*)'", str(openapi.document())))
    components = openapi.document()["components"]
    defined = {f"{kind}/{name}" for kind, members in components.items() for name in members}
    assert references <= defined
    # These two are answers to what is not described.
    assert defined - references == {"schemas/Problem-no-such-resource", "schemas/Problem-method-not-allowed"}


def test_each_command_of_the_table_is_described_and_nothing_that_negotiates() -> None:
    schemas = openapi.document()["components"]["schemas"]
    names = {row.name for row in CATALOGUE.rows if row.direction is Direction.TO_GUEST} - {"refresh", "api-version"}
    assert {
        schemas[each["$ref"].split("/")[-1]]["properties"]["name"]["const"] for each in schemas["Command"]["oneOf"]
    } == names
    assert schemas["Command-lifecycle-event"]["properties"]["arguments"] == {
        "type": "object",
        "properties": {"type": {"type": "string"}, "failure": {"type": "boolean"}},
        "required": ["type"],
        "additionalProperties": False,
    }
    assert schemas["Command-shutdown"]["properties"]["arguments"]["properties"]["reboot"] == {"enum": ["True", "False"]}
    assert schemas["Command-echo"]["properties"]["arguments"]["additionalProperties"] is True
    assert "arguments" in schemas["Command-login"]["required"]


def test_each_problem_and_each_kind_of_event_is_described() -> None:
    text = str(openapi.document())
    for kind in problems.TYPES:
        assert f"about:vmaccord/{kind}'" in text
    for kind in KINDS:
        assert f"`{kind}`" in text


def test_the_description_is_served(place: Path) -> None:
    async def scenario() -> None:
        async with served(place, Daemon()) as api:
            assert (await api.ask("/openapi.json")).json == openapi.document()

    run(scenario())


def test_answers_are_as_described(place: Path) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        port = Port(daemon, "web")
        daemon.registry.arrived("absent")
        async with served(place, daemon) as api:
            await until(lambda: port.guest.facts)
            for _ in range(2):
                for path, schema in (("/v1/host", "Host"), ("/v1/guests/web", "Guest"), ("/v1/guests/absent", "Guest")):
                    check((await api.ask(path)).json, reference(schema))
                check((await api.ask("/v1/guests?facts=no")).json, {"type": "array", "items": reference("Guest")})
                check((await api.ask("/v1/guests/web/refresh", "POST")).json, reference("Refreshed"))
                answer = await api.command(name="lifecycle-event", arguments={"type": "x"}, wait=port.answers)
                check(answer.json, reference("Outcome"))
                port.answers = False
            check((await api.ask("/v1/guests/web/handoff", "POST", {})).json, reference("Handed"))
            check((await api.ask("/v1/handoffs")).json, {"type": "array", "items": reference("Handoff")})
            for stage in ("begin", "arrived"):
                answer = await api.ask("/v1/guests/web/migration", "POST", {"stage": stage})
                check(answer.json, reference("Migration"))
            daemon.commands.hand_over(port.guest, "host-b", "0" * 32)
            check((await api.ask("/v1/guests/web")).json, reference("Guest"))
            answer = await api.command("absent", name="lock-screen")
            check(answer.json, reference(f"Problem-{answer.problem}"))

    run(scenario())


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"a": "x"}, {"type": "object", "properties": {"a": {"type": "integer"}}}),
        ({}, {"type": "object", "properties": {"a": {}}, "required": ["a"]}),
        ({"b": 1}, {"type": "object", "properties": {"a": {}}}),
        (None, {"type": "string"}),
        ([1], {"type": ["array", "null"], "items": {"const": 2}}),
        (True, {"type": "number"}),
        ("x", {"enum": ["y"]}),
    ],
)
def test_an_answer_that_is_not_as_described_is_noticed(value: object, schema: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check(value, schema)


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def check(value: Any, schema: dict[str, Any], place: str = "") -> None:
    """Look whether *value* is as *schema* says, as far as ours go; members that no schema has are wrong, too."""
    if "$ref" in schema:
        schema = openapi.document()["components"]["schemas"][schema["$ref"].split("/")[-1]]
    if "type" in schema:
        allowed = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        types = [TYPES[each] for each in allowed]
        assert any(isinstance(value, each) for each in types), place
        assert not isinstance(value, bool) or "boolean" in allowed, place
    assert "enum" not in schema or value in schema["enum"], place
    assert value == schema.get("const", value), place
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value), place
        for name, member in value.items():
            extra = schema.get("additionalProperties")
            assert name in schema["properties"] or extra, f"{place}.{name}"
            check(member, schema["properties"].get(name, {}), f"{place}.{name}")
    if isinstance(value, list):
        for member in value:
            check(member, schema.get("items", {}), f"{place}[]")
