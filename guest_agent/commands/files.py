"""Opening files that the host names: below directories that the configuration names, and without leaving these.

A path is walked down one step at a time, each one from the directory that the step before has got hold of. No symbolic link
is followed anywhere on the way, not even to the directories that the configuration names, and no ``..``; so whatever others
rename, link or put in place meanwhile, the walk goes down from where it began, or it fails. What a step finds is looked at
before it is opened: nothing but a regular file ever is, since opening alone can block at a pipe and set a device going; and
none that has another name, under which it may be somewhere else.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple, Optional

from guest_agent.processes import one_line

from . import CommandFailed

#: How much of a file one message carries, in bytes.
PIECE_LIMIT = 256 * 1024

#: No piece begins further behind; the kernel can't count much further, and no file is nearly as long.
OFFSET_LIMIT = 2**62

#: How often a file is looked for and made that others make and take away at the same time.
_ATTEMPTS = 100

#: Nobody but its owner has to do with a file that is made.
_MODE = 0o600


class Area(NamedTuple):
    """Where files may be opened.

    :ivar root: where the machine's file system begins.
    :ivar directories: absolute paths as the machine's users see them; what is below one of these may be opened.
    :ivar setting: what the configuration calls these directories.
    """

    root: str
    directories: Sequence[str]
    setting: str

    def why_closed(self) -> Optional[str]:
        """Why nothing in it can be opened, or not everything, in a sentence; None where all can."""
        if not self.directories:
            return f"no directory is configured for it; name one in {self.setting} in [files]"
        try:
            for directory in self.directories:
                with _Walk(self.root) as walk:
                    walk.enter(_steps(directory))
        except CommandFailed as failure:
            return f"{failure}; correct {self.setting} in [files]"
        return None

    @contextlib.contextmanager
    def opened(self, path: str, flags: int) -> Iterator[int]:
        """A descriptor of the regular file *path*, for as long as the context lasts.

        :param flags: as of ``os.open``; with ``O_CREAT`` the file is made if it does not exist.
        :raises CommandFailed: it may not or can't be opened, or what the context does with it fails.
        """
        steps = _steps(path)
        if not any(_is_below(steps, _steps(directory)) for directory in self.directories):
            why = f"{one_line(path)} is not below a directory that {self.setting} in [files] names; name one there"
            raise CommandFailed.invalid(why)
        with _Walk(self.root) as walk:
            walk.enter(steps[:-1])
            descriptor = walk.open(steps[-1], flags)
        try:
            yield descriptor
        except OSError as error:
            raise CommandFailed(f"{one_line(path)}: {error.strerror}") from None
        finally:
            os.close(descriptor)


def check_offset(offset: int) -> None:
    """See that a piece of a file can begin there.

    :raises CommandFailed: it can't.
    """
    if offset > OFFSET_LIMIT:
        raise CommandFailed.invalid("no file reaches as far as that offset; give a smaller one")


def _steps(path: str) -> list[str]:
    """The names on the way down to *path*.

    :raises CommandFailed: it is not absolute, or would go upwards.
    """
    steps = [step for step in path.split("/") if step not in ("", ".")]
    if not path.startswith("/") or ".." in steps:
        raise CommandFailed.invalid(f"{one_line(path)} is no absolute path without ..; give it from / on")
    return steps


def _is_below(steps: Sequence[str], directory: Sequence[str]) -> bool:
    return len(steps) > len(directory) and steps[: len(directory)] == directory


class _Walk:
    """A way down through directories, from *root* on; a context that lets go of the one that was reached."""

    def __init__(self, root: str) -> None:
        self._path = ""
        self._here = os.open(root, os.O_PATH | os.O_DIRECTORY)

    def __enter__(self) -> _Walk:
        """It has begun already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        os.close(self._here)

    def enter(self, steps: Sequence[str]) -> None:
        """Go down through these directories.

        :raises CommandFailed: one of them is none, or can't be entered.
        """
        for step in steps:
            with self._failing_at(step):
                found = self._find(step, stat.S_ISDIR, "no directory")
            os.close(self._here)
            self._here, self._path = found, self._path_of(step)

    def open(self, name: str, flags: int) -> int:
        """Open the regular file *name*, or make it.

        :raises CommandFailed: it is none, or can't be opened.
        """
        with self._failing_at(name):
            for _ in range(_ATTEMPTS):
                try:
                    return self._open_existing(name, flags & ~os.O_CREAT)
                except FileNotFoundError:
                    if not flags & os.O_CREAT:
                        raise
                with contextlib.suppress(FileExistsError):
                    return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW, _MODE, dir_fd=self._here)
        raise CommandFailed(f"{self._path_of(name)} is made and taken away all the time; try again")

    def _open_existing(self, name: str, flags: int) -> int:
        found = self._find(name, stat.S_ISREG, "no regular file")
        try:
            if os.fstat(found).st_nlink > 1:
                why = "has more than one name (hard links), and may be a file from elsewhere; put a copy in its place"
                raise CommandFailed(f"{self._path_of(name)} {why}")
            return os.open(f"/proc/self/fd/{found}", flags | os.O_NONBLOCK)
        finally:
            os.close(found)

    def _find(self, name: str, is_wanted: Callable[[int], bool], otherwise: str) -> int:
        """Get hold of what *name* is, which opens nothing.

        :raises CommandFailed: it is not what is wanted.
        :raises OSError: there is no such thing, or no way to it.
        """
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._here)
        mode = os.fstat(found).st_mode
        if is_wanted(mode):
            return found
        os.close(found)
        what = "a symbolic link, and none is followed" if stat.S_ISLNK(mode) else otherwise
        raise CommandFailed(f"{self._path_of(name)} is {what}")

    def _path_of(self, name: str) -> str:
        return f"{self._path}/{one_line(name)}"

    @contextlib.contextmanager
    def _failing_at(self, name: str) -> Iterator[None]:
        """Say of what can't be opened where it is."""
        try:
            yield
        except OSError as error:
            raise CommandFailed(f"{self._path_of(name)}: {error.strerror}") from None
        except ValueError:  # NUL, or a character that no name on this machine can have
            raise CommandFailed.invalid(f"{self._path_of(name)} can't be the name of a file") from None
