"""Who is logged in."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from guest_agent.collectors.users import active_user


def test_who_has_been_logged_in_longest_is_the_active_user(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [SimpleNamespace(name="bob", started=200.0), SimpleNamespace(name="alice", started=100.0)]
    monkeypatch.setattr(psutil, "users", lambda: sessions)
    assert active_user().name == "alice"


def test_nobody_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "users", lambda: [])
    assert active_user().name == "None"


def test_this_machine_can_be_asked() -> None:
    assert active_user().name
