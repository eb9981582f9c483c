"""Fixtures: packages are built, and a Debian is made, once a session; each test installs the packages anew."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from host_agent.demo.vm import image
from tests.needs import or_left_out

from . import parts

#: A release after that of the sources.
NEXT = "999.1"


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The sources as they are now, whoever may edit them meanwhile."""
    return parts.copy_sources(parts.ROOT, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def built(sources: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory of the packages."""
    with or_left_out():
        return parts.build(tmp_path_factory.mktemp("built"), tree=sources)


@pytest.fixture(scope="session")
def built_next(sources: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory of the packages of the release after."""
    with or_left_out():
        return parts.build(tmp_path_factory.mktemp("next"), "--deb-only", "--release", NEXT, tree=sources)


@pytest.fixture(scope="session")
def fresh_debian(built: pathlib.Path) -> Iterator[parts.Debian]:
    """A fresh Debian, in a directory with a short path: that of a socket is limited."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vmaccord-"))
    try:
        with or_left_out():
            yield parts.make_debian(directory / "root", sorted(built.glob("*.deb")), image.default_cache())
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def used_debian(built: pathlib.Path, fresh_debian: parts.Debian) -> parts.Debian:
    """A Debian in which our packages were, and are no more; what they depend on came from Debian, and stays."""
    fresh_debian.install(*built.glob("*.deb"))
    fresh_debian.purge()
    return fresh_debian


@pytest.fixture
def debian(built: pathlib.Path, used_debian: parts.Debian) -> Iterator[parts.Debian]:
    """A Debian with our packages."""
    used_debian.install(*built.glob("*.deb"))
    yield used_debian
    used_debian.purge()
