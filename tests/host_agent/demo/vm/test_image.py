"""Where images are kept, and what is said where none can be built; building one is tested on VMs."""

from __future__ import annotations

import pathlib

import pytest

from host_agent.demo.vm import image, packages


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.delenv("VMACCORD_VM_CACHE", raising=False)
    assert image.default_cache() == pathlib.Path("/caches/vmaccord")
    monkeypatch.setenv("VMACCORD_VM_CACHE", "/mine")
    assert image.default_cache() == pathlib.Path("/mine")


def test_a_pip_that_fails_is_said_in_one_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(packages.Unavailable, match=r"^pip wheel failed \(.+\): give .* a pip that reaches an index$"):
        image._build_wheel({"README.md": b"nothing to build"}, tmp_path)
