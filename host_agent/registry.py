"""All guests by name, and which absent ones are still remembered.

An absent guest is remembered for a while, so that its facts survive a restart of its VM; never more than a bounded number
of them, however many names come and go. One that is just being handed over is remembered until that has an end. Pure: time
is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, Optional

from .guest import Guest

#: At most this many absent guests are remembered; those absent for longest are forgotten first.
ABSENT_LIMIT = 1000


class Registry:
    """The guests.

    :param make: makes the guest of a name that is new.
    :param forget_after: seconds after which an absent guest is forgotten.
    :param renamed: called with the old and the new name of a guest that is called otherwise now.
    """

    def __init__(
        self,
        make: Callable[[str], Guest],
        forget_after: float,
        renamed: Callable[[str, str], None] = lambda old, new: None,
        absent_limit: int = ABSENT_LIMIT,
    ) -> None:
        self._make = make
        self._renamed = renamed
        self._forget_after = forget_after
        self._absent_limit = absent_limit
        self._guests: dict[str, Guest] = {}
        #: When each absent guest went away, the one absent for longest first.
        self._absent: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[Guest]:
        return iter(self._guests.values())

    def find(self, name: str) -> Optional[Guest]:
        """The guest called *name*, or None."""
        return self._guests.get(name)

    def find_vm(self, name: str, uuid: Optional[str]) -> Optional[Guest]:
        """The guest of the VM *uuid*, or else the one called *name*, which may be another VM's; or None."""
        known = (guest for guest in self if uuid is not None and guest.uuid == uuid)
        return next(known, None) or self.find(name)

    def arrived(self, name: str, uuid: Optional[str] = None) -> Guest:
        """The guest called *name*, which has a port now.

        Where the name is new it is the absent guest with that *uuid*, renamed, or a new one.
        """
        self._absent.pop(name, None)
        if name not in self._guests:
            self._guests[name] = self._under_new_name(name, uuid) or self._make(name)
        return self._guests[name]

    def _under_new_name(self, name: str, uuid: Optional[str]) -> Optional[Guest]:
        """The absent guest with *uuid* under its new *name*, or None."""
        old = next((each for each in self._absent if uuid is not None and self._guests[each].uuid == uuid), None)
        if old is None:
            return None
        del self._absent[old]
        guest = self._guests.pop(old)
        guest.renamed(name)
        self._renamed(old, name)
        return guest

    def left(self, name: str, now: float) -> Guest:
        """The guest called *name*, which has no port (any more); a new one where the name is new."""
        guest = self.arrived(name)
        self._absent[name] = now
        return guest

    def remember_for(self, seconds: float) -> None:
        """Remember absent guests for another time from now on."""
        self._forget_after = seconds

    def remove(self, name: str) -> Guest:
        """Forget the guest called *name* now; returns what it was."""
        self._absent.pop(name, None)
        return self._guests.pop(name)

    def next_deadline(self) -> Optional[float]:
        """When ``tick`` wants to be called next."""
        return next((left_at + self._forget_after for left_at in self._absent.values()), None)

    def tick(self, now: float) -> list[Guest]:
        """Forget absent guests: those absent for too long, and those too many. Returns them."""
        surplus = len(self._absent) - self._absent_limit
        due = [
            name
            for position, (name, left_at) in enumerate(self._absent.items())
            if position < surplus or now >= left_at + self._forget_after
        ]
        moving = [name for name in due if self._guests[name].moving]
        for name in moving:
            self.left(name, now)
        return [self.remove(name) for name in due if name not in moving]
