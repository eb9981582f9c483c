"""Who is logged in."""

from __future__ import annotations

from common.messages import ActiveUser

#: What hosts understand as: nobody.
NOBODY = "None"


def active_user() -> ActiveUser:
    """Who has been logged in longest, or nobody."""
    import psutil

    sessions = sorted(psutil.users(), key=lambda session: session.started)
    return ActiveUser(name=sessions[0].name if sessions else NOBODY)
