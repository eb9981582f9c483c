"""What can go wrong when the daemon is asked for something: each an error with a sentence for people and an exit status.

::

    Failure
    └── ClientError
        ├── DaemonUnreachable           nobody answers
        ├── UnexpectedAnswer            somebody answers, but not as the daemon does
        └── Problem                     the daemon says no
            ├── NotAllowed              this user may not do that
            ├── NoSuchGuest             no guest of that name
            ├── Stopping                the daemon is just ending
            ├── TimedOut                the command was sent; its completion did not come in time
            ├── Moved                   the guest is on another host now
            ├── HandoffFailed           a guest was not handed over, or not taken
            │   ├── HandoffOff          no other host is configured, or none is let in
            │   ├── NoSuchPeer          no host of that name is configured
            │   ├── UnreachablePeer     the other host does not answer, or is not the one that it should be
            │   ├── RefusedByPeer       the other host does not take it
            │   ├── WouldLose           an older session spec has no place for all
            │   ├── InDoubt             nobody here knows whether the other host has taken it
            │   ├── NotAwaited          no other host awaits it, and none was named
            │   ├── NotMoving           there is no hand-off to give up
            │   ├── InvalidSession      no session, or one that can't be used
            │   ├── NameTaken           another VM has that name
            │   └── NotSaved            the state file can't be written
            └── CommandRefused          not a byte was sent
                ├── Moving              the guest is just moving to another host
                ├── NoSuchCommand       the table has no command of that name
                ├── InvalidArguments    an argument is missing, unknown or of a wrong type
                ├── VersionTooLow       the command is newer than what was agreed with the guest
                ├── Disabled            the guest does not say that it carries the command out
                └── Unresponsive        the guest is silent
                    ├── NotConnected    there is no channel to the guest
                    ├── Congested       the guest does not read
                    └── Busy            too many commands wait for the guest already

The daemon says which one it is by the *type* of its problem document (RFC 9457); its *detail* is the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Optional

from host_agent.exits import Exit, Failure
from host_agent.text import printable

#: What the type of every problem begins with.
NAMESPACE = "about:vmaccord/"


class ClientError(Failure):
    """A question was not answered, or a command not carried out."""


class DaemonUnreachable(ClientError):
    """No daemon answers on the control socket."""

    status = Exit.UNREACHABLE


class UnexpectedAnswer(ClientError):
    """Something answers on the control socket, but not as the daemon does."""


class Problem(ClientError):
    """The daemon said no.

    :ivar kind: the last part of the problem's type; it never changes its meaning.
    :ivar document: the problem document.
    """

    kind: ClassVar[str] = ""

    def __init__(self, detail: str, document: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(printable(detail))
        self.document: Mapping[str, Any] = document or {"type": NAMESPACE + self.kind, "detail": detail}


class NotAllowed(Problem):
    """This user may not do that."""

    kind = "not-allowed"
    status = Exit.NOT_ALLOWED


class NoSuchGuest(Problem):
    """The daemon knows no guest of that name."""

    kind = "no-such-guest"
    status = Exit.NO_SUCH_GUEST


class Stopping(Problem):
    """The daemon is just ending. Whether a command was carried out is not known."""

    kind = "stopping"
    status = Exit.UNREACHABLE


class TimedOut(Problem):
    """The command was sent, but its completion did not come in time; it may still come."""

    kind = "timed-out"
    status = Exit.TIMED_OUT

    @property
    def reply_id(self) -> Optional[str]:
        """By this the completion can be known if it comes after all, in an event."""
        return self.document.get("reply_id")


class Moved(Problem):
    """The guest has moved to another host."""

    kind = "moved"
    status = Exit.MOVED

    @property
    def to(self) -> Optional[str]:
        """That host."""
        return self.document.get("to")

    @property
    def reply_id(self) -> Optional[str]:
        """Of a command that had been sent before: by this its completion can be known there; None: it was not sent."""
        return self.document.get("reply_id")


class HandoffFailed(Problem):
    """A guest was not handed over, not taken, not exported or not imported."""

    status = Exit.HANDOFF_FAILED


class HandoffOff(HandoffFailed):
    """The daemon's configuration names no host that takes guests, or lets none in."""

    kind = "handoff-off"


class NoSuchPeer(HandoffFailed):
    """The daemon's configuration names no host of that name."""

    kind = "no-such-peer"


class UnreachablePeer(HandoffFailed):
    """The other host does not answer, or is not the one that it should be."""

    kind = "unreachable-peer"


class RefusedByPeer(HandoffFailed):
    """The other host does not take the guest."""

    kind = "refused-by-peer"

    @property
    def code(self) -> Optional[str]:
        """Why, in a word of the hand-off."""
        return self.document.get("code")

    @property
    def supported(self) -> Sequence[int]:
        """The versions that it would not have refused; of what, ``code`` says."""
        return tuple(self.document.get("supported", ()))


class WouldLose(HandoffFailed):
    """The session spec has no place for all that is known of the guest."""

    kind = "would-lose"
    status = Exit.WOULD_LOSE

    @property
    def names(self) -> Sequence[str]:
        """The dotted names of all that would be lost."""
        return tuple(self.document.get("names", ()))


class InDoubt(HandoffFailed):
    """Nobody here knows whether the other host has taken the guest. It is asked again until it answers."""

    kind = "in-doubt"

    @property
    def to(self) -> Optional[str]:
        """That host."""
        return self.document.get("to")


class NotAwaited(HandoffFailed):
    """No other host awaits the guest, and none was named."""

    kind = "not-awaited"


class NotMoving(HandoffFailed):
    """There is no hand-off of the guest that could be given up."""

    kind = "not-moving"


class InvalidSession(HandoffFailed):
    """No session, or one that can't be used."""

    kind = "invalid-session"


class NameTaken(HandoffFailed):
    """Another VM has that name on the host that was to take the guest."""

    kind = "name-taken"


class NotSaved(HandoffFailed):
    """The daemon can't write its state file, without which no guest changes its owner."""

    kind = "not-saved"


class CommandRefused(Problem):
    """The command must not be sent now. Not a byte of it was."""


class NoSuchCommand(CommandRefused):
    """The table has no command of that name."""

    kind = "no-such-command"
    status = Exit.USAGE


class InvalidArguments(CommandRefused):
    """An argument is missing, or of a wrong type."""

    kind = "invalid-arguments"
    status = Exit.USAGE


class VersionTooLow(CommandRefused):
    """The command is newer than the version that was agreed with the guest."""

    kind = "version-too-low"
    status = Exit.REFUSED_BY_VERSION

    @property
    def needed(self) -> Optional[int]:
        """The lowest version at which the command may be sent."""
        return self.document.get("needed")

    @property
    def agreed(self) -> Optional[int]:
        """The version that was agreed."""
        return self.document.get("agreed")

    @property
    def guest_supports(self) -> Optional[int]:
        """The guest's highest version; None where it knows none."""
        return self.document.get("guest_supports")

    @property
    def host_supports(self) -> Optional[int]:
        """The host's highest version; None where it knows none."""
        return self.document.get("host_supports")

    @property
    def upgrade(self) -> Optional[str]:
        """Which side must be upgraded, ``"guest"``, ``"host"`` or ``"both"``; None where that would not help."""
        return self.document.get("upgrade")


class Disabled(CommandRefused):
    """The guest does not say that it carries the command out."""

    kind = "disabled"
    status = Exit.REFUSED_BY_CAPABILITY

    @property
    def want(self) -> Optional[str]:
        """Why: ``"off"`` by its configuration, ``"not-offered"`` by its agent, ``"unsaid"`` so far on this channel."""
        return self.document.get("want")


class Moving(CommandRefused):
    """The guest is just moving to another host."""

    kind = "moving"
    status = Exit.MOVED


class Unresponsive(CommandRefused):
    """The guest is connected and silent."""

    kind = "unresponsive"
    status = Exit.UNRESPONSIVE


class NotConnected(Unresponsive):
    """There is no channel to the guest."""

    kind = "not-connected"


class Congested(Unresponsive):
    """The guest does not read what it was sent before."""

    kind = "congested"


class Busy(Unresponsive):
    """Too many commands wait for the guest already."""

    kind = "busy"


_KINDS: dict[str, type[Problem]] = {
    each.kind: each
    for each in (
        NotAllowed, NoSuchGuest, Stopping, TimedOut, NoSuchCommand, InvalidArguments, VersionTooLow, Disabled, Unresponsive,
        NotConnected, Congested, Busy, Moved, Moving, HandoffOff, NoSuchPeer, UnreachablePeer, RefusedByPeer, WouldLose,
        InDoubt, NotAwaited, NotMoving, InvalidSession, NameTaken, NotSaved,
    )
}  # fmt: skip


def read_problem(document: object) -> Optional[Problem]:
    """The error that the problem document stands for; None where it is none, or of no type that a client can do with."""
    if not isinstance(document, dict):
        return None
    known = _KINDS.get(str(document.get("type")).removeprefix(NAMESPACE))
    detail = document.get("detail")
    return known(detail, document) if known and isinstance(detail, str) else None
