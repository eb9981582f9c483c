from __future__ import annotations

from typing import Any, Optional

import pytest

from host_agent.cli import advice, arguments
from tests.host_agent.operators import described


def obstacle(guest: dict[str, Any], command: str = "lifecycle-event") -> Optional[str]:
    return advice.obstacle(guest, arguments.find_command(command))


def test_a_command_that_may_be_sent_has_no_obstacle() -> None:
    assert obstacle(described()) is None
    assert obstacle(described(agreed=0, advertised=None), "lock-screen") is None


def test_a_guest_that_is_too_old_is_to_be_upgraded() -> None:
    assert obstacle(described(agreed=1, advertised=1)) == (
        "web-1 agreed on API 1; lifecycle-event needs 3; its agent supports 1: upgrade vmaccord-guest-agent in web-1"
    )
    assert obstacle(described(agreed=0, advertised=None), "set-number-of-cpus") == (
        "web-1 agreed on API 0; set-number-of-cpus needs 1; its agent supports no versions: "
        "upgrade vmaccord-guest-agent in web-1"
    )


def test_a_host_that_is_too_old_is_to_be_upgraded() -> None:
    assert obstacle(described(agreed=1, supported=1)) == (
        "web-1 agreed on API 1; lifecycle-event needs 3; this host supports 1: "
        "upgrade vmaccord-host-agent here, or raise its max-api-version"
    )


def test_both_are_to_be_upgraded_where_both_are_too_old() -> None:
    assert obstacle(described(agreed=1, supported=2, advertised=1)) == (
        "web-1 agreed on API 1; lifecycle-event needs 3; its agent supports 1 and this host supports 2: "
        "upgrade vmaccord-guest-agent in web-1 and upgrade vmaccord-host-agent here, or raise its max-api-version"
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("absent", "web-1 is not connected (no port on this host): start it, or see 'vmaccord doctor web-1'"),
        ("connecting", "web-1 is not connected (nobody answers on its port): start it, or see 'vmaccord doctor web-1'"),
        ("connected", "web-1 is silent: start vmaccord-guest-agent in it, or see 'vmaccord doctor web-1'"),
        ("unresponsive", "web-1 is silent: start vmaccord-guest-agent in it, or see 'vmaccord doctor web-1'"),
    ],
)
def test_a_guest_that_does_not_answer_can_be_sent_nothing(state: str, said: str) -> None:
    assert obstacle(described(state=state), "lock-screen") == said
