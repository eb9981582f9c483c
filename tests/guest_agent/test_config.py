"""The configuration as plain values, on the way from a worker to the agent."""

from __future__ import annotations

import marshal
from typing import Any, Optional

import pytest

from common.versions import Version
from guest_agent.config import Configuration
from guest_agent.schedule import NEVER

from .parts import configuration


@pytest.mark.parametrize("version", [None, *Version])
def test_a_configuration_is_the_same_after_its_way_through_a_pipe(version: Optional[Version]) -> None:
    before = configuration(max_api_version=version, periods={"fqdn": NEVER, "timezone": 1.5}, commands_allow=("echo",))
    after = Configuration.from_plain(marshal.loads(marshal.dumps(before.plain())))  # noqa: S302
    assert after == before
    assert type(after.max_api_version) is type(version)


def test_the_commands_that_the_host_may_give_are_those_that_are_allowed_or_enabled_and_not_blocked() -> None:
    assert "exec" not in configuration().permitted
    assert {"exec", "shutdown"} <= configuration(commands_enable=("exec",)).permitted
    assert configuration(commands_allow=("echo",), commands_enable=("exec",)).permitted == {"echo", "exec"}
    assert configuration(commands_enable=("exec",), commands_block=("exec",)).permitted == configuration().permitted


def test_the_plain_values_are_no_classes_of_ours() -> None:
    def kinds(value: Any) -> set[type]:
        inner = value.items() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
        return {type(value)}.union(*map(kinds, inner))

    assert kinds(configuration(commands_login_helper=None).plain()) <= {tuple, dict, str, int, float, type(None)}
