"""``common.errors``"""

from __future__ import annotations

import inspect
import traceback

import pytest

from common import errors


def _drawn_tree() -> dict[str, str]:
    """Class → base, as the module's docstring draws them."""
    bases: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        drawing = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ")
        name = drawing.split()[0] if drawing.split() else ""
        if not drawing.startswith("    ") or not name.isidentifier():
            continue
        depth = drawing.index(name)
        path = [(at, ancestor) for at, ancestor in path if at < depth]
        bases[name] = path[-1][1] if path else "Exception"
        path.append((depth, name))
    return bases


def test_the_tree_that_the_module_draws_is_the_tree_it_has() -> None:
    defined = {
        name: found.__bases__[0].__name__
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, Exception)
    }
    assert _drawn_tree() == defined


@pytest.mark.parametrize(
    ("upgrade", "text"),
    [
        (None, "containers needs API 3, spoken is API 1"),
        ("guest", "containers needs API 3, spoken is API 1: upgrade the guest"),
        ("host", "containers needs API 3, spoken is API 1: upgrade the host"),
        ("both", "containers needs API 3, spoken is API 1: upgrade both sides"),
    ],
)
def test_a_version_too_low_says_what_is_needed_what_is_spoken_and_what_to_upgrade(upgrade: str, text: str) -> None:
    error = errors.VersionTooLow("containers", needed=3, spoken=1, upgrade=upgrade)
    assert str(error) == text
    assert (error.name, error.needed, error.spoken, error.upgrade) == ("containers", 3, 1, upgrade)


def test_a_malformed_line_is_kept_as_evidence_only_in_its_beginning() -> None:
    error = errors.MalformedLine("not JSON", b"x" * 1_000_000)
    assert error.evidence == b"x" * errors.EVIDENCE_LIMIT
    assert str(error) == "not JSON"


def test_a_malformed_line_shows_its_evidence_to_nobody_who_does_not_ask_for_it() -> None:
    error = errors.MalformedLine("not JSON", b'"password": "hunter2"')
    assert "hunter2" not in repr(error) + "".join(traceback.format_exception(None, error, None))


def test_invalid_arguments_name_the_argument_and_the_problem() -> None:
    error = errors.InvalidArguments("count", "missing")
    assert error.argument == "count"
    assert str(error) == "count: missing"


@pytest.mark.parametrize(
    ("want", "text"),
    [
        (errors.Want.OFF, "exec is not for this guest: its configuration has it turned off"),
        (errors.Want.NOT_OFFERED, "exec is not for this guest: it does not offer it"),
        (errors.Want.UNSAID, "exec is not for this guest: it has not said yet what it carries out"),
    ],
)
def test_a_command_that_a_guest_does_not_carry_out_says_why(want: errors.Want, text: str) -> None:
    error = errors.Disabled("exec", want)
    assert str(error) == text
    assert (error.name, error.want) == ("exec", want)
