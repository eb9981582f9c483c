"""The documentation says what the code does: tables are compared with the tables that they print."""

from __future__ import annotations

import importlib.util
import pathlib
from types import ModuleType
from typing import Any

import pytest

from common import catalogue
from common.handoff import documents, frames, untrusted
from common.handoff.members import members_of
from guest_agent.commands import COMMANDS
from guest_agent.schedule import PERIODS
from host_agent import demo

ROOT = pathlib.Path(__file__).parent.parent

#: A section of each program's configuration file.
SECTIONS = {"vmaccord-guest": "commands", "vmaccord-host": "limits"}


def _load() -> ModuleType:
    """``docs/tables.py``, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables: Any = _load()


@pytest.mark.parametrize("table", tables.tables(), ids=lambda table: table.heading)
def test_what_is_printed_of_a_table_is_up_to_date(table: Any) -> None:
    page = _read(f"docs/{table.page}")
    assert tables.printed(page, table.heading) == table.rows, "run: PYTHONPATH=. python docs/tables.py"
    assert tables.replaced(page, table) == page


def test_versions_messages_codes_settings_and_exit_statuses_are_printed() -> None:
    headings = [table.heading for table in tables.tables()]
    assert {"## Versions", "### Codes", *(f"### {each.value}" for each in catalogue.Direction)} <= set(headings)
    for program in ("vmaccord-guest", "vmaccord-host"):
        assert {f"## {program}", f"### Section `[{SECTIONS[program]}]` of {program}"} <= set(headings)
    assert len([heading for heading in headings if heading.startswith("### Exit statuses of ")]) == 2


@pytest.mark.parametrize(
    "row",
    [
        "| `lock-screen` | 0 | – | `reply_id` (str, optional, since 4) |",
        "| `lifecycle-event` | 3 | – | `type` (str), `failure` (bool, optional, lenient), `reply_id` (str, optional) |",
        "| `load` | 5 | yes | `reply_id` (str, optional) |",
        "| `refresh` | 0 | – | `apiVersion` (int ≥ 0, optional, lenient), `hostId` (str, optional, lenient) |",
        "| `capabilities` | 4 | `commands` (object of bool), `features` (list of str) |",
        "| `unsupported` | 4 | `name` (str), `apiVersion` (int ≥ 0), `reason` (str) |",
    ],
)
def test_a_message_is_printed_with_what_it_needs_and_what_came_to_it_later(row: str) -> None:
    assert row in _read("docs/protocol.md").splitlines()


def test_arguments_that_came_later_than_their_message_are_printed_with_their_version() -> None:
    (row,) = (line for line in _read("docs/protocol.md").splitlines() if line.startswith("| `completion` |"))
    assert "`result` (object of any, optional, lenient, since 4)" in row
    assert "`reply_id` (str), `done` (bool)" in row


def test_the_results_of_all_commands_of_version_5_are_documented() -> None:
    rows = [row.split(" | ")[0] for row in tables.printed(_read("docs/protocol.md"), "### Results")]
    commands = [row.name for row in catalogue.CATALOGUE.rows if row.is_command and row.since == 5]
    assert rows == [f"| `{name}`" for name in commands]


def test_the_dangerous_commands_are_named() -> None:
    dangerous = [f"`{row.name}`" for row in catalogue.CATALOGUE.rows if row.dangerous]
    assert f"Dangerous are {', '.join(dangerous[:-1])} and {dangerous[-1]}" in _read("docs/protocol.md")


def test_the_facts_of_the_guest_agent_are_documented_with_their_periods() -> None:
    rows = [row.split(" | ")[:2] for row in tables.printed(_read("docs/guest-agent.md"), "## Facts")]
    assert rows == [[f"| `{name}`", f"{period:g}"] for name, period in PERIODS.items()]


def test_the_commands_of_the_guest_agent_are_documented() -> None:
    rows = [row.split(" | ")[0] for row in tables.printed(_read("docs/guest-agent.md"), "## Commands")]
    assert rows == [f"| `{name}`" for name in COMMANDS]


def test_each_session_spec_and_the_commands_of_a_hand_off_are_printed() -> None:
    page = _read("docs/handoff.md")
    for number, spec in documents.SPECS.items():
        rows = [row.split(" | ")[0] for row in tables.printed(page, f"### Spec {number}")]
        assert rows == [f"| `{each.wire}`" for each in members_of(spec)]
        assert all(each.says for each in members_of(spec))
    assert tables.printed(page, "### Commands")[2].startswith("| 3 | Session | 8,388,608 bytes | ")
    assert tables.printed(page, "### Commands")[3].startswith("| 4 | Complete | none | ")


def test_the_limits_of_a_document_are_documented() -> None:
    limits = f"at most {documents.SIZE_LIMIT >> 20} MiB of JSON (UTF-8) with at most {untrusted.PARTS_LIMIT:,} members"
    assert f"{limits}, nested at most {untrusted.DEPTH_LIMIT} levels deep" in _read("docs/handoff.md")
    assert f"up to {frames.ANSWER_LIMIT:,} |" in _read("docs/handoff.md")


def test_the_readme_pictures_the_scenarios_of_the_demo() -> None:
    readme = _read("README.md")
    positions = [readme.find(f"  {scenario.name} ") for scenario in demo.SCENARIOS]
    assert -1 not in positions
    assert positions == sorted(positions)


# ---- Printing ----

PAGE = "# Page\n\n## One\n\nwords\n\n| a | b |\n|---|---|\n| 0 | nothing |\n\n## Two\n\n### Three\n\n| c |\n|---|\n| 1 |\n"


def test_a_table_that_differs_is_noticed_and_replaced() -> None:
    assert tables.printed(PAGE, "## One") == ["| 0 | nothing |"]
    table = tables.Table("page.md", "## One", ["| 0 | all |", "| 1 | more |"])
    replaced = tables.replaced(PAGE, table)
    assert replaced == PAGE.replace("| 0 | nothing |\n", "| 0 | all |\n| 1 | more |\n")
    assert tables.printed(replaced, "## One") == table.rows


def test_a_table_at_the_end_of_a_page_is_read_to_its_end() -> None:
    assert tables.printed(PAGE.rstrip("\n"), "### Three") == ["| 1 |"]


@pytest.mark.parametrize("heading", ["## Two", "## Four", "## On"])
def test_a_table_of_another_heading_is_not_taken_for_that_of_one_without(heading: str) -> None:
    with pytest.raises(ValueError, match=heading):
        tables.printed(PAGE, heading)


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
