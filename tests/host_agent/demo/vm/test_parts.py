"""Parts are made once for each content, seen whole or not at all, and may be made by two at once."""

from __future__ import annotations

import pathlib

import pytest

from host_agent.demo.vm import parts


def test_a_part_is_made_once(tmp_path: pathlib.Path) -> None:
    part = tmp_path / "cache" / "part"
    made = []

    def make(directory: pathlib.Path) -> None:
        made.append(directory)
        (directory / "file").touch()

    assert parts.cached(part, make) == parts.cached(part, make) == part
    assert len(made) == 1
    assert (part / "file").exists()


def test_a_part_whose_making_fails_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    def make(directory: pathlib.Path) -> None:
        (directory / "half").touch()
        raise KeyError

    with pytest.raises(KeyError):
        parts.cached(tmp_path / "part", make)
    assert not list(tmp_path.iterdir())


def test_of_two_that_make_a_part_at_once_the_first_wins(tmp_path: pathlib.Path) -> None:
    def make_slowly(directory: pathlib.Path) -> None:
        parts.cached(tmp_path / "part", lambda other: (other / "first").touch())
        (directory / "second").touch()

    part = parts.cached(tmp_path / "part", make_slowly)
    assert [path.name for path in part.iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_a_part_that_can_t_be_put_in_its_place_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        parts.cached(tmp_path / "part", lambda directory: directory.rmdir())


def test_the_digest_tells_contents_and_their_boundaries_apart() -> None:
    digests = {parts.digest(contents) for contents in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [])}
    assert len(digests) == 4
