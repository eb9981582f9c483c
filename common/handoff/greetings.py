"""What comes with ``Hello`` and with its answer: what each side understands, and where a transfer stands.

Both are JSON objects; members that are not known are ignored, and each that is missing has a default. So a hello that says
nothing is answered, and an answer that says nothing comes from a destination that knows the oldest spec only.

A source that is in doubt, for the answer to its ``Complete`` got lost, says hello again with the same transfer. Its
destination answers whether it has taken it, and from then on refuses to take it on any older connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

from common.fields import BOOLEAN, NATURAL, Kind, list_of

from . import documents, untrusted
from .errors import InvalidPayload
from .frames import ANSWER_LIMIT, TALK_LIMIT
from .members import AGE, TRANSFER, Members, check_object, member, nested
from .spec1 import REPLY_ID
from .vm import Vm

#: A hello asks for the outcomes of at most so many commands.
OUTCOMES_LIMIT = 100

_NOTHING = b"{}"


def _check_wanted(value: Any) -> tuple[str, ...]:
    wanted: tuple[str, ...] = list_of(REPLY_ID).check(value)
    if len(wanted) > OUTCOMES_LIMIT:
        raise ValueError(f"more than {OUTCOMES_LIMIT}")
    return wanted


class Hello(Members):
    """What the source says."""

    specs: tuple[int, ...] = member("specs", list_of(NATURAL), "the session specs that it can write", default=())
    api_maximum: Optional[int] = member(
        "api_maximum", NATURAL, "the highest API version that it would agree on with a guest; left out: none", default=None
    )
    vm: Vm = member("vm", nested(Vm), "which VM it is about", default=Vm())
    transfer: Optional[str] = member("transfer", TRANSFER, "which attempt to move it", default=None)
    outcomes: tuple[str, ...] = member(
        "outcomes",
        Kind(f"list of str, up to {OUTCOMES_LIMIT}", _check_wanted),
        "reply ids of commands that went along with a transfer, whose completions somebody waits for",
        default=(),
    )


class Outcome(Members):
    """How a command that went along ended: the guest's completion, *more* being its further members."""

    done: bool = member("done", BOOLEAN)
    after_s: float = member("after_s", AGE, default=0.0)
    more: Mapping[str, Any] = member("more", Kind("object of any", check_object), factory=dict)


def _check_outcomes(value: Any) -> dict[str, Outcome]:
    check = nested(Outcome).check
    return {REPLY_ID.check(reply_id): check(each) for reply_id, each in check_object(value).items()}


class Welcome(Members):
    """What the destination answers."""

    specs: tuple[int, ...] = member("specs", list_of(NATURAL), "the session specs that it reads; left out: 0", default=(0,))
    api_maximum: Optional[int] = member(
        "api_maximum", NATURAL, "the highest API version that it would agree on with a guest; left out: none", default=None
    )
    awaits: bool = member("awaits", BOOLEAN, "whether it awaits this VM", default=False)
    taken: bool = member(
        "taken", BOOLEAN, "whether it has taken this transfer; if not, it does not on any older connection", default=False
    )
    outcomes: Mapping[str, Outcome] = member(
        "outcomes",
        Kind(f"object of {nested(Outcome).label}", _check_outcomes),
        "those of the wanted completions that have come, by reply id",
        factory=dict,
    )


def common_spec(offered: Iterable[int], read: Iterable[int]) -> Optional[int]:
    """The newest session spec of both; None: they have none in common."""
    return max(set(offered) & set(read) & set(documents.SPECS), default=None)


def pack_hello(hello: Hello) -> bytes:
    """The payload of a hello.

    :raises ValueError: it is too long.
    """
    return untrusted.write_object(hello.to_members(), TALK_LIMIT)


def unpack_hello(payload: bytes) -> Hello:
    """What a hello says.

    :raises InvalidPayload: it can't be read.
    """
    try:
        return Hello.from_members(untrusted.read_object(payload or _NOTHING, TALK_LIMIT))
    except ValueError as error:
        raise InvalidPayload(f"Hello can't be read: {error}: upgrade the source's vmaccord-host") from None


def pack_welcome(welcome: Welcome) -> bytes:
    """The payload of the answer to a hello.

    :raises ValueError: it is too long.
    """
    return untrusted.write_object(welcome.to_members(), ANSWER_LIMIT)


def unpack_welcome(payload: bytes) -> Welcome:
    """What the answer to a hello says.

    :raises InvalidPayload: it can't be read.
    """
    try:
        return Welcome.from_members(untrusted.read_object(payload or _NOTHING, ANSWER_LIMIT))
    except ValueError as error:
        raise InvalidPayload(
            f"the answer to Hello can't be read: {error}: upgrade the destination's vmaccord-host"
        ) from None
