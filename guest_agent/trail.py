"""What an unexpected error was and the way to it, without its text: that may quote a password."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Optional


def trail(error: BaseException) -> str:
    """The error's class and the places that it passed, the innermost last."""
    return f"{type(error).__name__} at {', '.join(_places(error.__traceback__))}"


def _places(traceback: Optional[TracebackType]) -> Iterator[str]:
    while traceback is not None:
        yield f"{os.path.basename(traceback.tb_frame.f_code.co_filename)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
