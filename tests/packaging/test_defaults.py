from __future__ import annotations

import argparse
import pathlib
import re
from typing import Any

import pytest

from common import settings
from guest_agent import options as guest
from host_agent import config as host

from .parts import PACKAGING, load

defaults = load("defaults")

#: What differs in the packages from the default: they know the places.
PLACES = {"state": "/var/lib/vmaccord/facts.sqlite", "control": "/run/vmaccord/control.sock"}

TABLES = [
    ("guest.conf", guest.SETTINGS, guest.SECTION),
    ("host.conf", host.SETTINGS, host.SECTION),
]


@pytest.mark.parametrize("name", sorted(defaults.files()))
def test_what_is_written_from_the_tables_is_up_to_date(name: str) -> None:
    written = (PACKAGING / name).read_text(encoding="utf-8")
    assert written == defaults.files()[name], "run: PYTHONPATH=. python packaging/defaults.py"


@pytest.mark.parametrize(("name", "table", "main"), TABLES)
def test_a_file_lists_every_option_of_the_table_once_and_in_its_order(
    name: str, table: tuple[settings.Setting, ...], main: str
) -> None:
    text = (PACKAGING / "etc" / name).read_text(encoding="utf-8")
    listed = re.findall(r"^\[(\w+)\]$|^#(\S+) =", text, re.MULTILINE)
    expected: list[tuple[str, str]] = []
    for section, members in settings.by_section(table, main).items():
        expected += [(section, ""), *(("", setting.name) for setting in members)]
    assert listed == expected


def test_an_untouched_file_changes_nothing_but_places() -> None:
    assert resolved("guest.conf", guest.SETTINGS, guest.SECTION) == untouched(guest.SETTINGS)
    assert resolved("host.conf", host.SETTINGS, host.SECTION) == {**untouched(host.SETTINGS), "state": PLACES["state"]}


@pytest.mark.parametrize(("name", "table", "main"), TABLES)
def test_every_default_may_be_uncommented_as_it_stands(name: str, table: tuple[settings.Setting, ...], main: str) -> None:
    text = (PACKAGING / "etc" / name).read_text(encoding="utf-8")
    commented = re.sub(r"^state = .*\n", "", text, flags=re.MULTILINE)
    uncommented = re.sub(r"^#(\S+ =|    )", r"\1", commented, flags=re.MULTILINE)
    values = settings.resolve(table, no_options(table), main, [(name, uncommented)])
    assert values == {**untouched(table), **({"control": PLACES["control"]} if name == "host.conf" else {})}


def test_the_places_are_those_that_the_unit_gives_the_daemon() -> None:
    unit = (PACKAGING / "systemd/vmaccord-host-agent.service").read_text(encoding="utf-8")
    lines = unit.splitlines()
    assert {"Environment=XDG_RUNTIME_DIR=/run", "RuntimeDirectory=vmaccord", "StateDirectory=vmaccord"} <= set(lines)
    assert {str(pathlib.PurePath(place).parent) for place in PLACES.values()} == {"/run/vmaccord", "/var/lib/vmaccord"}


def no_options(table: tuple[settings.Setting, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    settings.add_options(parser, table)
    return parser.parse_args([])


def untouched(table: tuple[settings.Setting, ...]) -> dict[str, Any]:
    return {setting.attribute: setting.default for setting in table}


def resolved(name: str, table: tuple[settings.Setting, ...], main: str) -> dict[str, Any]:
    text = (PACKAGING / "etc" / name).read_text(encoding="utf-8")
    return settings.resolve(table, no_options(table), main, [(name, text)])
