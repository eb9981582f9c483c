"""How long a completion is waited for: what may be asked for, and what counts where nobody says. Pure.

Both sides of the control API go by it: the daemon that waits, and the client that waits for the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.catalogue import Row

#: What may be asked for, in seconds.
SHORTEST, LONGEST = 0.1, 3600.0

#: What counts for most commands where nobody says, in seconds.
USUAL = 30.0

#: So much longer than a command may take in the guest is its completion waited for, in seconds …
MARGIN = 10.0

#: … and however long that is, not for much more than a day.
LIMIT = 86_400.0


def by_default(row: Row, arguments: Mapping[str, Any]) -> float:
    """How long is waited for the completion of the command *row* where nobody says, in seconds.

    :param arguments: as somebody wrote them; what is no number of seconds is none.
    """
    own = arguments.get(row.duration) if isinstance(row.duration, str) else row.duration
    if isinstance(own, (int, float)) and not isinstance(own, bool) and own > 0:
        return min(own, LIMIT) + MARGIN
    return USUAL
