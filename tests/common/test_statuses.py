from __future__ import annotations

from common import statuses


class Exit(statuses.Status):
    OK = 0, "done"
    LATE = 7, "too late"


def test_a_status_is_its_number_and_has_a_meaning() -> None:
    assert (int(Exit.LATE), Exit.LATE.meaning) == (7, "too late")


def test_all_statuses_are_listed_for_help() -> None:
    assert statuses.epilog(Exit) == "exit status:\n  0  done\n  7  too late"
