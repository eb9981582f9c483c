"""What ``docs/api.md`` says of the control API is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from host_agent.api import events, openapi, problems
from host_agent.feed import KINDS, LIMIT
from tests.host_agent.api.parts import Daemon, Port, served
from tests.host_agent.parts import ROOT, run

PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")


def test_the_table_of_problems_is_that_of_the_code() -> None:
    assert table_below("## Problems") == [
        f"| `{kind}` | {each.status} | {each.meaning} | {members(each)} |" for kind, each in problems.TYPES.items()
    ]


def test_the_table_of_events_is_that_of_the_code() -> None:
    rows = [f"| `{kind}` | {meaning} |" for kind, meaning in KINDS.items()]
    assert f"the latest {LIMIT:,} events" in PAGE
    assert table_below("## Events") == [*rows, f"| `{events.LOST}` | {events.LOST_MEANING} |"]


def test_the_table_of_questions_is_the_description() -> None:
    described = [
        (method.upper(), path, operation["summary"])
        for path, item in openapi.document()["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert table_below("## What can be asked") == [
        f"| `{method} {path}` | {summary} |" for method, path, summary in described
    ]


def test_the_examples_are_answered(place: Path) -> None:
    examples = re.findall(r"^curl (.*?) '?http://localhost([^\s']+)'?$", PAGE.replace("\\\n", ""), re.MULTILINE)
    assert len(examples) >= 6

    async def scenario() -> None:
        daemon = Daemon()
        Port(daemon, "web-1")
        async with served(place, daemon) as api:
            for options, path in examples:
                if path.startswith("/v1/events"):
                    connection = await api.connect(path)
                    assert "200 OK" in await connection.until("\r\n\r\n")
                    await connection.close()
                    continue
                body = re.search(r"-d '(.*)'", options)
                method = "POST" if body or "-X POST" in options else "GET"
                headers = {"Content-Type": "application/json"} if body else {}
                answer = await api.ask(path, method, body[1].encode() if body else None, headers)
                assert answer.status == 200, path

    run(scenario())


def members(of: problems.Type) -> str:
    return "; ".join(f"`{name}` ({meaning})" for name, meaning in of.members.items()) or "none"


def table_below(heading: str) -> list[str]:
    """The rows, without head and rule, of the first table below *heading*."""
    _, _, below = PAGE.partition(f"\n{heading}\n")
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    return table[0].splitlines()[2:] if table else []
