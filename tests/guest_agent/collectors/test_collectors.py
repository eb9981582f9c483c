"""The table of the collectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common import codec
from common.catalogue import CATALOGUE
from common.messages import Message
from common.versions import newest
from guest_agent.collectors import Sources, Wishes, sources
from guest_agent.schedule import PERIODS
from tests.guest_agent.conftest import CommandGuard
from tests.guest_agent.parts import Clock

ROOT = Path(__file__).resolve().parent.parent.parent.parent

#: Modules that only a worker may have imported.
_LARGE = (
    *("argparse", "configparser", "dataclasses", "datetime", "http.client", "inspect", "jeepney", "logging", "psutil"),
    *("shlex", "socket", "sqlite3", "subprocess", "threading", "uuid", "zoneinfo"),
)


def made(root: Path, clock: Clock, logins: object = None) -> Sources:
    return sources(str(root), Wishes(("*",), (), (), ()), clock, lambda: logins)


def test_every_fact_of_the_table_has_one_collector_and_a_period(tmp_path: Path, clock: Clock) -> None:
    table = made(tmp_path, clock)
    assert table.quick.keys() | table.slow.keys() == CATALOGUE.facts(up_to=newest()) == PERIODS.keys()
    assert not table.quick.keys() & table.slow.keys()
    assert table.prints.keys() <= table.slow.keys()


def test_what_a_collector_tells_is_the_message_of_its_name(tmp_path: Path, clock: Clock) -> None:
    table = made(tmp_path, clock)
    for name, collect in {**table.quick, **table.slow}.items():
        if name in {"memory-stats", "disks-usage"}:
            continue  # nothing is mounted there, and there is no memory
        told = collect()
        if name == "active-user":
            assert not isinstance(told, Message)
        else:
            assert [row.name for row in CATALOGUE.rows if row.message_class is type(told)] == [name]


def test_what_is_collected_on_this_machine_arrives_at_a_host_as_it_was(clock: Clock) -> None:
    table = made(Path("/"), clock)
    for name, collect in {
        **table.quick,
        **{name: table.slow[name] for name in ("network-interfaces", "disks-usage")},
    }.items():
        told = collect()
        assert isinstance(told, Message)
        line = codec.encode(name, told.to_arguments())
        received, mistyped = type(told).from_arguments(codec.decode(line.rstrip())[1])
        assert mistyped == []
        assert codec.encode(name, received.to_arguments()) == line


def test_a_user_who_comes_changes_the_print_of_active_user(tmp_path: Path, clock: Clock) -> None:
    assert made(tmp_path, clock, 1).prints["active-user"]() == made(tmp_path, clock, 1).prints["active-user"]()
    assert made(tmp_path, clock, 1).prints["active-user"]() != made(tmp_path, clock, 2).prints["active-user"]()


def test_a_session_that_begins_changes_the_print_of_active_user_without_logind_too(tmp_path: Path, clock: Clock) -> None:
    before = made(tmp_path, clock, 1).prints["active-user"]()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/utmp").write_bytes(b"alice")
    assert made(tmp_path, clock, 1).prints["active-user"]() != before


def test_the_agent_imports_no_large_module_before_a_worker_needs_it(command_guard: CommandGuard) -> None:
    command_guard.allowed.add(sys.executable)
    code = (
        "import sys; before = set(sys.modules); import guest_agent.main;"
        f"print(sorted(set({_LARGE!r}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
