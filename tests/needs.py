"""What tests need of the machine that they run on: the checkout, and things that may be missing."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest

from host_agent.demo.vm import packages

ROOT = pathlib.Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def or_left_out() -> Iterator[None]:
    """Leave the test out where something can't be had; in CI that is a failure."""
    try:
        yield
    except packages.Unavailable as missing:
        reason = f"left out: {missing}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
