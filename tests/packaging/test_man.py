"""The man pages say what the parsers say."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterable

import click
import pytest

from common import statuses
from guest_agent import exits as guest_exits
from guest_agent import options as guest
from host_agent import exits as host_exits
from host_agent import main
from host_agent.cli import declared

from .parts import PACKAGING

PAGES = sorted(path.name for path in (PACKAGING / "man").glob("*.rst"))


def page(name: str) -> str:
    return (PACKAGING / "man" / f"{name}.rst").read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands below *heading*, up to the next one."""
    found = re.search(rf"^{heading}\n=+\n(.*?)(?=^[^\n]+\n===+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def listed_options(name: str) -> set[str]:
    """Each option of the page, as it is written there: its names, and what its value is called."""
    return set(re.findall(r"^(-\S.*?)(?:  .*)?$", section(page(name), "OPTIONS"), re.MULTILINE))


def parsed_options(parser: argparse.ArgumentParser) -> set[str]:
    return {
        ", ".join(action.option_strings) + (f" {action.metavar}" if action.metavar else "") for action in parser._actions
    }


def clicked_options(command: click.Command) -> Iterable[str]:
    for parameter in command.get_params(click.Context(command, **command.context_settings)):
        if isinstance(parameter, click.Option):
            # Older releases of click keep the names of --help in no order.
            yield ", ".join(sorted(parameter.opts, key=len)) + (f" {parameter.metavar}" if parameter.metavar else "")
    if isinstance(command, click.Group):
        for other in command.commands.values():
            yield from (option for option in clicked_options(other) if "--help" not in option)


@pytest.mark.parametrize(("name", "parser"), [("vmaccord-guest.8", guest.parser()), ("vmaccord-host.8", main._parser())])
def test_the_page_of_a_daemon_has_its_options(name: str, parser: argparse.ArgumentParser) -> None:
    assert listed_options(name) == parsed_options(parser)


def test_the_page_of_the_operators_command_has_its_options_and_commands() -> None:
    assert listed_options("vmaccord.1") == set(clicked_options(declared.program))
    synopsis = section(page("vmaccord.1"), "SYNOPSIS")
    assert set(re.findall(r"\*\*([a-z][a-z-]*)\*\*", synopsis)) == {"vmaccord", *declared.program.commands}


@pytest.mark.parametrize(
    ("name", "exits"),
    [("vmaccord-guest.8", guest_exits.Exit), ("vmaccord-host.8", host_exits.Exit), ("vmaccord.1", host_exits.Exit)],
)
def test_a_page_has_the_exit_statuses(name: str, exits: Iterable[statuses.Status]) -> None:
    listed = re.findall(r"^(\d+)\n    (.+)$", section(page(name), "EXIT STATUS"), re.MULTILINE)
    assert listed == [(str(status.value), status.meaning) for status in exits]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed(name: str) -> None:
    program = shutil.which("rst2man") or shutil.which("rst2man.py")
    if program is None:
        pytest.skip("rst2man is missing: apt-get install python3-docutils")
    made = subprocess.run([program, "--strict", str(PACKAGING / "man" / name)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    title, number, _ = name.rsplit(".", 2)
    assert f".TH {title.upper()} {number} " in made.stdout.replace("\\-", "-").replace('"', "")
    assert all(heading in made.stdout for heading in ("NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"))


def test_every_program_and_every_configuration_file_has_a_page() -> None:
    programs = {path.name for path in (PACKAGING / "launchers").iterdir()}
    files = {f"vmaccord-{path.name}" for path in (PACKAGING / "etc").glob("*.conf")}
    assert {name.rsplit(".", 2)[0] for name in PAGES} == programs | files
