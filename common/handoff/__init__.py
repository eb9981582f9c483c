"""What a hand-off carries from host to host, and how: documents and frames, without I/O and without a clock.

A hand-off carries what negotiation can't bring back: commands in flight, the floor of reply ids, what is frozen, the last
facts with their age. Its rules:

- What was agreed is never carried as a fact: the destination agrees afresh.
- No secret is in a document: of a command there is its id and its name, never its arguments.
- Times are ages and spans, in seconds: two hosts have no clock in common.
- Whatever comes from a peer or from a file is hostile until it was checked, and costs a bounded amount until then.
- Each session spec is a type of its own. A spec that shipped never changes its meaning; going down says what it loses.

Way in: ``documents`` (the container), ``spec0`` to ``spec2`` (what it holds), ``conversions`` (from one to the other),
``files`` (a document on its own), ``frames`` and ``greetings`` (what two hosts say to each other), ``steps`` (in which
order), ``source`` and ``destination`` (the two sides; with whose guest it is at any moment), ``window`` and ``refusals``.
"""

from . import conversions, destination, documents, files, frames, greetings, source, steps, window
from .conversions import convert
from .documents import Spec
from .errors import HandoffError, InvalidDocument, InvalidFile, InvalidFrame, InvalidPayload, UnknownSpec, WouldLose
from .refusals import Refusal, Refused
from .spec0 import Spec0
from .spec1 import Spec1
from .spec2 import Spec2

__all__ = [
    "HandoffError",
    "InvalidDocument",
    "InvalidFile",
    "InvalidFrame",
    "InvalidPayload",
    "Refusal",
    "Refused",
    "Spec",
    "Spec0",
    "Spec1",
    "Spec2",
    "UnknownSpec",
    "WouldLose",
    "conversions",
    "convert",
    "destination",
    "documents",
    "files",
    "frames",
    "greetings",
    "source",
    "steps",
    "window",
]
