"""The documentation says what the code does: tables are compared with the tables that they print."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterable

import pytest

from common import catalogue, fields, messages, settings, versions
from guest_agent import exits as guest_exits
from guest_agent import options as guest_options
from guest_agent.commands import COMMANDS
from guest_agent.schedule import PERIODS
from host_agent import config as host_config
from host_agent import demo
from host_agent import exits as host_exits

ROOT = pathlib.Path(__file__).parent.parent


def test_the_message_tables_are_the_catalogue() -> None:
    protocol = _read("docs/protocol.md")
    for direction in catalogue.Direction:
        expected = [_message_row(row) for row in catalogue.CATALOGUE.rows if row.direction is direction]
        assert _table_below(protocol, f"### {direction.value}") == expected


def test_the_version_table_is_that_of_the_code() -> None:
    expected = [f"| {version} | {versions.ADDED[version]} |" for version in versions.Version]
    assert _table_below(_read("docs/protocol.md"), "## Versions") == expected


@pytest.mark.parametrize(
    ("program", "main_section", "table"),
    [
        ("vmaccord-guest", guest_options.SECTION, guest_options.SETTINGS),
        ("vmaccord-host", host_config.SECTION, host_config.SETTINGS),
    ],
)
def test_the_option_tables_are_the_settings(program: str, main_section: str, table: Iterable[settings.Setting]) -> None:
    for section, members in settings.by_section(table, main_section).items():
        heading = f"## {program}" if section == main_section else f"### Section `[{section}]` of {program}"
        assert _table_below(_read("docs/configuration.md"), heading) == [_setting_row(each) for each in members]


@pytest.mark.parametrize(
    ("program", "statuses"),
    [("vmaccord-guest", guest_exits.Exit), ("vmaccord-host and vmaccord", host_exits.Exit)],
)
def test_the_exit_status_tables_are_those_of_the_code(
    program: str, statuses: Iterable[guest_exits.Exit | host_exits.Exit]
) -> None:
    expected = [f"| {status.value} | {status.meaning} |" for status in statuses]
    assert _table_below(_read("docs/configuration.md"), f"### Exit statuses of {program}") == expected


def test_the_facts_of_the_guest_agent_are_documented_with_their_periods() -> None:
    rows = [row.split(" | ")[:2] for row in _table_below(_read("docs/guest-agent.md"), "## Facts")]
    assert rows == [[f"| `{name}`", f"{period:g}"] for name, period in PERIODS.items()]


def test_the_commands_of_the_guest_agent_are_documented() -> None:
    rows = [row.split(" | ")[0] for row in _table_below(_read("docs/guest-agent.md"), "## Commands")]
    assert rows == [f"| `{name}`" for name in COMMANDS]


def test_the_readme_pictures_the_scenarios_of_the_demo() -> None:
    readme = _read("README.md")
    positions = [readme.find(f"  {scenario.name} ") for scenario in demo.SCENARIOS]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_a_table_that_differs_is_noticed() -> None:
    document = "## Versions\n\n| a | b |\n|---|---|\n| 0 | nothing |\n\nmore"
    assert _table_below(document, "## Versions") == ["| 0 | nothing |"]
    assert _table_below(document, "## Others") == []


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _table_below(document: str, heading: str) -> list[str]:
    """The rows, without head and rule, of the first table below *heading*."""
    _, _, below = f"\n{document}".partition(f"\n{heading}\n")
    rows = []
    for line in below.splitlines():
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            break
    return rows[2:]


def _message_row(row: catalogue.Row) -> str:
    arguments = ", ".join(_argument(each) for each in messages.declared(row.message_class)) or "none"
    return f"| `{row.name}` | {row.since} | {arguments} |"


def _argument(argument: fields.Argument | fields.Rest) -> str:
    optional = "" if argument.required else ", optional"
    lenient = ", lenient" if argument.lenient else ""
    return f"`{argument.wire}` ({argument.kind.label}{optional}{lenient})"


def _setting_row(setting: settings.Setting) -> str:
    if setting.section:
        return f"| `{setting.name}` | {settings.describe(setting)} |"
    parser = argparse.ArgumentParser()
    settings.add_options(parser, [setting])
    repeated = " (repeatable)" if setting.repeated else ""
    return f"| `--{setting.name} {setting.metavar}`{repeated} | {settings.describe(setting)} |"
