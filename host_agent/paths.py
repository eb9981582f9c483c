"""Where the daemon and the operator's command meet unless they are told otherwise. Cheap to import."""

from __future__ import annotations

import os


def default_control() -> str:
    """Where the control socket of a daemon of this user is, unless it was told otherwise."""
    if os.geteuid() == 0:
        return "/run/vmaccord/control.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "vmaccord", "control.sock")
    import tempfile  # slow to import, and rarely needed

    return os.path.join(tempfile.gettempdir(), f"vmaccord-{os.geteuid()}", "control.sock")
