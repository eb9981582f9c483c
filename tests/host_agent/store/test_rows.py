from __future__ import annotations

from typing import Any, Callable

import pytest

from common.catalogue import CATALOGUE
from host_agent.known import UNKNOWN_TIME, Fact
from host_agent.store import rows

UUID = "6b6f3c1e-8a53-4d51-9a51-5a4e7d3f0c11"
FACT = ("web", "host-name", '{"name":"ü.example"}', 1000.0)
CHANGE = ("web", 1000.0, 0, 3, "first agreement of this connection")
COMMAND = ("7f3a", "web", "lifecycle-event", 1000.0, 1030.0)
TRANSFER = "0123456789abcdef" * 2
DEPARTURE = (TRANSFER, "web", UUID, "host-b", 1000.0, False)


def passes(check: Callable[..., object], *raw: object) -> bool:
    return bool(list(rows.passing(check, [raw])))


def test_what_this_program_writes_passes() -> None:
    assert list(rows.passing(rows.check_guest, [("web", UUID), ("db", None)])) == [("web", UUID), ("db", None)]
    assert list(rows.passing(rows.check_fact, [FACT])) == [FACT]
    assert list(rows.passing(rows.check_change, [CHANGE])) == [CHANGE]
    for each in (DEPARTURE, (TRANSFER, "web", None, "host-b", 1000.0, True)):
        assert list(rows.passing(rows.check_departure, [each])) == [each]
    assert list(rows.passing(rows.check_taken, [(TRANSFER, "web")])) == [(TRANSFER, "web")]
    for row in CATALOGUE.commands:
        command = (*COMMAND[:2], row.name, *COMMAND[3:])
        assert list(rows.passing(rows.check_command, [command])) == [command]


def test_a_bad_row_costs_only_itself() -> None:
    assert list(rows.passing(rows.check_fact, [("x", "echo", "{}", 1.0), FACT])) == [FACT]


@pytest.mark.parametrize("name", ["", None, 7, b"web", "a\0b", "a\x1bb", "\ud800", "x" * 1001])
def test_a_guest_needs_a_name_that_a_vm_can_have(name: Any) -> None:
    assert not passes(rows.check_guest, name, None)
    assert not passes(rows.check_fact, name, *FACT[1:])
    assert not passes(rows.check_change, name, *CHANGE[1:])
    assert not passes(rows.check_command, COMMAND[0], name, *COMMAND[2:])
    assert not passes(rows.check_departure, TRANSFER, name, *DEPARTURE[2:])
    assert not passes(rows.check_departure, *DEPARTURE[:3], name, 1000.0, 0)
    assert not passes(rows.check_taken, TRANSFER, name)


def test_a_uuid_is_one_however_it_is_written() -> None:
    assert list(rows.passing(rows.check_guest, [("web", UUID.upper())])) == [("web", UUID)]
    for bad in ("", "none", 7, b"x" * 16, UUID + "0"):
        assert not passes(rows.check_guest, "web", bad)
        assert not passes(rows.check_departure, TRANSFER, "web", bad, "host-b", 1000.0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no-such-message", "{}"),
        ("echo", "{}"),
        ("refresh", "{}"),
        ("host-name", "no json"),
        ("host-name", "[]"),
        ("host-name", ""),
        ("host-name", None),
        ("host-name", b"{}"),
        ("host-name", "{}"),
        ("host-name", '{"name":7}'),
        ("host-name", '{"name":"web"} more'),
        ("host-name", '{"name":"web","__name__":"fqdn","fqdn":"x"}'),
        ("host-name", '{"name":"\ud800"}'),
        ("host-name", '{"name":"' + "x" * 1024 * 1024 + '"}'),
        ("host-name", '{"name":"web","deep":' + "[" * 100_000 + "}"),
        ("heartbeat", '{"apiVersion":"3"}'),
    ],
)
def test_a_fact_is_what_a_guest_could_have_said(name: str, value: Any) -> None:
    assert not passes(rows.check_fact, "web", name, value, 1000.0)


@pytest.mark.parametrize("time", [float("inf"), float("nan"), -1.0, 1e300, 7, "soon", None])
def test_a_time_is_one_that_clocks_show(time: Any) -> None:
    assert not passes(rows.check_fact, *FACT[:3], time)
    assert not passes(rows.check_change, "web", time, *CHANGE[2:])
    assert not passes(rows.check_command, *COMMAND[:3], time, 1030.0)
    assert not passes(rows.check_command, *COMMAND[:4], time)
    assert not passes(rows.check_departure, *DEPARTURE[:4], time, 0)


@pytest.mark.parametrize("transfer", ["", TRANSFER[1:], TRANSFER + "0", TRANSFER.upper(), TRANSFER[1:] + "\n", 7, None])
def test_a_transfer_is_one_that_a_source_draws(transfer: Any) -> None:
    assert not passes(rows.check_departure, transfer, *DEPARTURE[1:])
    assert not passes(rows.check_taken, transfer, "web")


def test_a_fact_may_be_of_nobody_knows_when() -> None:
    assert list(rows.passing(rows.check_fact, [(*FACT[:3], UNKNOWN_TIME)])) == [(*FACT[:3], UNKNOWN_TIME)]


@pytest.mark.parametrize("version", [-1, 1000, 3.0, "3", None])
def test_a_version_is_a_small_number(version: Any) -> None:
    assert not passes(rows.check_change, "web", 1000.0, version, 3, "why")
    assert not passes(rows.check_change, "web", 1000.0, 0, version, "why")


@pytest.mark.parametrize(
    "row",
    [
        (b"7f3a", *COMMAND[1:]),
        ("7f3a", "web", "heartbeat", 1000.0, 1030.0),
        ("7f3a", "web", "refresh", 1000.0, 1030.0),
        ("7f3a", "web", "lifecycle-event", 1000.0, 1000.0),
        ("7f3a", "web", "lifecycle-event", 1000.0, 1e9),
    ],
)
def test_a_command_is_one_that_a_host_could_have_sent(row: Any) -> None:
    assert not passes(rows.check_command, *row)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("host-name", {"name": 'w"é\N{BELL}'}),
        ("heartbeat", {}),
        ("heartbeat", {"apiVersion": 3, "free-ram": "7"}),
        ("capabilities", {"commands": {"exec": False, "load": True}, "features": ("repeated-completions",)}),
    ],
)
def test_a_fact_is_the_same_after_it_was_kept(name: str, arguments: dict[str, Any]) -> None:
    heard = Fact.of(name, arguments, 1000.0)
    (row,) = rows.passing(rows.check_fact, [("web", name, heard.text, 1000.0)])
    kept = Fact(rows.line_of(row), 1000.0)
    assert kept.arguments() == heard.arguments() == arguments
