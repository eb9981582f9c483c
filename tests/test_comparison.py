"""docs/comparison.md is complete and true: its tables are compared with what they speak of.

What can be seen from here: that no command or message is left out, that names and versions are the catalogue's, that what
is missing has a reason, that both directions of the comparison agree, and that each test that is named exists.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

from common.catalogue import CATALOGUE, Direction
from common.versions import Version
from guest_agent.commands import dangerous

ROOT = pathlib.Path(__file__).parent.parent

#: The commands of qemu-guest-agent. The first ones are those in the index of the guest agent protocol reference of QEMU's
#: master (https://www.qemu.org/docs/master/qapi-qga-index.html); the newest of them, guest-get-load, came with QEMU 10.0.
QEMU_GUEST_AGENT = frozenset(
    f"guest-{name}"
    for name in (
        *("sync-delimited", "sync", "ping", "get-time", "set-time", "info", "shutdown"),
        *("file-open", "file-close", "file-read", "file-write", "file-seek", "file-flush"),
        *("fsfreeze-status", "fsfreeze-freeze", "fsfreeze-freeze-list", "fsfreeze-thaw", "fstrim"),
        *("suspend-disk", "suspend-ram", "suspend-hybrid", "network-get-interfaces", "get-vcpus", "set-vcpus"),
        *("get-disks", "get-fsinfo", "set-user-password"),
        *("get-memory-blocks", "set-memory-blocks", "get-memory-block-info"),
        *("exec-status", "exec", "get-host-name", "get-users", "get-timezone", "get-osinfo", "get-devices"),
        *("ssh-get-authorized-keys", "ssh-add-authorized-keys", "ssh-remove-authorized-keys"),
        *("get-diskstats", "get-cpustats", "get-load", "network-get-route"),
        # These two, for Windows, say "Since: 11.2" in a development tree: qga/qapi-schema.json of
        # https://github.com/p-b-o/qemu-ci at commit 57a968dd191900973cd557531f625f958db44160.
        *("get-driver-packages", "get-driver-services"),
    )
)

#: The oVirt agent's last version.
OVIRT = Version.V3

NO = "no"

_TEST = re.compile(r"(?P<path>tests/[\w/]+\.py)::(?P<name>test_\w+)")

Table = list[dict[str, str]]


class Ours(NamedTuple):
    """A message of the catalogue, as a row of a table speaks of it."""

    name: str
    direction: str
    since: str


@functools.cache
def document() -> str:
    return (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")


def table(heading: str) -> Table:
    """The rows of the first table below *heading*, by the words at the heads of their columns."""
    _, found, below = document().partition(f"\n## {heading}\n")
    assert found, heading
    section = below.partition("\n## ")[0]
    head, _, *rows = [_cells(line) for line in section.splitlines() if line.startswith("|")]
    assert [row for row in rows if len(row) != len(head)] == []
    return [dict(zip(head, row)) for row in rows]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def words(cell: str) -> list[str]:
    """What is named in a cell."""
    return re.findall(r"`([^`]+)`", cell)


QEMU, OVIRTS, BEYOND, MORE = (
    table("qemu-guest-agent"),
    table("The oVirt agent"),
    table("Ours beyond the oVirt agent"),
    table("What ours does that they don't"),
)
ALL = (*QEMU, *OVIRTS, *BEYOND, *MORE)


def described(rows: Iterable[dict[str, str]]) -> list[Ours]:
    return [Ours(name, row["direction"], row["since"]) for row in rows for name in words(row["message"])]


def catalogued(since: range) -> list[Ours]:
    rows = [row for row in CATALOGUE.rows if row.since in since]
    return [Ours(row.name, row.direction.value, str(row.since)) for row in rows]


def named_tests() -> Iterator[str]:
    for row in ALL:
        yield from words(row["shown by"])


@functools.cache
def defined_in(path: str) -> frozenset[str]:
    """The names of the tests in the file *path*; nothing is run."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))


# ---- Complete ----


def test_every_command_of_qemu_guest_agent_has_a_row() -> None:
    commands = [command for row in QEMU for command in words(row["command"])]
    assert sorted(commands) == sorted(QEMU_GUEST_AGENT)


def test_every_message_of_the_ovirt_agent_has_a_row_and_is_ours() -> None:
    assert described(OVIRTS) == catalogued(range(OVIRT + 1))


def test_every_other_message_of_ours_has_a_row() -> None:
    assert described(BEYOND) == catalogued(range(OVIRT + 1, max(Version) + 1))


# ---- True ----


@pytest.mark.parametrize("row", QEMU, ids=lambda row: row["command"])
def test_what_stands_for_a_command_is_in_the_catalogue_with_its_version(row: dict[str, str]) -> None:
    since = {each.name: str(each.since) for each in CATALOGUE.rows}
    named = [] if row["ours"] == NO else words(row["ours"])
    assert bool(named) == (row["ours"] != NO)
    assert row["since"] == ", ".join(since[name] for name in named)


def test_both_directions_of_the_comparison_agree() -> None:
    for row in BEYOND:
        (name,) = words(row["message"])
        beside = [command for each in QEMU if name in words(each["ours"]) for command in words(each["command"])]
        assert (name, row["beside"]) == (name, ", ".join(f"`{command}`" for command in beside) or NO)


@pytest.mark.parametrize("row", [*QEMU, *OVIRTS], ids=lambda row: row.get("command") or row["message"])
def test_what_is_there_is_shown_and_what_is_missing_has_a_reason(row: dict[str, str]) -> None:
    (column,) = row.keys() & {"ours", "our agent"}
    reason = row["what differs, or why not"]
    if row[column] == NO:
        assert row["shown by"] == ""
        assert len(reason.split()) > 3 or reason in {f"see `{command}`" for command in QEMU_GUEST_AGENT}
    else:
        assert words(row["shown by"])


@pytest.mark.parametrize("row", [*QEMU, *OVIRTS, *BEYOND], ids=lambda row: row.get("command") or row["message"])
def test_no_message_goes_without_a_test_of_its_own(row: dict[str, str]) -> None:
    if row["shown by"]:
        assert len(set(words(row["shown by"]))) >= len(words(row.get("ours") or row["message"]))


def test_what_is_off_until_it_is_turned_on_is_said_to_be() -> None:
    assert {name for row in BEYOND if "off until it is turned on" in row["note"] for name in words(row["message"])} == {
        row.name for row in CATALOGUE.names(Direction.TO_GUEST).values() if row.dangerous
    }
    assert dangerous()


@pytest.mark.parametrize("row", [*BEYOND, *MORE], ids=lambda row: row.get("message") or row["what"][:40])
def test_what_goes_beyond_is_shown(row: dict[str, str]) -> None:
    assert words(row["shown by"])


@pytest.mark.parametrize("name", sorted(set(named_tests())))
def test_a_test_that_is_named_exists(name: str) -> None:
    found = _TEST.fullmatch(name)
    assert found is not None, name
    assert found["name"] in defined_in(found["path"])


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert "test_a_test_that_does_not_exist_is_noticed" in defined_in("tests/test_comparison.py")
    assert "test_no_such_thing" not in defined_in("tests/test_comparison.py")
