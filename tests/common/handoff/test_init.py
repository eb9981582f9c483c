"""``common.handoff`` itself."""

from __future__ import annotations

import common.handoff


def test_what_is_said_to_be_public_is_there() -> None:
    assert common.handoff.__all__ == sorted(common.handoff.__all__)
    assert all(hasattr(common.handoff, name) for name in common.handoff.__all__)
