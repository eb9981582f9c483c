"""Parts of images, kept by content: what a part is made of is in its name, so a part never changes and is never stale.

A part is built in a directory of its own and then renamed, so that half a part is never seen, and of two builders at once
one simply wins.
"""

from __future__ import annotations

import hashlib
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Callable


def cached(part: pathlib.Path, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """*part*, built by *make* in a directory of another name where it does not exist yet."""
    if part.exists():
        return part
    part.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".building-") as workplace:
        built = pathlib.Path(workplace) / part.name
        built.mkdir()
        make(built)
        try:
            built.rename(part)
        except OSError:
            if not part.exists():
                raise
    return part


def digest(contents: Iterable[bytes]) -> str:
    """A short name for *contents*, in which also their boundaries count."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(f"{len(content)}:".encode() + content)
    return whole.hexdigest()[:16]


def source(*files: str) -> bytes:
    """The builder's own code: a part that another builder made is another part."""
    return b"".join(pathlib.Path(file).read_bytes() for file in files)
