from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli import clock
from host_agent.cli.sending import GuestFailed
from host_agent.client import Client

from .commanded import CommandedDaemon, done, failed

NOW = 1_700_000_000_123_456_789


@pytest.fixture
def daemon(place: Path) -> Iterator[CommandedDaemon]:
    with CommandedDaemon(place / "control.sock") as running:
        running.said = {"set-time": [done(epoch_ns=NOW, step_ns=3_600_250_000_000, hardware_clock=True)]}
        yield running


def test_a_clock_is_set_to_that_of_this_host(daemon: CommandedDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    clock.set_time(Client(daemon.path), "web-1", from_hardware=False, timeout=None, as_json=False, now=lambda: NOW)
    assert daemon.sent("set-time")["arguments"] == {"epoch_ns": NOW}
    assert capsys.readouterr().out == "web-1: clock set, and the hardware clock; it was 3600.250 s slow\n"
    clock.set_time(Client(daemon.path), "web-1", from_hardware=False, timeout=None, as_json=True)
    assert json.loads(capsys.readouterr().out)["completion"]["result"]["epoch_ns"] == NOW
    assert daemon.sent("set-time")["arguments"]["epoch_ns"] > NOW


def test_a_clock_is_set_from_the_guests_own_hardware(daemon: CommandedDaemon) -> None:
    clock.set_time(Client(daemon.path), "web-1", from_hardware=True, timeout=None, as_json=False)
    assert daemon.sent("set-time")["arguments"] == {}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"step_ns": -1_500_000}, "web-1: clock set; it was 0.002 s fast\n"),
        ({"step_ns": "\x1b", "hardware_clock": "\x1b"}, "web-1: clock set; it does not say by how much it was wrong\n"),
        ({}, "web-1: clock set; it does not say by how much it was wrong\n"),
    ],
)
def test_what_the_guest_says_of_it_is_told(
    daemon: CommandedDaemon, result: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.said["set-time"] = [done(**result)]
    clock.set_time(Client(daemon.path), "web-1", from_hardware=False, timeout=None, as_json=False)
    assert capsys.readouterr().out == said


def test_a_guest_that_can_not_is_a_failure(daemon: CommandedDaemon) -> None:
    daemon.said["set-time"] = [failed("failed", "there is no hardware clock")]
    with pytest.raises(GuestFailed, match=r"^web-1: set-time failed: there is no hardware clock$"):
        clock.set_time(Client(daemon.path), "web-1", from_hardware=True, timeout=None, as_json=False)
