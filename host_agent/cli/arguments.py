"""What stands behind a command on the operator's command line: ``key=value`` words, typed as the table declares them.

``key:=JSON`` gives a value as JSON. A secret never stands on a command line, which every user of the machine can read: it
comes from a file (``key=@FILE``), from standard input (``key=@-``), or is asked for. No error quotes it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, NoReturn, Optional, Union

from common import catalogue, fields, messages, records
from host_agent.exits import Exit, Failure
from host_agent.text import printable

#: Asks for a secret by its argument's name; None: there is nobody to ask.
Ask = Callable[[str], Optional[str]]

#: Reads the whole text of a file, or of standard input for ``-``.
Read = Callable[[str], str]

_WORD = re.compile(r"(?P<name>[^=:]+)(?P<sign>:?=)(?P<text>.*)", re.DOTALL)

#: What stands for a value of each kind where a command's usage is shown, unless the kind has words of its own.
_PLACEHOLDERS = {
    "str": "TEXT",
    "int": "NUMBER",
    "int ≥ 0": "NUMBER",
    "int > 0": "NUMBER",
    "number > 0": "NUMBER",
    "bool": "true|false",
    "base64": "BASE64",
}

#: The same for the kinds whose values are written as JSON, quoted for a shell.
_JSON_PLACEHOLDERS = {"list of str": """'["TEXT", ...]'""", "object of str": """'{"NAME": "TEXT", ...}'"""}


class BadArgument(Failure):
    """A word on the command line is no argument of the command, or one is missing."""

    status = Exit.USAGE


class _Given(NamedTuple):
    name: str
    is_json: bool
    text: str


def declared(row: catalogue.Row) -> tuple[Union[fields.Argument, fields.Rest], ...]:
    """The arguments of *row*."""
    return messages.declared(row.message_class)


def find_command(name: str) -> catalogue.Row:
    """The command called *name*.

    :raises BadArgument: there is none.
    """
    row = catalogue.CATALOGUE.command(name)
    if row is not None:
        return row
    from difflib import get_close_matches  # slow to import, and only a typing error needs it

    close = get_close_matches(name, [row.name for row in catalogue.CATALOGUE.commands], n=1)
    meant = f"did you mean {close[0]}?" if close else "'vmaccord messages' shows all"
    raise BadArgument(f"no command is called {printable(repr(name))}: {meant}")


def read(row: catalogue.Row, words: Iterable[str], read_file: Read, ask: Ask) -> dict[str, Any]:
    """The arguments of the command *row* that *words* give.

    :raises BadArgument: they are not such as the command takes.
    """
    known = {each.wire: each for each in declared(row) if isinstance(each, fields.Argument)}
    given = _given(row, words)
    if len(known) == len(declared(row)):
        _refuse_unknown(row, given, known)
    secrets = secret_arguments(row)
    arguments: dict[str, Any] = {}
    for name, each in given.items():
        if name in secrets:
            arguments[name] = _read_secret(row, each, read_file)
        else:
            arguments[name] = _read_value(row, each, known.get(name))
    for name in sorted(secrets.difference(arguments)):
        if known[name].required and (answer := ask(name)) is not None:
            arguments[name] = answer
    _refuse_missing(row, arguments, known, secrets)
    return arguments


def secret_arguments(row: catalogue.Row) -> frozenset[str]:
    """The arguments of *row* that are nobody's business but the guest's."""
    of_class = records.fields_of(row.message_class)
    return frozenset(each.wire for each in declared(row) if of_class[each.attribute].secret)


def signature(row: catalogue.Row) -> str:
    """The arguments of *row* as its user must write them; optional ones in brackets."""
    return " ".join(_placeholder(row, each) for each in declared(row))


def documents(row: catalogue.Row) -> list[dict[str, Any]]:
    """The arguments of *row* as JSON has them."""
    secrets = secret_arguments(row)
    return [
        {
            "name": each.wire,
            "type": _label(each.kind),
            "required": each.required,
            "secret": each.wire in secrets,
        }
        for each in declared(row)
    ]


def _placeholder(row: catalogue.Row, argument: Union[fields.Argument, fields.Rest]) -> str:
    if isinstance(argument, fields.Rest):
        return "[KEY=VALUE]..."
    pair = argument.wire + _value_placeholder(argument.wire in secret_arguments(row), _label(argument.kind))
    return pair if argument.required else f"[{pair}]"


def _value_placeholder(secret: bool, label: str) -> str:
    if secret:
        return "=@FILE"
    as_json = _JSON_PLACEHOLDERS.get(label)
    return f":={as_json}" if as_json else f"={_PLACEHOLDERS.get(label, label.replace(' or ', '|'))}"


def _given(row: catalogue.Row, words: Iterable[str]) -> Mapping[str, _Given]:
    given: dict[str, _Given] = {}
    for word in words:
        found = _WORD.fullmatch(word)
        if found is None:
            # Not quoted: it can be a secret.
            raise BadArgument(f"{row.name}: an argument is no KEY=VALUE; {_usage(row)}")
        name = found["name"]
        if name in given:
            raise BadArgument(f"{row.name}: {printable(name)} is given twice; give it once")
        given[name] = _Given(name, found["sign"] == ":=", found["text"])
    return given


def _refuse_unknown(row: catalogue.Row, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise BadArgument(f"{row.name} has no argument {printable(repr(name))}; {_usage(row)}")


def _refuse_missing(
    row: catalogue.Row, arguments: Mapping[str, Any], known: Mapping[str, fields.Argument], secrets: frozenset[str]
) -> None:
    missing = [name for name, each in known.items() if each.required and name not in arguments]
    if not missing:
        return
    ways = "".join(f"; {_ways(name)}" for name in missing if name in secrets)
    raise BadArgument(f"{row.name} lacks {' and '.join(missing)}{ways}; {_usage(row)}")


def _read_secret(row: catalogue.Row, given: _Given, read_file: Read) -> str:
    if given.is_json or not given.text.startswith("@"):
        name = given.name
        raise BadArgument(f"{row.name}: {name} may not stand on the command line, where others can read it; {_ways(name)}")
    return read_file(given.text[1:]).removesuffix("\n")


def _read_value(row: catalogue.Row, given: _Given, argument: Optional[fields.Argument]) -> Any:
    readings = _readings(row, given)
    if argument is None:
        return readings[0]
    for value in readings:
        with contextlib.suppress(ValueError):
            argument.kind.check(value)
            return value
    raise BadArgument(f"{row.name}: {given.name} can't be {printable(repr(given.text))}; allowed: {_label(argument.kind)}")


def _readings(row: catalogue.Row, given: _Given) -> list[Any]:
    """What the text of an argument may stand for, the likeliest first: itself, unless it is said to be JSON."""
    try:
        value = json.loads(given.text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        if given.is_json:
            name = printable(given.name)
            raise BadArgument(f"{row.name}: what follows {name}:= is no JSON; a text needs quotes there") from None
        return [given.text]
    return [value] if given.is_json else [given.text, value]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _label(kind: fields.Kind) -> str:
    return kind.label.replace("`", "")


def _ways(name: str) -> str:
    return f"write {name}=@FILE, or {name}=@- to have it read from standard input, or leave it out on a terminal to be asked"


def _usage(row: catalogue.Row) -> str:
    return f"usage: {row.name} {signature(row)}".rstrip()
