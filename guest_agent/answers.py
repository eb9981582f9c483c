"""Answers to commands: what became of one, how the host is told at the version in use, and which are kept for how long.

An *outcome* is what carrying out a command came to; an *answer* is an outcome on its way to the host that knows the command
by its reply id. How an answer is worded is chosen when it is sent: a host that knows no ``result`` and ``error`` is told by
the members that a completion had before there were these.

Two collections keep answers, each within bounds of number and size: the *outbox* those that no host has taken yet, the
*archive* those given last, to be given again to a host that asks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from common.messages import Code, Completion

#: How many answers the outbox has room for, and how large they may be together, as ``weight`` has it.
OUTBOX_LIMIT = 256
OUTBOX_WEIGHT = 1024 * 1024

#: The same of the archive, where the largest results are lost first, those up to ``SMALL`` never.
ARCHIVE_LIMIT = 256
ARCHIVE_WEIGHT = 1024 * 1024
SMALL = 4096

#: What the archive takes at most if all else is large, too: beyond that the oldest answers are forgotten.
ARCHIVE_BOUND = 2 * ARCHIVE_WEIGHT

#: What any value, and what any answer, takes beside the text in it, about, in bytes.
_VALUE_WEIGHT = 16
_ANSWER_WEIGHT = 256

#: So much of what went wrong is told, in characters; only what a peer made up is longer.
_PROBLEM_LENGTH = 20_000

#: The member that stands for a whole result.
LOST = "lost"

_TOO_LARGE = "what came of it was too large to be kept until now"


def weight(value: Any) -> int:
    """About how much memory the plain *value* takes, in bytes."""
    if isinstance(value, (str, bytes)):
        return _VALUE_WEIGHT + len(value)
    if isinstance(value, Mapping):
        return _VALUE_WEIGHT + sum(weight(key) + weight(member) for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return _VALUE_WEIGHT + sum(map(weight, value))
    return _VALUE_WEIGHT


class Outcome(NamedTuple):
    """What became of a command.

    :ivar problem: what went wrong, as a sentence without secrets; None: nothing did.
    :ivar result: what the host gets to know beside that.
    :ivar notes: further lines for the log, which are none of the host's business.
    :ivar code: why it failed, the value of a ``Code``; means nothing where nothing went wrong.
    """

    problem: Optional[str] = None
    result: Mapping[str, Any] = {}
    notes: Sequence[str] = ()
    code: str = Code.FAILED.value

    @classmethod
    def refused(cls, code: Code, problem: str) -> Outcome:
        """A command that was not begun."""
        return cls(problem, code=code.value)

    def for_host(self) -> Outcome:
        """What the host may know of it, in bounds."""
        problem = None if self.problem is None else self.problem[:_PROBLEM_LENGTH]
        return Outcome(problem, self.result, code=self.code)


class Answer(NamedTuple):
    """An outcome of the command called *command* that the host knows by *reply_id*."""

    command: str
    reply_id: str
    outcome: Outcome

    @property
    def weight(self) -> int:
        """About how much memory it takes, in bytes."""
        problem, result, _, _ = self.outcome
        return _ANSWER_WEIGHT + len(self.command) + len(self.reply_id) + len(problem or "") + weight(result)

    def completion(self, in_full: bool) -> Completion:
        """What the host is told.

        :param in_full: whether the version in use has ``result`` and ``error``.
        """
        problem, result, _, code = self.outcome
        done = problem is None
        if in_full:
            error = None if problem is None else {"code": code, "message": problem}
            return Completion(self.reply_id, done, dict(result) or None, error)
        return Completion(self.reply_id, done, more=result if problem is None else {**result, "reason": problem})

    def without_result(self, why: str = _TOO_LARGE) -> Answer:
        """The same without what came of the command, but for *why* that is so; whether it failed is still told."""
        if not self.outcome.result:
            return self
        return self._replace(outcome=self.outcome._replace(result={LOST: why}))


class Outbox:
    """Answers that no host has taken yet, in order."""

    def __init__(self) -> None:
        #: By identity: of two equal answers each is one.
        self._answers: dict[int, Answer] = {}
        self._weight = 0

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def full(self) -> bool:
        """Whether there are as many answers as there should be, or they are as large."""
        return len(self._answers) >= OUTBOX_LIMIT or self._weight >= OUTBOX_WEIGHT

    def holds_up(self, allowed: Callable[[str], bool]) -> bool:
        """Whether the answers alone that the host could take now are as many, or as large, as there should be.

        :param allowed: whether the answer to a command of that name may be sent.
        """
        if not self.full:
            return False
        sendable = [each for each in self._answers.values() if allowed(each.command)]
        return len(sendable) >= OUTBOX_LIMIT or sum(each.weight for each in sendable) >= OUTBOX_WEIGHT

    def add(self, answer: Answer, *, sendable: bool) -> None:
        """Keep *answer*, unless this very one is here already: the host will get it.

        :param sendable: whether the host could take it now. Else nobody knows for how long it stays: no large result does.
        """
        if id(answer) in self._answers:
            return
        if not sendable and self._weight + answer.weight > OUTBOX_WEIGHT:
            answer = answer.without_result()
        self._answers[id(answer)] = answer
        self._weight += answer.weight

    def first(self, allowed: Callable[[str], bool]) -> Optional[Answer]:
        """The first answer that may be sent; no other one waits for those that may not."""
        return next((each for each in self._answers.values() if allowed(each.command)), None)

    def remove(self, answer: Answer) -> None:
        """*answer* has been taken."""
        del self._answers[id(answer)]
        self._weight -= answer.weight


class Archive:
    """The answers given last."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], Answer] = {}
        #: The weights of the results that can be lost.
        self._large: dict[tuple[str, str], int] = {}
        self._weight = 0

    def find(self, command: str, reply_id: str) -> Optional[Answer]:
        """The answer that was given, if it is still known."""
        return self._answers.get((command, reply_id))

    def add(self, answer: Answer) -> None:
        """Keep *answer*; the oldest ones, and the largest results, make room."""
        key = answer.command, answer.reply_id
        self._forget(key)
        self._answers[key] = answer
        self._weight += answer.weight
        size = weight(answer.outcome.result)
        if size > SMALL:
            self._large[key] = size
        while self._weight > ARCHIVE_WEIGHT and self._large:
            self._strip(max(self._large, key=self._large.__getitem__))
        while len(self._answers) > ARCHIVE_LIMIT or (self._weight > ARCHIVE_BOUND and len(self._answers) > 1):
            self._forget(next(iter(self._answers)))

    def _strip(self, key: tuple[str, str]) -> None:
        """Lose a result; what became of the command stays known."""
        del self._large[key]
        whole = self._answers[key]
        self._answers[key] = bare = whole.without_result()
        self._weight += bare.weight - whole.weight

    def _forget(self, key: tuple[str, str]) -> None:
        self._large.pop(key, None)
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._weight -= answer.weight
