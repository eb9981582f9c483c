"""``common.events``"""

from __future__ import annotations

import inspect
from typing import get_args

from common import events, messages
from common.records import Record


def test_every_event_of_the_module_is_one_that_a_session_reports() -> None:
    defined = {found for found in vars(events).values() if inspect.isclass(found) and issubclass(found, Record)} - {Record}
    assert set(get_args(events.Event)) == defined


def test_events_are_compared_by_value_and_can_be_kept_in_sets() -> None:
    wanted = events.FactsWanted(frozenset({"fqdn"}))
    assert wanted == events.FactsWanted(frozenset({"fqdn"}))
    assert len({wanted, events.Responsive(), events.Responsive()}) == 2


def test_an_event_with_a_login_shows_no_password() -> None:
    received = events.MessageReceived("login", messages.Login(username="alice", password="hunter2"))
    assert "hunter2" not in f"{received} {received!r}"


def test_an_event_shows_no_line() -> None:
    received = events.MessageReceived("fqdn", messages.Fqdn(fqdn="web"), b'{"__name__":"fqdn","fqdn":"web","of":"hunter2"}')
    assert "hunter2" not in repr(received)


def test_every_reason_says_itself_in_words_of_its_own() -> None:
    assert len({reason.value for reason in events.Reason}) == len(events.Reason)


def test_a_message_that_came_in_asks_for_no_answer_unless_it_says_so() -> None:
    assert events.MessageReceived("load", messages.Load()).reply_id is None


def test_a_rejected_command_shows_no_name_since_a_cut_line_can_have_made_it_of_a_password() -> None:
    rejected = events.CommandRejected("hunter2", "r1", messages.Code.UNSUPPORTED, "unknown")
    assert "hunter2" not in repr(rejected)
    assert rejected.name == "hunter2"
