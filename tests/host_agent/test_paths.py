from __future__ import annotations

import os
import tempfile
from typing import Optional

import pytest

from host_agent import paths


def test_root_has_it_in_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert paths.default_control() == "/run/vmaccord/control.sock"


def test_a_user_has_it_in_the_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths.default_control() == "/run/user/1000/vmaccord/control.sock"


def test_a_user_without_a_runtime_directory_has_it_in_a_directory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert paths.default_control() == f"{tempfile.gettempdir()}/vmaccord-1000/control.sock"


@pytest.mark.parametrize("runtime", [None, "", "/run/user/1000", "/other"])
def test_a_user_looks_at_the_places_of_every_environment(monkeypatch: pytest.MonkeyPatch, runtime: Optional[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if runtime is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert paths.control_places() == (
        f"{runtime or '/run/user/1000'}/vmaccord/control.sock",
        f"{tempfile.gettempdir()}/vmaccord-1000/control.sock",
    )
    assert paths.default_control() in paths.control_places()


def test_a_user_also_finds_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert paths.places_to_look() == (*paths.control_places(), "/run/vmaccord/control.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert paths.places_to_look() == ("/run/vmaccord/control.sock",)


def test_the_services_user_is_known_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "SERVICE_USER", "root")
    assert paths.service_user() == 0
    monkeypatch.setattr(paths, "SERVICE_USER", "nobody-of-that-name")
    assert paths.service_user() is None
