"""hibernate: which sleep each argument of the host means."""

from __future__ import annotations

import pytest

from common.messages import Hibernate
from guest_agent.commands import COMMANDS, Machine, hibernate, sleeping
from guest_agent.commands.sleeping import Sleep


@pytest.mark.parametrize(("state", "sleep"), [("disk", sleeping.DISK), ("mem", sleeping.MEMORY)])
def test_the_guest_sleeps_as_it_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch, state: str, sleep: Sleep) -> None:
    slept = []
    monkeypatch.setattr(sleeping, "fall_asleep", lambda *given: slept.append(given))
    message = Hibernate(state=state)
    assert COMMANDS["hibernate"].run(machine, message) == {}
    assert slept == [(machine, sleep)]


def test_it_is_available_where_the_guest_can_sleep(machine: Machine) -> None:
    assert hibernate.available(machine) == sleeping.available(machine) is not None
