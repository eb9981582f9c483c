"""The cache: parts are made once for each content, seen whole or not at all, and may be made by two at once."""

from __future__ import annotations

import pathlib

import pytest

from host_agent.demo.vm import image


def test_a_part_is_made_once(tmp_path: pathlib.Path) -> None:
    part = tmp_path / "cache" / "part"
    made = []

    def make(directory: pathlib.Path) -> None:
        made.append(directory)
        (directory / "file").touch()

    assert image._cached(part, make) == image._cached(part, make) == part
    assert len(made) == 1
    assert (part / "file").exists()


def test_a_part_whose_making_fails_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    def make(directory: pathlib.Path) -> None:
        (directory / "half").touch()
        raise KeyError

    with pytest.raises(KeyError):
        image._cached(tmp_path / "part", make)
    assert not list(tmp_path.iterdir())


def test_of_two_that_make_a_part_at_once_the_first_wins(tmp_path: pathlib.Path) -> None:
    def make_slowly(directory: pathlib.Path) -> None:
        image._cached(tmp_path / "part", lambda other: (other / "first").touch())
        (directory / "second").touch()

    part = image._cached(tmp_path / "part", make_slowly)
    assert [path.name for path in part.iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_the_digest_tells_contents_and_their_boundaries_apart() -> None:
    digests = {image._digest(contents) for contents in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [])}
    assert len(digests) == 4


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.delenv("VMACCORD_VM_CACHE", raising=False)
    assert image.default_cache() == pathlib.Path("/caches/vmaccord")
    monkeypatch.setenv("VMACCORD_VM_CACHE", "/mine")
    assert image.default_cache() == pathlib.Path("/mine")
