"""Where the daemon and the operator's command meet unless they are told otherwise. Cheap to import."""

from __future__ import annotations

import os


def default_control() -> str:
    """Where the control socket of a daemon of this user is made, unless it was told otherwise."""
    places = control_places()
    return places[0] if os.environ.get("XDG_RUNTIME_DIR") else places[-1]


def control_places() -> tuple[str, ...]:
    """Every place where a daemon of this user may have it by default: that depends on the environment it was started in."""
    user = os.geteuid()
    if user == 0:
        return ("/run/vmaccord/control.sock",)
    import tempfile  # slow to import, and root does without

    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    return (
        os.path.join(runtime, "vmaccord", "control.sock"),
        os.path.join(tempfile.gettempdir(), f"vmaccord-{user}", "control.sock"),
    )
