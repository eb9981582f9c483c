"""Gets libvirt's Python bindings into the Python that runs it: ``python -m tests.get_libvirt``.

They exist as source only, and what they are built with belongs to the machine; root gets that installed on Debian. Where
they can't be had, it is said, and the tests that need them are left out.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from host_agent.demo.vm import packages

#: As ``vmaccord[libvirt]`` has it.
BINDINGS = "libvirt-python>=9.0"


def main() -> int:
    """Get them; returns the exit status, which is 0 also where they can't be had."""
    if importlib.util.find_spec("libvirt") is None:
        try:
            _build()
        except (packages.Unavailable, subprocess.CalledProcessError) as problem:
            print(f"tests of libvirt are left out: {problem}", file=sys.stderr)
    return 0


def _build() -> None:
    packages.program("pkg-config", "pkg-config")
    packages.program("cc", "gcc")
    if subprocess.run(["pkg-config", "--exists", "libvirt"], check=False).returncode:
        packages.install("libvirt-dev")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", BINDINGS], check=True, timeout=600
    )


if __name__ == "__main__":
    sys.exit(main())
