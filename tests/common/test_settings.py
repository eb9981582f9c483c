"""``common.settings``"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import settings, versions
from common.settings import Setting, SettingsError
from common.versions import Version

VERSION = Setting(
    name="max-api-version",
    help="highest API version to offer",
    read=settings.read_max_api_version,
    allowed=settings.ALLOWED_VERSIONS,
    default=Version.V3,
    metavar="VERSION",
    show=settings.show_max_api_version,
)
PERIOD = Setting(
    name="period",
    help="seconds between two heartbeats",
    read=settings.read_seconds,
    allowed="a number of seconds from 0.1 to 31536000",
    default=5.0,
    metavar="SECONDS",
    show=settings.show_seconds,
)
LEVEL = Setting(
    name="log-level",
    help="how much to log (100% of it: debug)",
    read=settings.read_choice("info", "debug"),
    allowed="info or debug",
    default="info",
    metavar="LEVEL",
)
PATHS = Setting(
    name="watch", help="a directory to watch", read=str, allowed="a path", default=("/run/a",), metavar="PATH", repeated=True
)
ALL = (VERSION, PERIOD, LEVEL, PATHS)


def _options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    settings.add_options(parser, ALL)
    return parser.parse_args(arguments)


def _resolve(*files: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values that these texts of files and these options make."""
    return settings.resolve(ALL, _options(*options), "host", [(f"/etc/{n}.conf", text) for n, text in enumerate(files)])


def _error(*files: str, options: tuple[str, ...] = ()) -> str:
    with pytest.raises(SettingsError) as caught:
        _resolve(*files, options=options)
    return str(caught.value)


# ---- Precedence ----


def test_where_nothing_is_said_the_defaults_count() -> None:
    assert _resolve() == {"max_api_version": Version.V3, "period": 5.0, "log_level": "info", "watch": ("/run/a",)}


def test_a_file_counts_more_than_the_defaults() -> None:
    values = _resolve("[host]\nperiod = 7\n")
    assert values == {**_resolve(), "period": 7.0}


def test_a_later_file_counts_more_than_an_earlier_one_key_by_key() -> None:
    values = _resolve("[host]\nperiod = 7\nlog-level = debug\n", "[host]\nperiod = 8\n")
    assert (values["period"], values["log_level"]) == (8.0, "debug")


def test_an_option_counts_more_than_every_file() -> None:
    values = _resolve("[host]\nperiod = 7\nwatch = /b\n", options=("--period", "9", "--watch", "/c", "--watch", "/d"))
    assert (values["period"], values["watch"]) == (9.0, ("/c", "/d"))


def test_an_empty_file_says_nothing() -> None:
    assert _resolve("", "# only a comment\n", "[host]\n") == _resolve()


def test_a_repeated_setting_has_a_value_a_line_in_a_file() -> None:
    assert _resolve("[host]\nwatch =\n    /a\n    /b c\n\n    /d\n")["watch"] == ("/a", "/b c", "/d")
    assert _resolve("[host]\nwatch = /a\n")["watch"] == ("/a",)
    assert _resolve("[host]\nwatch =\n")["watch"] == ()


def test_values_are_taken_as_they_stand() -> None:
    assert _resolve("[host]\nwatch = %(here)s ${there} # not a comment : =\n")["watch"] == (
        "%(here)s ${there} # not a comment : =",
    )


def test_what_was_said_is_told_from_what_is_a_default_and_names_where() -> None:
    files = [("/etc/a.conf", "[host]\nperiod = 7\nlog-level = debug\n"), ("/etc/b.conf", "[host]\nperiod = 8\n")]
    assert settings.said(ALL, _options("--watch", "/run/a"), "host", files) == {
        "period": (8.0, "/etc/b.conf: [host] period"),
        "log_level": ("debug", "/etc/a.conf: [host] log-level"),
        "watch": (("/run/a",), "--watch"),
    }


# ---- Errors ----


def test_an_unknown_section_is_an_error_that_names_the_file_and_what_is_allowed() -> None:
    assert _error("[guest]\nperiod = 7\n") == "/etc/0.conf: unknown section [guest]; allowed: [host]"
    assert _error("[DEFAULT]\nperiod = 7\n") == "/etc/0.conf: unknown section [DEFAULT]; allowed: [host]"


def test_an_unknown_key_is_an_error_that_names_file_section_and_key_and_what_is_allowed() -> None:
    assert _error("[host]\nperiods = 7\n") == (
        "/etc/0.conf: [host] periods: unknown key; allowed: log-level, max-api-version, period, watch"
    )


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("max-api-version", str(versions.newest() + 1), settings.ALLOWED_VERSIONS),
        ("max-api-version", "-1", settings.ALLOWED_VERSIONS),
        ("max-api-version", "3.0", settings.ALLOWED_VERSIONS),
        ("max-api-version", "", settings.ALLOWED_VERSIONS),
        ("period", "0", "a number of seconds from 0.1 to 31536000"),
        ("period", "five", "a number of seconds from 0.1 to 31536000"),
        ("period", "1e-9", "a number of seconds from 0.1 to 31536000"),
        ("period", "1e12", "a number of seconds from 0.1 to 31536000"),
        ("period", "nan", "a number of seconds from 0.1 to 31536000"),
        ("log-level", "loud", "info or debug"),
    ],
)
def test_a_bad_value_is_an_error_that_names_where_it_stands_and_what_is_allowed(key: str, value: str, allowed: str) -> None:
    said = f"{value!r} is not allowed; allowed: {allowed}"
    assert _error(f"[host]\n{key} = {value}\n") == f"/etc/0.conf: [host] {key}: {said}"
    assert _error("[host]\n", f"[host]\n{key} = {value}\n") == f"/etc/1.conf: [host] {key}: {said}"
    assert _error(options=(f"--{key}={value}",)) == f"--{key}: {said}"


@pytest.mark.parametrize(
    "text",
    [
        "period = 7\n",
        "[host\n",
        "[host]\nperiod\n",
        "[host]\nperiod: 7\n",
        "[host]\nperiod = 7\nperiod = 8\n",
        "[host]\n[host]\n",
        "= 7\n",
    ],
)
def test_a_file_that_is_no_configuration_is_an_error_of_one_line_that_names_it(text: str) -> None:
    said = _error(text)
    assert said.startswith("/etc/0.conf: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[host]\n\nperiod 7\nwatch\n", "line 3, 'period 7', is not allowed; allowed: key = value"),
        ("[host]\n= 7\n", "line 2, '= 7', is not allowed; allowed: key = value"),
        (f"[host]\n{'x' * 999}\n", f"line 2, '{'x' * 60}', is not allowed; allowed: key = value"),
        ("[host]\n\x1b[m\n", r"line 2, '\x1b[m', is not allowed; allowed: key = value"),
        ("[host]\nperiod = 7\nperiod = 8\n", "[host] period: line 3 says it again; allowed: a key once in a section"),
        ("[host]\n[host]\n", "[host]: line 2 begins it again; allowed: a section once in a file"),
    ],
)
def test_a_line_that_is_no_part_of_a_configuration_is_told_with_its_number_and_what_is_allowed(text: str, said: str) -> None:
    assert _error(text) == f"/etc/0.conf: {said}"


def test_a_repeated_setting_that_is_needed_has_a_value() -> None:
    needed = dataclasses.replace(PATHS, needed=True)
    with pytest.raises(SettingsError, match=r"^f: \[host\] watch: '' is not allowed; allowed: a path$"):
        settings.resolve([needed], argparse.Namespace(watch=None), "host", [("f", "[host]\nwatch =\n")])


def test_what_a_parser_of_the_future_finds_wrong_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise configparser.Error("something new\n\tis wrong")

    monkeypatch.setattr(configparser.ConfigParser, "read_string", read)
    assert _error("[host]\n") == "/etc/0.conf: something new is wrong"


def test_a_value_of_more_than_one_line_is_bad_where_one_value_is_wanted() -> None:
    paths = Setting(name="path", help="a path", read=str, allowed="a path", default="/a", metavar="PATH")
    with pytest.raises(SettingsError):
        settings.resolve([paths], argparse.Namespace(path=None), "host", [("f", "[host]\npath = /a\n    /b\n")])
    with pytest.raises(SettingsError):
        settings.resolve([paths], argparse.Namespace(path="/a\nperiod = 1"), "host", [])


@given(st.text("[]host=period \n\t\r\x00\x0b\x85é#;%:1", max_size=40))
def test_whatever_stands_in_a_file_the_only_error_is_one_for_its_author(text: str) -> None:
    for wrapped in (text, f"[host]\n{text}", f"[host]\nwatch = {text}"):
        with contextlib.suppress(SettingsError):
            _resolve(wrapped)


def test_a_key_may_be_written_as_the_program_writes_it_inside() -> None:
    assert _resolve("[host]\nmax_api_version = 1\n")["max_api_version"] == 1


def test_a_file_that_begins_without_a_section_is_told_how_to_begin() -> None:
    with pytest.raises(SettingsError, match=r"line 1 stands before any section; begin the file with \[host\]$"):
        _resolve("max-api-version = 1\n")


# ---- Sections ----

DEADLINE = settings.seconds("deadline", "seconds that a command may take", 60.0)
COMMANDS_DEADLINE = dataclasses.replace(DEADLINE, section="commands")
HOOKS_DEADLINE = dataclasses.replace(DEADLINE, section="hooks", default=30.0)
ALLOW = Setting(
    name="allow-names",
    help="commands that may be given",
    read=str,
    allowed="names",
    default=("echo",),
    metavar="NAMES",
    repeated=True,
    words=True,
    section="commands",
)
SECTIONED = (PERIOD, COMMANDS_DEADLINE, HOOKS_DEADLINE, ALLOW)


def _sectioned(*files: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    settings.add_options(parser, SECTIONED)
    named = [(f"/etc/{number}.conf", text) for number, text in enumerate(files)]
    return settings.resolve(SECTIONED, parser.parse_args(options), "host", named)


def test_settings_of_one_name_in_two_sections_are_two_values() -> None:
    values = _sectioned("[hooks]\ndeadline = 3\n[commands]\ndeadline = 2\n[host]\nperiod = 1\n")
    assert values == {"period": 1.0, "commands_deadline": 2.0, "hooks_deadline": 3.0, "commands_allow_names": ("echo",)}


def test_a_later_file_counts_more_than_an_earlier_one_section_by_section() -> None:
    values = _sectioned("[hooks]\ndeadline = 3\n[commands]\ndeadline = 2\n", "[hooks]\ndeadline = 4\n")
    assert (values["commands_deadline"], values["hooks_deadline"]) == (2.0, 4.0)


def test_an_option_of_the_main_section_leaves_the_others_alone() -> None:
    values = _sectioned("[commands]\ndeadline = 2\n", options=("--period", "9"))
    assert (values["period"], values["commands_deadline"]) == (9.0, 2.0)


def test_only_the_settings_of_the_main_section_are_options() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    settings.add_options(parser, SECTIONED)
    assert parser.format_usage().split()[-2:] == ["[--period", "SECONDS]"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[command]\n", "/etc/0.conf: unknown section [command]; allowed: [host], [commands], [hooks]"),
        ("[hooks]\nperiod = 1\n", "/etc/0.conf: [hooks] period: unknown key; allowed: deadline"),
        ("[host]\ndeadline = 1\n", "/etc/0.conf: [host] deadline: unknown key; allowed: period"),
        (
            "[commands]\ndeadline = soon\n",
            "/etc/0.conf: [commands] deadline: 'soon' is not allowed; allowed: a number of seconds from 0.1 to 31536000",
        ),
    ],
)
def test_a_mistake_in_a_section_is_told_with_what_is_allowed_in_that_one(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _sectioned(text)
    assert str(caught.value) == said


def test_settings_are_sorted_into_their_sections_in_their_order() -> None:
    assert settings.by_section(SECTIONED, "host") == {
        "host": [PERIOD],
        "commands": [COMMANDS_DEADLINE, ALLOW],
        "hooks": [HOOKS_DEADLINE],
    }


def test_values_are_shown_section_by_section() -> None:
    assert settings.show(SECTIONED, "host", _sectioned()) == (
        "[host]\nperiod = 5\n\n[commands]\ndeadline = 60\nallow-names =\n    echo\n\n[hooks]\ndeadline = 30"
    )


@given(st.lists(st.text("ab#;=[]-é", min_size=1), max_size=4))
def test_what_is_shown_of_sections_has_the_same_effect_when_it_is_read_again(words: list[str]) -> None:
    try:
        values = _sectioned(f"[commands]\nallow-names = {' '.join(words)}\ndeadline = 1\n[hooks]\ndeadline = 2\n")
    except SettingsError:
        # What would be a comment, once it stands on a line of its own, is refused.
        assert any(word[0] in "#;" for word in words)
        return
    assert values["commands_allow_names"] == tuple(words)
    assert _sectioned(settings.show(SECTIONED, "host", values)) == values


@pytest.mark.parametrize("text", ["a b", "a, b", "a,b,", ",a,,b", "\n  a\n  b", "a\n  ,b", "\ta\t,\tb"])
def test_words_stand_on_one_line_or_on_several(text: str) -> None:
    assert ALLOW.parse(text) == ("a", "b")
    assert _sectioned(f"[commands]\nallow_names = {text}\n")["commands_allow_names"] == ("a", "b")


@pytest.mark.parametrize("text", ["", " ", ",", "\n"])
def test_no_words_are_none(text: str) -> None:
    assert ALLOW.parse(text) == ()


def test_values_that_are_no_words_keep_their_spaces_and_commas() -> None:
    assert PATHS.parse("/a b\n/c,d") == ("/a b", "/c,d")


# ---- Options and their help ----


def test_every_setting_is_an_option_with_its_help_and_default() -> None:
    parser = argparse.ArgumentParser(prog="program")
    settings.add_options(parser, ALL)
    said = " ".join(parser.format_help().split())
    for text in (
        "--max-api-version VERSION highest API version to offer (default: 3)",
        "--period SECONDS seconds between two heartbeats (default: 5)",
        "--log-level LEVEL how much to log (100% of it: debug) (default: info)",
        "--watch PATH a directory to watch (default: /run/a)",
    ):
        assert text in said


@pytest.mark.parametrize("default", [None, ()])
def test_a_setting_without_a_default_says_none(default: Any) -> None:
    setting = Setting("port", "where to listen", str, "a path", default, "PATH", repeated=default == ())
    parser = argparse.ArgumentParser()
    settings.add_options(parser, [setting])
    assert "default" not in parser.format_help()


# ---- Showing ----


def _shown_and_read_again(values: Mapping[str, Any]) -> dict[str, Any]:
    return _resolve(settings.show(ALL, "host", values))


def test_values_are_shown_as_a_file() -> None:
    values = {"max_api_version": None, "period": 2.5, "log_level": "debug", "watch": ("/a", "/b")}
    assert settings.show(ALL, "host", values) == (
        "[host]\nmax-api-version = none\nperiod = 2.5\nlog-level = debug\nwatch =\n    /a\n    /b"
    )


def test_a_setting_with_no_values_is_shown_as_an_empty_one() -> None:
    assert settings.show([PATHS], "host", {"watch": ()}) == "[host]\nwatch ="


@given(
    st.sampled_from([None, *Version]),
    st.floats(settings.SHORTEST, settings.LONGEST),
    st.sampled_from(["info", "debug"]),
    st.lists(st.text("/abz.%= #;:[]-é", min_size=1), max_size=4),
)
def test_what_is_shown_has_the_same_effect_when_it_is_read_again(
    version: Version, period: float, level: str, paths: list[str]
) -> None:
    options = [f"--period={period!r}", f"--log-level={level}", f"--max-api-version={settings.show_max_api_version(version)}"]
    try:
        values = _resolve("[host]\nwatch =\n", options=(*options, *(f"--watch={path}" for path in paths)))
    except SettingsError:
        # What a file can't say (a line that begins like a comment) is refused as an option, too.
        assert any(path.strip()[:1] in ("#", ";") for path in paths)
        return
    assert _shown_and_read_again(values) == values


# ---- Readers ----


@pytest.mark.parametrize(("text", "version"), [("none", None), *((str(int(each)), each) for each in Version)])
def test_a_maximum_is_a_version_or_none(text: str, version: Any) -> None:
    assert settings.read_max_api_version(text) is version
    assert settings.show_max_api_version(version) == text


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1.0", "None", "NONE", "٣", "²", "99", "9" * 5000])
def test_a_maximum_that_is_no_known_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — its text is replaced by what is allowed
        settings.read_max_api_version(text)


def test_what_is_allowed_as_a_maximum_follows_the_newest_version() -> None:
    assert f"a number from 0 to {int(versions.newest())}, or none" == settings.ALLOWED_VERSIONS


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5.0), ("0.25", 0.25), ("1e3", 1000.0), ("0.1", 0.1), ("31536000", 31536000.0)]
)
def test_seconds_are_a_number_that_a_program_can_keep_to(text: str, seconds: float) -> None:
    assert settings.read_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "1e-9",
        "0.099",
        "31536001",
        "1e12",
        "nan",
        "inf",
        "Infinity",
        "1e999",
        "5s",
        "0x5",
        "1_000",
        "\N{ARABIC-INDIC DIGIT THREE}",
    ],
)
def test_seconds_that_are_none_too_few_or_too_many_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — its text is replaced by what is allowed
        settings.read_seconds(text)


@pytest.mark.parametrize(("seconds", "text"), [(5.0, "5"), (0.25, "0.25"), (1234567.5, "1234567.5"), (86400.0, "86400")])
def test_seconds_are_shown_as_a_person_writes_them_and_exactly(seconds: float, text: str) -> None:
    assert settings.show_seconds(seconds) == text


def test_a_choice_takes_its_words_and_nothing_else() -> None:
    read = settings.read_choice("info", "debug")
    assert read("debug") == "debug"
    with pytest.raises(ValueError, match=r"^INFO$"):
        read("INFO")


# ---- What both programs have ----


def test_a_file_is_utf_8_with_or_without_a_mark_and_not_endless() -> None:
    assert settings.decode("f", "\ufeffé".encode()) == settings.decode("f", "é".encode()) == "é"
    with pytest.raises(SettingsError, match=r"^f: not UTF-8 text; save it as UTF-8$"):
        settings.decode("f", b"\xff")
    assert settings.decode("f", b" " * settings.FILE_LIMIT)
    with pytest.raises(SettingsError, match=r"^f: longer than 1048576 bytes"):
        settings.decode("f", b" " * (settings.FILE_LIMIT + 1))


@pytest.mark.parametrize(
    "setting", [settings.max_api_version("help"), settings.seconds("wait", "help", 2.5), settings.LOG_LEVEL]
)
def test_the_default_of_a_setting_that_both_programs_have_is_allowed(setting: Setting) -> None:
    assert setting.parse(setting.format(setting.default)) == setting.default
