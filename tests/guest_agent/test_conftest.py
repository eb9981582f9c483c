"""The guard against commands does its work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "run",
    [
        lambda: subprocess.run(["true"], check=False),
        lambda: subprocess.run("true", shell=True, check=False),  # noqa: S602
        lambda: subprocess.run([sys.executable, "-V"], check=False),
        lambda: os.system("true"),  # noqa: S605
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
    ],
)
def test_a_test_that_runs_a_command_fails(run: object) -> None:
    with pytest.raises(pytest.fail.Exception, match="ran a command"):
        run()  # type: ignore[operator]
