"""The container of a session: ``{"spec": N, "session": {…}}``.

Between hosts the ``transfer`` stands in it to which the document belongs; and beside a session of the oldest spec, which has
no place for that, which ``vm`` it is of. Whoever does not know these ignores them.

Members that are not known are ignored, missing ones have a default, and an unknown spec is refused with the list of those
known. What a document says is hostile until it has passed here; what comes out is a record of the document's own spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional, Union

from . import untrusted, vm
from .errors import InvalidDocument, UnknownSpec
from .members import TRANSFER, check_object
from .spec0 import Spec0
from .spec1 import Spec1
from .spec2 import Spec2
from .vm import Vm

Spec = Union[Spec0, Spec1, Spec2]


class Container(NamedTuple):
    """A document.

    :ivar transfer: to which it belongs; None: to none.
    :ivar vm: which VM it is of, as far as it says so.
    """

    spec: Spec
    transfer: Optional[str]
    vm: Vm


#: The largest document, in bytes.
SIZE_LIMIT = 8 * 1024 * 1024

#: The specs known, by their numbers, oldest first.
SPECS: Mapping[int, type[Spec]] = {0: Spec0, 1: Spec1, 2: Spec2}

#: What each spec holds.
HOLDS: Mapping[int, str] = {
    0: "what the reference hosts carry",
    1: "identity, facts with their age, commands in flight, the floor of reply ids, what is frozen",
    2: "as 1, and capabilities, counters, the last changes of the version",
}

NEWEST = max(SPECS)

_TRANSFER = "transfer"
_VM = "vm"

_NUMBERS: Mapping[type[Spec], int] = {spec: number for number, spec in SPECS.items()}


def number_of(spec: Spec) -> int:
    """The number of the session spec that *spec* is of."""
    return _NUMBERS[type(spec)]


def read(text: Union[str, bytes]) -> Spec:
    """Read a document.

    :raises UnknownSpec: of a spec that is not known here.
    :raises InvalidDocument: not a document, too large, or with a member that can't be.
    """
    return read_container(text).spec


def read_container(text: Union[str, bytes]) -> Container:
    """Read a document, with what stands beside its session.

    :raises UnknownSpec: of a spec that is not known here.
    :raises InvalidDocument: not a document, too large, or with a member that can't be.
    """
    container = _read_container(text)
    spec = find(container.get("spec"))
    try:
        transfer = None if container.get(_TRANSFER) is None else TRANSFER.check(container[_TRANSFER])
        session = spec.from_members(check_object(container.get("session", {})))
    except ValueError as error:
        raise InvalidDocument(
            f"the document's session can't be used: {error}: have the host that wrote it write it again"
        ) from None
    return Container(session, transfer, vm.of_session(session).beside(vm.read(container.get(_VM))))


def find(number: object) -> type[Spec]:
    """The session spec of that *number*, which may be anything.

    :raises UnknownSpec: it is not known.
    """
    if type(number) is int and number in SPECS:
        return SPECS[number]
    raise UnknownSpec(_shown(number), SPECS)


def write(spec: Spec, transfer: Optional[str] = None, of: Optional[Vm] = None) -> bytes:
    """The document of *spec*, in its own version.

    :param of: the VM; it stands beside a session that has no place for it.
    :raises InvalidDocument: it can't be written so that it could be read again.
    """
    document: dict[str, Any] = {"spec": number_of(spec), "session": spec.to_members()}
    if transfer is not None:
        document[_TRANSFER] = transfer
    if of not in (None, Vm()) and isinstance(spec, Spec0):
        document[_VM] = of.to_members()
    try:
        return untrusted.write_object(document, SIZE_LIMIT)
    except ValueError as error:
        raise InvalidDocument(
            f"the session can't be written: {error}: lower facts-size, so that less is kept of the guest"
        ) from None


def _read_container(text: Union[str, bytes]) -> dict[str, Any]:
    try:
        return untrusted.read_object(text, SIZE_LIMIT)
    except ValueError as error:
        raise InvalidDocument(f"not a document of a session: {error}: take one that a host daemon has written") from None


def _shown(number: object) -> str:
    """An unknown number, for people; it may be anything."""
    if type(number) is int and abs(number) < _LARGE:
        return str(number)
    return "(missing)" if number is None else "(no such number)"


_LARGE = 1_000_000
