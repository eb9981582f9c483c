"""What the tests of the host agent share: a short place for sockets, and a check that no descriptor is left open."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from .parts import DaemonProcess


def open_descriptors() -> dict[str, str]:
    found = {}
    for each in os.listdir("/proc/self/fd"):
        try:
            found[each] = os.readlink(f"/proc/self/fd/{each}")
        except FileNotFoundError:
            continue
    return found


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    """Fails a test that leaves a socket, a file or an inotify instance open; what it leaves to the collector is an error.

    The null device is what capturing of output opens when it likes.
    """
    before = open_descriptors()
    # What was there before need not be looked through after every test.
    gc.freeze()
    yield
    gc.collect()
    left = {each: target for each, target in open_descriptors().items() if each not in before and target != os.devnull}
    assert not left, f"descriptors left open: {left}"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path is short enough for sockets in it."""
    directory = Path(tempfile.mkdtemp(prefix="va-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def start_daemon(place: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts the shipped daemon as a process that looks for guests in ``place/ports``."""
    started: list[DaemonProcess] = []

    def start(*arguments: str) -> DaemonProcess:
        usual = ("--config", os.devnull, "--directory", str(place / "ports"), "--control", str(place / "control.sock"))
        started.append(DaemonProcess(place, *usual, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()
