"""Refusals: what a destination answers that does not do what it was asked for."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from common.fields import NATURAL, Kind, list_of

from . import untrusted
from .errors import HandoffError, InvalidPayload
from .frames import TALK_LIMIT, Response, Status
from .members import Members, member, text

#: A longer code is cut, in characters.
CODE_LENGTH = 100


class Code(str, enum.Enum):
    """Why, for programs. A code keeps its meaning for ever; a newer peer may say one that is not known here."""

    NOT_ADMITTED = "not-admitted"
    UNSUPPORTED_VERSION = "unsupported-protocol-version"
    UNKNOWN_SPEC = "unknown-session-spec"
    OUT_OF_ORDER = "out-of-order"
    INVALID_HELLO = "invalid-hello"
    INVALID_SESSION = "invalid-session"
    ALREADY_TAKEN = "already-taken"
    SUPERSEDED = "superseded"
    NAME_TAKEN = "name-taken"
    BUSY = "busy"
    NOT_SAVED = "not-saved"
    STOPPING = "stopping"


#: What each code means.
MEANINGS: Mapping[Code, str] = {
    Code.NOT_ADMITTED: "the source's certificate is for none of the destination's peers; the connection ends",
    Code.UNSUPPORTED_VERSION: "the protocol version is not spoken; `supported` has those that are; the connection ends",
    Code.UNKNOWN_SPEC: "the document's spec is not known; `supported` has those that are",
    Code.OUT_OF_ORDER: "the command may not come now; the connection ends",
    Code.INVALID_HELLO: "what came with Hello can't be read",
    Code.INVALID_SESSION: "the document can't be used",
    Code.ALREADY_TAKEN: "the destination has taken this transfer before: the guest is its own",
    Code.SUPERSEDED: "the source asked about this transfer on a newer connection; this one can do nothing any more",
    Code.NAME_TAKEN: "another VM has the guest's name on the destination",
    Code.BUSY: "the destination is just taking this transfer, or has too many: ask again",
    Code.NOT_SAVED: "the destination can't note on its disk that a guest is its own, or can't read there whether it is",
    Code.STOPPING: "the destination's daemon ends",
}


def _check_code(value: object) -> str:
    """What a peer has for a code: a word, or a number; what it means is not known here then."""
    if isinstance(value, (str, int)):
        return str(value)[:CODE_LENGTH]
    raise ValueError("no code")


_CODE = Kind(f"str (up to {CODE_LENGTH})", _check_code)


class Refusal(Members):
    """The payload of an error.

    :ivar code: a word that stands for one reason for ever; see ``Code``.
    :ivar message: one sentence for people.
    :ivar supported: the versions that would not have been refused, lowest first; of what, the code says.
    """

    code: str = member("code", _CODE, default="")
    message: str = member("message", text(2000), default="")
    supported: tuple[int, ...] = member("supported", list_of(NATURAL), default=())

    def response(self) -> Response:
        """The frame that says so."""
        return Response(Status.ERROR, pack(self))


class Refused(HandoffError):
    """The destination refused; the error's text is what it says."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message or refusal.code)


def pack(refusal: Refusal) -> bytes:
    """The payload of *refusal*.

    :raises ValueError: it is too long.
    """
    return untrusted.write_object(refusal.to_members(), TALK_LIMIT)


def unpack(payload: bytes) -> Refusal:
    """The refusal in an error's *payload*.

    :raises InvalidPayload: there is none.
    """
    try:
        return Refusal.from_members(untrusted.read_object(payload, TALK_LIMIT))
    except ValueError as error:
        raise InvalidPayload(
            f"the destination refused and did not say why so that it can be read ({error}): look into its log"
        ) from None
