"""The same question about many guests, a few at a time: an answer that takes long holds up no other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Callable, Optional, TypeVar, Union

T = TypeVar("T")

#: So many questions are open at once.
WIDTH = 16


def ask_all(names: Sequence[str], ask: Callable[[str], T], width: int = WIDTH) -> Iterator[tuple[str, Union[T, Exception]]]:
    """Ask about each of *names*; gives each with its answer, or with the error that *ask* raised, as they come in."""
    waiting: queue.SimpleQueue[Optional[str]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, Union[T, Exception]]] = queue.SimpleQueue()

    def work() -> None:
        while (name := waiting.get()) is not None:
            try:
                answers.put((name, ask(name)))
            except Exception as error:  # noqa: BLE001 - it is the answer
                answers.put((name, error))

    for name in names:
        waiting.put(name)
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(width, len(names)))]
    for thread in threads:
        waiting.put(None)
        thread.start()
    for _ in names:
        yield answers.get()
    for thread in threads:
        thread.join()
