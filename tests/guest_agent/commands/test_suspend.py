"""suspend: which sleep each argument of the host means."""

from __future__ import annotations

import pytest

from common.messages import Suspend
from guest_agent.commands import COMMANDS, Machine, sleeping, suspend
from guest_agent.commands.sleeping import Sleep


@pytest.mark.parametrize(
    ("mode", "sleep"), [("memory", sleeping.MEMORY), ("disk", sleeping.DISK), ("hybrid", sleeping.HYBRID)]
)
def test_the_guest_sleeps_as_it_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch, mode: str, sleep: Sleep) -> None:
    slept = []
    monkeypatch.setattr(sleeping, "fall_asleep", lambda *given: slept.append(given))
    message = Suspend(mode=mode)
    assert COMMANDS["suspend"].run(machine, message) == {}
    assert slept == [(machine, sleep)]


def test_it_is_available_where_the_guest_can_sleep(machine: Machine) -> None:
    assert suspend.available(machine) == sleeping.available(machine) is not None
