"""Settings: one table per program says every key once, for the command line, the INI file and the documentation.

What counts, from the strongest: the command line, the configuration file, the default. A file is read by whoever may do
I/O; its text comes in here. An unknown key or a bad value is an error that names file, section, key and what is allowed.
"""

from __future__ import annotations

import argparse
import configparser
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from . import versions
from .versions import Version

#: A configuration file is not larger than this, in bytes.
FILE_LIMIT = 1024 * 1024

#: The spans of time that a program can keep to, in seconds: a shorter one keeps it busy with nothing else, and the system's
#: calls that wait can't express every longer one. A year is more than anybody waits.
SHORTEST, LONGEST = 0.1, 365 * 86400.0

LOG_LEVELS = ("error", "warning", "info", "debug")

_COMMENTS = ("#", ";")

#: So much of a wrong line is quoted, in characters.
_QUOTED = 60


class SettingsError(Exception):
    """A configuration can't be used; the text is one sentence for the person who wrote it."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key.

    :ivar name: the key in the file; with ``--`` before it the option.
    :ivar read: turns the text into a value or raises ValueError.
    :ivar allowed: what *read* takes, as a noun phrase for an error and the help.
    :ivar default: the value (not text) where nothing is said; for a repeated one a tuple.
    :ivar show: turns a value back into text.
    :ivar repeated: an option that may be given more than once; in the file its values stand on lines of their own.
    :ivar needed: for a repeated one: there must be a value.
    :ivar words: for a repeated one: values may also stand on one line, with spaces or commas between them.
    :ivar section: its section of the file; empty for the program's main one. Only settings of that one are options too.
    """

    name: str
    help: str
    read: Callable[[str], Any]
    allowed: str
    default: Any
    metavar: str
    show: Callable[[Any], str] = str
    repeated: bool = False
    needed: bool = False
    words: bool = False
    section: str = ""

    @property
    def attribute(self) -> str:
        """The name by which a program reads the value."""
        return "_".join(part.replace("-", "_") for part in (self.section, self.name) if part)

    def parse(self, text: str) -> Any:
        """The value that *text* (of a file, or of one use of the option) stands for.

        :raises ValueError: it stands for none.
        """
        if not self.repeated:
            if "\n" in text.strip():
                raise ValueError("more than one line")
            return self.read(text.strip())
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        values = [word for line in lines for word in line.replace(",", " ").split()] if self.words else lines
        if any(value.startswith(_COMMENTS) for value in values):
            raise ValueError("a file could not say this: it would be a comment there")
        if self.needed and not values:
            raise ValueError("none")
        return tuple(self.read(value) for value in values)

    def format(self, value: Any) -> str:
        """*value* as a file would say it."""
        if not self.repeated:
            return self.show(value)
        return "\n".join(("", *(f"    {self.show(each)}" for each in value)))


class Said(NamedTuple):
    """A value that somebody gave.

    :ivar where: the file with its section and key, or the option: the beginning of an error about it.
    """

    value: Any
    where: str


def add_options(parser: argparse.ArgumentParser, settings: Iterable[Setting]) -> None:
    """Give *parser* one option per setting of the main section."""
    for setting in settings:
        if setting.section:
            continue
        parser.add_argument(
            f"--{setting.name}",
            dest=setting.attribute,
            metavar=setting.metavar,
            action="append" if setting.repeated else "store",
            help=describe(setting).replace("%", "%%"),
        )


def resolve(
    settings: Sequence[Setting], options: argparse.Namespace, section: str, files: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """The effective values by attribute name.

    :param section: the name of the main section in a file.
    :param files: (path, text) of each configuration file; a later one counts more.
    :raises SettingsError: a file or an option is wrong.
    """
    values = {setting.attribute: setting.default for setting in settings}
    values.update((attribute, each.value) for attribute, each in said(settings, options, section, files).items())
    return values


def said(
    settings: Sequence[Setting], options: argparse.Namespace, section: str, files: Iterable[tuple[str, str]]
) -> dict[str, Said]:
    """What is given by the files and the options, by attribute name; what is left to the defaults is not in it.

    Parameters and errors are those of ``resolve``.
    """
    given: dict[str, Said] = {}
    for path, text in files:
        given.update(_from_file(settings, section, path, text))
    given.update(_from_options(settings, options))
    return given


def show(settings: Sequence[Setting], section: str, values: Mapping[str, Any]) -> str:
    """*values* as a configuration file that has the same effect.

    :param section: the name of the main section.
    """
    sections = by_section(settings, section)
    return "\n\n".join("\n".join(_shown(name, settings, values)) for name, settings in sections.items())


def by_section(settings: Iterable[Setting], section: str) -> dict[str, list[Setting]]:
    """The *settings* of each section, in their order.

    :param section: the name of the main section.
    """
    sections: dict[str, list[Setting]] = {}
    for setting in settings:
        sections.setdefault(setting.section or section, []).append(setting)
    return sections


def _shown(section: str, settings: Iterable[Setting], values: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{section}]"
    for setting in settings:
        text = setting.format(values[setting.attribute])
        yield f"{setting.name} ={' ' if text and not text.startswith(chr(10)) else ''}{text}"


def _from_file(settings: Sequence[Setting], section: str, path: str, text: str) -> dict[str, Said]:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=_COMMENTS, default_section="")
    try:
        parser.read_string(text, source=path)
    except configparser.MissingSectionHeaderError as error:
        raise SettingsError(
            f"{path}: line {error.lineno} stands before any section; begin the file with [{section}]"
        ) from None
    except configparser.Error as error:
        raise SettingsError(f"{path}: {_what_is_wrong(error, text)}") from None
    sections = by_section(settings, section)
    values: dict[str, Said] = {}
    for name in parser.sections():
        if name not in sections:
            allowed = ", ".join(f"[{each}]" for each in sections)
            raise SettingsError(f"{path}: unknown section [{name}]; allowed: {allowed}")
        values.update(_from_section(sections[name], f"{path}: [{name}]", parser.items(name)))
    return values


def _what_is_wrong(error: configparser.Error, text: str) -> str:
    """*error*, which the parser found in *text*, in one sentence."""
    if isinstance(error, configparser.ParsingError):
        number = error.errors[0][0]
        line = text.split("\n")[number - 1].strip()
        return f"line {number}, {line[:_QUOTED]!r}, is not allowed; allowed: key = value"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"[{error.section}] {error.option}: line {error.lineno} says it again; allowed: a key once in a section"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"[{error.section}]: line {error.lineno} begins it again; allowed: a section once in a file"
    return " ".join(str(error).split())


def _from_section(settings: Iterable[Setting], where: str, items: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Said]]:
    known = {setting.name: setting for setting in settings}
    for key, value in items:
        name = key.replace("_", "-")
        if name not in known:
            raise SettingsError(f"{where} {name}: unknown key; allowed: {', '.join(sorted(known))}")
        yield known[name].attribute, _parse(known[name], value, f"{where} {name}")


def _from_options(settings: Sequence[Setting], options: argparse.Namespace) -> dict[str, Said]:
    given = {}
    for setting in settings:
        text = None if setting.section else getattr(options, setting.attribute)
        if text is not None:
            joined = "\n".join(text) if setting.repeated else text
            given[setting.attribute] = _parse(setting, joined, f"--{setting.name}")
    return given


def _parse(setting: Setting, text: str, where: str) -> Said:
    try:
        return Said(setting.parse(text), where)
    except ValueError:
        raise SettingsError(f"{where}: {text.strip()!r} is not allowed; allowed: {setting.allowed}") from None


def describe(setting: Setting) -> str:
    """The help text of *setting*, with its default."""
    default = setting.default
    if default in (None, ()):
        return setting.help
    shown = ", ".join(setting.show(each) for each in default) if setting.repeated else setting.show(default)
    return f"{setting.help} (default: {shown})"


def decode(path: str, content: bytes) -> str:
    """The text of the configuration file *path*; a byte order mark is tolerated.

    :raises SettingsError: it is no UTF-8, or far too long to be a configuration.
    """
    if len(content) > FILE_LIMIT:
        raise SettingsError(f"{path}: longer than {FILE_LIMIT} bytes; name a configuration file with --config")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text; save it as UTF-8") from None


# ---- Settings that both programs have ----


def read_max_api_version(text: str) -> Optional[Version]:
    """A version number, or ``none``: behave like a release from before versions."""
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return Version(int(text))


def show_max_api_version(value: Optional[Version]) -> str:
    """The reverse of ``read_max_api_version``."""
    return "none" if value is None else str(int(value))


#: What ``read_max_api_version`` takes.
ALLOWED_VERSIONS = f"a number from 0 to {int(versions.newest())}, or none"


def read_seconds(text: str) -> float:
    """A number of seconds that a program can keep to."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    seconds = float(text)
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(text)
    return seconds


def show_seconds(seconds: float) -> str:
    """The reverse of ``read_seconds``."""
    return f"{seconds:.0f}" if seconds.is_integer() else repr(seconds)


#: What ``read_seconds`` takes.
ALLOWED_SECONDS = f"a number of seconds from {show_seconds(SHORTEST)} to {show_seconds(LONGEST)}"


def read_choice(*words: str) -> Callable[[str], str]:
    """A reader that takes one of *words*."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return read


def max_api_version(help: str) -> Setting:  # noqa: A002 - it is called what the setting calls it
    """The highest version that a program speaks."""
    return Setting(
        name="max-api-version",
        help=help,
        read=read_max_api_version,
        allowed=ALLOWED_VERSIONS,
        default=versions.newest(),
        metavar="VERSION",
        show=show_max_api_version,
    )


def seconds(name: str, help: str, default: float) -> Setting:  # noqa: A002 - see above
    """A span of time."""
    return Setting(
        name=name,
        help=help,
        read=read_seconds,
        allowed=ALLOWED_SECONDS,
        default=default,
        metavar="SECONDS",
        show=show_seconds,
    )


LOG_LEVEL = Setting(
    name="log-level",
    help="least important kind of line to log",
    read=read_choice(*LOG_LEVELS),
    allowed=", ".join(LOG_LEVELS),
    default="info",
    metavar="LEVEL",
)
