from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent import budget
from host_agent.budget import Budget, Limits


def make_budget(message_rate: float = 10.0, byte_rate: float = 1000.0) -> Budget:
    return Budget(Limits(message_rate, byte_rate))


def test_the_limits_are_the_promised_ones() -> None:
    limits = Limits()
    assert (limits.message_rate, limits.byte_rate, limits.facts_size) == (200, 1024 * 1024, 256 * 1024)
    assert budget.RESERVE == 10.0


def test_within_the_reserve_a_guest_may_send_as_fast_as_it_likes() -> None:
    assert make_budget().spend(100, 0, 50.0) == 0.0
    assert make_budget().spend(0, 10_000, 50.0) == 0.0


@pytest.mark.parametrize(("messages", "size", "debt"), [(101, 0, 0.1), (150, 0, 5.0), (0, 12_000, 2.0), (150, 12_000, 5.0)])
def test_what_is_above_the_reserve_is_paid_with_time(messages: int, size: int, debt: float) -> None:
    assert make_budget().spend(messages, size, 50.0) == pytest.approx(debt)


def test_time_pays_a_debt() -> None:
    guest = make_budget()
    assert guest.spend(150, 0, 50.0) == pytest.approx(5.0)
    assert guest.spend(0, 0, 53.0) == pytest.approx(2.0)
    assert guest.owes(54.9)
    assert not guest.owes(55.1)
    assert guest.spend(0, 0, 56.0) == 0.0
    assert guest.spend(20, 0, 56.0) == pytest.approx(1.0)


def test_however_long_a_guest_is_silent_its_reserve_stays_what_it_is() -> None:
    guest = make_budget()
    guest.spend(100, 0, 50.0)
    assert guest.spend(110, 0, 10_000.0) == pytest.approx(1.0)


@given(st.integers(1, 1000), st.integers(1, 10), st.floats(0, 1e6))
def test_a_guest_that_keeps_to_its_rates_never_notices(rate: int, at_once: int, start: float) -> None:
    guest = Budget(Limits(rate, 1e9))
    for step in range(50):
        assert guest.spend(at_once, 1, start + step * at_once / rate) == 0.0


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 100_000)), max_size=30))
def test_however_a_guest_sends_it_is_read_at_its_rates_and_no_faster(pieces: list[tuple[int, int]]) -> None:
    guest, now = make_budget(), 100.0
    for messages, size in pieces:
        now += guest.spend(messages, size, now)
    took = now - 100.0 + budget.RESERVE + 1e-6
    assert sum(messages for messages, _ in pieces) <= took * 10.0
    assert sum(size for _, size in pieces) <= took * 1000.0


def test_a_guest_is_calm_when_half_of_its_reserve_is_there_again() -> None:
    guest = make_budget()
    assert guest.is_calm(50.0)
    guest.spend(150, 0, 50.0)
    assert guest.calm_at() == pytest.approx(60.0)
    assert not guest.is_calm(59.9)
    assert guest.is_calm(60.1)


def test_its_reserve_is_whole_at_the_very_beginning_of_time() -> None:
    assert make_budget().spend(100, 0, 0.0) == 0.0


def test_limits_that_change_count_from_then_on() -> None:
    limits = Limits(10.0, 1000.0)
    guest = Budget(limits)
    guest.spend(100, 0, 50.0)
    limits.message_rate = 100.0
    assert guest.spend(100, 0, 50.0) == pytest.approx(1.0)
