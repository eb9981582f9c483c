"""Which VM a hand-off is about: said with ``Hello``, and beside a session that has no place for it."""

from __future__ import annotations

from typing import Any, Optional

from .members import UUID, Members, check_object, member, text


class Vm(Members):
    """A VM, as its host knows it."""

    uuid: Optional[str] = member("uuid", UUID, default=None)
    name: str = member("name", text(255), default="")

    def beside(self, other: Vm) -> Vm:
        """This VM, with what *other* says of it where this says nothing."""
        return Vm(self.uuid or other.uuid, self.name or other.name)


def of_session(session: Any) -> Vm:
    """The VM of a session of any spec; of the oldest one nothing is known."""
    return Vm(getattr(session, "uuid", None), getattr(session, "name", ""))


def read(value: Any) -> Vm:
    """The VM that *value*, which may be anything, describes; nothing is known where it describes none."""
    try:
        return Vm.from_members(check_object(value))
    except ValueError:
        return Vm()
