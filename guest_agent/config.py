"""What the agent does as it does because somebody configured it so: plain values, without where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from common.versions import Version

from . import commands


class Configuration(NamedTuple):
    """The effective values; ``options`` says what each one means."""

    port: Sequence[str]
    max_api_version: Optional[Version]
    heartbeat: float
    port_timeout: float
    application: Sequence[str]
    ignore_interface: Sequence[str]
    ignore_file_system: Sequence[str]
    log_level: str
    #: Seconds by the wire name of each fact.
    periods: Mapping[str, float]
    commands_allow: Sequence[str]
    commands_block: Sequence[str]
    commands_enable: Sequence[str]
    commands_login_helper: Optional[str]
    commands_deadline: float
    hooks_directory: str
    hooks_deadline: float
    files_read: Sequence[str]
    files_write: Sequence[str]
    freeze_limit: float

    @property
    def permitted(self) -> frozenset[str]:
        """The names of the commands that the host may give."""
        return commands.permitted(self.commands_allow, self.commands_block, self.commands_enable)

    def plain(self) -> tuple[Any, ...]:
        """The values as a worker can report them."""
        version = self.max_api_version
        return tuple(self._replace(max_api_version=None if version is None else int(version)))  # type: ignore[arg-type]

    @classmethod
    def from_plain(cls, values: Sequence[Any]) -> Configuration:
        """The reverse of ``plain``."""
        configuration = cls(*values)
        version = configuration.max_api_version
        return configuration._replace(max_api_version=None if version is None else Version(version))
