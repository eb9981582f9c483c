"""Which of several sources counts, where they claim one name or one path. Pure.

The sources are ranked. For one path only the source of the highest rank counts: it knows best what the guest there is
called. Of the paths that this leaves to one name, the one from the highest rank is its port. So a name has one port, and a
port, which serves one client, belongs to one name, also while things change.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Optional

from . import Added, Event, Removed

#: A claim's source, and the name that it claims the port for.
_Key = tuple[Hashable, str]


class Claims:
    """What every source claims, and the port chosen for each name."""

    def __init__(self) -> None:
        self._ranks: dict[Hashable, int] = {}
        #: By source and name.
        self._claims: dict[_Key, Added] = {}
        #: Who claims a path, and for which name. Nearly every path has one claim: a set would be many times larger.
        self._by_path: dict[str, tuple[_Key, ...]] = {}
        self._chosen: dict[str, Added] = {}

    def rank(self, sources: Sequence[Hashable]) -> list[Event]:
        """Only *sources* count from now on, the first one most; what others claim is forgotten. What that changes."""
        self._ranks = {source: rank for rank, source in enumerate(sources)}
        for source, name in list(self._claims):
            if source not in self._ranks:
                self._forget(source, name)
        return self._choose({*self._chosen, *(name for _, name in self._claims)})

    def put(self, source: Hashable, added: Added) -> list[Event]:
        """*source* found this port; what that changes: nothing while *source* is not ranked.

        Where the same port is chosen as before, it is reported again: there is a reason to try it at once.
        """
        rivals = self._forget(source, added.name)
        key = (source, added.name)
        self._claims[key] = added
        self._by_path[added.path] = (*self._by_path.get(added.path, ()), key)
        return self._choose(rivals | self._claimants(added.path), touched=added if source in self._ranks else None)

    def drop(self, source: Hashable, name: str) -> list[Event]:
        """*source* knows of no port of *name* any more; what that changes."""
        return self._choose(self._forget(source, name))

    def _forget(self, source: Hashable, name: str) -> set[str]:
        """Forget a claim; the names that this can make a difference to."""
        old = self._claims.pop((source, name), None)
        if old is None:
            return {name}
        left = tuple(each for each in self._by_path.pop(old.path) if each != (source, name))
        if not left:
            return {name}
        self._by_path[old.path] = left
        return {name, *self._claimants(old.path)}

    def _claimants(self, path: str) -> set[str]:
        return {name for _, name in self._by_path[path]}

    def _choose(self, names: Iterable[str], touched: Optional[Added] = None) -> list[Event]:
        """Choose anew for *names*: among them are all that win or lose a path with each other."""
        before = {name: self._chosen.pop(name) for name in names if name in self._chosen}
        after = {name: best for name in names if (best := self._best(name)) is not None}
        self._chosen.update(after)
        owners = {added.path: name for name, added in after.items()}
        removed = [
            Removed(name, old.path)
            for name, old in sorted(before.items())
            if name not in after or owners.get(old.path, name) != name
        ]
        added = [new for name, new in sorted(after.items()) if new != before.get(name) or _is_same_port(new, touched)]
        return [*removed, *added]

    def _best(self, name: str) -> Optional[Added]:
        for source in self._ranks:
            claim = self._claims.get((source, name))
            if claim is not None and self._owner(claim.path) == (source, name):
                return claim
        return None

    def _owner(self, path: str) -> Optional[_Key]:
        """The source that counts for *path*, and what it calls the guest there."""
        ranked = [claim for claim in self._by_path[path] if claim[0] in self._ranks]
        return min(ranked, key=lambda claim: (self._ranks[claim[0]], claim[1]), default=None)


def _is_same_port(one: Added, other: Optional[Added]) -> bool:
    return other is not None and (one.name, one.path) == (other.name, other.path)
