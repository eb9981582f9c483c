from __future__ import annotations

from importlib import metadata

import pytest

import host_agent


def test_the_release_is_that_of_the_installed_product() -> None:
    assert host_agent.release() == metadata.version("vmaccord")


def test_a_product_without_its_metadata_does_not_know_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert host_agent.release() == "unknown"
