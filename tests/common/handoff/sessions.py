"""Sessions for tests: those of the corpus, and any that a document can describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from common import messages
from common.catalogue import CATALOGUE, Direction
from common.handoff.members import Members
from common.handoff.spec0 import Spec0
from common.handoff.spec1 import FLOOR_LIMIT, Spec1
from common.handoff.spec2 import Spec2
from tests.common.samples import arguments_for

CORPUS = Path(__file__).parent / "corpus"

#: The documents that are read, and those that are refused, by name.
GOOD = sorted(path.stem for path in CORPUS.glob("*.json"))
HOSTILE = sorted(path.stem for path in CORPUS.glob("hostile/*.json"))

#: One valid example of every fact.
FACTS = {
    row.name: arguments_for(row)
    for row in CATALOGUE.rows
    if row.direction is Direction.TO_HOST and issubclass(row.message_class, messages.Fact)
}

_WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)
_NUMBERS = st.integers(0, 10**20)
_SPANS = st.floats(0, 31536000)
_INTERFACE = st.fixed_dictionaries(
    {"name": _WORDS, "hw": _WORDS, "inet": st.lists(_WORDS, max_size=2), "inet6": st.lists(_WORDS, max_size=2)}
)
_INTERFACES = st.lists(_INTERFACE, max_size=3)


def _fact(arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"arguments": arguments}, optional={"age_s": _SPANS})


_FACTS = st.fixed_dictionaries(
    {},
    optional={
        **{name: _fact(st.just(arguments)) for name, arguments in FACTS.items()},
        "active-user": _fact(st.builds(lambda name: {"name": name}, _WORDS)),
        "fqdn": _fact(st.builds(lambda fqdn: {"fqdn": fqdn}, _WORDS)),
        "network-interfaces": _fact(st.builds(lambda interfaces: {"interfaces": interfaces}, _INTERFACES)),
    },
)
_COMMAND = st.fixed_dictionaries({"reply_id": _WORDS, "name": _WORDS, "left_s": _SPANS})
_CARRIED: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids().map(str),
    "name": _WORDS,
    "facts": _FACTS,
    "advertised": _NUMBERS,
    "agent_id": _WORDS,
    "commands": st.lists(_COMMAND, max_size=3, unique_by=lambda each: str(each["reply_id"])),
    "reply_id_floor": st.integers(0, FLOOR_LIMIT),
    "frozen": st.fixed_dictionaries({"mountpoints": st.lists(_WORDS, max_size=2), "thaws_in_s": _SPANS}),
    "reference": st.fixed_dictionaries({}, optional={"api_version_hint": _NUMBERS, "guest_ips": _WORDS}),
}
_COUNTERS = st.dictionaries(_WORDS, st.one_of(_NUMBERS, st.dictionaries(_WORDS, _NUMBERS, max_size=2)), max_size=3)


def _specs(spec: type[Members], **members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=members).map(spec.from_members)


SPECS0 = _specs(
    Spec0,
    guestAgentAPIVersion=_NUMBERS,
    username=_WORDS,
    guestIPs=_WORDS,
    guestFQDN=_WORDS,
    netIfaces=_INTERFACES,
)
SPECS1 = _specs(Spec1, **_CARRIED)
SPECS2 = _specs(
    Spec2,
    **_CARRIED,
    capabilities=st.fixed_dictionaries(
        {"commands": st.dictionaries(_WORDS, st.booleans(), max_size=2), "features": st.lists(_WORDS, max_size=2)}
    ),
    counters=_COUNTERS,
    version_changes=st.lists(
        st.fixed_dictionaries({"ago_s": _SPANS, "old": _NUMBERS, "new": _NUMBERS, "reason": _WORDS}), max_size=2
    ),
)
ANY_SPEC = st.one_of(SPECS0, SPECS1, SPECS2)


def document(name: str) -> bytes:
    """The document *name* of the corpus."""
    return (CORPUS / f"{name}.json").read_bytes()
