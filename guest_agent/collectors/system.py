"""The operating system: kernel and distribution."""

from __future__ import annotations

import os
from typing import Optional

from common.messages import OsInfo, OsVersion

from .files import read_text

#: Where os-release may be; the first one that is there counts.
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")

#: What a backslash takes its meaning from between double quotes, besides another one.
_ESCAPED = ('"', "$", "`")


def os_version() -> OsVersion:
    """The kernel's release."""
    return OsVersion(version=os.uname().release)


def os_info(root: str) -> OsInfo:
    """The distribution, as it calls itself; empty where it does not say."""
    release = _os_release(root)
    kernel = os.uname()
    return OsInfo(
        version=release.get("VERSION_ID", ""),
        distribution=release.get("NAME", ""),
        codename=release.get("VERSION_CODENAME", ""),
        arch=kernel.machine,
        type="linux",
        kernel=kernel.release,
    )


def _os_release(root: str) -> dict[str, str]:
    for path in OS_RELEASE:
        try:
            return parse_os_release(read_text(root, path))
        except OSError:
            continue
    return {}


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file; a line that is none, or is not quoted as that format wants it, is left out."""
    values = {}
    for line in text.splitlines():
        key, separator, quoted = line.strip().partition("=")
        value = _unquoted(quoted)
        if separator and not key.startswith("#") and value is not None:
            values[key] = value
    return values


def _unquoted(text: str) -> Optional[str]:
    """What *text* says, as a whole in quotes or without any; None where it is neither."""
    if not text.startswith(("'", '"')):
        return None if any(each.isspace() or each in "'\"\\" for each in text) else text
    quote, value = text[0], text[1:-1]
    if len(text) < len('""') or not text.endswith(quote):
        return None
    return _unescaped(value) if quote == '"' else value


def _unescaped(text: str) -> str:
    parts = text.split("\\\\")
    for character in _ESCAPED:
        parts = [part.replace(f"\\{character}", character) for part in parts]
    return "\\".join(parts)
