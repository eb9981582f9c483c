"""Which of libvirt's domains are on their way, as one daemon's events tell it. Pure.

Only the order of events tells source and destination apart: a domain resumes "migrated" where it has arrived, and as well
where its migration failed. So what was seen of a domain's migration is kept until the domain ends or leaves; where nothing
was, because the migration began before anybody looked, a domain that resumes has arrived: it is under way for much longer
than it is stopped to leave.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Optional

from . import Migration

_IS_LEAVING = (Migration.BEGINS, Migration.LEAVING)

#: What the end of a domain means whose migration was seen so far, unless it is said to have ended because it left.
_CUT_SHORT = {
    Migration.INCOMING: Migration.TURNED_BACK,
    Migration.BEGINS: Migration.FAILED,
    Migration.LEAVING: Migration.FAILED,
}


class Step(NamedTuple):
    """Where the migration of the domain *name* stands now."""

    migration: Migration
    name: str
    uuid: str


class Journeys:
    """What was seen of each domain's migration last; every method returns what is new, or None."""

    def __init__(self) -> None:
        self._seen: dict[str, Step] = {}

    def happened(self, name: str, uuid: str, kind: str, reason: str) -> Optional[Step]:
        """The daemon told an event of the domain's life, by libvirt's names."""
        migration = self._judge(self._stage(uuid), kind, reason)
        step = None if migration is None else Step(migration, name, uuid)
        if kind == "STOPPED" or migration is Migration.FAILED:
            self._seen.pop(uuid, None)
        elif step is not None:
            self._seen[uuid] = step
        return step

    def begins(self, name: str, uuid: str) -> Optional[Step]:
        """The daemon sends the domain's memory to another host."""
        if self._stage(uuid) not in (None, Migration.ARRIVED):
            return None
        step = self._seen[uuid] = Step(Migration.BEGINS, name, uuid)
        return step

    def stays(self, uuid: str) -> Optional[Step]:
        """The daemon does so no longer, and the domain runs on here."""
        if self._stage(uuid) not in _IS_LEAVING:
            return None
        return self._seen.pop(uuid)._replace(migration=Migration.FAILED)

    def keep(self, uuids: Collection[str]) -> list[Step]:
        """No other domains than these run. One that was about to leave, and is not there any more, has left."""
        gone = [self._seen.pop(uuid) for uuid in list(self._seen) if uuid not in uuids]
        ends = {Migration.INCOMING: Migration.TURNED_BACK, **dict.fromkeys(_IS_LEAVING, Migration.LEFT)}
        return [step._replace(migration=ends[step.migration]) for step in gone if step.migration in ends]

    def _stage(self, uuid: str) -> Optional[Migration]:
        step = self._seen.get(uuid)
        return None if step is None else step.migration

    def _judge(self, stage: Optional[Migration], kind: str, reason: str) -> Optional[Migration]:
        """What an event means for a domain at this *stage* of its migration."""
        if kind == "STOPPED":
            return Migration.LEFT if reason == "MIGRATED" else _CUT_SHORT.get(stage) if stage else None
        if (kind, reason) == ("STARTED", "MIGRATED"):
            return Migration.INCOMING
        if kind == "SUSPENDED" and reason in ("MIGRATED", "POSTCOPY"):
            return None if stage is Migration.LEAVING else Migration.LEAVING
        if (kind, reason) == ("SUSPENDED", "PAUSED") and stage is Migration.INCOMING:
            return Migration.ARRIVED
        if kind == "RESUMED" and reason in ("MIGRATED", "POSTCOPY") and stage is not Migration.ARRIVED:
            return Migration.FAILED if stage in _IS_LEAVING else Migration.ARRIVED
        return None
