"""What is written from the tables of settings: the default configuration files, and the man pages' lists of options.

In a configuration file every option is explained in place, and only those are set that depend on where a service has its
files. Run this in the top of a source tree after a table has changed; a test says when that was forgotten.
"""

from __future__ import annotations

import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

from common import settings
from common.settings import Setting
from guest_agent import options as guest
from host_agent import config as host

_WIDTH = 100

_HEAD = """\
Configuration of {program}, explained in {program}.conf(5). Each option stands here with its default, behind a "#".
"{program} --show-config" prints what counts in the end."""

_GUEST_HEAD = """\
Rather than editing this file, drop another one into guest.conf.d: *.conf are read after it, in the order of their names.
After a change: systemctl reload vmaccord-guest-agent."""

_HOST_HEAD = """\
Rather than editing this file, drop another one into host.conf.d: *.conf are read after it, in the order of their names.
After a change: systemctl reload vmaccord-host-agent; its log says what waits for a restart."""

#: What sections other than the main one are about.
_SECTIONS = {
    "periods": ['How often facts are looked at; "never" leaves one out, whoever asks for it.'],
    "commands": ["What the host may ask this VM to do."],
    "hooks": ["Programs of this VM that run around a migration or a hibernation, and around freezing."],
    "files": ["What of this VM the host may read and write, where the commands for that are enabled."],
    "freeze": ["Freezing of this VM's file systems, for backups of its disks."],
    "limits": ["What one guest may cost this host, whatever runs in it. One that sends more is read from more slowly."],
    "handoff": [
        "Handing what is known of a VM to the host that it moves to; off unless an address or a peer is named here."
    ],
}

#: Where a service has what other daemons have elsewhere: the unit sees to it that it is there by default.
_HOST_PLACES = {"control": "/run/vmaccord/control.sock"}

#: What the package sets, because only it knows the place.
_HOST_SET = {"state": "/var/lib/vmaccord/facts.sqlite"}


def files() -> dict[str, str]:
    """The text of each file that is written from the tables, by its path below this directory."""
    guest_sections = settings.by_section(guest.SETTINGS, guest.SECTION)
    host_sections = settings.by_section(host.SETTINGS, host.SECTION)
    written = {
        "etc/guest.conf": _file(_head("vmaccord-guest", _GUEST_HEAD), guest_sections, {}, {}),
        "etc/host.conf": _file(_head("vmaccord-host", _HOST_HEAD), host_sections, _HOST_PLACES, _HOST_SET),
    }
    for section, members in (*guest_sections.items(), *host_sections.items()):
        written[f"man/settings/{section}.rst"] = "\n".join(map(_entry, members))
    return written


# ---- Configuration files ----


def _head(program: str, more: str) -> str:
    return _comment(f"{_HEAD.format(program=program)} {more}")


def _file(
    head: str, sections: Mapping[str, Sequence[Setting]], defaults: Mapping[str, str], chosen: Mapping[str, str]
) -> str:
    blocks = [head]
    for section, members in sections.items():
        blocks.append("\n".join([*map(_comment, _SECTIONS.get(section, ())), f"[{section}]"]))
        for setting in members:
            set_here = [f"{setting.name} = {chosen[setting.name]}"] if setting.name in chosen else []
            blocks.append("\n".join([*_explanation(setting), *_default(setting, defaults.get(setting.name)), *set_here]))
    return "\n\n".join(blocks) + "\n"


def _explanation(setting: Setting) -> Iterator[str]:
    """What it means and what it may be."""
    yield _comment(f"{setting.help[0].upper()}{setting.help[1:]}.")
    many = ("; any number of them" + ("" if setting.words else ", each on a line of its own")) if setting.repeated else ""
    yield _comment(f"Allowed: {setting.allowed}{many}.")


def _default(setting: Setting, instead: Optional[str]) -> Iterator[str]:
    text = instead or ("" if setting.default is None else setting.format(setting.default))
    first, *others = text.splitlines() or [""]
    yield f"#{setting.name} = {first}".rstrip()
    yield from (f"#{line}" for line in others)


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


# ---- Man pages ----


def _entry(setting: Setting) -> str:
    """One setting as an entry of a definition list."""
    several = "; may have several values" if setting.repeated else ""
    text = f"{settings.describe(setting)}. Allowed: {setting.allowed}{several}."
    escaped = re.sub(r"[*`|_\\]", r"\\\g<0>", f"{text[0].upper()}{text[1:]}")
    return f"**{setting.name}**\n    {escaped}\n"


if __name__ == "__main__":
    for name, text in files().items():
        path = pathlib.Path(__file__).parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
