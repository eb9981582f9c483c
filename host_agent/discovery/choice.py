"""Which of several sockets is a guest's port. Pure.

Two sub-directories can lead to one VM name: one of a run that ended badly and one of the present run, or two VMs whose
names the hypervisor's management cut to the same length. The newest socket counts; when it vanishes, the next one does.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from . import Added, Event, Removed


class Stamp(NamedTuple):
    """What a socket file shows of itself.

    :ivar made_ns: when the socket was made; the newest one counts.
    :ivar device, inode: another file at the same path is another socket.
    :ivar changed_ns: when its permissions changed last.
    """

    made_ns: int
    device: int
    inode: int
    changed_ns: int

    def is_same_socket(self, other: Stamp) -> bool:
        """Whether both were seen on one and the same socket."""
        return self[:3] == other[:3]


class Choice:
    """Every socket that claims a guest's name, and the one chosen for each name."""

    def __init__(self) -> None:
        self._claims: dict[str, dict[str, Stamp]] = {}
        self._chosen: dict[str, str] = {}

    def claims(self, name: str) -> list[str]:
        """The paths of all sockets that claim *name*."""
        return list(self._claims.get(name, ()))

    def put(self, name: str, path: str, stamp: Stamp) -> list[Event]:
        """The socket at *path* claims *name*; what that changes."""
        before = self._claims.get(name, {}).get(path)
        if before == stamp:
            return []
        made_anew = before is not None and not before.is_same_socket(stamp)
        gone = self.drop(name, path) if made_anew else []
        self._claims.setdefault(name, {})[path] = stamp
        return gone + self._choose(name, touched=path)

    def drop(self, name: str, path: str) -> list[Event]:
        """The socket at *path* is gone; what that changes."""
        claims = self._claims.get(name, {})
        if claims.pop(path, None) is None:
            return []
        if claims:
            return self._choose(name, touched=None)
        del self._claims[name], self._chosen[name]
        return [Removed(name, path)]

    def _choose(self, name: str, touched: Optional[str]) -> list[Event]:
        claims = self._claims[name]
        best = max(claims, key=lambda path: (claims[path].made_ns, path))
        if best == self._chosen.get(name) and best != touched:
            return []
        self._chosen[name] = best
        return [Added(name, best)]
