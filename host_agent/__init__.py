"""The daemon on the host: it finds the guests' ports, agrees on a version with each guest and tells what it knows of them.

One asyncio loop. Per guest: callbacks and one timer, no task and no thread, so that a guest costs what it sends and no
guest notices another. Everything a guest says is hostile until ``common`` has checked it.

Way in: ``main`` (arguments, exit status), then ``daemon`` (what starts and stops), ``channel`` (bytes in and out) and
``guest`` (what is known). The operator's side: ``cli`` on top of ``client``.
"""

from __future__ import annotations


def release() -> str:
    """The version of the installed product; ``unknown`` where it runs without its metadata."""
    from importlib import metadata  # slow to import, and only some callers need it

    try:
        return metadata.version("vmaccord")
    except metadata.PackageNotFoundError:
        return "unknown"
