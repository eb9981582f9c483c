"""The operating system: kernel and distribution."""

from __future__ import annotations

import os
import shlex

from common.messages import OsInfo, OsVersion

from .files import read_text

#: Where os-release may be; the first one that is there counts.
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")


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
    """The assignments of an os-release file; a line that a shell would not take as one is left out."""
    values = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        if separator and not key.startswith("#") and len(words) <= 1:
            values[key] = "".join(words)
    return values
