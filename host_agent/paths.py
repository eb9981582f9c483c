"""Where the daemon and the operator's command meet unless they are told otherwise. Cheap to import."""

from __future__ import annotations

import os
import pwd
from typing import Optional

#: As whom the packages' service runs the daemon.
SERVICE_USER = "vmaccord"

#: Where the service has its control socket, and a daemon that root started.
SERVICE_CONTROL = "/run/vmaccord/control.sock"


def default_control() -> str:
    """Where the control socket of a daemon of this user is made, unless it was told otherwise."""
    places = control_places()
    return places[0] if os.environ.get("XDG_RUNTIME_DIR") else places[-1]


def control_places() -> tuple[str, ...]:
    """Every place where a daemon of this user may have it by default: that depends on the environment it was started in."""
    user = os.geteuid()
    if user == 0:
        return (SERVICE_CONTROL,)
    import tempfile  # slow to import, and root does without

    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    return (
        os.path.join(runtime, "vmaccord", "control.sock"),
        os.path.join(tempfile.gettempdir(), f"vmaccord-{user}", "control.sock"),
    )


def places_to_look() -> tuple[str, ...]:
    """Every place where this user finds a daemon by default: one of its own, else the service, which may let it in."""
    return tuple(dict.fromkeys((*control_places(), SERVICE_CONTROL)))


def service_user() -> Optional[int]:
    """The number of the user as whom a service runs the daemon; None where there is no such user."""
    try:
        return pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return None
