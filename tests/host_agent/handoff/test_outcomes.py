from __future__ import annotations

import pytest

from host_agent.handoff.outcomes import HandoffFailed


def test_a_failure_says_what_to_do_to_people_and_what_happened_to_programs() -> None:
    with pytest.raises(HandoffFailed, match=r"^try again$") as failure:
        raise HandoffFailed("in-doubt", "try again", to="b")
    assert (failure.value.kind, failure.value.text, failure.value.members) == ("in-doubt", "try again", {"to": "b"})
